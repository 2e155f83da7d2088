"""Counts with a Poisson distribution."""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
from jax import Array

from energydsl.analysis.conditional.base import SiteEnergy
from energydsl.analysis.conditional.family import AbstractFamilyConditional, SiteStatistics
from energydsl.analysis.statistics import LOG_FACTORIAL, VALUE
from energydsl.analysis.structure import Structure
from energydsl.language.domain import AbstractDomain, Count
from energydsl.language.domain.finite import MAX_LEVEL
from energydsl.language.variable import Variable

EXACT = 1e-6
"""The rounding of a slope in log n! that is proven to be 1."""


class PoissonConditional(AbstractFamilyConditional):
    r"""The Poisson distribution of a count with the energy $b n + \log n!$ + const.

    Its rate is $e^{-b}$. The slope of $\log n!$ is proven to be 1.
    """

    statistics: ClassVar[tuple[str, ...]] = (VALUE, LOG_FACTORIAL)
    no_law: ClassVar[str] = (
        "is out of reach: given the other sites, the rate of its Poisson distribution is not a "
        f"number up to {MAX_LEVEL:,}"
    )

    @classmethod
    def serves(cls, domain: AbstractDomain) -> bool:
        return isinstance(domain, Count)

    @classmethod
    def misfit(cls, found: SiteStatistics, structure: Structure, variable: Variable) -> str | None:
        slopes = found.factorials[~structure.skeleton.mask(variable).ravel()]
        wrong = np.abs(slopes - 1) > EXACT
        if not wrong.any():
            return None
        return f"the slope of log x! is {slopes[np.argmax(wrong)]:g}; that of a Poisson count is 1"

    @property
    def size(self) -> int:
        return 1

    def measure(self, energy: SiteEnergy) -> Array:
        # Neither 0! nor 1! contributes.
        zero, one = jnp.zeros((), self.domain.energy_dtype), jnp.ones((), self.domain.energy_dtype)
        return (energy(one) - energy(zero))[None]

    def draw(self, total: Array, *, key: Array) -> Array:
        rate = jnp.where(self.improper(total), 0.0, jnp.exp(-total[0]))
        return jr.poisson(key, rate, dtype=self.domain.dtype)

    def distribution(self, total: Array) -> Any:
        return dist.Poisson(jnp.exp(-total[0]), validate_args=False)

    def log_normalizer(self, total: Array) -> Array:
        return jnp.exp(-total[0])

    def mean(self, total: Array) -> Array:
        return jnp.exp(-total[0])

    def improper(self, total: Array) -> Array:
        return ~(jnp.exp(-total[0]) <= MAX_LEVEL)
