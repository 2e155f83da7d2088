"""The check that all values of a variable lie in the support of a density over it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import paramax
from jax import Array
from numpyro.distributions import constraints

from energydsl._types import is_traced
from energydsl.language.expression import Expression, as_expression, sites_of, variables_of
from energydsl.language.expression.range import FAR, lies_in, meets
from energydsl.language.expression.sampled import counterexample
from energydsl.language.variable import Variable

DRAWN = 1000
"""The number of random events that are tested, if a domain has neither levels nor a transform of
single entries."""

DECLARATIONS = (
    (constraints.boolean, "ed.binary"),
    (constraints.circular, "ed.interval(low=-math.pi, high=math.pi)"),
    (constraints.nonnegative, "ed.positive"),
    (constraints.nonnegative_integer, "ed.count"),
    (constraints.positive, "ed.positive"),
    (constraints.positive_definite, "ed.positive_definite"),
    (constraints.real, "ed.real"),
    (constraints.real_matrix, "ed.real"),
    (constraints.real_vector, "ed.real"),
    (constraints.simplex, "ed.simplex"),
)
"""The declaration of a variable for each support."""


def variable_of(view: object) -> Variable | None:
    """The variable that a view shows; None for an expression that is not a view."""
    try:
        return sites_of(as_expression(view))[0]
    except TypeError:
        return None


def support_of(family: Any, parameters: dict[str, Any]) -> Any:
    """The support of a family, for these parameters if it depends on them and they are numbers."""
    numbers = {n: paramax.unwrap(p) for n, p in parameters.items()}
    if not _depends(family.support) or any(isinstance(p, Expression) for p in numbers.values()):
        return family.support
    return family(**numbers).support


def check_support(name: str, support: Any, given: object) -> None:
    """Check that all values of the variable lie in the support of the density.

    An expression that is not a view is checked at random values of its variables.

    Raises:
        ValueError: some do not; the message names the domain to declare.
    """
    if _depends(support) or is_traced(support):
        return
    view, variable = as_expression(given), variable_of(given)
    if variable is None:
        outside = value_outside(view, support)
        if outside is not None:
            raise ValueError(
                f"LogDensity got {view!s:.80} for {name}, whose support is {words_of(support)}; "
                f"it can be {outside:.3g}, which lies outside. Declare the variables over domains "
                "that keep it inside, or write a transform that does, such as np.exp(x)."
            )
        return
    domain = variable.domain
    alike = support.is_discrete == domain.discrete
    if alike and (support == domain.constraint or meets(_samples(variable, view.shape), support)):
        return
    raise ValueError(
        f"LogDensity got {view}, which is {domain}, for {name}, whose support is "
        f"{words_of(support)}; expected all values of the variable in the support. Declare the "
        f"variable by {_declaration(support)}."
    )


def value_outside(operand: Expression, constraint: Any) -> float | None:
    """A value of an expression that violates a constraint on single numbers, if one is found.

    Of parameters and data alone, this is their present value.
    """
    if constraint.event_dim or (variables_of(operand) and lies_in(operand, constraint)):
        return None
    return counterexample(operand, constraint)


def _depends(support: Any) -> bool:
    """Whether the support depends on parameters, or on the distribution inside a wrapper."""
    unknown = type(constraints.dependent)
    return not isinstance(support, constraints.Constraint) or isinstance(support, unknown)


def _samples(variable: Variable, shape: tuple[int, ...]) -> Array:
    """Test values of a variable, including its extremes, along an axis before those of a view."""
    domain = variable.domain
    with jax.ensure_compile_time_eval():
        if domain.levels is not None:
            each = jnp.asarray(domain.values)
        elif domain.transform is not None and not domain.event_ndim:
            each = domain.transform(jnp.array([-FAR, 0.0, FAR]))
        else:
            return domain.start((DRAWN, *variable.event_shape), key=jax.random.key(0))
        return jnp.broadcast_to(each.reshape(-1, *(1,) * len(shape)), (len(each), *shape))


def _bounds(support: Any) -> tuple[str, str] | None:
    """The two ends of an interval, as text; None if it is not one interval for all sites."""
    ends = [getattr(support, f"{which}_bound", None) for which in ("lower", "upper")]
    if any(end is None or np.size(end) != 1 for end in ends):
        return None
    return f"{np.asarray(ends[0]).item():g}", f"{np.asarray(ends[1]).item():g}"


def words_of(support: Any) -> str:
    """A support or a constraint in a few words."""
    bounds, low = _bounds(support), getattr(support, "lower_bound", None)
    if support == constraints.boolean:
        return "{0, 1}"
    if support == constraints.nonnegative_integer:
        return "{0, 1, 2, ...}"
    if bounds is not None:
        return ("{%s .. %s}" if support.is_discrete else "[%s, %s]") % bounds
    if low is not None and np.size(low) == 1 and not support.is_discrete:
        return f"all numbers above {np.asarray(low).item():g}"
    return str(support).partition("(")[0].lower()


def _declaration(support: Any) -> str:
    known = [text for constraint, text in DECLARATIONS if constraint == support]
    if known:
        return known[0]
    bounds = _bounds(support)
    if bounds is None:
        return "a domain with this support"
    return f"ed.{'integer' if support.is_discrete else 'interval'}(low=%s, high=%s)" % bounds
