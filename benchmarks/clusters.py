"""Swendsen-Wang and Gibbs on the Ising model at its critical temperature, by what |m| tells."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np

import energydsl as ed
from benchmarks.measure import Row, limit

SIDE, CRITICAL = 256, 0.5 * np.log(1 + np.sqrt(2))
CHAINS, STEPS, SWEEPS, THIN = 4, 2_000, 40_000, 20

TIME, GAIN = 10.0, 50.0
"""The longest autocorrelation time in steps, and the least ratio of draws per second."""


def rows() -> list[Row]:
    """The autocorrelation time of |m|, and effective draws of |m| per second of both kernels.

    Gibbs takes tens of thousands of sweeps to forget |m|. Its chains begin in draws by clusters,
    and its time is bounded from below by what the lags of one run add to it; the variance is that
    of the clusters' draws. So the ratio is a lower bound, too.
    """
    s = ed.spin("s", (SIDE, SIDE))
    bonds = (s * ed.roll(s, 1, 0)).sum() + (s * ed.roll(s, 1, 1)).sum()
    ebm = ed.compile(ed.Model(-CRITICAL * bonds))
    aligned = {"s": np.ones((SIDE, SIDE), int)}
    _, _, last = _run(ebm, ed.SwendsenWang(), 300, 1, aligned)
    series, seconds, last = _run(ebm, ed.SwendsenWang(), STEPS, 1, last)
    time = _time(series)
    rate = series.size / (2 * time) / seconds

    _run(ebm, ed.Gibbs(), 2 * THIN, THIN, last)
    slow, slow_seconds, _ = _run(ebm, ed.Gibbs(), SWEEPS // THIN, THIN, last)
    slow_time = THIN * _least_time(slow, series.var())
    slow_rate = slow.size * THIN / (2 * slow_time) / slow_seconds
    ratio = rate / slow_rate
    return [
        Row(
            f"Swendsen-Wang, |m|, Ising {SIDE} x {SIDE} at T_c",
            f"autocorrelation time {time:.1f} steps",
            f"{TIME:g} steps",
            limit(time, TIME),
        ),
        Row(
            f"Swendsen-Wang, |m|, {CHAINS} chains",
            f"{rate:.3g} effective draws/s",
            f"below {slow_rate:.3g} (Gibbs, time above {slow_time:,.0f} sweeps)",
            f"{ratio:.0f} x: {limit(GAIN, ratio)}",
        ),
    ]


def _run(ebm: ed.EBM, kernel: ed.AbstractKernel, draws: int, thin: int, start: dict) -> tuple:
    """|m| by chain and draw, the seconds, and the last configurations."""
    chains = ed.sample(
        ebm, kernel, key=jr.key(draws), chains=CHAINS, warmup=0, draws=draws, thin=thin,
        start=start, keep={"m": lambda x: jnp.abs(x["s"].mean())}, progress=False,
    )  # fmt: skip
    return chains.draws["m"], chains.seconds, chains.last


def _correlations(series: np.ndarray, variance: float) -> np.ndarray:
    """The autocorrelation at each lag up to half the length, from the mean squared change."""
    lags = range(1, series.shape[1] // 2)
    changes = [np.mean((series[:, k:] - series[:, :-k]) ** 2) for k in lags]
    return 1 - np.array(changes) / (2 * variance)


def _time(series: np.ndarray) -> float:
    """The integrated autocorrelation time, 1/2 plus the sum up to a window of six times itself.

    Source: Madras & Sokal (1988), Journal of Statistical Physics 50, 109-186.
    """
    times = 0.5 + np.cumsum(_correlations(series, series.var()))
    inside = np.arange(1, len(times) + 1) < 6 * times
    return float(times[np.argmin(inside)])


def _least_time(series: np.ndarray, variance: float) -> float:
    """A lower bound on the time: the sum up to the first lag without correlation."""
    found = _correlations(series, variance)
    return float(0.5 + found[: np.argmax(np.append(found, -1.0) < 0)].sum())
