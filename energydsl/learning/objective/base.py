"""The contract of an objective: the loss that learning minimises, and its state.

Each objective is a file in this folder; the learning loop does not depend on particular ones.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jax import Array

from energydsl._types import Configuration, IntractableError
from energydsl.compiler.ebm import EBM
from energydsl.learning.latent import latent


class AbstractObjective(eqx.Module):
    """What to go down. Chains and buffers live in its state, a pytree of arrays.

    Its fields are its settings, and arrays of its own: every array of floats among them learns
    beside the model's parameters, by the same loss and the same optimizer, where `energydsl.fixed`
    does not freeze it. Such are a learned log Z and a recognition network. What a kernel or a
    model among the fields holds stays as it is. `check`, `init` and `loss` see wrappers opened.
    """

    @abc.abstractmethod
    def check(self, ebm: EBM, data: Configuration) -> None:
        """Raise TypeError or ValueError if it does not apply to a model; suggests another one."""

    @abc.abstractmethod
    def init(self, ebm: EBM, data: Configuration, *, key: Array) -> Any:
        """The initial state; `data` has the examples on the first axis."""

    @abc.abstractmethod
    def loss(
        self, ebm: EBM, batch: Configuration, state: Any, *, key: Array
    ) -> tuple[Array, tuple[Any, dict[str, Array]]]:
        """A scalar whose gradient is the direction to go down.

        The gradient is taken in the EBM's parameters and in the objective's own arrays; where the
        loss is to move only one of the two through some term, `jax.lax.stop_gradient` the other.

        Returns:
            The loss, and with it the new state and scalars for the history.
        """


def energy_shown(ebm: EBM) -> Callable[[Configuration], Array]:
    """The function from an example to its energy, or to its free energy if there are latents."""
    return ebm.free_energy if latent(ebm) else ebm.energy


def why_not_summed(ebm: EBM, data: Configuration) -> str | None:
    """The reason why the latents cannot be summed out exactly, if there is one."""
    example = jax.tree.map(lambda a: a[0], data)
    try:
        jax.eval_shape(energy_shown(ebm), example)
    except IntractableError as error:
        return str(error).rstrip(".")
    return None
