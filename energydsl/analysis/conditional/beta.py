"""Sites of an interval in which the energy is linear in the logs of the distances from its ends."""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp
import jax.random as jr
import numpyro.distributions as dist
from jax import Array
from jax.scipy.special import betaln

from energydsl.analysis.conditional.base import SiteEnergy
from energydsl.analysis.conditional.family import AbstractFamilyConditional, slopes_at
from energydsl.analysis.statistics import LOG, LOG_HIGH
from energydsl.language.domain import AbstractDomain, Interval

CLOSE = 2.0**-7
"""Where the slopes are read: the distance from either end, in units of the interval's width."""

ROUNDING = 1e-3
"""The relative error of a slope, read in the middle, that rounding may cause."""


class BetaConditional(AbstractFamilyConditional):
    r"""The Beta distribution of a site with the energy $p \log(x - l) + q \log(h - x)$ + const.

    On the interval from l to h, its parameters are $1 - p$ and $1 - q$, both above 0.
    """

    statistics: ClassVar[tuple[str, ...]] = (LOG, LOG_HIGH)
    no_law: ClassVar[str] = (
        "has no finite integral: given the other sites, the energy falls towards an end as fast as "
        "the logarithm of the distance"
    )

    @classmethod
    def serves(cls, domain: AbstractDomain) -> bool:
        return isinstance(domain, Interval)

    def measure(self, energy: SiteEnergy) -> Array:
        low, width = self._ends
        points = low + width * jnp.array([CLOSE, 1 - CLOSE, 0.5], self.domain.energy_dtype)
        # The distances of the points after rounding, which are those that the energy sees.
        rising, falling = 1 / (points - low), -1 / (low + width - points)
        slopes = slopes_at(energy, points)
        determinant = rising[0] * falling[1] - rising[1] * falling[0]
        p = (slopes[0] * falling[1] - slopes[1] * falling[0]) / determinant
        q = (slopes[1] * rising[0] - slopes[0] * rising[1]) / determinant
        # The ends at which logarithms vanish were read from numbers that may have been replaced.
        scale = jnp.abs(p * rising[2]) + jnp.abs(q * falling[2]) + jnp.abs(slopes[:2]).max()
        gap = jnp.abs(p * rising[2] + q * falling[2] - slopes[2])
        return jnp.where(gap <= ROUNDING * scale, jnp.stack([p, q]), jnp.nan)

    def draw(self, total: Array, *, key: Array) -> Array:
        # NaN at improper sites, which the sampling loop reports.
        bad = self.improper(total)
        a, b = jnp.where(bad, 1.0, 1.0 - total)
        low, width = self._ends
        return jnp.where(bad, jnp.nan, low + width * jr.beta(key, a, b))

    def distribution(self, total: Array) -> Any:
        low, width = self._ends
        share = dist.Beta(1.0 - total[0], 1.0 - total[1], validate_args=False)
        move = dist.transforms.AffineTransform(low, width, domain=dist.constraints.unit_interval)
        return dist.TransformedDistribution(share, move, validate_args=False)

    def log_normalizer(self, total: Array) -> Array:
        a, b = jnp.where(self.improper(total), jnp.nan, 1.0 - total)
        return betaln(a, b) + (a + b - 1) * jnp.log(self._ends[1])

    def mean(self, total: Array) -> Array:
        a, b = 1.0 - total
        low, width = self._ends
        return low + width * a / (a + b)

    def improper(self, total: Array) -> Array:
        return ~jnp.all(total < 1, axis=0)

    @property
    def _ends(self) -> tuple[Array, Array]:
        """The lower end and the width."""
        assert isinstance(self.domain, Interval)
        low, high = (
            jnp.asarray(e, self.domain.energy_dtype) for e in (self.domain.low, self.domain.high)
        )
        return low, high - low
