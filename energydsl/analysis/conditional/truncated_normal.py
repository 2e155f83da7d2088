"""Positive sites and sites of an interval in which the energy is quadratic."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.scipy.special import log_ndtr

from energydsl.analysis import truncated
from energydsl.analysis.conditional.base import AbstractConditional, SiteEnergy, derivatives
from energydsl.analysis.structure import Structure
from energydsl.language.domain import AbstractDomain, Interval, Positive
from energydsl.language.variable import Variable


class TruncatedNormalConditional(AbstractConditional):
    r"""The distribution $p(x) \propto e^{-b x - a x^2/2}$ of a positive site or one of an interval.

    It is determined by the slope $b$ and the curvature $a$ at 0. It is a truncated normal
    distribution if $a > 0$. On an interval $a$ may have either sign; if $a \le 0$, it is drawn, but
    its density is not available.
    """

    derivatives: ClassVar[int] = 0
    no_law: ClassVar[str] = (
        "has no finite integral: given the other sites, the energy does not increase with the value"
    )

    @classmethod
    def serves(cls, domain: AbstractDomain) -> bool:
        return isinstance(domain, Positive | Interval)

    @classmethod
    def refusal(cls, structure: Structure, variable: Variable) -> str | None:
        degree = structure.degree_in(variable)
        if degree <= 2:
            return None
        return f"its energy is not shown to be quadratic in single sites (degree {degree:g})"

    @property
    def size(self) -> int:
        return 2

    def measure(self, energy: SiteEnergy) -> Array:
        return derivatives(energy, jnp.zeros((), self.domain.energy_dtype), self.size)

    def draw(self, total: Array, *, key: Array) -> Array:
        drawn = truncated.draw_quadratic(total[0], total[1], *self.ends, key=key)
        # A draw that rounding would put at 0, which positive sites exclude, stays just inside.
        return drawn if self._bounded else jnp.maximum(drawn, jnp.finfo(drawn.dtype).tiny)

    def distribution(self, total: Array) -> Any:
        return QuadraticOnInterval(self, total)

    def log_normalizer(self, total: Array) -> Array:
        mean, deviation = self._normal(total)
        low, high = self.ends
        near, far = (low - mean) / deviation, (high - mean) / deviation
        if self._bounded:
            # In the tail with the smaller probabilities, which are resolved there.
            flipped = near + far < 0
            near, far = jnp.where(flipped, -far, near), jnp.where(flipped, -near, far)
            beyond = log_ndtr(-far) - log_ndtr(-near)
            log_mass = log_ndtr(-near) + jnp.log(-jnp.expm1(beyond))
        else:
            log_mass = log_ndtr(-near)
        return (mean / deviation) ** 2 / 2 + jnp.log(2 * jnp.pi * deviation**2) / 2 + log_mass

    def mean(self, total: Array) -> Array:
        def log_normalizer(slope: Array) -> Array:
            return jnp.sum(self.log_normalizer(jnp.stack([slope, total[1]])))

        return -jax.grad(log_normalizer)(total[0])

    def improper(self, total: Array) -> Array:
        slope, curvature = total
        if self._bounded:
            return ~(jnp.isfinite(slope) & jnp.isfinite(curvature))
        return ~((curvature > 0) | ((curvature == 0) & (slope > 0)))

    def _normal(self, total: Array) -> tuple[Array, Array]:
        """The mean and the standard deviation before truncation; NaN if there are none."""
        slope, curvature = total[0], jnp.where(total[1] > 0, total[1], jnp.nan)
        return -slope / curvature, 1 / jnp.sqrt(curvature)

    @property
    def _bounded(self) -> bool:
        return isinstance(self.domain, Interval)

    @property
    def ends(self) -> tuple[float, float]:
        """The ends of the domain."""
        if isinstance(self.domain, Interval):
            return self.domain.low, self.domain.high
        return 0.0, math.inf


class QuadraticOnInterval(dist.Distribution):
    """A truncated normal distribution; NumPyro's is NaN where the interval is far from the mean."""

    def __init__(self, law: TruncatedNormalConditional, total: Array) -> None:
        self.law, self.total = law, total
        super().__init__(batch_shape=jnp.shape(total)[1:], validate_args=False)

    @property
    def support(self) -> Any:
        return self.law.domain.constraint

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        shape = (2, *sample_shape, *self.batch_shape)
        spread = self.total.reshape(2, *(1,) * len(sample_shape), *self.batch_shape)
        return self.law.draw(jnp.broadcast_to(spread, shape), key=key)

    def log_prob(self, value: Array) -> Array:
        slope, curvature = self.total
        energy = slope * value + curvature * value**2 / 2
        return -energy - self.law.log_normalizer(self.total)

    @property
    def mean(self) -> Array:
        return self.law.mean(self.total)
