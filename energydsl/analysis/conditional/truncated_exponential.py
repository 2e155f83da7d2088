"""Sites of an interval in which the energy is linear."""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from energydsl.analysis import truncated
from energydsl.analysis.conditional.base import AbstractConditional
from energydsl.analysis.structure import Structure
from energydsl.analysis.uniform import open_uniform
from energydsl.language.domain import AbstractDomain, Interval
from energydsl.language.variable import Variable


class TruncatedExponentialConditional(AbstractConditional):
    r"""The distribution $p(x) \propto e^{-b x}$ of a site of an interval, for any sign of $b$.

    It is determined by the slope $b$ and drawn by inversion.
    """

    derivatives: ClassVar[int] = 1
    no_law: ClassVar[str] = "is undefined: the slope of its energy is not finite"

    @classmethod
    def serves(cls, domain: AbstractDomain) -> bool:
        return isinstance(domain, Interval)

    @classmethod
    def refusal(cls, structure: Structure, variable: Variable) -> str | None:
        degree = structure.degree_in(variable)
        if degree <= 1:
            return None
        return f"its energy is not shown to be linear in single sites (degree {degree:g})"

    def draw(self, total: Array, *, key: Array) -> Array:
        return truncated.quantile(open_uniform(key, total.shape[1:]), total[0], *self._ends)

    def distribution(self, total: Array) -> Any:
        return TruncatedExponential(total[0], *self._ends)

    def log_normalizer(self, total: Array) -> Array:
        return truncated.log_integral(total[0], *self._ends)

    def mean(self, total: Array) -> Array:
        return truncated.moments(total[0], *self._ends)[0]

    def improper(self, total: Array) -> Array:
        return ~jnp.isfinite(total[0])

    @property
    def _ends(self) -> tuple[float, float]:
        assert isinstance(self.domain, Interval)
        return self.domain.low, self.domain.high


class TruncatedExponential(dist.Distribution):
    r"""The density proportional to $e^{-rx}$ from `low` to `high`, which NumPyro does not have."""

    def __init__(self, rate: Array, low: float, high: float) -> None:
        self.rate, self.low, self.high = rate, low, high
        super().__init__(batch_shape=jnp.shape(rate), validate_args=False)

    @property
    def support(self) -> Any:
        return dist.constraints.interval(self.low, self.high)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        u = open_uniform(key, (*sample_shape, *self.batch_shape))
        return truncated.quantile(u, self.rate, self.low, self.high)

    def log_prob(self, value: Array) -> Array:
        return -self.rate * value - truncated.log_integral(self.rate, self.low, self.high)

    @property
    def mean(self) -> Array:
        return truncated.moments(self.rate, self.low, self.high)[0]

    @property
    def variance(self) -> Array:
        return truncated.moments(self.rate, self.low, self.high)[1]
