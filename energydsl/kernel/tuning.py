"""A step size that warmup tunes towards an acceptance rate, then leaves alone."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int
from numpyro.infer.hmc_util import dual_averaging


class Tuned(eqx.Module):
    """A positive number that falls where too little is accepted, and rises where too much.

    Adapting for ever would bias the chain: with warmup's end it stays at its average.

    Source: Nesterov's dual averaging, as in Hoffman & Gelman (2014), JMLR 15, section 3.2.
    """

    log_value: Float[Array, ""]
    averages: Any
    warmup_left: Int[Array, ""]

    @staticmethod
    def begin(value: float, warmup: int) -> Tuned:
        """At `value`, with `warmup` steps to learn in."""
        log_value = jnp.log(jnp.asarray(value, float))
        averages = dual_averaging()[0](jnp.log(10.0) + log_value)  # type: ignore[arg-type]
        return Tuned(log_value, averages, jnp.asarray(warmup))

    @property
    def value(self) -> Array:
        """The number itself."""
        return jnp.exp(self.log_value)

    def learn(self, accept: Array, target: float) -> Tuned:
        """After a step that was accepted with this probability."""
        averages = dual_averaging()[1](target - accept, self.averages)
        log_value = jnp.where(self.warmup_left > 1, averages[0], averages[1])
        learning = self.warmup_left > 0
        new = Tuned(log_value, averages, self.warmup_left - learning)
        return jax.tree.map(lambda a, b: jnp.where(learning, a, b), new, self)
