"""Shared types: what a configuration is, and the one exception of our own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
from jax import Array
from jax.core import Tracer

Configuration = dict[str, Array]
"""One array for each free variable, by name."""

Quantity = Callable[[Configuration], object]
"""A function of one configuration: what ``keep=`` stores."""

Evidence = Mapping[object, object]
"""What ``condition`` takes: names or views, and the values they are held at."""


def is_traced(*trees: object) -> bool:
    """Whether any leaf is abstract, so that its values cannot be looked at."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(trees))


class IntractableError(RuntimeError):
    """Exact log Z was asked of a model for which no exact rule applies.

    The message is the reason that `energydsl.EBM.normalizer` states.
    """
