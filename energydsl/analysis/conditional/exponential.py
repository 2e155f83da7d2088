"""Positive sites in which the energy is linear."""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from energydsl.analysis.conditional.base import AbstractConditional
from energydsl.analysis.structure import Structure
from energydsl.analysis.uniform import open_uniform
from energydsl.language.domain import AbstractDomain, Positive
from energydsl.language.variable import Variable


class ExponentialConditional(AbstractConditional):
    r"""The exponential distribution of a positive site with the energy $b x$ + const, $b > 0$.

    It is determined by the slope $b$ and drawn by inversion, $x = -\log(u) / b$.
    """

    derivatives: ClassVar[int] = 1
    no_law: ClassVar[str] = (
        "has no finite integral: given the other sites, the energy does not increase with the value"
    )

    @classmethod
    def serves(cls, domain: AbstractDomain) -> bool:
        return isinstance(domain, Positive)

    @classmethod
    def refusal(cls, structure: Structure, variable: Variable) -> str | None:
        degree = structure.degree_in(variable)
        if degree <= 1:
            return None
        return f"its energy is not shown to be linear in single sites (degree {degree:g})"

    def draw(self, total: Array, *, key: Array) -> Array:
        # NaN at improper sites, which the sampling loop reports.
        rate = jnp.where(self.improper(total), jnp.nan, total[0])
        return -jnp.log(open_uniform(key, total.shape[1:])) / rate

    def distribution(self, total: Array) -> Any:
        return dist.Exponential(total[0], validate_args=False)

    def log_normalizer(self, total: Array) -> Array:
        return -jnp.log(jnp.where(self.improper(total), jnp.nan, total[0]))

    def mean(self, total: Array) -> Array:
        return 1.0 / total[0]

    def improper(self, total: Array) -> Array:
        return ~(total[0] > 0)
