"""NumPy's functions on expressions: a table with one entry for each."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from energydsl.language.expression.along import Axes, cumsum, diff
from energydsl.language.expression.convolution import conv
from energydsl.language.expression.elementwise import condition, elementwise, where
from energydsl.language.expression.leaf import as_expression
from energydsl.language.expression.operation import OPERATIONS
from energydsl.language.expression.rearrange import flat, roll, transpose
from energydsl.language.expression.select import take
from energydsl.language.expression.tree import Expression, make, makes


def _shown(name: str) -> Callable[..., Any]:
    """A property of expressions, which NumPy has as a function too."""
    return lambda a: getattr(a, name)


def _reduced(name: str) -> Callable[..., Expression]:
    """A method of expressions that reduces axes."""
    return lambda a, axis=None: getattr(as_expression(a), name)(axis)


def _variance(a: Expression, axis: Axes = None) -> Expression:
    count = a.size // a.sum(axis).size
    return (a**2).sum(axis) / count - (a.sum(axis) / count) ** 2


def _dot(a: Any, b: Any) -> Expression:
    a, b = as_expression(a), as_expression(b)
    return a @ b if a.ndim and b.ndim else a * b


def _outer(a: Any, b: Any) -> Expression:
    a, b = flat(as_expression(a)), flat(as_expression(b))
    return a[:, None] * b[None, :]


def _clip(a: Any, a_min: Any = None, a_max: Any = None) -> Expression:
    a = as_expression(a)
    a = a if a_min is None else elementwise("maximum", a, a_min)
    return a if a_max is None else elementwise("minimum", a, a_max)


def _trace(a: Expression) -> Expression:
    diagonal = np.arange(min(a.shape))
    return a[diagonal, diagonal].sum()


def _transposed(a: Expression, axes: Sequence[int] = ()) -> Expression:
    return transpose(a, *axes)


def _convolved(a: Any, v: Any, mode: str = "full") -> Expression:
    return conv(a, v, mode)


FUNCTIONS: dict[Any, Callable[..., Any]] = {
    # The operations that NumPy has under the same name.
    **{
        getattr(np, name): functools.partial(elementwise, name)
        for name in OPERATIONS
        if isinstance(getattr(np, name, None), np.ufunc)
    },
    np.power: lambda a, b: as_expression(a) ** b,
    np.positive: lambda a: a,
    np.square: lambda a: a**2,
    np.reciprocal: lambda a: 1 / a,
    np.matmul: functools.partial(make, "matmul"),
    np.logical_and: functools.partial(condition, "and"),
    np.logical_or: functools.partial(condition, "or"),
    np.logical_xor: functools.partial(condition, "xor"),
    np.logical_not: functools.partial(condition, "not"),
    np.bitwise_and: functools.partial(condition, "and"),
    np.bitwise_or: functools.partial(condition, "or"),
    np.bitwise_xor: functools.partial(condition, "xor"),
    np.invert: functools.partial(condition, "not"),
    np.where: lambda condition, x, y: where(condition, x, y),
    np.clip: _clip,
    np.sum: _reduced("sum"),
    np.mean: _reduced("mean"),
    np.max: _reduced("max"),
    np.min: _reduced("min"),
    np.amax: _reduced("max"),
    np.amin: _reduced("min"),
    np.var: _variance,
    np.cumsum: lambda a, axis=None: cumsum(a, axis),
    np.diff: lambda a, n=1, axis=-1: functools.reduce(lambda b, _: diff(b, axis), range(n), a),
    np.trace: _trace,
    np.dot: _dot,
    np.inner: lambda a, b: _dot(a, as_expression(b).T),
    np.outer: _outer,
    np.convolve: _convolved,
    np.take: take,
    np.roll: lambda a, shift, axis=None: roll(a, shift, axis),
    np.transpose: _transposed,
    np.reshape: lambda a, shape: a.reshape(shape),
    np.ravel: flat,
    np.squeeze: lambda a: a.reshape(tuple(n for n in a.shape if n != 1)),
    np.shape: _shown("shape"),
    np.ndim: _shown("ndim"),
    np.size: _shown("size"),
}
"""What NumPy's functions make of expressions. Each takes the arguments of NumPy's own function,
but for those that expressions have no use for (``dtype``, ``keepdims``)."""


SYMBOLS = {np.remainder: "%", np.floor_divide: "//", np.left_shift: "<<", np.right_shift: ">>"}
"""The operators of functions that make no expression."""


@makes("numpy")
def apply_numpy(function: Any, operands: Sequence[Any], settings: dict[str, Any]) -> Any:
    """The result of a NumPy function that was called on expressions.

    Raises:
        TypeError: there is no such expression; the message says what to write.
    """
    made = FUNCTIONS.get(function)
    if made is None:
        raise TypeError(_no_counterpart(function, operands))
    try:
        inspect.signature(made).bind(*operands, **settings)
    except TypeError as error:
        raise TypeError(
            f"np.{function.__name__} of an expression got arguments that it does not take: "
            f"{error}. It takes {inspect.signature(made)}."
        ) from None
    return made(*operands, **settings)


def _no_counterpart(function: Any, operands: Sequence[Any]) -> str:
    """The message for a function that makes no expression."""
    given = list(_expressions(operands))
    letters = {id(e): "abcdefgh"[k % 8] for k, e in enumerate(given)}
    named, shown = ", ".join(letters.values()), ", ".join(f"{e!s:.40}" for e in given)
    called = ", ".join(_written(o, letters) for o in operands)
    symbol = f" ({SYMBOLS[function]})" if function in SYMBOLS else ""
    return (
        f"{function.__name__}{symbol} of NumPy or SciPy got {shown}; energydsl has no such "
        "operation. Call the function of JAX, as one factor over all of its sites: "
        f"ed.apply(lambda {named}: {_in_jax(function.__name__)}({called}), {shown})."
    )


def _in_jax(name: str) -> str:
    """JAX's function of this name, as users write it."""
    homes = {
        "jnp": jnp,
        "jnp.linalg": jnp.linalg,
        "jnp.fft": jnp.fft,
        "jax.scipy.special": jax.scipy.special,
    }
    found = (text for text, home in homes.items() if callable(getattr(home, name, None)))
    return f"{next(found, 'jnp')}.{name}"


def _written(operand: Any, letters: dict[int, str]) -> str:
    """An argument as it would be written, with letters for expressions."""
    if isinstance(operand, list | tuple):
        return f"[{', '.join(_written(part, letters) for part in operand)}]"
    if isinstance(operand, str | int | float):
        return repr(operand)
    return letters.get(id(operand), "array")


def _expressions(value: Any) -> Iterator[Expression]:
    """The expressions among arguments, also those in lists."""
    if isinstance(value, Expression):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _expressions(part)
