r"""The law of one site given all others, from the energies of the factors it is in.

A conditional *measures* each factor as a function of the site alone, g(value): a few numbers
that add over factors. From their totals it draws the site. Measures are exact: a slope says all
about a linear g, two derivatives about a quadratic one, a table about any g on finite levels.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpyro.distributions as dist
from jax import Array

from energydsl.language.domain import AbstractDomain

SiteEnergy = Callable[[Array], Array]
"""A factor's energy as a function of one of its sites."""


class AbstractConditional(eqx.Module):
    """What to measure of a factor, and how to draw a site from the sum of the measures."""

    domain: AbstractDomain = eqx.field(static=True)

    @abc.abstractmethod
    def measure(self, energy: SiteEnergy) -> Array:
        """The numbers that describe one factor, as a vector."""

    @abc.abstractmethod
    def draw(self, total: Array, *, key: Array) -> Array:
        """Draw sites; the measures stand on the first axis of `total`."""

    @abc.abstractmethod
    def distribution(self, total: Array) -> Any:
        """The same law as a NumPyro distribution; finite ones count levels from 0."""

    @abc.abstractmethod
    def log_normalizer(self, total: Array) -> Array:
        """Log of the sum, or integral, of exp(-g) over each site; slopes take g(0) as 0."""

    def improper(self, total: Array) -> Array:
        """True where the law of a site has no finite integral."""
        return jnp.zeros(total.shape[1:], bool)

    @property
    def numbers(self) -> Array:
        """The domain's levels, as energies see them."""
        return jnp.asarray(self.domain.values, self.domain.energy_dtype)


class Levels(AbstractConditional):
    """Any energy on finitely many levels: measured at each."""

    def measure(self, energy: SiteEnergy) -> Array:
        return jax.vmap(energy)(self.numbers)

    def draw(self, total: Array, *, key: Array) -> Array:
        lowest = jnp.min(total, axis=0)
        # Where all levels are forbidden the law does not bind: any level leads on.
        weights = jnp.where(jnp.isinf(lowest), 1.0, jnp.exp(lowest - total))
        ladder = jnp.cumsum(weights, axis=0)
        # In (0, 1], so that neither a first nor a last level of weight 0 is ever drawn.
        height = (1.0 - jr.uniform(key, total.shape[1:])) * ladder[-1]
        level = jnp.sum(height > ladder, axis=0)
        return jnp.asarray(self.domain.values, self.domain.dtype)[level]

    def distribution(self, total: Array) -> Any:
        return dist.Categorical(logits=-jnp.moveaxis(total, 0, -1))

    def log_normalizer(self, total: Array) -> Array:
        return jax.nn.logsumexp(-total, axis=0)


class Linear(AbstractConditional):
    r"""Energies linear in the value of a finite site: measured by the slope.

    Two levels $v_0 < v_1$ are drawn by $p(v_1) = \sigma(-b (v_1 - v_0))$.
    """

    def measure(self, energy: SiteEnergy) -> Array:
        return jax.grad(energy)(jnp.zeros((), self.domain.energy_dtype))[None]

    def draw(self, total: Array, *, key: Array) -> Array:
        levels = self.domain.values
        if len(levels) != 2:
            return Levels(self.domain).draw(self._energies(total), key=key)
        low, high = (int(v) for v in levels)
        up = jr.uniform(key, total.shape[1:]) < jax.nn.sigmoid((low - high) * total[0])
        return jnp.where(up, *jnp.asarray([high, low], self.domain.dtype))

    def distribution(self, total: Array) -> Any:
        return Levels(self.domain).distribution(self._energies(total))

    def log_normalizer(self, total: Array) -> Array:
        if len(self.domain.values) != 2:
            return Levels(self.domain).log_normalizer(self._energies(total))
        low, high = (int(v) for v in self.domain.values)
        return -low * total[0] + jax.nn.softplus((low - high) * total[0])

    def mean(self, total: Array) -> Array:
        """The mean of each site."""
        if len(self.domain.values) != 2:
            return jnp.tensordot(self.numbers, jax.nn.softmax(-self._energies(total), 0), axes=1)
        low, high = (int(v) for v in self.domain.values)
        return low + (high - low) * jax.nn.sigmoid((low - high) * total[0])

    def _energies(self, total: Array) -> Array:
        return jnp.tensordot(self.numbers, total[0], axes=0)


class Gaussian(AbstractConditional):
    r"""A real site whose energy is $\tfrac12 a x^2 + b x$ + const: measured by $b$ and $a$."""

    def measure(self, energy: SiteEnergy) -> Array:
        zero = jnp.zeros((), self.domain.energy_dtype)
        slope: SiteEnergy = jax.grad(energy)
        return jnp.stack([slope(zero), jax.grad(slope)(zero)])

    def draw(self, total: Array, *, key: Array) -> Array:
        law = self.distribution(total)
        return jnp.asarray(law.loc) + law.scale * jr.normal(key, total.shape[1:])

    def distribution(self, total: Array) -> Any:
        slope, curvature = total
        # NaN where it is improper, which the sampling loop reports.
        scale = 1.0 / jnp.sqrt(curvature)
        return dist.Normal(-slope / curvature, scale, validate_args=False)

    def improper(self, total: Array) -> Array:
        return ~(total[1] > 0)

    def log_normalizer(self, total: Array) -> Array:
        slope, curvature = total
        # The integral is finite only where the energy rises; NaN says that it is not.
        curvature = jnp.where(curvature > 0, curvature, jnp.nan)
        return slope**2 / (2 * curvature) + jnp.log(2 * jnp.pi / curvature) / 2


def conditional_for(domain: AbstractDomain, degree: float) -> AbstractConditional | None:
    """The cheapest exact conditional of a site in which energies have at most this degree."""
    floating = jnp.issubdtype(domain.energy_dtype, jnp.floating)
    if domain.levels is not None:
        return Linear(domain) if degree <= 1 and floating else Levels(domain)
    if domain.real_line and degree <= 2:
        return Gaussian(domain)
    return None
