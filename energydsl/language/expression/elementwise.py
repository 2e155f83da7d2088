"""Operations applied element by element, and their operator symbols."""

from __future__ import annotations

import dataclasses
import numbers
from typing import Any

import numpy as np
from jax import Array

from energydsl.language.expression.leaf import as_expression
from energydsl.language.expression.operation import (
    OPERATIONS,
    Text,
    as_float,
    broadcast,
    number_text,
)
from energydsl.language.expression.tree import Expression, makes


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Elementwise(Expression):
    """An operation applied element by element to operands that are broadcast."""

    operation: str
    static: float | None = None

    @property
    def key(self) -> tuple:
        return (self.operation, self.static)

    def combine(self, *values: Array) -> Array:
        extra = () if self.static is None else (self.static,)
        return OPERATIONS[self.operation].function(*map(as_float, values), *extra)

    def text(self, *operands: Text) -> Text:
        extra = () if self.static is None else (number_text(self.static),)
        return OPERATIONS[self.operation].text(*operands, *extra)


@makes("elementwise")
def elementwise(operation: str, *operands: object, static: float | None = None) -> Expression:
    """One of `OPERATIONS` applied to operands, which are broadcast by NumPy's rules."""
    children = tuple(as_expression(o) for o in operands)
    shape = broadcast(*(c.shape for c in children), what=f"The operands of {operation}")
    return Elementwise(children, shape, operation, static)


@makes("operator")
def operator(operation: str, left: object, right: object) -> Any:
    """A binary operator; a model on the right defines its own operators."""
    return NotImplemented if hasattr(right, "skeleton") else elementwise(operation, left, right)


@makes("power")
def power(base: object, exponent: numbers.Real) -> Expression:
    """A power with a constant exponent, which is part of the model's structure."""
    return elementwise("power", base, static=_exponent(exponent))


def _exponent(value: numbers.Real) -> float:
    exponent = float(value)
    if not np.isfinite(exponent):
        raise ValueError(f"An exponent is {exponent}; expected a finite number.")
    # A power with an integer exponent is a product, which is smooth below zero as well.
    return int(exponent) if exponent.is_integer() else exponent
