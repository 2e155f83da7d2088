"""Draws from chains that pass through a ladder of temperatures, up and down again."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array, lax
from scipy.special import stdtr

from energydsl._types import Configuration
from energydsl.compiler.ebm import EBM
from energydsl.estimator.annealed import PILOT, Annealed
from energydsl.estimator.base import AbstractEstimator
from energydsl.kernel.base import AbstractKernel
from energydsl.normalizer.log_z import LogZ

PILOT_RUNGS = 8
"""The number of steps in beta of the first pass, from which the ladder is found."""

EVEN = 0.1
"""The share of the ladder's steps that are spread evenly over beta, whatever the first pass saw."""

FALSE_ALARM = 1e-4
"""The probability with which chains that have settled are said not to have."""


@dataclasses.dataclass(frozen=True)
class Tempered:
    r"""Draws at each rung of a ladder $0 = \beta_0 < \dots < \beta_K = 1$ from base to model.

    The energies of two rungs differ by a multiple of the gap $g = E - E_\text{base}$, so that the
    gaps of the draws are all that free energies need. Each chain passes through every rung twice,
    from the base to the model and back, and is independent of the other chains. A chain that lags
    behind the temperature has too high an energy on one way and too low a one on the other.
    """

    betas: np.ndarray
    """(rung,)"""
    gaps: np.ndarray
    """(rung, chain, draw), float64; infinite where the energy is. The first half of the draws is
    from the way up, the other from the way down."""
    allowed: np.ndarray
    """(rung, chain, draw): whether the model itself allows the state."""
    log_base: float
    """Log Z of the base."""

    @staticmethod
    def run(
        ebm: EBM,
        kernel: AbstractKernel | None,
        *,
        chains: int,
        temperatures: int,
        warmup: int,
        draws: int,
        key: Array,
    ) -> Tempered:
        """Draws from chains at `temperatures` steps in beta, on a ladder that a first pass finds.

        Raises:
            ValueError: the kernel leaves out a free site, or the base has no density.
        """
        ready_key, ladder_key, run_key = jr.split(key, 3)
        ready = Annealed(ebm, kernel, chains, PILOT, key=ready_key)
        even = np.linspace(0.0, 1.0, PILOT_RUNGS + 1)
        first = _passed(ready, even, warmup, draws, key=ladder_key)
        return _passed(ready, first.ladder(temperatures), warmup, draws, key=run_key)

    @property
    def kept(self) -> np.ndarray:
        """Which draws are draws of their rung: not those in a state that its energy forbids.

        At the base, which is drawn from exactly, these are all.
        """
        return np.isfinite(self.gaps) | (self.betas == 0)[:, None, None]

    def ladder(self, temperatures: int) -> np.ndarray:
        r"""Betas with equal steps of $\int \sqrt{\operatorname{Var}_\beta g}\,d\beta$.

        These make the variance of log Z least, and neighbours overlap equally.

        Source: Gelman & Meng (1998), Statistical Science 13(2), 163-185.
        """
        spread = np.nan_to_num(np.array([_spread(g) for g in self.gaps]))
        fine = np.linspace(0.0, 1.0, 1001)
        height = np.interp(fine, self.betas, spread)
        areas = (height[1:] + height[:-1]) / 2
        total = areas.sum()
        shares = areas / total if 0 < total < np.inf else np.full(1000, 1e-3)
        length = np.concatenate([[0.0], np.cumsum((1 - EVEN) * shares + EVEN / 1000)])
        betas = np.interp(np.linspace(0.0, length[-1], temperatures + 1), length, fine)
        betas[-1] = 1.0
        return betas

    def lacks(self) -> str | None:
        """The reason why no estimate follows from these draws, if there is one."""
        wrong = np.isnan(self.gaps) | np.isneginf(self.gaps)
        if wrong.any():
            beta, seen = self.betas[np.nonzero(wrong)[0][0]], self.gaps[wrong][0]
            return f"a draw at beta = {beta:.3g} has the energy {seen}"
        empty = ~np.isfinite(self.gaps).any(axis=(1, 2))
        if empty.any():
            return (
                f"all {self.gaps[0].size} draws at beta = {self.betas[np.argmax(empty)]:.3g} are "
                "in states of infinite energy"
            )
        if not self.allowed[-1].any():
            return f"all {self.gaps[0].size} draws at beta = 1 are in states that the model forbids"
        return None

    def unsettled(self) -> tuple[str, ...]:
        r"""The doubt that the chains lag behind the temperatures.

        The $\int \mathbb{E}_\beta\,g\,d\beta$ of each chain on its way up and on its way down are
        compared by a t-test over the chains.
        """
        half, chains = self.gaps.shape[2] // 2, self.gaps.shape[1]
        finite = np.where(np.isfinite(self.gaps), self.gaps, np.nan)[1:]
        drifts = _means(finite[:, :, :half]) - _means(finite[:, :, half:])
        steps = np.diff(self.betas)
        lags = np.nansum((steps + np.append(steps[1:], 0.0))[:, None] / 2 * drifts, axis=0)
        lag, error = lags.mean(), lags.std(ddof=1) / np.sqrt(chains)
        if not error or 2 * stdtr(chains - 1, -abs(lag) / error) > FALSE_ALARM:
            return ()
        return (
            "the chains lag behind their temperatures: on the way up log Z is "
            f"{'lower' if lag > 0 else 'higher'} by {abs(lag):.2g} than on the way down, so take "
            "a longer warmup",
        )


class AbstractTempered(AbstractEstimator):
    """An estimator of log Z from chains that `Tempered.run` moves through a ladder."""

    kernel: AbstractKernel | None = None
    chains: int = 32
    temperatures: int = 32
    warmup: int = 16
    draws: int = 24

    @abc.abstractmethod
    def concluded(self, tempered: Tempered) -> LogZ:
        """Log Z from the draws at all rungs."""

    def estimate(self, ebm: EBM, *, key: Array) -> LogZ:
        sizes = {n: getattr(self, n) for n in ("chains", "temperatures", "warmup", "draws")}
        return self.concluded(Tempered.run(ebm, self.kernel, **sizes, key=key))

    def doubled(self) -> AbstractTempered:
        return dataclasses.replace(self, temperatures=2 * self.temperatures)


def _means(values: np.ndarray) -> np.ndarray:
    """The means over the last axis of those that are numbers; NaN if none are."""
    count = np.isfinite(values).sum(axis=-1)
    return np.nansum(values, axis=-1) / np.where(count, count, np.nan)


def _spread(gaps: np.ndarray) -> float:
    """The standard deviation of the finite gaps."""
    finite = gaps[np.isfinite(gaps)]
    return float(finite.std()) if finite.size else 0.0


def _passed(ready: Annealed, betas: np.ndarray, warmup: int, draws: int, *, key: Array) -> Tempered:
    """Draws from chains that begin at the base and rise to the model and return.

    At each beta they stay for `warmup` transitions and as many as there are draws. Each stay is one
    call of one program, so that longer ladders do not recompile.
    """
    base_key, start_key, run_key = jr.split(key, 3)
    carry = ready.drawn(key=start_key)
    stays = []
    for k, beta in enumerate([*betas[1:], *betas[:0:-1]]):
        keys = jr.split(jr.fold_in(run_key, k), warmup + draws)
        carry, found = _stay(ready, carry, jnp.asarray(beta, float), keys)
        stays.append(jax.tree.map(lambda a: a[warmup:], found))
    up, down = stays[: len(betas) - 1], stays[: len(betas) - 2 : -1]
    both = [
        jax.tree.map(lambda *a: np.concatenate(a), *pair) for pair in zip(up, down, strict=True)
    ]
    seen = [_at_base(ready, jr.split(base_key, 2 * draws)), *both]
    gaps, forbidden = (np.swapaxes(np.stack(s), 1, 2) for s in zip(*seen, strict=True))
    return Tempered(betas, gaps.astype(np.float64), ~forbidden, ready.path.base.log_partition)


def _observed(ready: Annealed, xs: Configuration) -> tuple[Array, Array]:
    """The gap of each chain's configuration, and whether the model forbids it."""
    gaps = jax.vmap(lambda x: ready.path.gap(x, ready.place))(xs)
    return gaps, jax.vmap(ready.path.forbidden)(xs)


@eqx.filter_jit
def _at_base(ready: Annealed, keys: Array) -> tuple[Array, Array]:
    """What independent draws from the base show, (draw, chain)."""

    def at(key: Array) -> tuple[Array, Array]:
        draw = jax.vmap(lambda k: ready.path.base.draw(ready.path.ebm, ready.place, key=k))
        return _observed(ready, draw(jr.split(key, ready.count)))

    return lax.map(at, keys)


@eqx.filter_jit
def _stay(ready: Annealed, carry: Any, beta: Array, keys: Array) -> tuple[Any, tuple[Array, Array]]:
    """The carry after one transition a key, and what each showed, (transition, chain)."""
    ensemble, ebm = ready.ensemble, ready.path.at(beta, ready.place)
    tables = ensemble.load(ebm)

    def step(carry: Any, key: Array) -> tuple[Any, tuple[Array, Array]]:
        carry, _ = ensemble.advance(ebm, tables, carry, key=key)
        return carry, _observed(ready, ensemble.configurations(ebm, carry))

    return lax.scan(step, ensemble.refresh(ebm, carry), keys)
