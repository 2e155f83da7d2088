"""Whether a factor stays as it is when arguments change their signs together, from its jaxpr.

True is proven for every value of the parameters; False may mean that it could not be shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core as jex

Parity = int | None
"""1: the value stays; -1: it changes its sign; None: neither is shown."""


def is_even(function: Callable[..., jax.Array], arguments: Sequence, count: int) -> bool:
    """Whether a scalar function is even in its first `count` arguments, changed together.

    Args:
        function: a scalar function of the arguments.
        arguments: abstract values (`jax.ShapeDtypeStruct`) or pytrees of them.
        count: the number of arguments that change their signs; the others are constants.
    """
    closed = jax.make_jaxpr(function)(*arguments)
    inputs: list[Parity] = []
    for position, argument in enumerate(arguments):
        inputs += [-1 if position < count else 1] * len(jax.tree.leaves(argument))
    return all(parity == 1 for parity in _run(closed.jaxpr, inputs))


_ADDITIVE = {
    "add", "add_any", "sub", "neg", "copy", "reshape", "squeeze", "expand_dims", "transpose",
    "broadcast_in_dim", "reduce_sum", "slice", "rev", "concatenate", "stack", "unstack", "cumsum",
    "reduce_precision", "split", "sign", "sin", "tan", "tanh", "sinh", "asin", "atan", "asinh",
    "atanh", "erf",
}  # fmt: skip
"""Operations that change the sign of their results when all operands change theirs."""
_PRODUCTS = {"mul", "div", "dot_general", "conv_general_dilated"}
_EVEN = {"abs", "cos", "cosh", "square"}
_EQUALITY = {"eq", "ne"}
_INDEXED = {"gather", "dynamic_slice"}
_CALLS = {"jit", "closed_call", "remat2"}


def _run(jaxpr: jex.Jaxpr, inputs: Sequence[Parity]) -> list[Parity]:
    known: dict = dict(zip(jaxpr.invars, inputs, strict=True))
    known.update({v: 1 for v in jaxpr.constvars})

    def read(atom) -> Parity:
        return 1 if isinstance(atom, jex.Literal) else known[atom]

    for equation in jaxpr.eqns:
        values = [read(v) for v in equation.invars]
        if equation.primitive.name in _CALLS:
            body: Any = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
            results = _run(getattr(body, "jaxpr", body), values)
        else:
            results = [_apply(equation, values)] * len(equation.outvars)
        known.update(zip(equation.outvars, results, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _apply(equation: jex.JaxprEqn, values: Sequence[Parity]) -> Parity:
    name = equation.primitive.name
    if all(value == 1 for value in values):
        return 1
    if None in values:
        return None
    if name in _ADDITIVE:
        return _common(values)
    if name in _PRODUCTS:
        return _product(values)
    if name in _EVEN or (name in _EQUALITY and _common(values) is not None):
        return 1
    if name == "integer_pow":
        return values[0] if equation.params["y"] % 2 else 1
    if name in _INDEXED:
        return values[0] if _common(values[1:]) == 1 else None
    if name == "select_n":
        return _common(values[1:]) if values[0] == 1 else None
    if name == "convert_element_type" and _is_signed(equation.params["new_dtype"]):
        return values[0]
    return None


def _common(values: Sequence[Parity]) -> Parity:
    """The parity of all of them; None if they differ."""
    return values[0] if len(set(values)) == 1 else None


def _product(values: Sequence[Parity]) -> Parity:
    return (-1) ** sum(value == -1 for value in values)


def _is_signed(dtype: jax.typing.DTypeLike) -> bool:
    return jnp.issubdtype(dtype, jnp.inexact) or jnp.issubdtype(dtype, jnp.signedinteger)
