"""How high a polynomial a factor is in each of its arguments, read off its jaxpr.

A degree is an upper bound, which is what soundness asks for: "quadratic" is claimed only where
no operation on the way could give more. `math.inf` means: not shown to be a polynomial.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.extend import core as jex


@dataclasses.dataclass(frozen=True)
class Degrees:
    """Bounds on the degree in each argument, and jointly in all of them."""

    each: tuple[float, ...]
    total: float

    def __or__(self, other: Degrees) -> Degrees:
        """Of a sum."""
        return self._join(other, max)

    def __mul__(self, other: Degrees) -> Degrees:
        """Of a product."""
        return self._join(other, lambda a, b: a + b)

    def __pow__(self, k: float) -> Degrees:
        return Degrees(tuple(_times(k, d) for d in self.each), _times(k, self.total))

    def _join(self, other: Degrees, rule: Callable[[float, float], float]) -> Degrees:
        each = tuple(rule(a, b) for a, b in zip(self.each, other.each, strict=True))
        return Degrees(each, rule(self.total, other.total))

    @property
    def constant(self) -> bool:
        return self.total == 0


def degrees(function: Callable[..., jax.Array], arguments: Sequence, count: int) -> Degrees:
    """Degrees of a scalar function in its first `count` arguments.

    Args:
        function: of the arguments, scalar.
        arguments: abstract values (`jax.ShapeDtypeStruct`) or pytrees of them.
        count: how many of them are variables; the rest count as constants.
    """
    closed = jax.make_jaxpr(function)(*arguments)
    zero = Degrees((0.0,) * count, 0.0)
    inputs = []
    for position, argument in enumerate(arguments):
        own = Degrees(tuple(float(position == k) for k in range(count)), 1.0)
        known = own if position < count else zero
        inputs += [known] * len(jax.tree.leaves(argument))
    return functools.reduce(lambda a, b: a | b, _run(closed.jaxpr, inputs, zero), zero)


def _times(k: float, d: float) -> float:
    return 0.0 if d == 0 else k * d


_LINEAR = {
    "add", "add_any", "sub", "neg", "copy", "reshape", "squeeze", "expand_dims", "transpose",
    "broadcast_in_dim", "reduce_sum", "slice", "rev", "concatenate", "real", "cumsum", "copy_p",
    "reduce_precision", "split", "pad",
}  # fmt: skip
_BILINEAR = {"mul", "dot_general", "conv_general_dilated"}
_INDEXED = {"gather", "dynamic_slice"}


def _run(jaxpr: jex.Jaxpr, inputs: Sequence[Degrees], zero: Degrees) -> list[Degrees]:
    known: dict = dict(zip(jaxpr.invars, inputs, strict=True))
    known.update({v: zero for v in jaxpr.constvars})

    def read(atom) -> Degrees:
        return zero if isinstance(atom, jex.Literal) else known[atom]

    for equation in jaxpr.eqns:
        values = [read(v) for v in equation.invars]
        inner = _inner(equation)
        if inner is not None and len(inner.invars) == len(values):
            results = _run(inner, values, zero)
        else:
            results = [_apply(equation, values, zero)] * len(equation.outvars)
        known.update(zip(equation.outvars, results, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _inner(equation: jex.JaxprEqn) -> jex.Jaxpr | None:
    """The body of a call, which runs once on the equation's own arguments."""
    # custom_jvp and custom_vjp stay closed: their derivative may differ from their body's, and
    # coefficients are read off derivatives.
    if equation.primitive.name not in {"jit", "closed_call", "remat2"}:
        return None
    body = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
    return getattr(body, "jaxpr", body)


def _apply(equation: jex.JaxprEqn, values: list[Degrees], zero: Degrees) -> Degrees:
    name = equation.primitive.name
    everything = functools.reduce(lambda a, b: a | b, values, zero)
    unknown = everything**math.inf
    if everything.constant or (everything.total < math.inf and _is_finiteness_test(equation)):
        return zero
    if name in _LINEAR:
        return everything
    if name in _BILINEAR:
        return values[0] * values[1]
    if name in _INDEXED:
        moved = functools.reduce(lambda a, b: a | b, values[1:], zero)
        return values[0] if moved.constant else unknown
    if name == "div":
        return values[0] if values[1].constant else unknown
    if name == "square":
        return values[0] ** 2
    if name == "integer_pow":
        power = equation.params["y"]
        return values[0] ** power if power >= 0 else unknown
    if name == "select_n":
        return everything if values[0].constant else unknown
    if name == "convert_element_type":
        return values[0] if jnp.issubdtype(equation.params["new_dtype"], jnp.inexact) else unknown
    return unknown


def _is_finiteness_test(equation: jex.JaxprEqn) -> bool:
    """``x == x`` and ``x != inf``: settled for a polynomial, finite where its sites are."""
    if equation.primitive.name not in {"eq", "ne"}:
        return False
    left, right = equation.invars
    if isinstance(right, jex.Literal):
        return math.isinf(right.val)
    return left is right
