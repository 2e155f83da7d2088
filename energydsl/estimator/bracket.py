"""Annealing in both directions: a lower end from the base, an upper end from the model."""

from __future__ import annotations

import dataclasses

import jax.random as jr
import numpy as np
from jax import Array
from scipy.special import logsumexp

from energydsl._messages import described
from energydsl.compiler.ebm import EBM
from energydsl.estimator.annealed import Annealed
from energydsl.estimator.base import LONG_CHAINS, AbstractEstimator, check_settings
from energydsl.kernel.base import AbstractKernel
from energydsl.normalizer.log_z import LogZ

GROUPS = 16
"""The number of independent groups of chains of which the lowest mean weight is taken."""

RISK = 0.025
"""The probability, at most, with which each end of a bracket is wrong."""


@described
class Bracket(AbstractEstimator):
    r"""Log Z between two ends that hold whatever the mixing, by annealing in both directions.

    Chains run from the base to the model as those of `AIS`, with weights $\mathbb{E}\,w = Z$, and
    from the model to the base as those of `ReverseAIS`, with weights $\mathbb{E}\,w' = 1/Z$. By
    Markov's inequality the mean of any k weights exceeds $a Z$ with probability $1/a$ at most, and
    the lowest of g independent means exceeds it with probability $a^{-g}$ at most. The lower end is
    the better one of the mean of all weights and the lowest mean of 16 groups, each reduced so that
    it is above log Z with probability 1.25 % at most; the upper end likewise, from $w'$. No
    assumption on the variance of the weights is needed. For the upper end the chains must begin
    with exact draws (see `ReverseAIS`); without such draws they continue those of the forward run
    for `warmup` transitions, and the result's `doubts` say so.

    More temperatures bring the ends together. The value is the middle of the two estimates.

    Args:
        kernel: as of `AIS`.
        chains: the number of chains in each direction.
        temperatures: the number of steps in $\beta$.
        steps: transitions of the kernel at each $\beta_k$.
        warmup: transitions at the model before the reverse run, where draws are not exact.

    Raises:
        ValueError: as of `AIS`.

    Source: Grosse, Ghahramani & Adams (2015), arXiv:1511.02543, section 3; Gogate, Bidyuk &
    Dechter (2007), UAI, 141-148, section 3, for the lowest of several means.
    """

    kernel: AbstractKernel | None = None
    chains: int = 128
    temperatures: int = 500
    steps: int = 1
    warmup: int = 1000

    def __check_init__(self) -> None:
        check_settings(self, chains=2, temperatures=1, steps=1, warmup=0)

    def estimate(self, ebm: EBM, *, key: Array) -> LogZ:
        ready_key, forward_key, draw_key, backward_key = jr.split(key, 4)
        ready = Annealed(ebm, self.kernel, self.chains, self.temperatures // 2, key=ready_key)
        up, carry = ready.forward(self.temperatures, self.steps, key=forward_key)
        carry, exact = ready.at_model(carry, self.warmup, key=draw_key)
        down = ready.backward(carry, self.temperatures, self.steps, key=backward_key)
        found = bracketed(up, down)
        return found if exact else found.doubted(LONG_CHAINS)

    def doubled(self) -> Bracket:
        return dataclasses.replace(self, temperatures=2 * self.temperatures, warmup=2 * self.warmup)


def bracketed(up: np.ndarray, down: np.ndarray) -> LogZ:
    """The bracket from log weights whose expectations are Z (up) and 1/Z (down)."""
    below, above = LogZ.from_log_weights(up), LogZ.from_log_inverse_weights(down)
    lower, upper = floor(up), -floor(down)
    doubts = [f"forward: {d}" for d in below.doubts] + [f"reverse: {d}" for d in above.doubts]
    if below.upper < above.lower or above.upper < below.lower:
        doubts.append(
            f"the forward run gives {below.value:.6g} +- {below.standard_error:.2g} and the "
            f"reverse run {above.value:.6g} +- {above.standard_error:.2g}: these are apart, so "
            "that the value may be anywhere between the ends"
        )
    if lower > upper:
        doubts.append(f"the lower end exceeds the upper one by {lower - upper:.2g}")
    sides = [side for side in (below, above) if np.isfinite(side.value)]
    value = float(np.mean([side.value for side in sides])) if sides else np.nan
    error = float(np.hypot(below.standard_error, above.standard_error) / 2)
    ess = min(below.ess, above.ess)
    return LogZ(value, error, lower, upper, "bracket", ess, tuple(doubts))


def floor(log_weights: np.ndarray) -> float:
    """A number above the log of the expected weight with probability `RISK` at most."""
    if not len(log_weights):
        return -np.inf
    ends = []
    for groups in (1, min(GROUPS, len(log_weights))):
        parts = np.array_split(log_weights, groups)
        means = [logsumexp(part) - np.log(len(part)) for part in parts]
        ends.append(min(means) + np.log(RISK / 2) / groups)
    return float(max(ends))
