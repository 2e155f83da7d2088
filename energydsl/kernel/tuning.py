"""Step sizes: adapted during warmup towards an acceptance rate, or given by a schedule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int
from numpyro.infer.hmc_util import dual_averaging


class Tuned(eqx.Module):
    """A positive number, such as a step size, that is adapted during warmup.

    It decreases while the acceptance rate is below its target, and increases while it is above.
    Since adapting for ever would bias the chain, it is fixed at its average when warmup ends.

    Source: Nesterov's dual averaging, as in Hoffman & Gelman (2014), JMLR 15, section 3.2.
    """

    log_value: Float[Array, ""]
    averages: Any
    warmup_left: Int[Array, ""]

    @staticmethod
    def begin(value: float, warmup: int) -> Tuned:
        """The initial state, at `value`, with `warmup` steps of adaptation."""
        log_value = jnp.log(jnp.asarray(value, float))
        averages = dual_averaging()[0](jnp.log(10.0) + log_value)  # type: ignore[arg-type]
        return Tuned(log_value, averages, jnp.asarray(warmup))

    @property
    def value(self) -> Array:
        """The present value of the number."""
        return jnp.exp(self.log_value)

    def learn(self, accept: Array, target: float) -> Tuned:
        """The state after a step that was accepted with the probability `accept`."""
        averages = dual_averaging()[1](target - accept, self.averages)
        log_value = jnp.where(self.warmup_left > 1, averages[0], averages[1])
        learning = self.warmup_left > 0
        new = Tuned(log_value, averages, self.warmup_left - learning)
        return jax.tree.map(lambda a, b: jnp.where(learning, a, b), new, self)


class Scheduled(eqx.Module):
    """A step size that is a given function of the number of steps made so far."""

    schedule: Callable[[Any], Any] = eqx.field(static=True)
    steps: Int[Array, ""]

    @property
    def value(self) -> Array:
        """The present step size."""
        return jnp.asarray(self.schedule(self.steps), float)

    def learn(self, accept: Array, target: float) -> Scheduled:
        """The state after one more step, however it was accepted."""
        return Scheduled(self.schedule, self.steps + 1)
