"""Shared types: what a configuration is, and the one exception of our own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer

Configuration = dict[str, Array]
"""One array for each free variable, by name."""

Values = Mapping[str, Any]
"""A configuration as users may give it: lists and NumPy arrays are fine too."""

Quantity = Callable[[Configuration], object]
"""A function of one configuration: what ``keep=`` stores."""


def is_traced(*trees: object) -> bool:
    """Whether any leaf is abstract, so that its values cannot be looked at."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(trees))


def check_key(key: object, function: str, *others: object) -> None:
    """Raise TypeError unless this is a key for random numbers, and nothing is being traced."""
    if not isinstance(key, Array):
        raise TypeError(f"{function} got key={key!r}; expected a key such as jax.random.key(0).")
    # Inside jit even a new array is abstract; vmap shows in what it maps over alone.
    if is_traced(key, others, jnp.zeros(())):
        raise TypeError(
            f"{function} was called inside jax.jit, jax.vmap or another transformation; it is a "
            "loop in Python, which compiles its own steps. Call it outside, once for each key or "
            "set of parameters."
        )


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Why something does not apply."""

    reason: str


class IntractableError(RuntimeError):
    """Exact log Z was asked of a model for which no exact rule applies.

    The message is the reason that `energydsl.EBM.normalizer` states.
    """
