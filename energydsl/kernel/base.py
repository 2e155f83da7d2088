"""The contract of a kernel: a Markov transition that leaves an EBM's distribution invariant.

Most kernels implement `init` and `step` for one chain, which are vectorised over chains. A kernel
that stores the chains in another representation, or advances them jointly, returns an ensemble of
its own. The sampling loop converts the chains to configurations only for draws that are kept.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
from jax import Array

from energydsl._types import Configuration, Refusal
from energydsl.compiler.ebm import EBM


class AbstractKernel(eqx.Module):
    """A Markov transition.

    The state of a chain contains adapted quantities such as a step size, but nothing that follows
    from the EBM and the configuration.
    """

    independent: ClassVar[bool] = False
    """Whether each step is an independent exact draw, so that convergence is no question."""

    @abc.abstractmethod
    def init(self, ebm: EBM, x: Configuration, *, key: Array, warmup: int) -> Any:
        """The initial state of a chain; the first `warmup` steps may adapt it."""

    @abc.abstractmethod
    def step(
        self, ebm: EBM, x: Configuration, state: Any, *, key: Array
    ) -> tuple[Configuration, Any, dict[str, Array]]:
        """One transition of one chain: returns the new configuration, state and statistics."""

    @abc.abstractmethod
    def moves(self, ebm: EBM) -> np.ndarray:
        """A boolean for each site, in the structure's order: whether this kernel updates it.

        Raises:
            TypeError, ValueError: the kernel's own arguments do not fit the model.
        """

    @abc.abstractmethod
    def reason(self, ebm: EBM) -> str:
        """The reason why it does not update the other sites; it follows "leaves out ..."."""

    def check(self, ebm: EBM) -> None:
        """Raise ValueError if the present values of the parameters do not suit this kernel.

        It is called before a run, and examines nothing that is traced.
        """

    @property
    def name(self) -> str:
        """The name shown by `EBM.explain`."""
        return type(self).__name__

    def merit(self, ebm: EBM) -> str:
        """A short reason to use it for a model of which it updates every free site."""
        return "it moves every free site"

    def effort(self, ebm: EBM) -> float:
        """The approximate number of energies, gradients or sweeps that one step computes."""
        return 1.0

    def applies(self, ebm: EBM) -> str | Refusal:
        """The reason to use it for this EBM, or the reason why it does not apply."""
        left_out = _left_out(ebm, self)
        return self.merit(ebm) if left_out is None else Refusal(f"it {left_out}")

    def ensemble(self, ebm: EBM) -> AbstractEnsemble:
        """The ensemble of a run's chains; by default `step` is vectorised over the chains."""
        return MappedEnsemble(self)


class AbstractEnsemble(eqx.Module):
    """How all chains of a run are represented and advanced.

    It is a pytree, so that its arrays are arguments of compiled code. Configurations, statistics
    and energies have the chains on the first axis.
    """

    @abc.abstractmethod
    def start(self, ebm: EBM, xs: Configuration, *, key: Array, warmup: int) -> Any:
        """The chains' initial carry, which every step updates, at the given configurations."""

    @abc.abstractmethod
    def refresh(self, ebm: EBM, carry: Any) -> Any:
        """The carry after the EBM's parameters changed, with cached quantities recomputed."""

    @abc.abstractmethod
    def place(self, ebm: EBM, carry: Any, xs: Configuration) -> Any:
        """The carry with the chains at other configurations; adapted quantities are kept."""

    @abc.abstractmethod
    def load(self, ebm: EBM) -> Any:
        """Tables that depend only on the EBM's parameters, computed once for many steps."""

    @abc.abstractmethod
    def advance(
        self, ebm: EBM, tables: Any, carry: Any, *, key: Array
    ) -> tuple[Any, dict[str, Array]]:
        """One transition of every chain: returns the new carry and the statistics."""

    @abc.abstractmethod
    def configurations(self, ebm: EBM, carry: Any) -> Configuration:
        """The chains' configurations."""

    @abc.abstractmethod
    def energies(self, ebm: EBM, carry: Any) -> Array:
        """The energy of each chain's configuration."""

    def observe(self, ebm: EBM, carry: Any, function: Callable[[Configuration], Any]) -> Any:
        """The values of a function at each chain's configuration."""
        return jax.vmap(function)(self.configurations(ebm, carry))


class MappedEnsemble(AbstractEnsemble):
    """Independent chains: the kernel's step, vectorised over chains."""

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
    """Raise ValueError if a kernel does not suit the values, or does not update every free site."""
    kernel.check(ebm)
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
