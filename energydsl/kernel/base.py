"""The contract of a kernel: one Markov transition that leaves an EBM's law invariant.

Most kernels write `init` and `step` for one chain, and the sampling loop maps them over chains. A
kernel that moves all chains together, in a representation of its own, returns an ensemble of its
own instead; the loop sees configurations only where they are kept.
"""

from __future__ import annotations

import abc
from typing import Any

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
from jax import Array

from energydsl._types import Configuration
from energydsl.compiler.ebm import EBM


class AbstractKernel(eqx.Module):
    """One transition. State holds what a chain has learnt, never what (ebm, x) determines."""

    @abc.abstractmethod
    def init(self, ebm: EBM, x: Configuration, *, key: Array, warmup: int) -> Any:
        """The state in which a chain begins; `warmup` steps of adaptation follow."""

    @abc.abstractmethod
    def step(
        self, ebm: EBM, x: Configuration, state: Any, *, key: Array
    ) -> tuple[Configuration, Any, dict[str, Array]]:
        """One transition of one chain: the new configuration, state, and statistics."""

    @abc.abstractmethod
    def moves(self, ebm: EBM) -> np.ndarray:
        """True at each site, in the structure's numbering, that this kernel moves.

        Raises:
            TypeError, ValueError: the kernel's own arguments do not fit the model.
        """

    @abc.abstractmethod
    def reason(self, ebm: EBM) -> str:
        """Why it does not move the other sites, to be read after "it leaves out ..."."""

    def ensemble(self, ebm: EBM) -> AbstractEnsemble:
        """How many chains move together."""
        return MappedEnsemble(self)


class AbstractEnsemble(eqx.Module):
    """All chains of a run. A pytree: its arrays enter compiled code as arguments."""

    @abc.abstractmethod
    def start(self, ebm: EBM, xs: Configuration, *, key: Array, warmup: int) -> Any:
        """What is carried from step to step, from configurations with chains first."""

    @abc.abstractmethod
    def refresh(self, ebm: EBM, carry: Any) -> Any:
        """The same chains under other parameters: whatever the old ones determined, anew."""

    @abc.abstractmethod
    def place(self, ebm: EBM, carry: Any, xs: Configuration) -> Any:
        """The chains put elsewhere, chains first; what they have learnt stays."""

    @abc.abstractmethod
    def load(self, ebm: EBM) -> Any:
        """What depends on the parameters alone, computed once for many steps."""

    @abc.abstractmethod
    def advance(
        self, ebm: EBM, tables: Any, carry: Any, *, key: Array
    ) -> tuple[Any, dict[str, Array]]:
        """One transition of every chain; statistics have chains first."""

    @abc.abstractmethod
    def configurations(self, ebm: EBM, carry: Any) -> Configuration:
        """The chains' configurations, chains first."""

    @abc.abstractmethod
    def energies(self, ebm: EBM, carry: Any) -> Array:
        """The energy of each chain's configuration."""


class MappedEnsemble(AbstractEnsemble):
    """Chains that know nothing of each other: the kernel's own step, mapped."""

    kernel: AbstractKernel

    def start(self, ebm: EBM, xs: Configuration, *, key: Array, warmup: int) -> Any:
        keys = jr.split(key, _count(xs))
        state = jax.vmap(lambda x, k: self.kernel.init(ebm, x, key=k, warmup=warmup))(xs, keys)
        return xs, state

    def refresh(self, ebm: EBM, carry: Any) -> Any:
        return carry

    def place(self, ebm: EBM, carry: Any, xs: Configuration) -> Any:
        return xs, carry[1]

    def load(self, ebm: EBM) -> None:
        return None

    def advance(
        self, ebm: EBM, tables: Any, carry: Any, *, key: Array
    ) -> tuple[Any, dict[str, Array]]:
        xs, states = carry
        keys = jr.split(key, _count(xs))
        xs, states, info = jax.vmap(lambda x, s, k: self.kernel.step(ebm, x, s, key=k))(
            xs, states, keys
        )
        return (xs, states), info

    def configurations(self, ebm: EBM, carry: Any) -> Configuration:
        return carry[0]

    def energies(self, ebm: EBM, carry: Any) -> Array:
        return jax.vmap(ebm.energy)(carry[0])


def check_covered(ebm: EBM, kernel: AbstractKernel) -> None:
    """Raise ValueError where a kernel leaves free sites out."""
    lost = ebm.structure.free & ~kernel.moves(ebm)
    if lost.any():
        first = ebm.structure.describe(int(np.argmax(lost)))
        raise ValueError(
            f"{kernel} leaves out {int(lost.sum()):,} free sites, {first} first: "
            f"{kernel.reason(ebm)}. Move them by another kernel, or clamp them."
        )


def _count(xs: Configuration) -> int:
    return len(next(iter(xs.values())))
