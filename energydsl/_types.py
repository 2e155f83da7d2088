"""Shared types: what a configuration is, and the one exception of our own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from jax import Array

Configuration = dict[str, Array]
"""One array for each free variable, by name."""

Quantity = Callable[[Configuration], object]
"""A function of one configuration: what ``keep=`` stores."""

Evidence = Mapping[object, object]
"""What ``condition`` takes: names or views, and the values they are held at."""


class IntractableError(RuntimeError):
    """Exact log Z was asked of a model for which no exact rule applies.

    The message is the reason that `energydsl.EBM.normalizer` states.
    """
