"""Optimizers, known by what they compute: one of the same making compiles nothing.

An optax optimizer is two closures, which Python compares by identity; its trace is compared by its
equations. Numbers such as a learning rate are arguments of the trace, so that another one compiles
nothing either.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import optax
from jax import Array

from energydsl.run.quantities import Program


class Update(eqx.Module):
    """The update of an optax optimizer, traced."""

    numbers: list[Array]
    program: Program = eqx.field(static=True)

    @staticmethod
    def of(optimizer: optax.GradientTransformation, state: Any, parameters: Any) -> Update:
        """Trace at the shapes of these parameters, and of the state that belongs to them."""
        update = optax.with_extra_args_support(optimizer).update

        def traced(slope: Any, state: Any, parameters: Any, value: Array) -> Any:
            return update(slope, state, parameters, value=value)

        arguments = (parameters, state, parameters, jnp.zeros(()))
        program, numbers, _ = Program.trace(traced, *arguments)
        return Update(numbers, program)

    def __call__(self, slope: Any, state: Any, parameters: Any, value: Array) -> tuple[Any, Any]:
        return self.program(self.numbers, slope, state, parameters, value)
