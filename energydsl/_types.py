"""Shared types: configurations, refusals, and the package's own exception."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from energydsl._messages import brief

Configuration = dict[str, Array]
"""A configuration: a dict from the name of each free variable to its array."""

Values = Mapping[str, Any]
"""A configuration as users may give it: its values may be lists and NumPy arrays too."""

Quantity = Callable[[Configuration], object]
"""A function of one configuration, whose value ``keep=`` stores for each draw."""


def is_traced(*trees: object) -> bool:
    """Whether any leaf is a JAX tracer, whose values cannot be read."""
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


def as_numbers(value: Any, what: str) -> Array:
    """The value as an array of numbers, or TypeError where it is none."""
    unmasked(value, what)
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{what} got {brief(value)}; expected an array of numbers.") from error


def check_key(key: object, function: str, *others: object) -> None:
    """Raise TypeError unless `key` is a JAX random key and no JAX transformation is active."""
    if not isinstance(key, Array):
        raise TypeError(
            f"{function} got key={brief(key)}; expected a key such as jax.random.key(0)."
        )
    # Inside jit even a new array is a tracer; under vmap only the mapped arguments are.
    if is_traced(key, others, jnp.zeros(())):
        raise TypeError(
            f"{function} was called inside jax.jit, jax.vmap or another transformation; it is a "
            "loop in Python that compiles its own steps. Call it outside, once for each key or "
            "set of parameters."
        )
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if key.ndim != (0 if typed else 1):
        raise ValueError(
            f"{function} got an array of shape {key.shape} as its key; expected one key, such as "
            "jax.random.key(0), from which the chains' own keys are made."
        )


def check_folder(checkpoint: object, function: str) -> None:
    """Raise TypeError unless the folder of a checkpoint is a path, or none is given."""
    if checkpoint is not None and not isinstance(checkpoint, str | PathLike):
        raise TypeError(
            f"{function} got checkpoint={brief(checkpoint)}; expected the path of a folder, such "
            'as checkpoint="runs/1".'
        )


@dataclasses.dataclass(frozen=True)
class Refusal:
    """The reason why something does not apply."""

    reason: str


class IntractableError(RuntimeError):
    """Raised when exact log Z is requested of a model to which no exact rule applies.

    The message is the reason given by `energydsl.EBM.normalizer`.
    """


def same_values(a: Any, b: Any) -> bool:
    """Whether two arrays are known to be equal; False if one is traced."""
    return a is b or (not is_traced(a, b) and np.array_equal(a, b))
