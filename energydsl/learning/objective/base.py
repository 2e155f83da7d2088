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
    """What to go down. Chains and buffers live in its state, a pytree of arrays."""

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
        """A scalar whose gradient in the EBM's parameters is the direction to go down.

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
