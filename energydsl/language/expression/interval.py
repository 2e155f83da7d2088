"""Interval arithmetic: bounds of an operation's value from bounds of its operands.

Bounds are closed: 1 / (1 + exp(-z)) lies in [0, 1], though it attains neither end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from energydsl.language.expression.operation import CONDITIONS


class Interval(NamedTuple):
    """All numbers from `low` to `high`, either of which may be infinite."""

    low: float = -math.inf
    high: float = math.inf

    @property
    def bounded(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)


EVERYTHING = Interval()


def applied(operation: str, operands: tuple[Interval, ...]) -> Interval:
    """The bounds of an elementwise operation; all numbers if no rule is known."""
    if operation in CONDITIONS:
        return Interval(0.0, 1.0)
    if operation in _INCREASING:
        rule = _INCREASING[operation]
        return Interval(*(_at(rule, end) for end in operands[0]))
    rule = _RULES.get(operation)
    return EVERYTHING if rule is None else rule(*operands)


def power(base: Interval, exponent: float) -> Interval:
    """The bounds of a power with a known exponent."""
    if exponent == 0:
        return Interval(1.0, 1.0)
    if exponent < 0:
        return _reciprocal(power(base, -exponent))
    if exponent % 2 == 0:
        base = _abs(base)
    return Interval(*(_at(lambda v: v**exponent, end) for end in base))


def total(each: Interval, count: int) -> Interval:
    """The bounds of the sum of a number of terms with the same bounds."""
    return Interval(*(end * count if count else 0.0 for end in each))


def hull(a: Interval, b: Interval) -> Interval:
    """The smallest interval that contains both."""
    return Interval(min(a.low, b.low), max(a.high, b.high))


def multiply(a: Interval, b: Interval) -> Interval:
    """The bounds of a product."""
    # Values are finite, though bounds need not be, so that 0 times an infinite bound is 0.
    ends = [x * y if x and y else 0.0 for x in a for y in b]
    return Interval(min(ends), max(ends))


def _add(a: Interval, b: Interval) -> Interval:
    return Interval(a.low + b.low, a.high + b.high)


def _negative(a: Interval) -> Interval:
    return Interval(-a.high, -a.low)


def _reciprocal(a: Interval) -> Interval:
    """The bounds of 1 / a; all numbers if a can have either sign."""
    if a.low < 0:
        return _negative(_reciprocal(_negative(a))) if a.high <= 0 else EVERYTHING
    return Interval(1 / a.high if a.high else math.inf, 1 / a.low if a.low else math.inf)


def _abs(a: Interval) -> Interval:
    if a.low >= 0:
        return a
    return _negative(a) if a.high <= 0 else Interval(0.0, max(-a.low, a.high))


def _at(rule: Callable, end: float) -> float:
    """An increasing function at a bound; infinite where it overflows."""
    with np.errstate(all="ignore"):
        value = float(rule(np.float64(end)))
    return -math.inf if math.isnan(value) else value


_INCREASING: dict[str, Callable] = {
    "exp": np.exp, "expm1": np.expm1, "log": np.log, "log1p": np.log1p, "sqrt": np.sqrt,
    "sinh": np.sinh, "tanh": np.tanh, "arctan": np.arctan, "sign": np.sign,
    "softplus": lambda v: np.logaddexp(0.0, v),
}  # fmt: skip
_RULES: dict[str, Callable[..., Interval]] = {
    "add": _add,
    "subtract": lambda a, b: _add(a, _negative(b)),
    "negative": _negative,
    "multiply": multiply,
    "divide": lambda a, b: multiply(a, _reciprocal(b)),
    "abs": _abs,
    "sin": lambda a: Interval(-1.0, 1.0),
    "cos": lambda a: Interval(-1.0, 1.0),
    "cosh": lambda a: Interval(1.0),
    "maximum": lambda a, b: Interval(max(a.low, b.low), max(a.high, b.high)),
    "minimum": lambda a, b: Interval(min(a.low, b.low), min(a.high, b.high)),
    "logaddexp": lambda a, b: Interval(np.logaddexp(a.low, b.low), np.logaddexp(a.high, b.high)),
    "where": lambda condition, a, b: hull(a, b),
}
