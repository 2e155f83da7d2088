"""Rearrangements of an operand's elements, by moves of whole axes and by index arrays."""

from __future__ import annotations

import dataclasses
import operator

import numpy as np
from jax import Array

from energydsl.language.expression.leaf import as_expression
from energydsl.language.expression.operation import ATOM, Move, Text, bracket
from energydsl.language.expression.tree import Environment, Expression, make, makes, slot_number


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Rearrange(Expression):
    """A slice, roll, transpose or reshape of the operand."""

    move: Move

    @staticmethod
    def of(operand: Expression, move: Move) -> Rearrange:
        return Rearrange((operand,), move.shape(operand.shape), move)

    @property
    def key(self) -> tuple:
        return (str(self.move),)

    def compute(self, env: Environment, *values: Array) -> Array:
        return self.move(values[0])

    def text(self, *operands: Text) -> Text:
        return self.move.text(bracket(operands[0], ATOM)), ATOM


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Gather(Expression):
    """The operand's elements at the flat `positions` of an index array or a mask."""

    positions: np.ndarray
    slot: int | None = None

    @property
    def key(self) -> tuple:
        # The content of an index array determines which sites interact, so it is structure.
        return (self.slot, self.shape, self.positions.tobytes())

    def compute(self, env: Environment, *values: Array) -> Array:
        return values[0].ravel()[env.indices[slot_number(self.slot)]]

    def text(self, *operands: Text) -> Text:
        shape = ",".join(map(str, self.shape))
        return f"{bracket(operands[0], ATOM)}[int[{shape}]]", ATOM


def flat(x: Expression) -> Expression:
    """The elements along one axis."""
    return x if x.ndim == 1 else x.reshape(-1)


def roll(x: object, shift: int, axis: int | None = 0) -> Expression:
    """The elements shifted periodically along `axis`, as by `numpy.roll`: torus neighbours.

    With None for the axis, the elements are shifted in the order of the flattened array.
    """
    x = as_expression(x)
    if not isinstance(shift, int | np.integer):
        raise TypeError(f"ed.roll got shift={shift!r}; expected a whole number.")
    if axis is None:
        return roll(flat(x), shift, 0).reshape(x.shape)
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(
            f"ed.roll got axis {axis} for an expression of shape {x.shape}; expected an axis "
            f"from 0 to {x.ndim - 1}."
        )
    return Rearrange.of(x, Move.roll(int(shift), axis % x.ndim))


@makes("transpose")
def transpose(operand: Expression, *axes: int) -> Expression:
    """The axes in another order; all reversed if not given."""
    order = tuple(a % max(operand.ndim, 1) for a in axes) or tuple(reversed(range(operand.ndim)))
    if sorted(order) != list(range(operand.ndim)):
        raise ValueError(
            f"transpose got axes {axes} for an expression of shape {operand.shape}; expected "
            f"each of its {operand.ndim} axes once."
        )
    return (
        Rearrange.of(operand, Move.transpose(order)) if order != tuple(sorted(order)) else operand
    )


@makes("reshape")
def reshape(operand: Expression, shape: tuple[int, ...]) -> Expression:
    """The same elements in another shape."""
    if shape == operand.shape:
        return operand
    try:
        return Rearrange.of(operand, Move.reshape(tuple(operator.index(n) for n in shape)))
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"reshape got {shape} for an expression of shape {operand.shape}: {error}; expected "
            f"whole numbers whose product is its {operand.size} elements (one of them may be -1)."
        ) from None


@makes("index")
def index(operand: Expression, at: object) -> Expression:
    """The elements of an expression at an index, by NumPy's rules."""
    parts = at if isinstance(at, tuple) else (at,)
    if any(isinstance(p, Expression) for p in parts):
        return make("select", operand, parts)
    parts = tuple(np.asarray(p)[()] if isinstance(p, Array | np.ndarray) else p for p in parts)
    try:
        if all(map(_is_basic, parts)):
            return Rearrange.of(operand, Move.index(parts))
        numbers_ = np.arange(operand.size, dtype=np.int32).reshape(operand.shape)
        picked = numbers_[parts]  # type: ignore[index]
    except IndexError as error:
        raise IndexError(f"Index {at!r} does not fit shape {operand.shape}: {error}.") from None
    return Gather((operand,), picked.shape, np.asarray(picked, order="C"))


def _is_basic(part: object) -> bool:
    """Whether an index moves whole axes, so that no index array is needed."""
    whole = isinstance(part, int | np.integer) and not isinstance(part, bool)
    return whole or part is None or part is Ellipsis or isinstance(part, slice)
