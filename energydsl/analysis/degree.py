"""Upper bounds on the polynomial degree of a factor in each of its arguments, from its jaxpr.

As the degree is an upper bound, "quadratic" means proven to be at most quadratic. `math.inf` means
that the factor is not shown to be a polynomial.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex


@dataclasses.dataclass(frozen=True)
class Degrees:
    """Bounds on the degree in each argument with the others fixed, and in all arguments jointly."""

    each: tuple[float, ...]
    total: float


def degrees(function: Callable[..., jax.Array], arguments: Sequence, count: int) -> Degrees:
    """The degrees of a scalar function in its first `count` arguments.

    Args:
        function: a scalar function of the arguments.
        arguments: abstract values (`jax.ShapeDtypeStruct`) or pytrees of them.
        count: the number of arguments that are variables; the others are constants.
    """
    closed = jax.make_jaxpr(function)(*arguments)
    inputs = []
    for position, argument in enumerate(arguments):
        known = _moving(position, count) if position < count else np.zeros(count + 1)
        inputs += [known] * len(jax.tree.leaves(argument))
    results = _run(closed.jaxpr, inputs, np.zeros(count + 1))
    *each, total = _highest(results, np.zeros(count + 1)).tolist()
    return Degrees(tuple(each), total)


# A bound is an array: entry k is the degree in argument k alone, the last entry the joint degree.


def _moving(position: int, count: int) -> np.ndarray:
    return np.isin(np.arange(count + 1), (position, count)).astype(float)


def _highest(bounds: Sequence[np.ndarray], zero: np.ndarray) -> np.ndarray:
    return functools.reduce(np.maximum, bounds, zero)


def _power(bound: np.ndarray, k: float) -> np.ndarray:
    return np.multiply(k, bound, out=np.zeros_like(bound), where=(bound > 0) & (k > 0))


_LINEAR = {
    "add", "add_any", "sub", "neg", "copy", "reshape", "squeeze", "expand_dims", "transpose",
    "broadcast_in_dim", "reduce_sum", "slice", "rev", "concatenate", "real", "cumsum", "copy_p",
    "reduce_precision", "split", "pad", "stack", "unstack", "tile",
}  # fmt: skip
_BILINEAR = {"mul", "dot_general", "conv_general_dilated"}
_INDEXED = {"gather", "dynamic_slice"}


def _run(jaxpr: jex.Jaxpr, inputs: Sequence[np.ndarray], zero: np.ndarray) -> list[np.ndarray]:
    known: dict = dict(zip(jaxpr.invars, inputs, strict=True))
    known.update({v: zero for v in jaxpr.constvars})

    def read(atom) -> np.ndarray:
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
    """The body of a call, which is evaluated once on the equation's arguments; None for others."""
    # Bodies of custom_jvp and custom_vjp are not used: their derivatives may differ from the
    # body's, and coefficients are computed from derivatives.
    if equation.primitive.name not in {"jit", "closed_call", "remat2"}:
        return None
    body = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
    return getattr(body, "jaxpr", body)


def _apply(equation: jex.JaxprEqn, values: list[np.ndarray], zero: np.ndarray) -> np.ndarray:
    name = equation.primitive.name
    everything = _highest(values, zero)
    unknown = np.where(everything > 0, math.inf, 0.0)
    if everything[-1] < math.inf and _is_finiteness_test(equation):
        return zero
    if name in _LINEAR:
        return everything
    if name in _BILINEAR:
        return values[0] + values[1]
    if name in _INDEXED:
        return np.where(_highest(values[1:], zero) > 0, unknown, values[0])
    if name == "div":
        return np.where(values[1] > 0, unknown, values[0])
    if name == "square":
        return _power(values[0], 2)
    if name == "integer_pow" and equation.params["y"] >= 0:
        return _power(values[0], equation.params["y"])
    if name == "select_n":
        return np.where(values[0] > 0, unknown, everything)
    if name == "convert_element_type" and jnp.issubdtype(equation.params["new_dtype"], jnp.inexact):
        return values[0]
    return unknown


def _is_finiteness_test(equation: jex.JaxprEqn) -> bool:
    """Whether this is ``x == x`` or ``x != inf``, which are constant for a finite polynomial x."""
    if equation.primitive.name not in {"eq", "ne"}:
        return False
    left, right = equation.invars
    if isinstance(right, jex.Literal):
        return math.isinf(right.val)
    return left is right
