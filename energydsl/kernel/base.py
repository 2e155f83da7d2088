"""The contract of a kernel: one Markov transition that leaves an EBM's law invariant.

Most kernels write `init` and `step` for one chain, and the sampling loop maps them over chains. A
kernel that moves all chains together, in a representation of its own, returns an ensemble of its
own instead; the loop sees configurations only where they are kept.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
from jax import Array

from energydsl._types import Configuration, Refusal
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

    @property
    def name(self) -> str:
        """The word for it in `EBM.explain`."""
        return type(self).__name__

    def merit(self, ebm: EBM) -> str:
        """What speaks for it where it moves every free site, in a few words."""
        return "it moves every free site"

    def effort(self, ebm: EBM) -> float:
        """How many energies, gradients or sweeps one step takes, about."""
        return 1.0

    def applies(self, ebm: EBM) -> str | Refusal:
        """What speaks for taking it on this EBM, or what speaks against it."""
        left_out = _left_out(ebm, self)
        return self.merit(ebm) if left_out is None else Refusal(f"it {left_out}")

    def ensemble(self, ebm: EBM) -> AbstractEnsemble:
        """All chains of a run; unless a kernel has its own, its step is mapped over them."""
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

    def observe(self, ebm: EBM, carry: Any, function: Callable[[Configuration], Any]) -> Any:
        """A function of each chain's configuration, chains first."""
        return jax.vmap(function)(self.configurations(ebm, carry))


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
    left_out = _left_out(ebm, kernel)
    if left_out is not None:
        raise ValueError(f"{kernel} {left_out}. Move them by another kernel, or clamp them.")


def _left_out(ebm: EBM, kernel: AbstractKernel) -> str | None:
    lost = ebm.structure.free & ~kernel.moves(ebm)
    if not lost.any():
        return None
    first = ebm.structure.describe(int(np.argmax(lost)))
    return f"leaves out {int(lost.sum()):,} free sites, {first} first: {kernel.reason(ebm)}"


def _count(xs: Configuration) -> int:
    return len(next(iter(xs.values())))
