"""A log-density from elsewhere, as an expert."""

from __future__ import annotations

import inspect
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from energydsl.language.domain import AbstractDomain
from energydsl.language.expression import Expression, Origin, owned
from energydsl.language.potential.base import AbstractPotential
from energydsl.language.potential.density import is_density
from energydsl.language.potential.family import bound_parameters, minus_log_density


class LogDensity(AbstractPotential):
    r"""Minus a log-density: $E(x) = -\log q(x)$, or $-\log q(x \mid \theta)$.

    A plain NumPyro distribution makes one factor an event of the view (a Normal one a site), and
    its parameters broadcast against the view; any other object is one factor over all of it.
    Numbers stay numbers, which learning leaves alone, unless NumPyro has made arrays of them to
    match another parameter's shape.

    A NumPyro family takes its parameters when it is called, by position or name as NumPyro does,
    and they are expressions, arrays among them data: ``ed.LogDensity(dist.Normal)(x, mu, tau)``.

    Args:
        distribution: a NumPyro distribution or family, or anything with ``log_prob`` (a flowjax
            flow).

    Raises:
        TypeError: no ``log_prob``; parameters that the family does not take; or given to a
            distribution, which has its own.
        ValueError: a parameter outside its constraint, as numbers or as a variable that may be.
    """

    distribution: Any

    def __check_init__(self) -> None:
        if not callable(getattr(self.distribution, "log_prob", None)):
            given = getattr(self.distribution, "__name__", type(self.distribution).__name__)
            raise TypeError(
                f"LogDensity got {given}, which has no log_prob; expected a NumPyro distribution "
                "or family (of Bernoulli: BernoulliLogits), a flowjax flow or the like."
            )

    @property
    def name(self) -> str:
        kind = self.distribution
        return f"LogDensity[{(kind if isinstance(kind, type) else type(kind)).__name__}]"

    def energy(self, x: Array) -> Array:
        return -jnp.sum(self.distribution.log_prob(x))

    def normalised(self, domain: AbstractDomain, shape: tuple[int, ...]) -> bool:
        return is_density(self.distribution, domain, shape)

    def draw(self, shape: tuple[int, ...], *given: Any, key: Array) -> Array | None:
        q = self.distribution
        if isinstance(q, dist.Distribution):
            event, batch = q.event_shape, shape[: len(shape) - len(q.event_shape)]
            return q.expand(batch).sample(key) if batch + event == shape else None
        if not callable(getattr(q, "sample", None)):
            return None
        return q.sample(key, shape[: len(shape) - len(q.shape)])

    def __call__(self, view: Expression, *parameters: object, **named: object) -> Expression:
        q = self.distribution
        if isinstance(q, type):
            return minus_log_density(q, view, bound_parameters(q, parameters, named))
        if parameters or named:
            raise TypeError(
                f"{self.name} has its parameters already; give the family to call it on "
                "expressions, as in ed.LogDensity(dist.Normal)(x, mu, tau)."
            )
        if not _is_plain(q):
            return super().__call__(view)
        origin = Origin.new(type(q).__name__)
        own = {n: owned(getattr(q, n), n, origin) for n in q.get_args()}
        return minus_log_density(type(q), view, own)


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
