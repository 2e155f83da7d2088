"""Sums over axes."""

from __future__ import annotations

import dataclasses
import operator

import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl.language.expression.operation import ATOM, Text, as_float, bracket
from energydsl.language.expression.tree import Expression, makes


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Sum(Expression):
    """The sum over some axes."""

    axes: tuple[int, ...]

    @staticmethod
    def of(operand: Expression, axes: tuple[int, ...]) -> Expression:
        if not operand.shape:
            return operand
        shape = tuple(n for i, n in enumerate(operand.shape) if i not in axes)
        return Sum((operand,), shape, axes)

    def combine(self, *values: Array) -> Array:
        return jnp.sum(as_float(values[0]), axis=self.axes)

    def text(self, *operands: Text) -> Text:
        axis = str(self.axes if len(self.axes) != 1 else self.axes[0]) if self.shape else ""
        return f"{bracket(operands[0], ATOM)}.sum({axis})", ATOM


@makes("sum")
def sum_over(operand: Expression, axis: int | tuple[int, ...] | None) -> Expression:
    """The sum over `axis`, or over all."""
    return Sum.of(operand, axes_of(axis, operand.ndim))


def axes_of(axis: int | tuple[int, ...] | None, ndim: int) -> tuple[int, ...]:
    """The axes, counted from 0 and in increasing order; all axes for None."""
    if axis is None:
        return tuple(range(ndim))
    given = axis if isinstance(axis, tuple) else (axis,)
    if not all(isinstance(a, int | np.integer) for a in given):
        raise TypeError(f"Got axis={axis!r}; expected a whole number, a tuple of them, or None.")
    axes = tuple(map(operator.index, given))
    counted = {a % ndim for a in axes if -ndim <= a < ndim}
    if len(counted) < len(axes):
        raise ValueError(f"Axis {axis} is out of range, or given twice, for {ndim} axes.")
    return tuple(sorted(counted))
