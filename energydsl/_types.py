"""Shared types: what a configuration is, and the one exception of our own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
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


def unmasked(value: Any, what: str) -> Any:
    """The value, or ValueError where it is a masked array that hides an entry."""
    if isinstance(value, np.ma.MaskedArray) and np.ma.getmaskarray(value).any():
        first = tuple(int(i) for i in np.argwhere(np.ma.getmaskarray(value))[0])
        raise ValueError(
            f"{what} is a masked array with {np.ma.count_masked(value)} of {value.size} entries "
            f"masked, first at {first}; nothing is read from under a mask, and entries that are "
            "missing cannot be left out. Drop the examples that have any, or hold what is known "
            "by condition and leave the rest free."
        )
    return value


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
