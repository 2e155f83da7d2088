"""Real sites in which the energy is quadratic."""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp
import jax.random as jr
import numpyro.distributions as dist
from jax import Array

from energydsl.analysis.conditional.base import AbstractConditional
from energydsl.analysis.structure import Structure
from energydsl.language.domain import AbstractDomain
from energydsl.language.variable import Variable


class GaussianConditional(AbstractConditional):
    r"""The Gaussian of a real site with the energy $\tfrac12 a x^2 + b x$ + const, $a > 0$.

    It is determined by the slope $b$ and the curvature $a$ at 0.
    """

    derivatives: ClassVar[int] = 2
    no_law: ClassVar[str] = (
        "has no finite integral: given the other sites, the energy does not increase in both "
        "directions. Energies are minus log-densities: check the signs"
    )

    @classmethod
    def serves(cls, domain: AbstractDomain) -> bool:
        return domain.real_line

    @classmethod
    def refusal(cls, structure: Structure, variable: Variable) -> str | None:
        degree = structure.degree_in(variable)
        if degree <= 2:
            return None
        return f"its energy is not shown to be quadratic in single sites (degree {degree:g})"

    def draw(self, total: Array, *, key: Array) -> Array:
        law = self.distribution(total)
        return jnp.asarray(law.loc) + law.scale * jr.normal(key, total.shape[1:])

    def distribution(self, total: Array) -> Any:
        # NaN at improper sites, which the sampling loop reports.
        return dist.Normal(self.mean(total), 1.0 / jnp.sqrt(total[1]), validate_args=False)

    def log_normalizer(self, total: Array) -> Array:
        slope, curvature = total
        # The integral is finite only if the curvature is positive; it is NaN otherwise.
        curvature = jnp.where(curvature > 0, curvature, jnp.nan)
        return slope**2 / (2 * curvature) + jnp.log(2 * jnp.pi / curvature) / 2

    def mean(self, total: Array) -> Array:
        slope, curvature = total
        return -slope / curvature

    def improper(self, total: Array) -> Array:
        return ~(total[1] > 0)

    def centre(self, total: Array) -> Array:
        return jnp.where(self.improper(total), 0.0, self.mean(total))
