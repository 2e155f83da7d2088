r"""Exponentials of linear and quadratic functions on a bounded interval.

The density proportional to $e^{-rx}$ on the interval from l to h is that of a truncated
exponential, for any sign of r.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import jax.random as jr
from jax import Array, lax
from jax.scipy.special import ndtr, ndtri

from energydsl.analysis.uniform import open_uniform

CENTRAL = 0.5
"""The most standard deviations between the mode and an interval that is drawn by inversion."""

MOST_TRIALS = 1000
"""The most proposals for a draw; the chance that all are rejected is below 1e-200."""


def log_integral(rate: Array, low: Array | float, high: Array | float) -> Array:
    r"""$\log \int_l^h e^{-rx}\,dx$."""
    width = high - low
    return -rate * low - rate * width / 2 + jnp.log(width) + _log_sinhc(rate * width / 2)


def moments(rate: Array, low: Array | float, high: Array | float) -> tuple[Array, Array]:
    """The mean and the variance."""
    half = (high - low) / 2
    slope, bend = _log_sinhc_slopes(rate * half)
    return low + half - half * slope, half**2 * bend


def quantile(u: Array, rate: Array, low: Array | float, high: Array | float) -> Array:
    """A draw, by inversion of uniform numbers u."""
    distance = _distance(u, jnp.abs(rate), high - low)
    return jnp.clip(jnp.where(rate >= 0, low + distance, high - distance), low, high)


def draw_quadratic(
    slope: Array, curvature: Array, low: Array | float, high: Array | float, *, key: Array
) -> Array:
    r"""A draw from the density proportional to $e^{-b x - a x^2/2}$ on an interval.

    The upper end may be infinite if a is above 0, or if a is 0 and b above 0. If a is above 0 and
    the interval contains much of the normal density, the draw is by inversion. Otherwise it is by
    rejection from a truncated exponential: the tangent of the energy at the end next to the mode if
    a is above 0, and otherwise the chords on both sides of the least likely point. A fraction of at
    least about 0.4 of the proposals is accepted.

    Args:
        slope: b.
        curvature: a, of either sign.
        low: the lower end.
        high: the upper end.
        key: a random key.

    Returns:
        The draws; NaN where the integral is not finite.
    """
    start_key, loop_key = jr.split(key)
    x, done = _by_inversion(slope, curvature, low, high, key=start_key)
    convex = (curvature > 0) | ~jnp.isfinite(high)
    falling = (curvature > 0) | ((curvature == 0) & (slope > 0))
    proper = (jnp.isfinite(high) | falling) & jnp.isfinite(slope) & jnp.isfinite(curvature)

    def try_again(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        x, done, count = carry
        keys = jr.split(jr.fold_in(loop_key, count))
        u = open_uniform(keys[0], (3, *slope.shape))
        above, excess = _under_tangent(u, slope, curvature, low, high)
        below, lost = _under_chords(u, slope, curvature, low, high)
        accepted = u[2] < jnp.exp(-jnp.where(convex, excess, lost))
        x = jnp.where(~done & accepted, jnp.where(convex, above, below), x)
        return x, done | accepted, count + 1

    def unfinished(carry: tuple[Array, Array, Array]) -> Array:
        _, done, count = carry
        return ~jnp.all(done) & (count < MOST_TRIALS)

    state = jnp.where(done & proper, x, jnp.nan), done | ~proper, jnp.asarray(0)
    return jnp.clip(lax.while_loop(unfinished, try_again, state)[0], low, high)


def _distance(u: Array, rate: Array, width: Array | float) -> Array:
    """The distance from the end of higher density, for a rate of at least 0."""
    steep = rate * width
    small = steep < 1e-3
    inverse = -jnp.log1p(u * jnp.expm1(-jnp.where(small, 1.0, steep)))
    return jnp.where(
        small, width * (u + steep * u * (u - 1) / 2), inverse / jnp.where(small, 1.0, rate)
    )


def _anchored(
    slope: Array, curvature: Array, low: Array | float, high: Array | float
) -> tuple[Array, Array, Array]:
    """The end next to the mode of a normal density, the direction inwards, and the slope there."""
    safe = jnp.where(curvature > 0, curvature, 1.0)
    up = (low + high) / 2 >= -slope / safe
    end = jnp.where(up, low, jnp.where(jnp.isfinite(high), high, low))
    inwards = jnp.where(up, 1.0, -1.0)
    return end, inwards, inwards * (slope + curvature * end)


def _by_inversion(
    slope: Array, curvature: Array, low: Array | float, high: Array | float, *, key: Array
) -> tuple[Array, Array]:
    """Draws by inversion of the normal distribution, and where they are to be used."""
    root = jnp.sqrt(jnp.where(curvature > 0, curvature, 1.0))
    end, inwards, rise = _anchored(slope, curvature, low, high)
    near, width = rise / root, (high - low) * root
    # Upper tails are resolved by the probability of larger values.
    most, least = ndtr(-near), ndtr(-near - width)
    normal = -ndtri(least + open_uniform(key, slope.shape) * (most - least))
    x = end + inwards * (normal - near) / root
    return x, (curvature > 0) & (near <= CENTRAL) & (width >= 1.0)


def _under_tangent(
    u: Array, slope: Array, curvature: Array, low: Array | float, high: Array | float
) -> tuple[Array, Array]:
    """A proposal for a convex energy, and the excess of the energy over its tangent."""
    end, inwards, rise = _anchored(slope, curvature, low, high)
    width = high - low
    rising = _distance(u[0], jnp.abs(rise), width)
    t = jnp.where(rise >= 0, rising, width - rising)
    return end + inwards * t, curvature * t**2 / 2


def _under_chords(
    u: Array, slope: Array, curvature: Array, low: Array | float, high: Array | float
) -> tuple[Array, Array]:
    """A proposal for a concave energy, and the excess of the energy over its chords."""
    top = jnp.clip(-slope / jnp.where(curvature < 0, curvature, 1.0), low, high)
    cut = jnp.where(curvature < 0, top, high)
    left, right = slope + curvature * (low + cut) / 2, slope + curvature * (cut + high) / 2
    # Masses relative to the density at `low`.
    log_left = left * low + log_integral(left, low, cut)
    log_right = right * cut - (cut - low) * left + log_integral(right, cut, high)
    first = u[0] < jax.nn.sigmoid(log_left - log_right)
    start, stop = jnp.where(first, low, cut), jnp.where(first, cut, high)
    x = quantile(u[1], jnp.where(first, left, right), start, stop)
    return x, -curvature * (x - start) * (stop - x) / 2


def _log_sinhc(x: Array) -> Array:
    """log(sinh(x) / x)."""
    size = jnp.abs(x)
    small = size < 1e-2
    safe = jnp.where(small, 1.0, size)
    series = x**2 / 6 - x**4 / 180
    return jnp.where(small, series, safe + jnp.log(-jnp.expm1(-2 * safe) / (2 * safe)))


def _log_sinhc_slopes(x: Array) -> tuple[Array, Array]:
    """The first and the second derivative of log(sinh(x) / x)."""
    small = jnp.abs(x) < 1e-2
    safe = jnp.where(small, 1.0, x)
    first = jnp.where(small, x / 3 - x**3 / 45 + 2 * x**5 / 945, 1 / jnp.tanh(safe) - 1 / safe)
    bend = 1 / safe**2 - 4 * jnp.exp(-2 * jnp.abs(safe)) / jnp.expm1(-2 * jnp.abs(safe)) ** 2
    return first, jnp.where(small, 1 / 3 - x**2 / 15 + 2 * x**4 / 189, bend)
