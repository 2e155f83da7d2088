"""NumPy arithmetic in float64 that carries along what float32 would make of it.

A `Number` holds values and, in units of float32's epsilon, a first-order bound on the rounding
error of the same computation in float32. So the tolerance of a comparison follows from the
computation, and a wrong sign in a small term is not hidden by a large one beside it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

EPSILON = 2.0**-23
SLACK = 8
"""A few units in the last place, for functions that XLA approximates and sums that it reorders."""


class Number(NamedTuple):
    """A batch of arrays, the batch first, and the bound on their errors."""

    value: np.ndarray
    error: np.ndarray

    def tolerance(self) -> np.ndarray:
        return SLACK * EPSILON * (self.error + np.abs(np.nan_to_num(self.value)) + 1)


class Ties:
    """Where float32 may answer a comparison otherwise (`unsure`), or round across a kink."""

    def __init__(self, batch: int) -> None:
        self.unsure = np.zeros(batch, bool)
        self.kink = np.zeros(batch, bool)

    def compare(self, a: Number, b: Number, *, kink: bool) -> None:
        with np.errstate(invalid="ignore"):
            gap = np.abs(a.value - b.value)
        reach = SLACK * EPSILON * (a.error + b.error)
        close = (reach > 0) & (gap <= reach)
        rows = close.reshape(len(close), -1).any(1)
        mark = self.kink if kink else self.unsure
        mark |= rows


def exact(value: np.ndarray) -> Number:
    value = np.asarray(value, np.float64)
    return Number(value, np.zeros_like(value))


def _rounded(value: np.ndarray, error: np.ndarray, *parts: Number) -> Number:
    """The operation's own rounding added, unless float32 holds the result of exact operands."""
    sure = np.asarray(True)
    for part in parts:
        sure = sure & (part.error == 0)
    with np.errstate(over="ignore", invalid="ignore"):
        sure = sure & (np.float32(value) == value)
    return Number(value, np.where(sure, 0.0, error + np.abs(np.nan_to_num(value))))


def _align(*numbers: Number) -> list[Number]:
    """Batch axes first, the other axes aligned at the end, as NumPy aligns them."""
    ndim = max(n.value.ndim for n in numbers)

    def widen(array: np.ndarray) -> np.ndarray:
        return array.reshape(array.shape[:1] + (1,) * (ndim - array.ndim) + array.shape[1:])

    return [Number(widen(n.value), widen(n.error)) for n in numbers]


def add(a: Number, b: Number, ties: Ties) -> Number:
    a, b = _align(a, b)
    return _rounded(a.value + b.value, a.error + b.error, a, b)


def subtract(a: Number, b: Number, ties: Ties) -> Number:
    return add(a, Number(-b.value, b.error), ties)


def multiply(a: Number, b: Number, ties: Ties) -> Number:
    a, b = _align(a, b)
    error = np.abs(np.nan_to_num(a.value)) * b.error + np.abs(np.nan_to_num(b.value)) * a.error
    return _rounded(a.value * b.value, error, a, b)


def divide(a: Number, b: Number, ties: Ties) -> Number:
    a, b = _align(a, b)
    value = a.value / b.value
    error = (a.error + np.abs(np.nan_to_num(value)) * b.error) / np.abs(b.value)
    return _rounded(value, error, a, b)


def power(a: Number, exponent: float) -> Number:
    with np.errstate(divide="ignore", invalid="ignore"):
        value = a.value**exponent
        slope = abs(exponent) * np.abs(a.value) ** (exponent - 1)
    return _rounded(value, np.nan_to_num(slope) * a.error + 4 * np.abs(value), a)


def power_of(a: Number, b: Number, ties: Ties) -> Number:
    a, b = _align(a, b)
    value = a.value**b.value
    error = np.abs(b.value * value / a.value) * a.error + np.abs(np.log(a.value) * value) * b.error
    inner = np.abs(b.value * np.log(a.value)) + 4
    return Number(value, error + inner * np.abs(value))


def where(c: Number, a: Number, b: Number, ties: Ties) -> Number:
    ties.compare(c, exact(np.zeros((1,) * c.value.ndim)), kink=False)
    c, a, b = _align(c, a, b)
    holds = c.value != 0
    return Number(np.where(holds, a.value, b.value), np.where(holds, a.error, b.error))


def _comparison(function):
    def compared(a: Number, b: Number, ties: Ties) -> Number:
        a, b = _align(a, b)
        ties.compare(a, b, kink=False)
        return exact(function(a.value, b.value))

    return compared


def _extreme(function):
    def taken(a: Number, b: Number, ties: Ties) -> Number:
        a, b = _align(a, b)
        ties.compare(a, b, kink=True)
        return Number(function(a.value, b.value), np.maximum(a.error, b.error))

    return taken


def logaddexp(a: Number, b: Number, ties: Ties) -> Number:
    a, b = _align(a, b)
    value = np.logaddexp(a.value, b.value)
    return Number(value, np.maximum(a.error, b.error) + 4 * (np.abs(np.nan_to_num(value)) + 1))


BINARY = {
    "add": add,
    "subtract": subtract,
    "multiply": multiply,
    "divide": divide,
    "power_of": power_of,
    "equal": _comparison(np.equal),
    "not_equal": _comparison(np.not_equal),
    "less": _comparison(np.less),
    "less_equal": _comparison(np.less_equal),
    "greater": _comparison(np.greater),
    "greater_equal": _comparison(np.greater_equal),
    "maximum": _extreme(np.maximum),
    "minimum": _extreme(np.minimum),
    "logaddexp": logaddexp,
}


def _smooth(function, slope):
    """A smooth function, its slope at least bounded by `slope`."""

    def applied(a: Number, ties: Ties) -> Number:
        value = function(a.value)
        return Number(value, slope(a.value) * a.error + 4 * (np.abs(value) + 1))

    return applied


def absolute(a: Number, ties: Ties) -> Number:
    ties.compare(a, exact(np.zeros((1,) * a.value.ndim)), kink=True)
    return Number(np.abs(a.value), a.error)


def negative(a: Number, ties: Ties) -> Number:
    return Number(-a.value, a.error)


UNARY = {
    "negative": negative,
    "abs": absolute,
    "exp": _smooth(np.exp, np.exp),
    "log": _smooth(np.log, lambda v: 1 / np.abs(v)),
    "sqrt": _smooth(np.sqrt, lambda v: 0.5 / np.sqrt(v)),
    "sin": _smooth(np.sin, np.ones_like),
    "cos": _smooth(np.cos, np.ones_like),
    "tanh": _smooth(np.tanh, np.ones_like),
    "softplus": _smooth(lambda v: np.logaddexp(v, 0.0), np.ones_like),
}


def total(a: Number, axes: tuple[int, ...]) -> Number:
    """The sum over axes counted without the batch."""
    axes = tuple(k + 1 for k in axes)
    if not axes:
        return a
    value = a.value.sum(axes)
    terms = int(np.prod([a.value.shape[k] for k in axes]))
    size = np.abs(np.nan_to_num(a.value)).sum(axes) * terms
    return _rounded(value, a.error.sum(axes) + size, Number(value, a.error.sum(axes)))


def matmul(a: Number, b: Number) -> Number:
    """The matrix product of vectors or matrices, in each member of the batch."""
    left, right = a.value.ndim == 2, b.value.ndim == 2

    def product(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        x = x[:, None, :] if left else x
        y = y[:, :, None] if right else y
        z = x @ y
        z = z[:, :, 0] if right else z
        return z[:, 0] if left else z

    value = product(a.value, b.value)
    size = product(np.abs(a.value), np.abs(b.value)) * a.value.shape[-1]
    error = product(np.abs(a.value), b.error) + product(a.error, np.abs(b.value))
    return Number(value, error + size)


def moved(a: Number, positions: np.ndarray) -> Number:
    """The elements at flat positions, counted within each member of the batch."""

    def move(array: np.ndarray) -> np.ndarray:
        return array.reshape(len(array), -1)[:, positions.ravel()].reshape(-1, *positions.shape)

    return Number(move(a.value), move(a.error))
