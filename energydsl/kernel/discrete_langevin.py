"""Discrete Langevin: all finite sites at once, by independent steps along the gradient."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import jax.random as jr
from jax import Array

from energydsl._messages import described
from energydsl.compiler.ebm import EBM
from energydsl.kernel.acceptance import acceptance
from energydsl.kernel.discrete import AbstractDiscreteKernel, Levels
from energydsl.kernel.point import Point, check_between
from energydsl.kernel.tuning import Tuned

LONGEST = 1e6
"""The longest step; where every proposal is accepted, warmup would lengthen steps for ever."""


@described
class DiscreteLangevin(AbstractDiscreteKernel):
    r"""A Langevin-like step of all finite sites at once, each drawn independently of the others.

    Site i proposes the level v with the probability
    $q_i(v \mid x) \propto e^{-d_{iv}(x)/2 - r_{iv}^2/(2\alpha)}$, where $d_{iv}$ is the change
    of the energy that one derivative predicts, $\alpha$ is the step size, and $r_{iv}$ is the
    distance of the levels: the difference of their numbers (1 for spins and bits), and $\sqrt{2}$
    for two labels, as between one-hot vectors. With `adjusted`, a Metropolis test makes the
    stationary distribution exact, and warmup adapts $\alpha$ by dual averaging so that the
    acceptance rate approaches `target`. Without it, every proposal is accepted, $\alpha$ stays as
    given, and the stationary distribution has an error that vanishes with $\alpha$.

    A step computes one gradient, whatever the number of sites, and may change all of them. It is
    meant for energies that are no sums of small factors, such as networks.

    Args:
        step_size: $\alpha$, in squared numbers of levels.
        adjusted: whether to apply the Metropolis test.
        target: the acceptance rate that warmup aims at.
        variables: names of the variables to move; by default every free finite one.

    Source: Zhang, Liu & Liu (2022), ICML, PMLR 162, 26375-26396, equation 4 and algorithm 1; the
    target 0.574: Sun, Dai & Schuurmans (2022), NeurIPS 35.
    """

    step_size: float = 0.2
    adjusted: bool = True
    target: float = 0.574
    variables: tuple[str, ...] | None = None

    def __check_init__(self) -> None:
        check_between(self, "step_size", math.inf, "a number above 0")
        check_between(self, "target", 1.0, "a rate between 0 and 1")

    def merit(self, ebm: EBM) -> str:
        return "every free site is finite, and a step computes one gradient to change all sites"

    def begin(self, ebm: EBM, point: Point, *, key: Array, warmup: int) -> Tuned:
        return Tuned.begin(self.step_size, warmup if self.adjusted else 0)

    def move(
        self, ebm: EBM, point: Point, state: Tuned, *, random: Array
    ) -> tuple[Point, Tuned, dict[str, Array]]:
        propose_key, accept_key = jr.split(random)
        space = self.space(ebm)
        alpha = jnp.minimum(state.value, LONGEST)
        forth = _log_probs(space, point, alpha)
        keys = jr.split(propose_key, len(forth))
        drawn = [jr.categorical(k, each) for k, each in zip(keys, forth, strict=True)]
        new = self.at(ebm, jnp.concatenate(drawn).astype(point.z.dtype), point.x)
        if not self.adjusted:
            return new, state, {"step_size": alpha}

        back = _log_probs(space, new, alpha)
        log_ratio = _log_prob(space, back, point.z) - _log_prob(space, forth, new.z)
        rate = acceptance(point.energy, new.energy, log_ratio)
        taken = jr.uniform(accept_key) < rate
        point = jax.tree.map(lambda a, b: jnp.where(taken, a, b), new, point)
        info = {"acceptance_rate": rate, "step_size": alpha}
        return point, state.learn(rate, self.target), info


def _log_probs(space: Levels, point: Point, alpha: Array) -> list[Array]:
    """For each variable, the log-probability with which each site proposes each level."""
    logs = []
    for v, level, change in zip(space.variables, space.split(point.z), point.slope, strict=True):
        gap = jnp.arange(change.shape[1]) - level[:, None]
        squared = gap**2 if v.domain.ordered else 2 * (gap != 0)
        logs.append(jax.nn.log_softmax(-change / 2 - squared / (2 * alpha), axis=1))
    return logs


def _log_prob(space: Levels, logs: list[Array], z: Array) -> Array:
    """The log-probability with which all sites together propose these levels."""
    parts = zip(logs, space.split(z), strict=True)
    each = [jnp.sum(jnp.take_along_axis(p, i[:, None], axis=1)) for p, i in parts]
    return jnp.sum(jnp.stack(each))
