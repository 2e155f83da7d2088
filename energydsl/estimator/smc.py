"""Sequential Monte Carlo: annealing with resampling, on a ladder that adapts."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array, lax
from scipy.special import logsumexp

from energydsl._messages import described
from energydsl.compiler.ebm import EBM
from energydsl.estimator.annealed import PILOT, Annealed, advanced, stretched, windows
from energydsl.estimator.base import AbstractEstimator, check_settings
from energydsl.kernel.base import AbstractKernel
from energydsl.normalizer.log_z import LogZ

MOST_RUNGS = 2000
"""The most steps in beta of a ladder: no step is shorter than the inverse of this."""

WINDOW = 16
"""The rungs that one call of the compiled program passes: any ladder is a number of such calls."""

HALVINGS = 30
"""The steps of bisection for each rung of the ladder."""


@described
class SMC(AbstractEstimator):
    r"""Sequential Monte Carlo with any kernel, along the path of `AIS`.

    A population of particles passes from the base to the model. At each step in $\beta$ every
    particle's weight is multiplied by the ratio of the two densities. When the effective number of
    particles falls below half of them, the population is resampled (systematically), so that
    particles in states of low weight are replaced by copies of others. Then the kernel moves every
    particle. The estimate of Z is the product of the mean ratios.

    The ladder adapts: in a first run each $\beta$ is found by bisection, so that the conditional
    effective number of particles, $N (\sum_i W_i u_i)^2 / \sum_i W_i u_i^2$ with normalised weights
    $W$ and ratios $u$, is `conditional` times N. Then `replicates` independent populations pass
    along this ladder, now fixed, so that $\mathbb{E}\,\hat Z = Z$ holds exactly for each. The value
    is the log of their mean, its standard error the jackknife estimate over the replicates, with
    Student's interval. Resampling within a population makes its particles dependent, so that their
    spread would not be an error. `ess` is the effective number of replicates.

    Args:
        kernel: any kernel that updates every free site; by default the applicable one with the
            cheapest steps.
        particles: the number of particles of each population.
        replicates: the number of independent populations.
        conditional: the conditional effective share of particles at each rung, above 0 and below 1;
            closer to 1 makes more rungs.
        steps: transitions of the kernel at each rung.

    Raises:
        ValueError: a count below two (one for `steps`), a `conditional` that is not between 0 and
            1, a kernel that leaves out a free site, or no population with a weight above zero.

    Source: Del Moral, Doucet & Jasra (2006), J. R. Statist. Soc. B 68, 411-436; Zhou, Johansen &
    Aston (2016), J. Comput. Graph. Statist. 25, 701-726, sections 3.2 and 4.2, for the ladder.
    """

    kernel: AbstractKernel | None = None
    particles: int = 128
    replicates: int = 16
    conditional: float = 0.95
    steps: int = 1

    def __check_init__(self) -> None:
        check_settings(self, particles=2, replicates=2, steps=1)
        if not 0 < self.conditional < 1:
            raise ValueError(
                f"SMC got conditional={self.conditional!r}; expected a share between 0 and 1."
            )

    def estimate(self, ebm: EBM, *, key: Array) -> LogZ:
        ready_key, ladder_key, run_key = jr.split(key, 3)
        count = self.replicates * self.particles
        ready = Annealed(ebm, self.kernel, count, PILOT, key=ready_key)
        betas = self._ladder(ready, key=ladder_key)
        return LogZ.from_log_weights(self._populations(ready, betas, key=run_key))

    def doubled(self) -> SMC:
        return dataclasses.replace(self, particles=2 * self.particles)

    def _ladder(self, ready: Annealed, *, key: Array) -> np.ndarray:
        """The betas, found with all particles as one population."""
        draw_key, run_key = jr.split(key)
        cloud = _Cloud(ready.drawn(key=draw_key), _even(1, ready.count))
        share = jnp.asarray(self.conditional, float)
        betas = _adapted(ready, cloud, share, self.steps, key=run_key)
        found = np.asarray(betas, np.float64)
        return found[: int(np.argmax(found >= 1.0)) + 1]

    def _populations(self, ready: Annealed, betas: np.ndarray, *, key: Array) -> np.ndarray:
        """The log of each population's estimate of Z."""
        draw_key, run_key = jr.split(key)
        even = _even(self.replicates, self.particles)
        cloud, total = _Cloud(ready.drawn(key=draw_key), even), np.zeros(self.replicates)
        for k, window in enumerate(windows(betas, WINDOW)):
            cloud, terms = _passed(ready, cloud, window, self.steps, key=jr.fold_in(run_key, k))
            total += np.asarray(terms, np.float64).sum(axis=0)
        lost = ready.forbidden(cloud.carry).reshape(even.shape)
        last = np.where(lost, -np.inf, np.asarray(cloud.log_shares, np.float64))
        return ready.path.base.log_partition + total + np.asarray(logsumexp(last, axis=1))


class _Cloud(eqx.Module):
    """Populations of particles."""

    carry: Any
    """All particles as chains of one ensemble, one population after another."""
    log_shares: Array
    """The logs of normalised weights, (population, particle)."""

    def gaps(self, ready: Annealed) -> Array:
        """E - E_base of each particle, (population, particle)."""
        xs = ready.ensemble.configurations(ready.path.ebm, self.carry)
        gaps = jax.vmap(lambda x: ready.path.gap(x, ready.place))(xs)
        return gaps.reshape(self.log_shares.shape)

    def weighted(self, log_ratios: Array) -> tuple[_Cloud, Array]:
        """With the weights multiplied by ratios, and the log of each population's mean ratio."""
        logs = self.log_shares + log_ratios
        means = jax.nn.logsumexp(logs, axis=1)
        # A population whose weights are all 0 keeps them.
        shares = jnp.where(jnp.isfinite(means)[:, None], logs - means[:, None], self.log_shares)
        return _Cloud(self.carry, shares), means

    def moved(self, ready: Annealed, beta: Array, steps: int, key: Array) -> _Cloud:
        """Resampled where the effective number of particles is low, and moved at beta."""
        draw_key, move_key = jr.split(key)
        groups, size = self.log_shares.shape
        few = 1 / jnp.sum(jnp.exp(2 * self.log_shares), axis=1) < size / 2
        chosen = jax.vmap(_systematic)(jnp.exp(self.log_shares), jr.split(draw_key, groups))
        chosen = jnp.where(few[:, None], chosen, jnp.arange(size))
        shares = jnp.where(few[:, None], -jnp.log(size), self.log_shares)
        ebm = ready.path.at(beta, ready.place)
        flat = (chosen + size * jnp.arange(groups)[:, None]).ravel()
        xs = ready.ensemble.configurations(ebm, self.carry)
        carry = ready.ensemble.place(ebm, self.carry, jax.tree.map(lambda a: a[flat], xs))
        carry = ready.ensemble.refresh(ebm, carry)
        return _Cloud(advanced(ready.ensemble, ebm, carry, steps, move_key), shares)


def _even(groups: int, size: int) -> Array:
    return jnp.full((groups, size), -np.log(size), float)


def _systematic(shares: Array, key: Array) -> Array:
    """The ancestors of a population, at evenly spaced heights of the cumulated shares."""
    size = len(shares)
    heights = (jr.uniform(key) + jnp.arange(size)) / size
    ladder = jnp.cumsum(shares)
    return jnp.minimum(jnp.searchsorted(ladder, heights * ladder[-1]), size - 1)


@eqx.filter_jit
def _passed(
    ready: Annealed, cloud: _Cloud, betas: Array, steps: int, *, key: Array
) -> tuple[_Cloud, Array]:
    """The populations after a window of rungs, and the logs of the mean ratios, (rung, group)."""

    def rung(cloud: _Cloud, now: tuple[Array, Array, Array]) -> tuple[_Cloud, Array]:
        before, beta, key = now
        cloud, means = cloud.weighted(-stretched(beta - before, cloud.gaps(ready)))
        return cloud.moved(ready, beta, steps, key), means

    return lax.scan(rung, cloud, (betas[:-1], betas[1:], jr.split(key, len(betas) - 1)))


@eqx.filter_jit
def _adapted(
    ready: Annealed, cloud: _Cloud, conditional: Array, steps: int, *, key: Array
) -> Array:
    """The betas of the ladder; after the first 1 only ones follow."""

    def unfinished(kept: tuple[_Cloud, Array, Array]) -> Array:
        _, betas, k = kept
        return betas[k] < 1.0

    def rung(kept: tuple[_Cloud, Array, Array]) -> tuple[_Cloud, Array, Array]:
        cloud, betas, k = kept
        gaps = cloud.gaps(ready)
        step = _longest_step(cloud.log_shares, gaps, 1.0 - betas[k], conditional)
        beta = jnp.where(betas[k] + step > 1.0 - 0.5 / MOST_RUNGS, 1.0, betas[k] + step)
        cloud, _ = cloud.weighted(-(beta - betas[k]) * gaps)
        return cloud.moved(ready, beta, steps, keys[k]), betas.at[k + 1].set(beta), k + 1

    keys, betas = jr.split(key, MOST_RUNGS + 1), jnp.ones(MOST_RUNGS + 2).at[0].set(0.0)
    return lax.while_loop(unfinished, rung, (cloud, betas, jnp.asarray(0)))[1]


def _longest_step(log_shares: Array, gaps: Array, most: Array, conditional: Array) -> Array:
    """The step in beta at which the conditional effective share has the wanted value."""

    def share(step: Array) -> Array:
        ratios = -step * gaps
        once = jax.nn.logsumexp(log_shares + ratios)
        return jnp.exp(2 * once - jax.nn.logsumexp(log_shares + 2 * ratios))

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        long = share(middle) < conditional
        return jnp.where(long, low, middle), jnp.where(long, middle, high)

    found = lax.fori_loop(0, HALVINGS, halve, (jnp.zeros_like(most), most))[0]
    found = jnp.where(share(most) >= conditional, most, found)
    return jnp.maximum(found, 1.0 / MOST_RUNGS)
