"""Langevin dynamics: gradient steps with noise, with or without a Metropolis correction."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array, lax

from energydsl._messages import described
from energydsl.analysis.uniform import open_uniform
from energydsl.compiler.ebm import EBM
from energydsl.kernel.gradient import AbstractGradientKernel, Point, check_between
from energydsl.kernel.summed import Target
from energydsl.kernel.tuning import Tuned


@described
class Langevin(AbstractGradientKernel):
    r"""Langevin step in unconstrained coordinates: $z' = z - h \nabla U(z) + \sqrt{2h}\,\xi$.

    With `adjusted` (MALA), a Metropolis test makes the stationary distribution exact, and warmup
    adapts $h$ by dual averaging so that the acceptance rate approaches `target`. Without it (ULA),
    every step is accepted, $h$ stays as given, and the stationary distribution has an error of
    O(h): for a standard normal the variance is $1/(1 - h/2)$.

    Args:
        step_size: $h$, in squared units of the unconstrained coordinates.
        adjusted: whether to apply the Metropolis test.
        target: the acceptance rate that warmup aims at.
        variables: names of the variables to move; by default every free continuous one.
        summed: whether the free sites with finitely many levels, such as the labels of a mixture,
            are summed out exactly and drawn given the others after each move.

    Source: Roberts & Tweedie (1996), Bernoulli 2(4), 341-363, sections 1.4.1 and 1.4.2; the
    target 0.574: Roberts & Rosenthal (1998), JRSS B 60(1), 255-268, theorem 1.
    """

    step_size: float = 0.1
    adjusted: bool = True
    target: float = 0.574
    variables: tuple[str, ...] | None = None

    def __check_init__(self) -> None:
        check_between(self, "step_size", math.inf, "a number above 0")
        check_between(self, "target", 1.0, "a rate between 0 and 1")

    def merit(self, ebm: EBM) -> str:
        return "every free site is continuous, and a step computes one gradient"

    def begin(self, ebm: Target, point: Point, *, key: Array, warmup: int) -> Tuned:
        return Tuned.begin(self.step_size, warmup if self.adjusted else 0)

    def randoms(self, key: Array, chains: int, size: int) -> tuple[Array, Array | None]:
        """Standard normals, and for the Metropolis test a uniform number, all in one call."""
        u = open_uniform(key, (chains, size + self.adjusted))
        # The barrier prevents XLA from recomputing the normals wherever they are used.
        noise = lax.optimization_barrier(_normal(u[:, :size]))
        return noise, u[:, size] if self.adjusted else None

    def move(
        self, ebm: Target, point: Point, state: Tuned, *, random: tuple[Array, Array | None]
    ) -> tuple[Point, Tuned, dict[str, Array]]:
        h = state.value
        noise, height = random
        new = self.at(ebm, point.z - h * point.slope + jnp.sqrt(2 * h) * noise, point.x)
        if height is None:
            return new, state, {"step_size": h}

        back = point.z - new.z + h * new.slope
        log_ratio = point.energy - new.energy + (noise @ noise) / 2 - (back @ back) / (4 * h)
        accept = jnp.exp(jnp.minimum(jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio), 0.0))
        taken = height < accept
        point = jax.tree.map(lambda a, b: jnp.where(taken, a, b), new, point)
        info = {"acceptance_rate": accept, "step_size": h}
        return point, state.learn(accept, self.target), info


def _normal(u: Array) -> Array:
    return jnp.sqrt(2.0) * lax.erf_inv(2 * u - 1)
