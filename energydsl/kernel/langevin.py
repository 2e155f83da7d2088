"""Langevin dynamics: a step down the gradient with noise, corrected or not."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax import Array
from jaxtyping import Float, Int
from numpyro.infer.hmc_util import dual_averaging

from energydsl.ebm import EBM
from energydsl.kernel.gradient import AbstractGradientKernel, Point


class LangevinState(eqx.Module):
    """What a chain has learnt: its step size, and how long it may still learn."""

    log_step: Float[Array, ""]
    averages: Any
    warmup_left: Int[Array, ""]


class Langevin(AbstractGradientKernel):
    r"""Langevin step in unconstrained coordinates: $z' = z - h \nabla U(z) + \sqrt{2h}\,\xi$.

    With `adjusted` (MALA) a Metropolis test makes the law exact, and warmup tunes $h$ towards
    the acceptance `target` by dual averaging. Without it (ULA) no step is refused, $h$ stays as
    given, and the law is off by O(h): for a standard normal the variance is $1/(1 - h/2)$.

    Args:
        step_size: $h$, in squared units of the unconstrained coordinates.
        adjusted: whether to test.
        target: the acceptance rate that warmup aims at.
        variables: names of those to move; every free continuous one if not given.

    Source: Roberts & Tweedie (1996), Bernoulli 2(4), 341-363, sections 1.4.1 and 1.4.2; the
    target 0.574: Roberts & Rosenthal (1998), JRSS B 60(1), 255-268, theorem 1.
    """

    step_size: float = 0.1
    adjusted: bool = True
    target: float = 0.574
    variables: tuple[str, ...] | None = None

    def __check_init__(self) -> None:
        if not self.step_size > 0:
            raise ValueError(f"Langevin got step_size={self.step_size}; expected a number above 0.")
        if not 0 < self.target < 1:
            raise ValueError(f"Langevin got target={self.target}; expected a rate between 0 and 1.")

    def begin(self, ebm: EBM, point: Point, *, key: Array, warmup: int) -> LangevinState:
        log_step = jnp.log(jnp.asarray(self.step_size, float))
        averages = dual_averaging()[0](jnp.log(10.0) + log_step)  # type: ignore[arg-type]
        left = warmup if self.adjusted else 0
        return LangevinState(log_step, averages, jnp.asarray(left))

    def move(
        self, ebm: EBM, point: Point, state: LangevinState, *, key: Array
    ) -> tuple[Point, LangevinState, dict[str, Array]]:
        noise_key, accept_key = jr.split(key)
        h = jnp.exp(state.log_step)
        noise = jr.normal(noise_key, point.z.shape)
        new = self.at(ebm, point.z - h * point.slope + jnp.sqrt(2 * h) * noise, point.x)
        if not self.adjusted:
            return new, state, {"step_size": h}

        back = point.z - new.z + h * new.slope
        log_ratio = point.energy - new.energy + (noise @ noise) / 2 - (back @ back) / (4 * h)
        accept = jnp.exp(jnp.minimum(jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio), 0.0))
        taken = jr.uniform(accept_key) < accept
        point = _choose(taken, new, point)
        info = {"acceptance_rate": accept, "step_size": h}
        return point, self._learn(state, accept), info

    def _learn(self, state: LangevinState, accept: Array) -> LangevinState:
        update = dual_averaging()[1]
        averages = update(self.target - accept, state.averages)
        # Adapting for ever would bias the chain: with warmup's end the average stays.
        log_step = jnp.where(state.warmup_left > 1, averages[0], averages[1])
        learning = state.warmup_left > 0
        old = (state.log_step, state.averages)
        log_step, averages = _choose(learning, (log_step, averages), old)
        return LangevinState(log_step, averages, state.warmup_left - learning)


def _choose(condition: Array, a: Any, b: Any) -> Any:
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)
