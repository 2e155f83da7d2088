"""Models of what data show only in part: which entries are shown, and their values, are inputs."""

from __future__ import annotations

import math
from collections.abc import Iterable

from energydsl.language.domain import AbstractDomain, Binary
from energydsl.language.expression import Expression, View, substituted, where
from energydsl.language.model import Model, over
from energydsl.language.variable import Variable

MISMATCH = 1e9
"""The energy of a finite site at another level than the one that is shown. Its weight, e^-1e9, is 0
in every float format; unlike infinity it cannot make a difference of energies NaN."""


def seen(variable: Variable) -> Variable:
    """The input that is 1 where an entry of a variable is shown, and 0 where it is missing."""
    return Variable(f"{variable.name} seen", Binary(), variable.shape, given=True)


def shown(variable: Variable) -> Variable:
    """The input with the values that are shown; those of missing entries do not matter."""
    name = f"{variable.name} shown"
    return Variable(name, variable.domain, variable.shape, given=True)


def may_be_missing(variable: Variable) -> bool:
    """Whether single entries of a variable may be missing: those of finite and real ones."""
    domain = variable.domain
    return not domain.event_ndim and (domain.levels is not None or domain.real_line)


def partly_shown(model: Model, variables: Iterable[Variable]) -> Model:
    r"""The model in which the entries of these variables that are shown are clamped.

    A finite site that is shown has an infinite energy, up to rounding, at any other level. A real
    site that is shown is replaced in the energy by its value; the site itself then has a standard
    normal distribution of its own. In both cases Z is that of the clamped model, while neither its
    structure nor its compiled program depends on which entries are shown.
    """
    replaced: dict[str, Expression] = {}
    terms = []
    for v in variables:
        view, mask, value = View.of(v), View.of(seen(v)), View.of(shown(v))
        if v.domain.levels is not None:
            terms.append(MISMATCH * (mask * _differ(v.domain, view, value)).sum())
        else:
            replaced[v.name] = where(mask == 1, value, view)
            terms.append((mask * (view**2 / 2 + math.log(2 * math.pi) / 2)).sum())
    energy = substituted(model.expression, replaced)
    return over(sum(terms, energy), model)


def _differ(domain: AbstractDomain, a: Expression, b: Expression) -> Expression:
    """1 where two finite views differ, 0 where they agree.

    It is linear in views of two levels, so that conditionals remain derivatives of the energy.
    """
    if domain.levels != 2:
        return a != b
    low, high = (float(level) for level in domain.values)
    u, w = ((2 * view - (low + high)) / (high - low) for view in (a, b))
    return (1 - u * w) / 2
