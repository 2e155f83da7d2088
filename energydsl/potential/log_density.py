"""A log-density from elsewhere, as an expert."""

from __future__ import annotations

import inspect
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpyro.distributions as dist
import paramax
from jax import Array

from energydsl.density import is_density, is_density_family
from energydsl.domain import AbstractDomain
from energydsl.expression import Apply, Expression, Parameter, as_expression
from energydsl.potential.base import AbstractPotential


class _Elementwise(eqx.Module):
    """A NumPyro family, its parameters given as arguments."""

    family: type[dist.Distribution] = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)

    @property
    def name(self) -> str:
        return self.family.__name__

    def energy(self, x: Array, *parameters: Array) -> Array:
        arguments = dict(zip(self.names, parameters, strict=True))
        return -self.family(**arguments).log_prob(x)

    def normalised(self, domain: AbstractDomain, shape: tuple[int, ...]) -> bool:
        return is_density_family(self.family, domain)


class LogDensity(AbstractPotential):
    r"""Minus a log-density: $E(x) = -\log q(x)$.

    A plain NumPyro distribution makes one factor an event of the view (a Normal one a site), and
    its parameters broadcast against the view; any other object is one factor over all of it.
    Numbers stay numbers, which learning leaves alone, unless NumPyro has made arrays of them to
    match another parameter's shape.

    Args:
        distribution: a NumPyro distribution, or anything with ``log_prob`` (a flowjax flow).
    """

    distribution: Any

    def __check_init__(self) -> None:
        if not callable(getattr(self.distribution, "log_prob", None)):
            raise TypeError(
                f"LogDensity got {type(self.distribution).__name__}, which has no log_prob; "
                "expected a NumPyro distribution, a flowjax flow or the like."
            )

    @property
    def name(self) -> str:
        return f"LogDensity[{type(self.distribution).__name__}]"

    def energy(self, x: Array) -> Array:
        return -jnp.sum(self.distribution.log_prob(x))

    def normalised(self, domain: AbstractDomain, shape: tuple[int, ...]) -> bool:
        return is_density(self.distribution, domain, shape)

    def __call__(self, view: Expression) -> Expression:
        q = self.distribution
        if not _is_plain(q):
            return super().__call__(view)
        constraints = type(q).arg_constraints
        names = tuple(n for n in constraints if n in q.get_args())
        parameters = [as_expression(_parameter(getattr(q, n))) for n in names]
        ndims = (q.event_dim, *(constraints[n].event_dim for n in names))
        return Apply.of(_Elementwise(type(q), names), (view, *parameters), ndims).sum()


def _parameter(value: Any) -> Any:
    kept = int | float | Parameter | paramax.AbstractUnwrappable
    return value if isinstance(value, kept) else jnp.asarray(value)


def _is_plain(q: Any) -> bool:
    """Whether q is its family called on its own parameters, and nothing around it."""
    wrapped = (dist.Independent, dist.ExpandedDistribution, dist.MaskedDistribution,
               dist.TransformedDistribution)  # fmt: skip
    if not isinstance(q, dist.Distribution) or isinstance(q, wrapped):
        return False
    # A family with several parametrisations (MultivariateNormal) cannot be called on all of them,
    # and a truncated one takes a distribution besides.
    taken = inspect.signature(type(q).__init__).parameters.values()
    required = {p.name for p in taken if p.default is p.empty and p.name != "self"}
    return required <= set(q.get_args()) == set(type(q).arg_constraints)
