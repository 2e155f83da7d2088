"""Hamiltonian Monte Carlo with trajectories of a given length, by NumPyro's implementation."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import jax.random as jr
from jax import Array

from energydsl._messages import brief, described
from energydsl.compiler.ebm import EBM
from energydsl.kernel.hamiltonian import AbstractHamiltonianKernel, HamiltonianState, statistics
from energydsl.kernel.point import Point, check_between
from energydsl.kernel.summed import Target

SHORTEST, LONGEST = 0.5, 1.5
"""The lengths between which a trajectory's length is drawn, in units of `trajectory`."""

MOST_STEPS = 1024
"""The most leapfrog steps of a trajectory; it is shorter where warmup tries very small steps."""


@described
class HMC(AbstractHamiltonianKernel):
    r"""Hamiltonian Monte Carlo for the free continuous sites, in unconstrained coordinates.

    A step follows the dynamics for a time that is drawn uniformly between 0.5 and 1.5 times
    `trajectory`: dynamics for a fixed time may be periodic, and then return to where they started.
    With `steps`, it makes this number of leapfrog steps instead, whatever their size. Warmup adapts
    the step size (dual averaging) and the mass matrix (Welford, in windows).
    A trajectory has at most 1024 leapfrog steps.

    Args:
        step_size: the initial size of a leapfrog step.
        trajectory: the mean length of a trajectory, in units of the step size. With an adapted
            mass matrix a normal distribution has the period $2\pi$, so that a quarter of a period,
            the default, forgets the start.
        steps: the number of leapfrog steps of a trajectory; None to follow `trajectory`.
        target: the acceptance rate that warmup aims at.
        dense_mass: whether to adapt a full mass matrix instead of a diagonal one.
        variables: names of the variables to move; by default every free continuous one.
        summed: whether the free sites with finitely many levels, such as the labels of a mixture,
            are summed out exactly and drawn given the others after each move.

    Source: Neal (2011), Handbook of Markov Chain Monte Carlo, chapter 5; random lengths: its
    section 3.2; NumPyro's `numpyro.infer.hmc`.
    """

    step_size: float = 1.0
    trajectory: float = math.pi / 2
    steps: int | None = None
    target: float = 0.8
    dense_mass: bool = False
    variables: tuple[str, ...] | None = None

    def __check_init__(self) -> None:
        check_between(self, "step_size", math.inf, "a number above 0")
        check_between(self, "trajectory", math.inf, "a length above 0")
        check_between(self, "target", 1.0, "a rate between 0 and 1")
        if self.steps is not None and (not isinstance(self.steps, int) or self.steps < 1):
            raise ValueError(
                f"HMC got steps={brief(self.steps)}; expected a whole number of at least 1, or "
                "None to follow `trajectory`."
            )

    def merit(self, ebm: EBM) -> str:
        return "every free site is continuous, and a step follows a trajectory of a fixed length"

    def effort(self, ebm: EBM) -> float:
        return float(self.steps or max(1.0, self.trajectory / self.step_size))

    @property
    def algorithm(self) -> str:
        return "HMC"

    def settings(self) -> dict[str, Any]:
        length = None if self.steps else self.trajectory
        return {"num_steps": self.steps, "trajectory_length": length}

    def move(
        self, ebm: Target, point: Point, state: HamiltonianState, *, random: Array
    ) -> tuple[Point, HamiltonianState, dict[str, Array]]:
        length_key, key = jr.split(random)
        changes = {}
        if not self.steps:
            share = jr.uniform(length_key, minval=SHORTEST, maxval=LONGEST)
            reach = MOST_STEPS * state.adaptation.step_size
            changes = {"trajectory_length": jnp.minimum(self.trajectory * share, reach)}
        point, state, new = self.travel(ebm, point, state, key=key, **changes)
        return point, state, statistics(new)
