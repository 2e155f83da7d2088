r"""Exponential families: $\log \int e^{-\sum_k \eta_k t_k(x)}\,dx$, moments, draws and modes.

The natural parameters $\eta$ are the slopes of an energy in its statistics t, in arrays with one
entry for each event first. Whatever does not exist is NaN.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax.numpy as jnp
import jax.random as jr
import numpyro.distributions as dist
from jax import Array
from jax.scipy.special import betaln, gammaln, multigammaln

from energydsl.analysis import truncated
from energydsl.analysis.statistics import (
    INVERSE,
    LOG,
    LOG_DET,
    LOG_FACTORIAL,
    LOG_GAMMA,
    LOG_HIGH,
    SHIFT,
    VALUE,
)
from energydsl.analysis.uniform import open_uniform

EXACT = 1e-6
"""The rounding of a slope in log n! that was proven to be 0 or 1 from the numbers as written."""

Natural = Mapping[str, Array]
"""The slope of the energy in each statistic."""


@dataclasses.dataclass(frozen=True)
class AbstractFamily(abc.ABC):
    """A family of densities on one domain. Subclasses are frozen, and equal if their fields are."""

    name: ClassVar[str]
    needs: ClassVar[str]
    """The condition under which the integral is finite, for messages."""

    @abc.abstractmethod
    def proper(self, eta: Natural) -> Array:
        """Whether the integral is finite, for each event."""

    @abc.abstractmethod
    def log_integral(self, eta: Natural) -> Array:
        """The log of the integral for each event, if it is proper."""

    @abc.abstractmethod
    def moments(self, eta: Natural) -> tuple[Array, Array]:
        """The mean and the variance of each entry; infinite where the integral diverges."""

    @abc.abstractmethod
    def draw(self, eta: Natural, *, key: Array) -> Array:
        """One independent draw of each event."""

    @abc.abstractmethod
    def mode(self, eta: Natural) -> Array:
        """The point of highest density of each event; NaN if it is not inside the domain."""


@dataclasses.dataclass(frozen=True)
class GammaFamily(AbstractFamily):
    r"""$x^{k-1} e^{-rx}$ on the positive numbers; the exponential density is k = 1."""

    name: ClassVar[str] = "gamma"
    needs: ClassVar[str] = (
        "x^(k-1) exp(-r x) needs k > 0 and r > 0: the energy must rise with x, and not fall "
        "towards 0 as fast as log x"
    )

    def proper(self, eta: Natural) -> Array:
        return (eta[LOG] < 1) & (eta[VALUE] > 0)

    def log_integral(self, eta: Natural) -> Array:
        k = 1 - eta[LOG]
        return gammaln(k) - k * jnp.log(eta[VALUE])

    def moments(self, eta: Natural) -> tuple[Array, Array]:
        k, rate = 1 - eta[LOG], eta[VALUE]
        return k / rate, k / rate**2

    def draw(self, eta: Natural, *, key: Array) -> Array:
        return jr.gamma(key, 1 - eta[LOG]) / eta[VALUE]

    def mode(self, eta: Natural) -> Array:
        return jnp.where(eta[LOG] < 0, -eta[LOG] / eta[VALUE], jnp.nan)


@dataclasses.dataclass(frozen=True)
class InverseGammaFamily(AbstractFamily):
    r"""$x^{-k-1} e^{-r/x}$ on the positive numbers."""

    name: ClassVar[str] = "inverse gamma"
    needs: ClassVar[str] = (
        "x^(-k-1) exp(-r/x) needs k > 0 and r > 0: the energy must rise with 1/x, and with log x "
        "faster than log x itself"
    )

    def proper(self, eta: Natural) -> Array:
        return (eta[LOG] > 1) & (eta[INVERSE] > 0)

    def log_integral(self, eta: Natural) -> Array:
        k = eta[LOG] - 1
        return gammaln(k) - k * jnp.log(eta[INVERSE])

    def moments(self, eta: Natural) -> tuple[Array, Array]:
        k, rate = eta[LOG] - 1, eta[INVERSE]
        mean = jnp.where(k > 1, rate / (k - 1), jnp.inf)
        return mean, jnp.where(k > 2, mean**2 / (k - 2), jnp.inf)

    def draw(self, eta: Natural, *, key: Array) -> Array:
        return eta[INVERSE] / jr.gamma(key, eta[LOG] - 1)

    def mode(self, eta: Natural) -> Array:
        return eta[INVERSE] / eta[LOG]


@dataclasses.dataclass(frozen=True)
class BetaFamily(AbstractFamily):
    r"""$(x - l)^{a-1} (h - x)^{b-1}$ on the interval from l to h; uniform if a = b = 1."""

    low: float
    high: float
    name: ClassVar[str] = "beta"
    needs: ClassVar[str] = (
        "(x-low)^(a-1) (high-x)^(b-1) needs a > 0 and b > 0: the energy must not fall towards an "
        "end as fast as the log of the distance from it"
    )

    def proper(self, eta: Natural) -> Array:
        return (eta[LOG] < 1) & (eta[LOG_HIGH] < 1)

    def log_integral(self, eta: Natural) -> Array:
        a, b = 1 - eta[LOG], 1 - eta[LOG_HIGH]
        return betaln(a, b) + (a + b - 1) * jnp.log(self.high - self.low)

    def moments(self, eta: Natural) -> tuple[Array, Array]:
        a, b = 1 - eta[LOG], 1 - eta[LOG_HIGH]
        width, total = self.high - self.low, a + b
        return self.low + width * a / total, width**2 * a * b / (total**2 * (total + 1))

    def draw(self, eta: Natural, *, key: Array) -> Array:
        share = jr.beta(key, 1 - eta[LOG], 1 - eta[LOG_HIGH])
        return self.low + (self.high - self.low) * share

    def mode(self, eta: Natural) -> Array:
        p, q = -eta[LOG], -eta[LOG_HIGH]
        inside = (p > 0) & (q > 0)
        share = p / jnp.where(inside, p + q, 1.0)
        return jnp.where(inside, self.low + (self.high - self.low) * share, jnp.nan)


@dataclasses.dataclass(frozen=True)
class TruncatedFamily(AbstractFamily):
    r"""$e^{-rx}$ on the interval from l to h, for any sign of r."""

    low: float
    high: float
    name: ClassVar[str] = "truncated exponential"
    needs: ClassVar[str] = "exp(-r x) on an interval needs a finite r"

    def proper(self, eta: Natural) -> Array:
        return jnp.isfinite(eta[VALUE])

    def log_integral(self, eta: Natural) -> Array:
        return truncated.log_integral(eta[VALUE], self.low, self.high)

    def moments(self, eta: Natural) -> tuple[Array, Array]:
        return truncated.moments(eta[VALUE], self.low, self.high)

    def draw(self, eta: Natural, *, key: Array) -> Array:
        u = open_uniform(key, eta[VALUE].shape)
        return truncated.quantile(u, eta[VALUE], self.low, self.high)

    def mode(self, eta: Natural) -> Array:
        return jnp.where(eta[VALUE] >= 0, self.low, self.high)


@dataclasses.dataclass(frozen=True)
class DirichletFamily(AbstractFamily):
    r"""$\prod_i x_i^{a_i - 1}$ on the simplex."""

    name: ClassVar[str] = "Dirichlet"
    needs: ClassVar[str] = (
        "prod x_i^(a_i - 1) needs a_i > 0: the energy must not fall towards x_i = 0 as fast as log "
        "x_i"
    )

    def proper(self, eta: Natural) -> Array:
        return jnp.all(eta[LOG] < 1, axis=-1)

    def log_integral(self, eta: Natural) -> Array:
        a = 1 - eta[LOG]
        return jnp.sum(gammaln(a), axis=-1) - gammaln(jnp.sum(a, axis=-1))

    def moments(self, eta: Natural) -> tuple[Array, Array]:
        a = 1 - eta[LOG]
        total = jnp.sum(a, axis=-1, keepdims=True)
        mean = a / total
        return mean, mean * (1 - mean) / (total + 1)

    def draw(self, eta: Natural, *, key: Array) -> Array:
        return jr.dirichlet(key, 1 - eta[LOG])

    def mode(self, eta: Natural) -> Array:
        inside = jnp.all(eta[LOG] < 0, axis=-1, keepdims=True)
        safe = jnp.where(inside, -eta[LOG], 1.0)
        return jnp.where(inside, safe / jnp.sum(safe, axis=-1, keepdims=True), jnp.nan)


@dataclasses.dataclass(frozen=True)
class PoissonFamily(AbstractFamily):
    r"""$\lambda^n / n!$ on the counts."""

    name: ClassVar[str] = "Poisson"
    needs: ClassVar[str] = "lambda^n / n! needs a finite lambda"

    def proper(self, eta: Natural) -> Array:
        return (eta[VALUE] > -jnp.inf) & (jnp.abs(eta[LOG_FACTORIAL] - 1) < EXACT)

    def log_integral(self, eta: Natural) -> Array:
        return jnp.exp(-eta[VALUE])

    def moments(self, eta: Natural) -> tuple[Array, Array]:
        rate = jnp.exp(-eta[VALUE])
        return rate, rate

    def draw(self, eta: Natural, *, key: Array) -> Array:
        return jr.poisson(key, jnp.exp(-eta[VALUE]))

    def mode(self, eta: Natural) -> Array:
        return jnp.floor(jnp.exp(-eta[VALUE]))


@dataclasses.dataclass(frozen=True)
class GeometricFamily(AbstractFamily):
    r"""$e^{-rn}$ on the counts."""

    name: ClassVar[str] = "geometric"
    needs: ClassVar[str] = "exp(-r n) needs r > 0: the energy must rise with n"

    def proper(self, eta: Natural) -> Array:
        return (eta[VALUE] > 0) & (jnp.abs(eta[LOG_FACTORIAL]) < EXACT)

    def log_integral(self, eta: Natural) -> Array:
        return -jnp.log(-jnp.expm1(-eta[VALUE]))

    def moments(self, eta: Natural) -> tuple[Array, Array]:
        odds = 1 / jnp.expm1(eta[VALUE])
        return odds, odds * (1 + odds)

    def draw(self, eta: Natural, *, key: Array) -> Array:
        return jnp.floor(-jnp.log(open_uniform(key, eta[VALUE].shape)) / eta[VALUE])

    def mode(self, eta: Natural) -> Array:
        return jnp.zeros_like(eta[VALUE])


@dataclasses.dataclass(frozen=True)
class NegativeBinomialFamily(AbstractFamily):
    r"""$e^{-sn}\, \Gamma(n + r) / n!$ on the counts."""

    name: ClassVar[str] = "negative binomial"
    needs: ClassVar[str] = (
        "exp(-s n) Gamma(n + r) / n! needs s > 0 and r > 0: the energy must rise with n"
    )

    def proper(self, eta: Natural) -> Array:
        fixed = jnp.abs(eta[LOG_FACTORIAL] - 1) + jnp.abs(eta[LOG_GAMMA] + 1) < EXACT
        return (eta[VALUE] > 0) & (self._r(eta) > 0) & fixed

    def log_integral(self, eta: Natural) -> Array:
        r = self._r(eta)
        return gammaln(r) - r * jnp.log(-jnp.expm1(-eta[VALUE]))

    def moments(self, eta: Natural) -> tuple[Array, Array]:
        odds = 1 / jnp.expm1(eta[VALUE])
        mean = self._r(eta) * odds
        return mean, mean * (1 + odds)

    def draw(self, eta: Natural, *, key: Array) -> Array:
        rate_key, count_key = jr.split(key)
        rate = jr.gamma(rate_key, self._r(eta)) / jnp.expm1(eta[VALUE])
        return jr.poisson(count_key, rate)

    def mode(self, eta: Natural) -> Array:
        return jnp.floor(jnp.maximum(self._r(eta) - 1, 0.0) / jnp.expm1(eta[VALUE]))

    def _r(self, eta: Natural) -> Array:
        return eta[SHIFT] / eta[LOG_GAMMA]


@dataclasses.dataclass(frozen=True)
class WishartFamily(AbstractFamily):
    r"""$|X|^{n - (d+1)/2} e^{-\mathrm{tr} AX}$ on the positive definite d x d matrices."""

    name: ClassVar[str] = "Wishart"
    needs: ClassVar[str] = (
        "|X|^(n-(d+1)/2) exp(-tr AX) needs n > (d-1)/2 and a positive definite A: the energy must "
        "rise with X in every direction, and not fall towards singular X as fast as log det X"
    )

    def proper(self, eta: Natural) -> Array:
        rate, n = self._rate(eta), self._n(eta)
        held = jnp.all(jnp.isfinite(jnp.linalg.cholesky(rate)), axis=(-2, -1))
        return held & (n > (rate.shape[-1] - 1) / 2)

    def log_integral(self, eta: Natural) -> Array:
        rate, n = self._rate(eta), self._n(eta)
        diagonal = jnp.diagonal(jnp.linalg.cholesky(rate), axis1=-2, axis2=-1)
        return multigammaln(n, rate.shape[-1]) - 2 * n * jnp.sum(jnp.log(diagonal), axis=-1)

    def moments(self, eta: Natural) -> tuple[Array, Array]:
        scale, n = jnp.linalg.inv(self._rate(eta)), self._n(eta)[:, None, None]
        diagonal = jnp.diagonal(scale, axis1=-2, axis2=-1)
        spread = scale**2 + diagonal[:, :, None] * diagonal[:, None, :]
        return n * scale, n * spread / 2

    def draw(self, eta: Natural, *, key: Array) -> Array:
        rate, n = self._rate(eta), self._n(eta)
        return dist.Wishart(2 * n, rate_matrix=2 * rate, validate_args=False).sample(key)

    def mode(self, eta: Natural) -> Array:
        scale = jnp.linalg.inv(self._rate(eta))
        power = -eta[LOG_DET][:, None, None]
        return jnp.where(power > 0, power * scale, jnp.nan)

    def _rate(self, eta: Natural) -> Array:
        """A: only the symmetric part of the slopes matters."""
        slope = eta[VALUE]
        return (slope + jnp.swapaxes(slope, -2, -1)) / 2

    def _n(self, eta: Natural) -> Array:
        return (eta[VALUE].shape[-1] + 1) / 2 - eta[LOG_DET]
