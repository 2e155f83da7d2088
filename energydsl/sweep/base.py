"""The contract of a Gibbs sweep, which draws each of its sites once from its conditional.

A lowering is one way to compute sweeps; each has its own file. For the structure of a model it
returns an offer, which has an estimate of the cost and builds the sweep, or the reason why it does
not apply. A sweep is a pytree, whose index arrays enter compiled code as arguments, and may use its
own representation of the chains' state.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import equinox as eqx
import jax
import numpy as np
from jax import Array

from energydsl._types import Configuration, Refusal
from energydsl.analysis.conditional import AbstractConditional, conditionals
from energydsl.analysis.structure import Structure
from energydsl.language.model import Model
from energydsl.language.variable import Variable


class Block:
    """Sites of one variable that do not interact, to be drawn at once.

    Blocks with the same variable and sites are equal.
    """

    def __init__(self, variable: Variable, sites: np.ndarray) -> None:
        self.variable = variable
        self.sites = np.unique(sites).astype(np.int32)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Block)
            and other.variable == self.variable
            and np.array_equal(other.sites, self.sites)
        )

    def __hash__(self) -> int:
        return hash((self.variable, self.sites.tobytes()))

    def __repr__(self) -> str:
        return f"Block({len(self.sites)} sites of {self.variable.name!r})"


@dataclasses.dataclass(frozen=True, eq=False)
class Offer:
    """The cost of a lowering, and a function that builds its sweep if it is chosen."""

    cost: float
    """A rough count of the operations of one sweep of one chain, to compare lowerings."""

    build: Callable[[], AbstractSweep]


class AbstractSweep(eqx.Module):
    """A Gibbs sweep of several chains at once, whose state `pack` defines."""

    lowering: ClassVar[str]
    """The name of the lowering in `explain`."""

    drawn: eqx.AbstractVar[tuple[str, ...]]
    """The names of the variables whose free sites are drawn; the state has all free variables."""

    note: eqx.AbstractVar[str]
    """A short description of the sweep's blocks, printed by `explain`."""

    @classmethod
    @abc.abstractmethod
    def plan(cls, structure: Structure, blocks: Sequence[Block] | None) -> Offer | Refusal:
        """The offer of this lowering, or why it does not apply.

        Args:
            structure: the structure of the model.
            blocks: checked blocks in the order in which to draw them. If None, the lowering chooses
                blocks of all free sites that have a conditional, and their order.
        """

    @abc.abstractmethod
    def load(self, structure: Structure, model: Model) -> Any:
        """The values computed from parameters and evidence, once for all sweeps."""

    @abc.abstractmethod
    def pack(self, x: Configuration) -> Any:
        """The sweep's representation of a batch of configurations, whose first axis is chains."""

    @abc.abstractmethod
    def unpack(self, state: Any) -> Configuration:
        """The inverse of `pack`: a batch of configurations, whose first axis is chains."""

    @abc.abstractmethod
    def sweep(
        self,
        structure: Structure,
        tables: Any,
        state: Any,
        *,
        key: Array,
        betas: Array | None = None,
    ) -> Any:
        """The state after each free site of the drawn variables is drawn once, in every chain.

        Args:
            structure: the structure of the model.
            tables: the result of `load`.
            state: the chains, as `pack` represents them.
            key: a random key.
            betas: a number for each chain, by which its energies are multiplied; 1 by default.
        """

    def energies(self, structure: Structure, model: Model, state: Any) -> Array:
        """The energy of each chain; a lowering may override this to avoid unpacking."""
        return jax.vmap(model.energy)(self.unpack(state))

    def observe(self, function: Callable[[Configuration], Any], state: Any) -> Any:
        """The values of a function of each chain's configuration; the first axis is chains."""
        return jax.vmap(function)(self.unpack(state))


def drawable(
    structure: Structure, blocks: Sequence[Block] | None
) -> dict[Variable, AbstractConditional]:
    """The variables that a sweep draws, each with the conditional of its sites."""
    known = conditionals(structure)
    shown = None if blocks is None else {b.variable for b in blocks}
    return {
        v: law
        for v in structure.skeleton.free
        if isinstance(law := known[v.name], AbstractConditional) and (shown is None or v in shown)
    }


def evaluations(structure: Structure, laws: Mapping[Variable, AbstractConditional]) -> float:
    """The number of arguments of all factors when each site of these variables is measured once."""
    total = 0.0
    for factor in structure.factors:
        seen = [(laws[f.variable].size, f.index.size) for f in factor.sites.values()
                if f.variable in laws]  # fmt: skip
        total += structure.scope_size(factor) * sum(size * count for size, count in seen)
    return total


def scales(betas: Array, total: Array) -> Array:
    """A number for each chain, with axes to multiply an array (number, chain, *site)."""
    return betas.reshape(-1, *(1,) * (total.ndim - 2))


@lru_cache(maxsize=16)
def colour_blocks(structure: Structure) -> tuple[Block, ...]:
    """The free sites that have a conditional, as one block for each variable and colour."""
    return coloured(structure, tuple(drawable(structure, None)))


def coloured(structure: Structure, variables: Iterable[Variable]) -> tuple[Block, ...]:
    """The free sites of some variables, as one block for each variable and colour."""
    blocks = []
    for v in variables:
        start = structure.offset[v.name]
        sites = np.flatnonzero(structure.free[start : start + v.size])
        colours = structure.colours[start + sites]
        order = np.argsort(colours, kind="stable")
        ends = np.flatnonzero(np.diff(colours[order])) + 1
        blocks += [Block(v, part) for part in np.split(sites[order], ends)]
    return tuple(blocks)
