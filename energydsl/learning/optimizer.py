"""Optimizers, known by what they compute: one of the same making compiles nothing.

An optax optimizer is two closures, which Python compares by identity; its trace is compared by
text. Numbers such as a learning rate stand in it.
"""

from __future__ import annotations

import hashlib
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import Array

from energydsl.run.quantities import Program


class Update(eqx.Module):
    """The update of an optax optimizer, traced."""

    constants: list[Array]
    program: Program = eqx.field(static=True)

    @staticmethod
    def of(optimizer: optax.GradientTransformation, state: Any, parameters: Any) -> Update:
        """Trace at the shapes of these parameters, and of the state that belongs to them."""
        update = optax.with_extra_args_support(optimizer).update

        def traced(slope: Any, state: Any, parameters: Any, value: Array) -> Any:
            return update(slope, state, parameters, value=value)

        arguments = (parameters, state, parameters, jnp.zeros(()))
        closed, shapes = jax.make_jaxpr(traced, return_shape=True)(*arguments)
        return Update(closed.consts, Program(closed.jaxpr, jax.tree.structure(shapes)))

    def __call__(self, slope: Any, state: Any, parameters: Any, value: Array) -> tuple[Any, Any]:
        return self.program(self.constants, slope, state, parameters, value)

    @property
    def digest(self) -> str:
        """The same in every process."""
        return hashlib.blake2b(self.program.text.encode(), digest_size=8).hexdigest()
