"""The contract of a sweep: one visit to every site it draws, in a representation of its own.

A lowering is a file of this folder: it looks at a structure and answers with an offer, a sweep and
what it would cost, or with the reason why it does not apply. A sweep is a pytree, whose index
arrays enter compiled code as arguments.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
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
    """Sites of one variable that do not interact, to be drawn at once. Equal where they are."""

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
    """What a lowering would cost, and the sweep itself, built only if it is chosen."""

    cost: float
    """Operations of one sweep of one chain, by a rough count that serves to compare."""

    build: Callable[[], AbstractSweep]


class AbstractSweep(eqx.Module):
    """How sites are visited. Chains move together; see `pack`."""

    lowering: ClassVar[str]
    """The word for it in `explain`."""

    drawn: eqx.AbstractVar[tuple[str, ...]]
    """The variables whose free sites it visits; the state holds every free variable."""

    note: eqx.AbstractVar[str]
    """What was chosen inside the lowering, in a few words."""

    @classmethod
    @abc.abstractmethod
    def plan(cls, structure: Structure, blocks: Sequence[Block] | None) -> Offer | Refusal:
        """What this lowering offers, or why it does not apply.

        Args:
            structure: of the model to be swept.
            blocks: to be visited in this order, already checked; None leaves blocks and order to
                the lowering, which draws every free site that has a conditional.
        """

    @abc.abstractmethod
    def load(self, structure: Structure, model: Model) -> Any:
        """What the parameters and the evidence contribute: computed once, used by every sweep."""

    @abc.abstractmethod
    def pack(self, x: Configuration) -> Any:
        """A batch of configurations, chains first, in the sweep's own representation."""

    @abc.abstractmethod
    def unpack(self, state: Any) -> Configuration:
        """The way back: a batch of configurations, chains first."""

    @abc.abstractmethod
    def sweep(self, structure: Structure, tables: Any, state: Any, *, key: Array) -> Any:
        """Visit every site of the drawn variables once, in every chain."""

    def energies(self, model: Model, state: Any) -> Array:
        """The energy of each chain; a lowering that knows it without unpacking says so here."""
        return jax.vmap(model.energy)(self.unpack(state))

    def observe(self, function: Callable[[Configuration], Any], state: Any) -> Any:
        """A function of each chain's configuration, chains first."""
        return jax.vmap(function)(self.unpack(state))


def drawable(
    structure: Structure, blocks: Sequence[Block] | None
) -> dict[Variable, AbstractConditional]:
    """The variables that a sweep visits, each with the law of its sites."""
    known = conditionals(structure)
    shown = None if blocks is None else {b.variable for b in blocks}
    return {
        v: law
        for v in structure.skeleton.free
        if isinstance(law := known[v.name], AbstractConditional) and (shown is None or v in shown)
    }


def evaluations(structure: Structure, laws: Mapping[Variable, AbstractConditional]) -> float:
    """Arguments that factors take while each site of these variables is measured once."""
    total = 0.0
    for factor in structure.factors:
        seen = [(laws[f.variable].size, f.index.size) for f in factor.sites.values()
                if f.variable in laws]  # fmt: skip
        total += structure.scope_size(factor) * sum(size * count for size, count in seen)
    return total


@lru_cache(maxsize=16)
def colour_blocks(structure: Structure) -> tuple[Block, ...]:
    """The free sites that have a conditional, variable by variable and colour by colour."""
    blocks = []
    for v in drawable(structure, None):
        start = structure.offset[v.name]
        sites = np.flatnonzero(structure.free[start : start + v.size])
        colours = structure.colours[start + sites]
        order = np.argsort(colours, kind="stable")
        ends = np.flatnonzero(np.diff(colours[order])) + 1
        blocks += [Block(v, part) for part in np.split(sites[order], ends)]
    return tuple(blocks)
