"""The operations of expressions: elementwise functions, and moves of elements."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Text = tuple[str, int]
"""The text of an expression and its operator precedence, as Python's."""

COMPARE, OR, XOR, AND, ADD, MULTIPLY, NEGATE, POWER, ATOM = range(9)


@dataclasses.dataclass(frozen=True)
class Operation:
    """An elementwise function and its notation."""

    name: str
    function: Callable[..., Array]
    symbol: str | None = None
    precedence: int = ATOM

    def text(self, *operands: Text) -> Text:
        """The text of the operation applied to operands, as a user would write it."""
        if self.symbol is None:
            return f"{self.name}({', '.join(t for t, _ in operands)})", ATOM
        p = self.precedence
        if len(operands) == 1:
            return self.symbol + bracket(operands[0], p), p
        # + - * / associate to the left, ** to the right, and comparisons not at all: Python reads
        # a < b < c as two comparisons.
        left = bracket(operands[0], p + (p in (POWER, COMPARE)))
        right = bracket(operands[1], p + (p != POWER))
        gap = "" if p == POWER else " "
        return f"{left}{gap}{self.symbol}{gap}{right}", p


def bracket(operand: Text, level: int) -> str:
    """The operand's text, in brackets if its precedence is lower than `level`."""
    text, precedence = operand
    return text if precedence >= level else f"({text})"


def as_float(array: Array) -> Array:
    """The array in floating point, where the arithmetic of energies does not overflow."""
    return array if jnp.issubdtype(array.dtype, jnp.inexact) else array.astype(float)


def number_text(value: float) -> Text:
    """The text of a number, which Python reads as the same number."""
    if isinstance(value, bool):
        return str(value), ATOM
    # Python has no integer -0 and would read "-0" as 0.
    text = f"{value:.6g}" if value or math.copysign(1, value) > 0 else "-0.0"
    return text, NEGATE if text.startswith("-") else ATOM


def is_real(dtype: np.dtype) -> bool:
    """Whether the dtype is that of real numbers or truth values, which an energy may have."""
    numeric = jnp.issubdtype(dtype, jnp.number) or jnp.issubdtype(dtype, jnp.bool_)
    return numeric and not jnp.issubdtype(dtype, jnp.complexfloating)


def _truth(compare: Callable[..., Array]) -> Callable[..., Array]:
    """A comparison whose result is the number 0 or 1."""
    return lambda a, b: as_float(compare(a, b))


OPERATIONS = {
    op.name: op
    for op in (
        Operation("add", jnp.add, "+", ADD),
        Operation("subtract", jnp.subtract, "-", ADD),
        Operation("negative", jnp.negative, "-", NEGATE),
        Operation("multiply", jnp.multiply, "*", MULTIPLY),
        Operation("divide", jnp.divide, "/", MULTIPLY),
        Operation("power", jnp.power, "**", POWER),
        Operation("equal", _truth(jnp.equal), "==", COMPARE),
        Operation("not_equal", _truth(jnp.not_equal), "!=", COMPARE),
        Operation("less", _truth(jnp.less), "<", COMPARE),
        Operation("less_equal", _truth(jnp.less_equal), "<=", COMPARE),
        Operation("greater", _truth(jnp.greater), ">", COMPARE),
        Operation("greater_equal", _truth(jnp.greater_equal), ">=", COMPARE),
        # Conditions are 0 or 1; as polynomials of them these remain multilinear.
        Operation("and", jnp.multiply, "&", AND),
        Operation("or", lambda a, b: a + b - a * b, "|", OR),
        Operation("xor", lambda a, b: a + b - 2 * a * b, "^", XOR),
        Operation("not", lambda a: 1 - a, "~", NEGATE),
        Operation("abs", jnp.abs),
        Operation("sign", jnp.sign),
        Operation("exp", jnp.exp),
        Operation("expm1", jnp.expm1),
        Operation("log", jnp.log),
        Operation("log1p", jnp.log1p),
        Operation("sqrt", jnp.sqrt),
        Operation("sin", jnp.sin),
        Operation("cos", jnp.cos),
        Operation("sinh", jnp.sinh),
        Operation("cosh", jnp.cosh),
        Operation("tanh", jnp.tanh),
        Operation("arctan", jnp.arctan),
        Operation("softplus", jax.nn.softplus),
        Operation("maximum", jnp.maximum),
        Operation("minimum", jnp.minimum),
        Operation("logaddexp", jnp.logaddexp),
        Operation("where", lambda c, a, b: jnp.where(c != 0, a, b)),
    )
}


CONDITIONS = {"equal", "not_equal", "less", "less_equal", "greater", "greater_equal",
              "and", "or", "xor", "not"}  # fmt: skip
"""The operations whose values are 0 or 1."""


def broadcast(*shapes: tuple[int, ...], what: str) -> tuple[int, ...]:
    """The shape to which these shapes broadcast.

    Raises:
        ValueError: they do not broadcast.
    """
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        listed = " and ".join(map(str, shapes))
        raise ValueError(
            f"{what} have shapes {listed}, which do not broadcast; "
            "align them by indexing, e.g. w[:, None]."
        ) from None


@dataclasses.dataclass(frozen=True)
class Move:
    """A rearrangement of an array's elements, the same for NumPy and JAX arrays."""

    kind: str
    arguments: tuple

    @staticmethod
    def index(parts: tuple) -> Move:
        """Basic indexing: integers, slices, None and an ellipsis."""
        return Move("index", tuple(_plain(p) for p in parts))

    @staticmethod
    def roll(shift: int, axis: int) -> Move:
        """Periodic shift along one axis."""
        return Move("roll", (shift, axis))

    @staticmethod
    def transpose(order: tuple[int, ...]) -> Move:
        """The axes in another order."""
        return Move("transpose", order)

    @staticmethod
    def reshape(shape: tuple[int, ...]) -> Move:
        """The same elements, in the same order, in another shape."""
        return Move("reshape", shape)

    def __call__(self, array: Any) -> Any:
        xp = jnp if isinstance(array, jax.Array) else np
        match self.kind:
            case "index":
                return xp.asarray(array[self.arguments])
            case "roll":
                return xp.roll(array, *self.arguments)
            case "transpose":
                return xp.transpose(array, self.arguments)
            case "reshape":
                return xp.reshape(array, self.arguments)
        raise ValueError(f"Unknown move {self.kind!r}.")

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the result for an array of `shape`; raises the errors of NumPy."""
        return self(np.broadcast_to(np.int8(0), shape)).shape

    def text(self, operand: str) -> str:
        """The text of the move applied to `operand`, as a user would write it."""
        match self.kind:
            case "index":
                return f"{operand}[{', '.join(_part(p) for p in self.arguments)}]"
            case "transpose" if self.arguments == tuple(reversed(range(len(self.arguments)))):
                return f"{operand}.T"
            case "transpose":
                return f"{operand}.transpose({', '.join(map(str, self.arguments))})"
            case "reshape":
                return f"{operand}.reshape({', '.join(map(str, self.arguments))})"
        return f"{self.kind}({operand}, {', '.join(map(str, self.arguments))})"


def _plain(part: Any) -> Any:
    """An index made of Python integers, so that equal moves compare and print as equal."""
    if isinstance(part, slice):
        ends = (part.start, part.stop, part.step)
        return slice(*(None if e is None else operator.index(e) for e in ends))
    return part if part is None or part is Ellipsis else operator.index(part)


def _part(part: object) -> str:
    if isinstance(part, slice):
        ends = ["" if e is None else str(e) for e in (part.start, part.stop)]
        return ":".join(ends + ([str(part.step)] if part.step is not None else []))
    return "..." if part is Ellipsis else str(part)
