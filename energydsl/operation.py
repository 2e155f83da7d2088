"""The vocabulary of expressions: elementwise operations, and moves of elements."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


@dataclasses.dataclass(frozen=True)
class Operation:
    """An elementwise function and how it is written."""

    name: str
    function: Callable[..., Array]
    symbol: str | None = None
    precedence: int = 9

    def text(self, *operands: tuple[str, int]) -> tuple[str, int]:
        """The operation applied, as a user would write it, and how tightly it binds."""
        if self.symbol is None:
            return f"{self.name}({', '.join(t for t, _ in operands)})", 9
        p = self.precedence
        if len(operands) == 1:
            return self.symbol + _bracket(operands[0], p), p
        # The right operand of - and / must bind tighter, the left may not.
        left, right = _bracket(operands[0], p), _bracket(operands[1], p + 1)
        gap = "" if self.symbol == "**" else " "
        return f"{left}{gap}{self.symbol}{gap}{right}", p


def _bracket(operand: tuple[str, int], level: int) -> str:
    text, precedence = operand
    return text if precedence >= level else f"({text})"


def _truth(compare: Callable[..., Array]) -> Callable[..., Array]:
    """A comparison as the numbers 0 and 1, fit for arithmetic."""
    return lambda a, b: compare(a, b).astype(jnp.zeros(()).dtype)


def _power(a: Array, b: Any) -> Array:
    # A whole exponent stays a product, defined and smooth below zero.
    return a ** int(b) if isinstance(b, float) and b.is_integer() else a**b


OPERATIONS = {
    op.name: op
    for op in (
        Operation("add", jnp.add, "+", 5),
        Operation("subtract", jnp.subtract, "-", 5),
        Operation("negative", jnp.negative, "-", 6),
        Operation("multiply", jnp.multiply, "*", 7),
        Operation("divide", jnp.divide, "/", 7),
        Operation("power", _power, "**", 8),
        Operation("equal", _truth(jnp.equal), "==", 3),
        Operation("not_equal", _truth(jnp.not_equal), "!=", 3),
        Operation("less", _truth(jnp.less), "<", 3),
        Operation("less_equal", _truth(jnp.less_equal), "<=", 3),
        Operation("greater", _truth(jnp.greater), ">", 3),
        Operation("greater_equal", _truth(jnp.greater_equal), ">=", 3),
        Operation("abs", jnp.abs),
        Operation("exp", jnp.exp),
        Operation("log", jnp.log),
        Operation("sqrt", jnp.sqrt),
        Operation("sin", jnp.sin),
        Operation("cos", jnp.cos),
        Operation("tanh", jnp.tanh),
        Operation("softplus", jax.nn.softplus),
        Operation("maximum", jnp.maximum),
        Operation("minimum", jnp.minimum),
        Operation("logaddexp", jnp.logaddexp),
        Operation("where", lambda c, a, b: jnp.where(c != 0, a, b)),
    )
}


def broadcast(*shapes: tuple[int, ...], what: str) -> tuple[int, ...]:
    """The common shape, or an error that shows the shapes."""
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
        return Move("index", parts)

    @staticmethod
    def roll(shift: int, axis: int) -> Move:
        """Periodic shift along one axis."""
        return Move("roll", (shift, axis))

    @staticmethod
    def transpose(ndim: int) -> Move:
        """All axes reversed."""
        return Move("transpose", (tuple(reversed(range(ndim))),))

    @staticmethod
    def reshape(shape: tuple[int, ...]) -> Move:
        """Another shape for the same elements in the same order."""
        return Move("reshape", shape)

    def __call__(self, array: Any) -> Any:
        xp = jnp if isinstance(array, jax.Array) else np
        match self.kind:
            case "index":
                return xp.asarray(array[self.arguments])
            case "roll":
                return xp.roll(array, *self.arguments)
            case "transpose":
                return xp.transpose(array, *self.arguments)
            case "reshape":
                return xp.reshape(array, self.arguments)
        raise ValueError(f"Unknown move {self.kind!r}.")

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape it gives to an array of `shape`; raises as NumPy would."""
        return self(np.broadcast_to(np.int8(0), shape)).shape

    def text(self, operand: str) -> str:
        """The move applied to `operand`, as a user would write it."""
        match self.kind:
            case "index":
                return f"{operand}[{', '.join(_part(p) for p in self.arguments)}]"
            case "transpose":
                return f"{operand}.T"
            case "reshape":
                return f"{operand}.reshape({', '.join(map(str, self.arguments))})"
        return f"{self.kind}({operand}, {', '.join(map(str, self.arguments))})"


def _part(part: object) -> str:
    if isinstance(part, slice):
        ends = ["" if e is None else str(e) for e in (part.start, part.stop)]
        return ":".join(ends + ([str(part.step)] if part.step is not None else []))
    return "..." if part is Ellipsis else str(part)
