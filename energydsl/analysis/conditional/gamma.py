"""Positive sites in which the energy is linear in x and log x."""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp
import jax.random as jr
import numpyro.distributions as dist
from jax import Array
from jax.scipy.special import gammaln

from energydsl.analysis.conditional.base import SiteEnergy
from energydsl.analysis.conditional.family import AbstractFamilyConditional, slopes_at
from energydsl.analysis.statistics import LOG, VALUE
from energydsl.language.domain import AbstractDomain, Positive

NEAR, FAR = 2.0**-10, 2.0**10
"""Where the slopes are read: near 0 that of log x dominates, and far from it that of x."""


class GammaConditional(AbstractFamilyConditional):
    r"""The Gamma distribution of a positive site with the energy $b x + c \log x$ + const.

    Its shape is $1 - c$ and its rate is $b$, both above 0.
    """

    statistics: ClassVar[tuple[str, ...]] = (VALUE, LOG)
    no_law: ClassVar[str] = (
        "has no finite integral: given the other sites, the energy does not increase with the "
        "value, or it falls towards 0 as fast as the logarithm"
    )

    @classmethod
    def serves(cls, domain: AbstractDomain) -> bool:
        return isinstance(domain, Positive)

    def measure(self, energy: SiteEnergy) -> Array:
        near, far = slopes_at(energy, jnp.array([NEAR, FAR], self.domain.energy_dtype))
        log_slope = (near - far) / (1 / NEAR - 1 / FAR)
        return jnp.stack([far - log_slope / FAR, log_slope])

    def draw(self, total: Array, *, key: Array) -> Array:
        # NaN at improper sites, which the sampling loop reports.
        rate, shape = jnp.where(self.improper(total), jnp.nan, jnp.stack(self._rates(total)))
        logs = jr.loggamma(key, jnp.nan_to_num(shape, nan=1.0)) - jnp.log(rate)
        # A draw that rounding would put at 0, which is outside the domain, stays just inside.
        smallest = jnp.log(jnp.finfo(logs.dtype).tiny)
        return jnp.exp(jnp.maximum(logs, smallest))

    def distribution(self, total: Array) -> Any:
        rate, shape = self._rates(total)
        return dist.Gamma(shape, rate, validate_args=False)

    def log_normalizer(self, total: Array) -> Array:
        rate, shape = jnp.where(self.improper(total), jnp.nan, jnp.stack(self._rates(total)))
        return gammaln(shape) - shape * jnp.log(rate)

    def mean(self, total: Array) -> Array:
        rate, shape = self._rates(total)
        return shape / rate

    def improper(self, total: Array) -> Array:
        rate, shape = self._rates(total)
        return ~((rate > 0) & (shape > 0))

    def _rates(self, total: Array) -> tuple[Array, Array]:
        return total[0], 1.0 - total[1]
