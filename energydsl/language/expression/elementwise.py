"""Operations applied element by element, and their operator symbols."""

from __future__ import annotations

import dataclasses
import numbers
from typing import Any

import jax.numpy as jnp
import numpy as np
import paramax
from jax import Array

from energydsl._types import is_traced
from energydsl.language.expression.leaf import Data, Number, Value, View, as_expression
from energydsl.language.expression.operation import (
    CONDITIONS,
    OPERATIONS,
    Text,
    as_float,
    broadcast,
    number_text,
)
from energydsl.language.expression.rearrange import Gather, Rearrange
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
    if operation == "divide":
        _check_divisor(*children)
    elif operation in ("equal", "not_equal"):
        _check_levels(operation, *children)
        _check_levels(operation, *reversed(children))
    return Elementwise(children, shape, operation, static)


def where(condition: object, a: object, b: object) -> Expression:
    """`a` where the condition holds, else `b`, element by element."""
    return elementwise("where", condition, a, b)


@makes("operator")
def operator(operation: str, left: object, right: object) -> Any:
    """A binary operator; a model on the right defines its own operators."""
    return NotImplemented if hasattr(right, "skeleton") else elementwise(operation, left, right)


@makes("condition")
def condition(operation: str, *operands: object) -> Expression:
    """Conditions joined or negated: 1 where the result holds, else 0."""
    symbol = OPERATIONS[operation].symbol
    for operand in operands:
        if not _holds_or_not(operand):
            raise TypeError(
                f"{symbol} got {operand!s:.80}; expected conditions, each in brackets: "
                "(x > 0) & (y > 0), (x > 0) | (y > 0), ~(x > 0)."
            )
    return elementwise(operation, *operands)


def _check_divisor(dividend: Expression, divisor: Expression) -> None:
    """Refuse a division by 0, which makes every energy infinite."""
    known = _known(divisor)
    if known is not None and (known == 0).any():
        raise ValueError(
            f"{dividend!s:.80} is divided by {divisor!s:.40}, which "
            f"{'has zeros' if divisor.shape else 'is zero'}; expected numbers other than 0."
        )


def _check_levels(operation: str, view: Expression, other: Expression) -> None:
    """Refuse the comparison of a variable with a number that is none of its levels."""
    while isinstance(view, Rearrange | Gather):
        view = view.children[0]
    known = _known(other)
    if known is None or not isinstance(view, View) or view.variable.domain.levels is None:
        return
    domain = view.variable.domain
    if known.size and not np.isin(known, domain.values).any():
        sign, when = ("==", "never") if operation == "equal" else ("!=", "always")
        raise ValueError(
            f"{view} {sign} {other!s:.40} {when} holds: {view} is {domain}; expected one of its "
            f"levels, {domain.support}."
        )


def _known(operand: Expression) -> np.ndarray | None:
    """The value of a number or an array in the energy; None of what may change."""
    if not isinstance(operand, Number | Data) or is_traced(operand.value):
        return None
    return np.asarray(operand.value)


def _holds_or_not(operand: object) -> bool:
    """Whether the values are certainly 0 or 1."""
    node = as_expression(operand)
    while isinstance(node, Rearrange | Gather):
        node = node.children[0]
    match node:
        case Elementwise(operation=operation):
            return operation in CONDITIONS
        case View(variable=variable):
            levels = variable.domain.values if variable.domain.levels else [None]
            return set(levels) <= {0, 1}
        case Value(value=value):
            return jnp.issubdtype(jnp.result_type(paramax.unwrap(value)), jnp.bool_)
    return False


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
