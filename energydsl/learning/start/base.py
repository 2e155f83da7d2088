"""The contract of a start: where the chains of a step of learning begin, and what is kept of them.

Contrastive divergence moves a number of chains by some steps of a kernel at each step of learning.
A start says where they begin; it may keep a state from step to step, such as the chains themselves
or a buffer of configurations. Each start is a file in this folder.
"""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax import Array, lax

from energydsl._types import Configuration
from energydsl.compiler.ebm import EBM
from energydsl.kernel.base import AbstractEnsemble


class Walkers(eqx.Module):
    """The chains of learning: how many there are, and what moves and represents them.

    A carry is the chains in the representation of their ensemble, which need not have one entry per
    chain: several chains may share a machine word.
    """

    ebm: EBM
    """The EBM whose distribution the chains approach, with gradients stopped."""
    ensemble: AbstractEnsemble
    count: int = eqx.field(static=True)
    warmup: int = eqx.field(default=0, static=True)
    """The number of steps in which kernels may adapt."""
    adapted: Any = None
    """A carry whose adapted step sizes and the like the chains take over; None to begin anew."""

    def at(self, xs: Configuration, *, key: Array) -> Any:
        """The carry of chains at these configurations, which have the chains on the first axis."""
        if self.adapted is not None:
            return self.ensemble.place(self.ebm, self.adapted, xs)
        return self.ensemble.start(self.ebm, xs, key=key, warmup=self.warmup)

    def random(self, count: int, *, key: Array) -> Configuration:
        """Random configurations in the domains, with the evidence at clamped sites."""
        return jax.vmap(lambda k: self.ebm.start(key=k))(jr.split(key, count))

    def anew(self, *, key: Array) -> Any:
        """The carry of chains at random configurations."""
        place_key, start_key = jr.split(key)
        return self.at(self.random(self.count, key=place_key), key=start_key)

    def configurations(self, carry: Any) -> Configuration:
        """The chains' configurations, with the chains on the first axis."""
        return self.ensemble.configurations(self.ebm, carry)

    def advanced(self, carry: Any, steps: int, *, key: Array) -> tuple[Any, dict[str, Array]]:
        """The carry after some steps, and the last step's statistics, averaged over chains."""
        tables = self.ensemble.load(self.ebm)
        keys = jr.split(key, steps) if steps > 1 else key[None]

        def step(carry: Any, key: Array) -> tuple[Any, dict[str, Array]]:
            return self.ensemble.advance(self.ebm, tables, carry, key=key)

        carry, _ = lax.scan(step, carry, keys[:-1])
        carry, info = step(carry, keys[-1])
        return carry, {n: jnp.mean(a) for n, a in info.items()}


class AbstractStart(eqx.Module):
    """Where the chains of contrastive divergence begin at each step of learning.

    Its fields are settings, which are not learnt. Its state is a pytree of arrays of fixed shapes,
    which a checkpoint contains.
    """

    at_examples: ClassVar[bool] = False
    """Whether each example of the batch has one chain, which begins at it. Otherwise the number of
    chains is set by the objective."""
    draws: ClassVar[bool] = True
    """Whether `begin` uses its key."""

    def of_one_example(self) -> AbstractStart:
        """The start for a single example that has inputs of its own; by default the same.

        Raises:
            TypeError: there is none, because the state would mix the examples' distributions.
        """
        return self

    def check(self, ebm: EBM, chains: int) -> None:
        """Raise TypeError or ValueError if the start does not suit the model or so many chains."""
        return None

    def init(self, walkers: Walkers, *, key: Array) -> Any:
        """The state before the first step; by default none."""
        return None

    @abc.abstractmethod
    def begin(
        self, walkers: Walkers, state: Any, examples: Configuration, *, key: Array
    ) -> tuple[Any, Any]:
        """The carry of the chains at their beginnings, and what `keep` must know of them.

        Args:
            walkers: the chains' number and representation.
            state: what is kept from the step before.
            examples: the batch, with a value for every free variable; empty unless `at_examples`.
            key: a random key.
        """

    def keep(self, walkers: Walkers, state: Any, begun: Any, carry: Any) -> Any:
        """The state after the step; by default the same.

        Args:
            walkers: the chains' number and representation.
            state: what was kept from the step before.
            begun: what `begin` returned besides the carry.
            carry: the chains after their last move.
        """
        return state
