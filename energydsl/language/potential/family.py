"""NumPyro families whose parameters are expressions."""

from __future__ import annotations

import inspect
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpyro.distributions as dist
import paramax
from jax import Array
from numpyro.distributions import constraints

from energydsl._types import is_traced
from energydsl.language.domain import AbstractDomain
from energydsl.language.expression import Apply, Expression, Parameter, Value, View, as_expression
from energydsl.language.expression.range import domain_in, lies_in, meets
from energydsl.language.potential.density import counts_from_zero, is_density_family
from energydsl.language.potential.support import (
    check_support,
    support_of,
    value_outside,
    variable_of,
    words_of,
)


class Family(eqx.Module):
    """Minus the log-density of a family, with its parameters as arguments.

    `doubt` says why the density may not be normalised; it is empty if parameters that depend on
    variables certainly meet the family's constraints, and if there are as many as the view has
    levels where the family requires it.
    """

    family: type[dist.Distribution] = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)
    doubt: str = eqx.field(static=True)

    @property
    def name(self) -> str:
        """The name of the family, with its parametrisation if that is not the default one."""
        first = _names(self.family)[: len(self.names)]
        which = "" if self.names == first else f"[{', '.join(self.names)}]"
        return self.family.__name__ + which

    @property
    def reparametrised(self) -> bool:
        """Whether draws are differentiable functions of the parameters."""
        return set(self.names) <= set(self.family.reparametrized_params)

    def energy(self, x: Array, *parameters: Array) -> Array:
        if _of_labels(self.family):
            x = x.astype(jnp.int32)
        arguments = dict(zip(self.names, parameters, strict=True))
        return -self.family(**arguments).log_prob(x)

    def draw(self, shape: tuple[int, ...], *parameters: Array, key: Array) -> Array:
        return self.family(**dict(zip(self.names, parameters, strict=True))).sample(key)

    def normalised(self, domain: AbstractDomain, shape: tuple[int, ...]) -> bool:
        return not self.doubt and is_density_family(self.family, domain)


def minus_log_density(family: Any, view: Expression, parameters: dict[str, Any]) -> Expression:
    """Minus the log-density of a family, summed over events, each of which is a factor."""
    needs = family.arg_constraints
    if _is_point(family):
        raise TypeError(
            f"LogDensity got {family.__name__}, which has no density. To hold a variable at a "
            "value, condition the model: model.condition(x=value)."
        )
    names = tuple(n for n in _names(family) if n in parameters)
    operands = [as_expression(_parameter(parameters[n])) for n in names]
    for name, operand in zip(names, operands, strict=True):
        _check_constraint(f"{family.__name__}'s {name}", needs[name], operand)
    unproven = [n for n, o in zip(names, operands, strict=True) if not lies_in(o, needs[n])]
    doubt = _doubt(family, unproven)
    if _of_labels(family):
        _check_levels(family.__name__, view, max((o.shape or (0,))[-1] for o in operands))
        if variable_of(view) is None:
            doubt = doubt or f"{family.__name__} is over a function of labels"
    else:
        check_support(family.__name__, support_of(family, parameters), view)
    ndims = (family.support.event_dim, *(needs[n].event_dim for n in names))
    return Apply.of(Family(family, names, doubt), (view, *operands), ndims).sum()


def _doubt(family: Any, unproven: list[str]) -> str:
    if not unproven:
        return ""
    needed = " and ".join(f"{n} in {words_of(family.arg_constraints[n])}" for n in unproven)
    other = "; give logits= instead" if unproven == ["probs"] else ""
    return f"it is not shown that {family.__name__} always has {needed}{other}"


def _is_point(family: Any) -> bool:
    """Whether all probability is at one point."""
    return issubclass(family, dist.Delta)


def _names(family: Any) -> tuple[str, ...]:
    """The names of a family's parameters in the order of its constructor."""
    return tuple(n for n in inspect.signature(family).parameters if n in family.arg_constraints)


def bound_parameters(family: Any, parameters: tuple, named: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a family by name, matched by the rules of its constructor."""
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
            f"{', '.join(names)}. For other settings, give an instance of the distribution."
        )
    given = dict(bound.arguments)
    bound.apply_defaults()
    # A default of a vector or matrix is set by NumPyro, or belongs to another parametrisation.
    defaults = {n: bound.arguments[n] for n in names if not needs[n].event_dim}
    return {n: value for n, value in (defaults | given).items() if value is not None}


def _check_constraint(what: str, constraint: Any, operand: Expression) -> None:
    """Refuse numbers outside a constraint, and variables that may take values outside it."""
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
                "Declare it over that domain, or transform it, for example by ed.exp."
            )
    else:
        outside = value_outside(operand, constraint)
        if outside is not None:
            raise ValueError(
                f"LogDensity got {operand!s:.80} for {what}; expected {constraint}, and it can be "
                f"{outside:.3g}. Declare its variables over domains that keep it inside, or "
                "transform it, for example by ed.exp."
            )


def _of_labels(family: Any) -> bool:
    """Whether a family's parameter is a vector with one entry for each level of its value."""
    wide = any(needed.event_dim == 1 for needed in family.arg_constraints.values())
    return wide and family.support.is_discrete and not family.support.event_dim


def _check_levels(family: str, view: Expression, numbers: int) -> None:
    variable = variable_of(view)
    if variable is not None and not counts_from_zero(variable.domain, numbers):
        raise ValueError(
            f"LogDensity got {numbers} numbers along the last axis for {family} of {view}, which "
            f"is {variable.domain}; expected one number for each level, and levels that count "
            "from 0."
        )


def _parameter(value: Any) -> Any:
    kept = int | float | Expression | paramax.AbstractUnwrappable
    return value if isinstance(value, kept) else jnp.asarray(value)
