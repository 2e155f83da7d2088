"""The leaves of a tree: views of variables, and the arrays and numbers beside them."""

from __future__ import annotations

import dataclasses
import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import paramax
from jax import Array

from energydsl._types import is_traced
from energydsl.language.expression.operation import ATOM, Text, is_real, number_text
from energydsl.language.expression.tree import Environment, Expression, makes
from energydsl.language.variable import Variable


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class View(Expression):
    """All of one variable: the leaf that declarations return."""

    variable: Variable

    @staticmethod
    def of(variable: Variable) -> View:
        return View((), variable.shape, variable)

    @property
    def key(self) -> tuple:
        return (str(self.variable),)

    def compute(self, env: Environment, *values: Array) -> Array:
        return env.variables[self.variable.name].astype(self.variable.domain.energy_dtype)

    def text(self, *operands: Text) -> Text:
        return self.variable.name, ATOM


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Parameter(Expression):
    """An array that learning may move, or a number that it leaves alone.

    Arrays of integers and truth values (masks, counts) are left alone too. `value` is an array, a
    number, or a paramax wrapper; in a model's own tree it is the number of a slot in
    ``model.parameters``.
    """

    value: Any
    slot: int | None = None

    @staticmethod
    def of(value: Any, *, infinite: bool = False) -> Parameter:
        plain = paramax.unwrap(value)
        if not is_traced(plain):
            _check_numbers(np.asarray(plain), infinite)
        return Parameter((), tuple(jnp.shape(plain)), value)

    @property
    def key(self) -> tuple:
        return (self.slot, self.shape)

    def compute(self, env: Environment, *values: Array) -> Array:
        return env.parameters[self.slot]  # type: ignore[index]

    def text(self, *operands: Text) -> Text:
        plain = paramax.unwrap(self.value)
        if self.shape or plain is None or is_traced(plain):
            return "f32" + str(list(self.shape)).replace(" ", ""), ATOM
        return number_text(np.asarray(plain).item())


@makes("expression")
def as_expression(value: object) -> Expression:
    """Views stay; arrays and numbers become parameters."""
    if isinstance(value, Expression):
        return value
    if isinstance(value, numbers.Number | np.ndarray | jax.Array | paramax.AbstractUnwrappable):
        return Parameter.of(value)
    raise TypeError(
        f"An energy got {type(value).__name__} {value!r:.60}; expected a view, an array or a "
        "number. (A model joins models: ed.Model(expression) first.)"
    )


def _check_numbers(array: np.ndarray, infinite: bool) -> None:
    if not is_real(array.dtype):
        raise TypeError(f"A parameter has dtype {array.dtype}; expected real numbers.")
    with np.errstate(over="ignore"):
        # What float32 cannot hold would be infinite in the energy.
        array = array.astype(jax.dtypes.canonicalize_dtype(array.dtype))
    bad = np.isnan(array) if infinite else ~np.isfinite(array)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"A parameter of shape {array.shape} has {array[first]} at {first}; expected finite "
            "numbers. (For forbidden configurations, Table takes -inf as log_potential.)"
        )
