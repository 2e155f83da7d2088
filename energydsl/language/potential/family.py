"""A family of NumPyro's, called on expressions as its parameters."""

from __future__ import annotations

import inspect
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import paramax
from jax import Array
from numpyro.distributions import constraints

from energydsl._types import is_traced
from energydsl.language.domain import AbstractDomain
from energydsl.language.expression import Apply, Expression, Parameter, Value, View, as_expression
from energydsl.language.expression.range import domain_in, lies_in, meets
from energydsl.language.potential.density import is_density_family


class Family(eqx.Module):
    """Minus a family's log-density, its parameters given as arguments.

    `assured` says that those which variables give are sure to be ones that it takes.
    """

    family: type[dist.Distribution] = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)
    assured: bool = eqx.field(static=True)

    @property
    def name(self) -> str:
        """With the parametrisation, where a family has several and this is not the first."""
        first = _names(self.family)[: len(self.names)]
        which = "" if self.names == first else f"[{', '.join(self.names)}]"
        return self.family.__name__ + which

    def energy(self, x: Array, *parameters: Array) -> Array:
        if _of_labels(self.family):
            x = x.astype(jnp.int32)
        arguments = dict(zip(self.names, parameters, strict=True))
        return -self.family(**arguments).log_prob(x)

    def draw(self, shape: tuple[int, ...], *parameters: Array, key: Array) -> Array:
        return self.family(**dict(zip(self.names, parameters, strict=True))).sample(key)

    def normalised(self, domain: AbstractDomain, shape: tuple[int, ...]) -> bool:
        return self.assured and is_density_family(self.family, domain)


def minus_log_density(family: Any, view: Expression, parameters: dict[str, Any]) -> Expression:
    """Minus the log-density of a family, one factor an event, summed."""
    needs = family.arg_constraints
    names = tuple(n for n in _names(family) if n in parameters)
    operands = [as_expression(_parameter(parameters[n])) for n in names]
    for name, operand in zip(names, operands, strict=True):
        _check_constraint(f"{family.__name__}'s {name}", needs[name], operand)
    if _of_labels(family):
        _check_levels(family.__name__, view, max((o.shape or (0,))[-1] for o in operands))
    assured = all(lies_in(o, needs[n]) for n, o in zip(names, operands, strict=True))
    ndims = (family.support.event_dim, *(needs[n].event_dim for n in names))
    return Apply.of(Family(family, names, assured), (view, *operands), ndims).sum()


def _names(family: Any) -> tuple[str, ...]:
    """The parameters of a family in the order in which it takes them."""
    return tuple(n for n in inspect.signature(family).parameters if n in family.arg_constraints)


def bound_parameters(family: Any, parameters: tuple, named: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a family by name, as its own constructor takes them."""
    names, needs = _names(family), family.arg_constraints
    try:
        bound = inspect.signature(family).bind(*parameters, **named)
    except TypeError as error:
        raise TypeError(
            f"LogDensity[{family.__name__}] could not take its parameters: {error}. "
            f"Expected {', '.join(names) or 'none'}, by position or name after the view."
        ) from None
    if other := sorted(set(bound.arguments) - set(names)):
        raise TypeError(
            f"LogDensity[{family.__name__}] got {', '.join(other)}; expected no parameters but "
            f"{', '.join(names)}. What else a distribution needs, build into an instance."
        )
    given = dict(bound.arguments)
    bound.apply_defaults()
    # A default of a vector or matrix is NumPyro's own, or stands for another parametrisation.
    defaults = {n: bound.arguments[n] for n in names if not needs[n].event_dim}
    return {n: value for n, value in (defaults | given).items() if value is not None}


def _check_constraint(what: str, constraint: Any, operand: Expression) -> None:
    """Refuse numbers outside a constraint, and a variable that can be outside it."""
    if constraint.event_dim or isinstance(constraint, type(constraints.dependent)):
        return
    if isinstance(operand, Value):
        values = paramax.unwrap(operand.value)
        if not is_traced(values) and not meets(values, constraint):
            shown = f"{operand}, which is {values}," if isinstance(operand, Parameter) else operand
            raise ValueError(f"LogDensity got {shown} for {what}; expected {constraint}.")
    elif isinstance(operand, View) and not operand.variable.domain.event_ndim:
        domain = operand.variable.domain
        if not domain_in(domain, constraint):
            raise ValueError(
                f"LogDensity got {operand}, which is {domain}, for {what}; expected {constraint}. "
                "Declare it over that domain, or transform it, as by ed.exp."
            )


def _of_labels(family: Any) -> bool:
    """Whether a family has a number for every level, which it looks up by the value."""
    wide = any(needed.event_dim == 1 for needed in family.arg_constraints.values())
    return wide and family.support.is_discrete and not family.support.event_dim


def _check_levels(family: str, view: Expression, numbers: int) -> None:
    domain = view.variable.domain if isinstance(view, View) else None
    if (
        domain is not None
        and domain.levels is not None
        and not np.array_equal(domain.values, range(numbers))
    ):
        raise ValueError(
            f"LogDensity got {numbers} numbers along the last axis for {family} of {view}, which "
            f"is {domain}; expected as many as it has levels, and levels that count from 0."
        )


def _parameter(value: Any) -> Any:
    kept = int | float | Expression | paramax.AbstractUnwrappable
    return value if isinstance(value, kept) else jnp.asarray(value)
