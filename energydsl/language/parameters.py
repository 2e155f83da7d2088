"""A model's parameters by name, and the check of new values of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jax import Array

from energydsl._identity import form
from energydsl._types import is_traced
from energydsl.language.constraint import AbstractConstraint, LowRank, are_factors, shown
from energydsl.language.expression.operation import is_real


class Parameters(Mapping[str, Any]):
    """A read-only mapping from names to values; `Model.replace` gives a model with other values.

    It is a pytree: ``jax.tree.leaves(model.parameters)`` are the arrays.

    Attributes:
        fixed: the names of those that learning does not change.
    """

    def __init__(self, values: Mapping[str, Any], fixed: Iterable[str] = ()) -> None:
        self._values = dict(values)
        self.fixed = tuple(fixed)

    def __getitem__(self, name: str) -> Any:
        if name not in self._values:
            raise KeyError(f"{name!r} is no parameter; the parameters are {list(self._values)}.")
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        note = f", fixed={list(self.fixed)}" if self.fixed else ""
        return f"Parameters({self._values}{note})"


jtu.register_pytree_with_keys(
    Parameters,
    lambda p: ([(jtu.DictKey(name), value) for name, value in p.items()], (tuple(p), p.fixed)),
    lambda known, values: Parameters(dict(zip(known[0], values, strict=True)), known[1]),
)


def like(value: Any, held: Any, name: str) -> Any:
    """A new value of a parameter, checked and in the form and the dtypes of the present one.

    A parameter with a constraint takes the constrained value.

    Raises:
        TypeError: the pytree structure differs, or the entries are not real numbers.
        ValueError: the shape differs, or there is NaN, or an infinity where the present value has
            none, or the value violates the constraint.
    """
    if isinstance(held, AbstractConstraint) and not isinstance(value, AbstractConstraint):
        return _constrained_like(value, held, name)
    if isinstance(held, Array):
        return _array_like(value, held, name)
    pairs = list(zip(jax.tree.leaves(value), jax.tree.leaves(held), strict=False))
    same = all(new is old or new == old for new, old in pairs if not isinstance(old, Array))
    if form(value) != form(held) or not same:
        raise TypeError(
            f"replace got {type(value).__name__} for {name!r}, which is {type(held).__name__}; "
            f"expected a value of the same type and structure as parameters[{name!r}]."
        )
    return jax.tree.structure(held).unflatten(
        _array_like(new, old, name) if isinstance(old, Array) else old for new, old in pairs
    )


def _constrained_like(value: Any, held: AbstractConstraint, name: str) -> AbstractConstraint:
    if isinstance(held, LowRank) and are_factors(value):
        factors = zip(value, (held.left, held.right), strict=True)
        array = tuple(_array_like(new, old, name) for new, old in factors)
    else:
        array = _array_like(value, shown(held), name)
    return held.at(array, f"Parameter {name!r}")


def _array_like(value: Any, held: Array, name: str) -> Array:
    if not isinstance(value, Array):
        value = np.asarray(value)
    if not is_real(value.dtype):
        raise TypeError(f"replace got dtype {value.dtype} for {name!r}; expected real numbers.")
    if value.shape != held.shape:
        raise ValueError(f"replace got shape {value.shape} for {name!r}; expected {held.shape}.")
    array = jnp.asarray(value, held.dtype)
    if not is_traced(array) and np.isnan(array).any():
        raise ValueError(f"replace got NaN for {name!r}; expected numbers.")
    if not is_traced(array, held) and np.isinf(array).any() and not np.isinf(held).any():
        raise ValueError(f"replace got an infinity for {name!r}; expected finite numbers.")
    return array
