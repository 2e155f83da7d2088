"""Operations along axes other than sums: maximum, minimum, log-sum-exp, running sums.

No other file refers to these nodes; they implement only the methods of `Expression`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array

from energydsl.language.expression.leaf import as_expression
from energydsl.language.expression.operation import ATOM, Text, as_float, bracket
from energydsl.language.expression.rearrange import flat, transpose
from energydsl.language.expression.reduction import axes_of
from energydsl.language.expression.tree import Expression, makes

_REDUCTIONS: dict[str, Callable[..., Array]] = {
    "max": jnp.max,
    "min": jnp.min,
    "logsumexp": jax.nn.logsumexp,
}
_METHODS = ("max", "min")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Reduction(Expression):
    """A reduction of the last `count` axes of the operand to one number."""

    operation: str
    count: int

    @property
    def events(self) -> tuple[int, ...]:
        return (self.count,)

    @property
    def stays_finite(self) -> bool:
        return True

    def combine(self, *values: Array) -> Array:
        return _REDUCTIONS[self.operation](as_float(values[0]), axis=_last(self.count))

    def text(self, *operands: Text) -> Text:
        last = _last(self.count)
        axis = "" if not self.shape else str(last if self.count > 1 else last[0])
        if self.operation in _METHODS:
            return f"{bracket(operands[0], ATOM)}.{self.operation}({axis})", ATOM
        return f"{self.operation}({', '.join(filter(None, (operands[0][0], axis)))})", ATOM


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class RunningSum(Expression):
    """Cumulative sums along the last axis."""

    @property
    def events(self) -> tuple[int, ...]:
        return (1,)

    @property
    def stays_finite(self) -> bool:
        return True

    def combine(self, *values: Array) -> Array:
        return jnp.cumsum(as_float(values[0]), axis=-1)

    def text(self, *operands: Text) -> Text:
        return f"cumsum({operands[0][0]}, -1)", ATOM


Axes = int | tuple[int, ...] | None


@makes("max")
def maximum_over(operand: Expression, axis: Axes) -> Expression:
    """The largest element along `axis`, or of all."""
    return _reduced("max", operand, axis)


@makes("min")
def minimum_over(operand: Expression, axis: Axes) -> Expression:
    """The smallest element along `axis`, or of all."""
    return _reduced("min", operand, axis)


def logsumexp(x: object, axis: Axes = None) -> Expression:
    r"""$\log \sum e^{x}$ along `axis`, or over all elements, computed without overflow."""
    return _reduced("logsumexp", as_expression(x), axis)


def cumsum(x: object, axis: int | None = None) -> Expression:
    """Cumulative sums along `axis`, as `numpy.cumsum`; of the flattened elements if not given."""
    x = as_expression(x)
    if axis is None:
        return cumsum(flat(x), 0)
    x, back = _trailing(x, axes_of(axis, x.ndim))
    return transpose(RunningSum((x,), x.shape), *back)


def diff(x: object, axis: int = -1) -> Expression:
    """Differences of neighbours along `axis`, as `numpy.diff`; each depends on two elements."""
    x = as_expression(x)
    (place,) = axes_of(axis, x.ndim)
    before = (slice(None),) * place
    return x[(*before, slice(1, None))] - x[(*before, slice(None, -1))]


def _reduced(operation: str, operand: Expression, axis: Axes) -> Expression:
    if not operand.size:
        raise ValueError(
            f"{operation} got {operand}, of shape {operand.shape}: it has no elements."
        )
    axes = axes_of(axis, operand.ndim)
    if not axes:
        return operand
    operand, _ = _trailing(operand, axes)
    return Reduction((operand,), operand.shape[: -len(axes)], operation, len(axes))


def _trailing(operand: Expression, axes: Sequence[int]) -> tuple[Expression, tuple[int, ...]]:
    """The operand with these axes last, and the permutation that restores their order."""
    order = [*(a for a in range(operand.ndim) if a not in axes), *axes]
    back = tuple(order.index(a) for a in range(operand.ndim))
    return transpose(operand, *order), back


def _last(count: int) -> tuple[int, ...]:
    return tuple(range(-count, 0))
