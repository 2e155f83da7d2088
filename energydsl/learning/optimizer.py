"""Optimizers compared by what they compute, so that equal ones are compiled once.

An optax optimizer consists of two closures, which Python compares by identity; here its traces are
compared by their equations instead. Numbers such as a learning rate are arguments of the trace, so
that another learning rate does not cause a recompilation.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import Array

from energydsl.run.quantities import Program


class Update(eqx.Module):
    """The traced update of an optax optimizer."""

    numbers: list[Array]
    program: Program = eqx.field(static=True)

    @staticmethod
    def of(optimizer: optax.GradientTransformation, state: Any, parameters: Any) -> Update:
        """Trace an optimizer for parameters of these shapes and the matching state."""
        update = optax.with_extra_args_support(optimizer).update

        def traced(slope: Any, state: Any, parameters: Any, value: Array) -> Any:
            return update(slope, state, parameters, value=value)

        arguments = (parameters, state, parameters, jnp.zeros(()))
        program, numbers, _ = Program.trace(traced, *arguments)
        return Update(numbers, program)

    def __call__(self, slope: Any, state: Any, parameters: Any, value: Array) -> tuple[Any, Any]:
        return self.program(self.numbers, slope, state, parameters, value)


def learning_rate(state: Any) -> Array | None:
    """The learning rate of an update, if the state after it tells one and only one.

    `optax.inject_hyperparams` keeps it there; the state of a bare schedule has only a count.
    """
    parts = jax.tree.leaves(state, is_leaf=_is_injected)
    told = [part.hyperparams.get("learning_rate") for part in parts if _is_injected(part)]
    rates = [jnp.asarray(rate) for rate in told if rate is not None]
    return rates[0] if len(rates) == 1 and not rates[0].shape else None


def _is_injected(part: Any) -> bool:
    return hasattr(part, "hyperparams")
