r"""Exponential families whose integrals are Bessel functions; see `families`."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
from jax import Array, lax
from jax.scipy.special import i0e

from energydsl.analysis.statistics import COS, INVERSE, LOG, SIN, VALUE
from energydsl.normalizer.families import AbstractFamily, Natural

DEPTH = 45.0
"""How far below its highest point the log of an integrand is where sums over it end."""

NODES = 512
"""The points of the sum that gives a Bessel function of the second kind."""

SMALLEST = 1e-60
"""The least a b for which these points resolve $e^{-ax - b/x}$."""

LEGENDRE = np.polynomial.legendre.leggauss(64)

WIDEST = 12.0
"""How many standard deviations from its mode a von Mises density is integrated."""


@dataclasses.dataclass(frozen=True)
class VonMisesFamily(AbstractFamily):
    r"""$e^{\kappa \cos(x - \mu)}$ on a circle, the interval from `low` to `low` + 2 pi.

    $\log \int = \log 2\pi I_0(\kappa)$. The mean and the variance are those of the number x, and
    not of its direction.
    """

    low: float
    name: ClassVar[str] = "von Mises"
    needs: ClassVar[str] = "exp(kappa cos(x - mu)) on a circle needs a finite kappa"

    def proper(self, eta: Natural) -> Array:
        return jnp.isfinite(eta[COS]) & jnp.isfinite(eta[SIN])

    def log_integral(self, eta: Natural) -> Array:
        square = eta[COS] ** 2 + eta[SIN] ** 2
        # A function of kappa^2, as kappa itself has no derivative where it is 0.
        small = square < 1e-3
        kappa = jnp.sqrt(jnp.where(small, 1.0, square))
        series = square / 4 * (1 - square / 16 * (1 - square / 9 * (1 - 11 * square / 64 * 3 / 4)))
        return jnp.log(2 * jnp.pi) + jnp.where(small, series, jnp.log(i0e(kappa)) + kappa)

    def moments(self, eta: Natural) -> tuple[Array, Array]:
        kappa, mode = jnp.hypot(eta[COS], eta[SIN]), self.mode(eta)
        most = jnp.minimum(jnp.pi, WIDEST / jnp.sqrt(jnp.maximum(kappa, 1.0)))
        to_low, to_high = mode - self.low, self.low + 2 * jnp.pi - mode
        gap = jnp.minimum(jnp.minimum(to_low, to_high), most)
        whole, beyond = _moments(kappa, 0.0 * most, most), _moments(kappa, gap, most)
        # What is beyond the nearer end of the interval comes back at the other end.
        total = 2 * whole[0]
        moved = jnp.where(to_high < to_low, -1.0, 1.0) * 2 * jnp.pi * beyond[0] / total
        square = (2 * whole[2] + 4 * jnp.pi**2 * beyond[0] - 4 * jnp.pi * beyond[1]) / total
        return mode + moved, square - moved**2

    def draw(self, eta: Natural, *, key: Array) -> Array:
        kappa, middle = jnp.hypot(eta[COS], eta[SIN]), self.low + jnp.pi
        around = dist.VonMises(self.mode(eta) - middle, kappa, validate_args=False).sample(key)
        return jnp.clip(middle + around, self.low, self.low + 2 * jnp.pi)

    def mode(self, eta: Natural) -> Array:
        angle = jnp.arctan2(-eta[SIN], -eta[COS])
        return self.low + jnp.remainder(angle - self.low, 2 * jnp.pi)


def _moments(kappa: Array, start: Array, end: Array) -> tuple[Array, Array, Array]:
    r"""$\int d^k e^{\kappa (\cos d - 1)}\,dd$ from start to end, for k = 0, 1 and 2."""
    points, weights = LEGENDRE
    half = (end - start)[..., None] / 2
    d = start[..., None] + half * (1 + points)
    mass = half * weights * jnp.exp(-2 * kappa[..., None] * jnp.sin(d / 2) ** 2)
    return jnp.sum(mass, -1), jnp.sum(mass * d, -1), jnp.sum(mass * d**2, -1)


@dataclasses.dataclass(frozen=True)
class GeneralisedInverseGaussianFamily(AbstractFamily):
    r"""$x^{p-1} e^{-ax - b/x}$ on the positive numbers.

    $\int = 2 (b/a)^{p/2} K_p(2 \sqrt{ab})$, with a Bessel function of the second kind.

    Source: Jorgensen (1982), Statistical Properties of the Generalized Inverse Gaussian
    Distribution, section 2.
    """

    name: ClassVar[str] = "generalised inverse Gaussian"
    needs: ClassVar[str] = (
        "x^(p-1) exp(-a x - b/x) is integrated where a > 0 and b > 0: the energy must rise with x, "
        "and with 1/x"
    )

    def proper(self, eta: Natural) -> Array:
        a, b = eta[VALUE], eta[INVERSE]
        return (a > 0) & (b > 0) & (a * b > SMALLEST)

    def log_integral(self, eta: Natural) -> Array:
        return self._log_moment(eta, 0.0)

    def moments(self, eta: Natural) -> tuple[Array, Array]:
        base = self._log_moment(eta, 0.0)
        mean = jnp.exp(self._log_moment(eta, 1.0) - base)
        return mean, jnp.exp(self._log_moment(eta, 2.0) - base) - mean**2

    def draw(self, eta: Natural, *, key: Array) -> Array:
        r"""By rejection of $t = \log x + \frac12 \log(a/b)$, whose density is log-concave.

        Source: Devroye (1986), Non-Uniform Random Variate Generation, section VII.2.3.
        """
        p, z, scale = self._shape(eta)
        peak = jnp.arcsinh(p / z)
        # A little less than the density at the mode: rounding does not make the bound too low.
        height = 0.99 * jnp.exp(p * peak - z * jnp.cosh(peak) - log_bessel_k(p, z)) / 2

        def tried(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            key, t, done = carry
            key, *keys = jr.split(key, 5)
            side, inner, outer, level = (jr.uniform(k, p.shape) for k in keys)
            near = inner < 0.5
            # Uniform in [-1, 1], or an exponential number further out.
            size = jnp.where(near, 2 * inner, 1 - jnp.log1p(-outer))
            new = peak + jnp.where(side < 0.5, -size, size) / height
            bound = jnp.minimum(0.0, 1 - size)
            rise = p * (new - peak) - z * (jnp.cosh(new) - jnp.cosh(peak))
            accepted = jnp.log1p(-level) + bound <= rise
            return key, jnp.where(done, t, new), done | accepted

        start = key, peak, jnp.zeros(p.shape, bool)
        t = lax.while_loop(lambda carry: ~jnp.all(carry[2]), tried, start)[1]
        return scale * jnp.exp(t)

    def mode(self, eta: Natural) -> Array:
        a, slope, b = eta[VALUE], eta[LOG], eta[INVERSE]
        root = jnp.sqrt(slope**2 + 4 * a * b)
        return jnp.where(slope > 0, 2 * b / (slope + root), (root - slope) / (2 * a))

    def _shape(self, eta: Natural) -> tuple[Array, Array, Array]:
        """The index p, the argument z = 2 sqrt(ab), and sqrt(b / a)."""
        a, b = eta[VALUE], eta[INVERSE]
        return 1 - eta[LOG], 2 * jnp.sqrt(a * b), jnp.sqrt(b / a)

    def _log_moment(self, eta: Natural, power: float) -> Array:
        """Log of the integral of x^power times the density that is not normalised."""
        p, z, scale = self._shape(eta)
        p = p + power
        return jnp.log(2.0) + p * jnp.log(scale) + log_bessel_k(p, z)


def log_bessel_k(p: Array, z: Array) -> Array:
    r"""$\log K_p(z)$ for any real p and z > 0, with derivatives in both.

    $K_p(z) = \frac12 \int e^{pt - z \cosh t}\,dt$ over all real t is summed over equal steps, whose
    error falls exponentially with their number.

    Source: Trefethen & Weideman (2014), SIAM Review 56(3), 385-458, section 5.
    """
    held_p, held_z = lax.stop_gradient(p), lax.stop_gradient(z)
    peak = jnp.arcsinh(held_p / held_z)
    below, above = (_reach(s * held_p, held_z) for s in (-1.0, 1.0))
    step = (below + above) / (NODES - 1)
    t = peak[..., None] - below[..., None] + step[..., None] * jnp.arange(NODES)
    logs = p[..., None] * t - z[..., None] * jnp.cosh(t)
    top = lax.stop_gradient(jnp.max(logs, axis=-1, keepdims=True))
    return top[..., 0] + jnp.log(jnp.sum(jnp.exp(logs - top), axis=-1) * step / 2)


def _reach(p: Array, z: Array) -> Array:
    """How far above its highest point the log of the integrand has fallen by `DEPTH`."""
    root = jnp.hypot(p, z)
    # sqrt(p^2 + z^2) + p without loss of digits where p is negative.
    risen = jnp.where(p < 0, z**2 / (root + jnp.abs(p)), root + p)

    def fallen(u: Array) -> Array:
        return risen / 2 * jnp.expm1(u) + (root - p) / 2 * jnp.expm1(-u) - p * u

    def halved(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        far = fallen(middle) > DEPTH
        return jnp.where(far, low, middle), jnp.where(far, middle, high)

    most = jnp.full(p.shape, 700.0 if p.dtype == jnp.float64 else 85.0)
    return lax.fori_loop(0, 60, halved, (jnp.zeros_like(most), most))[1]
