"""The ranges of expressions' values, as far as they follow from the form of the expressions.

True means that a statement is proven, False that it is not proven.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import constraints

from energydsl.language.domain import AbstractDomain
from energydsl.language.expression.apply import Apply
from energydsl.language.expression.elementwise import Elementwise
from energydsl.language.expression.interval import EVERYTHING, Interval, applied, power, total
from energydsl.language.expression.leaf import Value, View
from energydsl.language.expression.operation import CONDITIONS
from energydsl.language.expression.product import MatMul
from energydsl.language.expression.rearrange import Gather, Rearrange
from energydsl.language.expression.reduction import Sum
from energydsl.language.expression.select import Select
from energydsl.language.expression.tree import Expression, fold

FAR = 80.0
"""The unconstrained coordinate taken as an end of a domain: exp(80) is large but fits float32."""

_EVERYWHERE = {
    "add", "subtract", "negative", "multiply", "abs", "sign", "exp", "expm1", "sin", "cos", "sinh",
    "cosh", "tanh", "arctan", "softplus", "maximum", "minimum", "logaddexp", "where",
} | CONDITIONS  # fmt: skip
"""Operations that are finite wherever their operands are finite."""
_KEEP_POSITIVE = {"add", "multiply", "divide", "maximum", "minimum", "sqrt"}
"""Operations that are positive where their operands are positive."""
_MAKE_POSITIVE = {"exp", "softplus"}


def meets(values: Any, constraint: Any) -> bool:
    """Whether known numbers all meet a NumPyro constraint; works while JAX traces as well."""
    with jax.ensure_compile_time_eval():
        return bool(np.all(constraint(jnp.asarray(values))))


def domain_in(domain: AbstractDomain, constraint: Any) -> bool:
    """Whether all values of a domain meet a NumPyro constraint on single numbers.

    Such a constraint is an interval, or the integers in one, so it is enough to test the ends and
    the middle of a continuous domain.
    """
    if domain.event_ndim or constraint.event_dim:
        return False
    with jax.ensure_compile_time_eval():
        if domain.levels is not None:
            return meets(domain.values, constraint)
        if domain.transform is None:
            return domain.constraint == constraint
        return meets(domain.transform(jnp.array([-FAR, 0.0, FAR])), constraint)


def lies_in(operand: Expression, constraint: Any) -> bool:
    """Whether an expression meets a NumPyro constraint for all values of its variables.

    An expression of parameters alone is assumed to meet it, as the user is responsible for that.
    The simplex is an exception, since a density may be finite, but not normalised, for parameters
    that do not sum to one. Functions and networks are assumed to be finite.
    """
    if constraint == constraints.simplex:
        return isinstance(operand, View) and operand.variable.domain.constraint == constraint
    seen = fold(operand, range_of)
    if seen.fixed:
        return True
    if constraint in (constraints.real, constraints.real_vector, constraints.real_matrix):
        return seen.finite
    if constraint == constraints.positive:
        return seen.finite and seen.positive
    if seen.finite and _holds_all(constraint, seen.within):
        return True
    return isinstance(operand, View) and domain_in(operand.variable.domain, constraint)


def _holds_all(constraint: Any, within: Interval) -> bool:
    """Whether a constraint on single real numbers allows all numbers of an interval."""
    if constraint.event_dim or constraint.is_discrete:
        return False
    low, high = (getattr(constraint, f"{which}_bound", None) for which in ("lower", "upper"))
    if low is None:
        return False
    ends = [within.low] if high is None else [within.low, within.high]
    return all(map(math.isfinite, ends)) and meets(ends, constraint)


class Range(NamedTuple):
    """What is proven of an expression: that it has no variables, is finite, is positive."""

    fixed: bool
    finite: bool
    positive: bool
    within: Interval = EVERYTHING
    """Bounds of its values."""


def range_of(node: Expression, *below: Range) -> Range:
    """What is proven of a node, from what is proven of its children."""
    seen, within = _signs_of(node, *below), _within(node, *(b.within for b in below))
    return seen._replace(positive=seen.positive or within.low > 0, within=within)


def _within(node: Expression, *below: Interval) -> Interval:
    """Bounds of a node's values."""
    match node:
        case View(variable=variable):
            return _of_domain(variable.domain)
        case Value(value=int() | float() as number):
            return Interval(number, number)
        case Elementwise(operation="power", static=float() | int() as exponent):
            return power(below[0], exponent)
        case Elementwise(operation=operation):
            return applied(operation, below)
        case Gather() | Select():
            return below[0]
        case Rearrange():
            return below[0] if len(below) == 1 else EVERYTHING
        case Sum(children=(child,)):
            return total(below[0], child.size // node.size) if node.size else EVERYTHING
    return EVERYTHING


def _of_domain(domain: AbstractDomain) -> Interval:
    """Bounds of the entries of a variable."""
    if domain.levels is not None:
        return Interval(float(min(domain.values)), float(max(domain.values)))
    if domain.constraint == constraints.simplex:
        return Interval(0.0, 1.0)
    if domain.event_ndim:
        return EVERYTHING
    low = getattr(domain.constraint, "lower_bound", -math.inf)
    return Interval(float(low), float(getattr(domain.constraint, "upper_bound", math.inf)))


def _signs_of(node: Expression, *below: Range) -> Range:
    """Whether a node is fixed, finite and positive, from what is proven of its children."""
    fixed = all(b.fixed for b in below)
    finite = all(b.finite for b in below)
    positive = all(b.positive for b in below)
    match node:
        case View(variable=variable):
            domain = variable.domain
            simplex = domain.constraint == constraints.simplex
            positive = simplex or domain_in(domain, constraints.positive)
            return Range(False, True, positive)
        case Value(value=value):
            # The sign of a value that learning may update is not certain.
            return Range(True, True, isinstance(value, int | float) and value > 0)
        case Elementwise(operation=operation):
            certain = operation in _EVERYWHERE or _is_tame(node, below)
            made = operation in _MAKE_POSITIVE or (operation in _KEEP_POSITIVE and positive)
            made |= operation == "power" and below[0].positive
            return Range(fixed, finite and certain, made)
        case Apply():
            return Range(fixed, finite, False)
        case Rearrange() | Gather() | Sum() | MatMul():
            return Range(fixed, finite, positive and node.size > 0)
        case Select():
            return Range(fixed, finite, below[0].positive)
    return Range(False, finite and node.stays_finite, False)


def _is_tame(node: Elementwise, below: tuple[Range, ...]) -> bool:
    """Whether an operation that can be infinite is finite for these operands."""
    match node.operation:
        case "divide":
            return below[1].positive or isinstance(node.children[1], Value)
        case "power" if node.static is not None and node.static >= 0 and node.static % 1 == 0:
            return True
    return node.operation in ("log", "sqrt", "power") and below[0].positive
