"""Sweeps of irregular graphs: the arguments of each site's factors are gathered by index arrays.

The sites of one colour are drawn at once. Chains are the last axis of the state, so that a gather
reads whole rows. A few blocks are compiled one after another; many blocks (a complete graph has a
colour for each site) are padded to equal length and scanned, so that the compiled program does not
grow with the graph.
"""

from __future__ import annotations

import abc
import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import equinox as eqx
import jax.random as jr
import numpy as np
from jax import Array, lax

from energydsl._types import Configuration, Refusal
from energydsl.analysis.conditional import AbstractConditional
from energydsl.analysis.incidence import (
    SiteFactors,
    first_of,
    site_factors,
    still_arguments,
    too_many,
    totals,
)
from energydsl.analysis.structure import Structure
from energydsl.language.model import Model
from energydsl.language.variable import Variable
from energydsl.sweep.base import (
    AbstractSweep,
    Block,
    Offer,
    colour_blocks,
    drawable,
    evaluations,
)

UNROLLED = 8
"""The most consecutive blocks of one variable that are compiled separately rather than scanned."""

GATHERED = 4
"""The cost of a gathered argument, relative to one that is read from contiguous memory."""


class AbstractRule(eqx.Module):
    """How the sites of one block are updated, given the factors of each."""

    @abc.abstractmethod
    def update(
        self,
        structure: Structure,
        block: SiteFactors,
        tables: tuple[Any, Any],
        state: dict[str, Array],
        *,
        key: Array,
    ) -> Array:
        """New values of the sites, (site, chain)."""


class DrawRule(AbstractRule):
    """Each site is drawn from its conditional distribution."""

    def update(
        self,
        structure: Structure,
        block: SiteFactors,
        tables: tuple[Any, Any],
        state: dict[str, Array],
        *,
        key: Array,
    ) -> Array:
        assert block.law is not None
        total = totals(structure, block, tables, state)
        # XLA would otherwise recompute the gathers for every use.
        return block.law.draw(lax.optimization_barrier(total), key=key)


class GatherSweep(AbstractSweep):
    """A sweep that updates sites colour by colour; see the module."""

    lowering: ClassVar[str] = "gather"

    drawn: tuple[str, ...] = eqx.field(static=True)
    note: str = eqx.field(static=True)
    variables: tuple[Variable, ...] = eqx.field(static=True)
    blocks: tuple[SiteFactors, ...]
    rule: AbstractRule = DrawRule()

    @classmethod
    def plan(cls, structure: Structure, blocks: Sequence[Block] | None) -> Offer | Refusal:
        laws = drawable(structure, blocks)
        blocks = colour_blocks(structure) if blocks is None else blocks
        found = gathered(structure, laws, blocks, DrawRule())
        if isinstance(found, Refusal):
            return found
        return Offer(GATHERED * evaluations(structure, laws), found)

    def load(self, structure: Structure, model: Model) -> Any:
        env = model.environment(model.evidence)
        return [still_arguments(structure, self.variables, b, env) for b in self.blocks]

    def pack(self, x: Configuration) -> dict[str, Array]:
        return {n: a.reshape(a.shape[0], -1).T for n, a in x.items()}

    def unpack(self, state: dict[str, Array]) -> Configuration:
        return {v.name: state[v.name].T.reshape((-1, *v.shape)) for v in self.variables}

    def sweep(self, structure: Structure, tables: Any, state: Any, *, key: Array) -> Any:
        keys = jr.split(key, len(self.blocks))
        for block, table, block_key in zip(self.blocks, tables, keys, strict=True):
            state = _visit(block, table, state, structure, self.rule, key=block_key)
        return state


def gathered(
    structure: Structure,
    laws: Mapping[Variable, AbstractConditional | None],
    blocks: Sequence[Block],
    rule: AbstractRule,
) -> Callable[[], GatherSweep] | Refusal:
    """A function that builds the sweep of some blocks by a rule, or why there is none."""
    groups = _grouped(blocks)
    for v, sites in groups:
        refusal = too_many(structure, v, sites)
        if refusal is not None:
            return refusal
    return partial(_build, structure, laws, groups, rule)


def _grouped(blocks: Sequence[Block]) -> list[tuple[Variable, np.ndarray]]:
    """Groups of blocks that are compiled together: their variable and sites, (block, site)."""
    groups = []
    for v, run in itertools.groupby(blocks, lambda b: b.variable):
        own = [b.sites for b in run]
        parts = [[s] for s in own] if len(own) <= UNROLLED else [own]
        groups += [(v, _stack(part, v.size)) for part in parts]
    return groups


def _build(
    structure: Structure,
    laws: Mapping[Variable, AbstractConditional | None],
    groups: list[tuple[Variable, np.ndarray]],
    rule: AbstractRule,
) -> GatherSweep:
    built = []
    for v, sites in groups:
        seen = site_factors(structure, v, laws[v], sites)
        assert isinstance(seen, SiteFactors)
        built.append(seen)
    count = sum(len(sites) for _, sites in groups)
    note = f"{count} blocks" + (", in a compiled loop" if len(built) < count else "")
    return GatherSweep(
        tuple(v.name for v in laws), note, structure.skeleton.free, tuple(built), rule
    )


def _visit(
    block: SiteFactors,
    tables: tuple[Any, Any],
    state: dict[str, Array],
    structure: Structure,
    rule: AbstractRule,
    *,
    key: Array,
) -> dict[str, Array]:
    """The state after all blocks of one variable are updated, one after another."""
    each, shared = tables

    def one(state: dict[str, Array], part: tuple) -> tuple[dict[str, Array], None]:
        block, each, key = part
        name = block.variable.name
        new = rule.update(structure, block, (each, shared), state, key=key)
        return state | {name: state[name].at[block.sites].set(new, mode="drop")}, None

    count = block.sites.shape[0]
    if count == 1:
        return one(state, (*first_of((block, each)), key))[0]
    return lax.scan(one, state, (block, each, jr.split(key, count)))[0]


def _stack(groups: list[np.ndarray], padding: int) -> np.ndarray:
    """The blocks as rows of an array, padded with the number of a site that does not exist."""
    stacked = np.full((len(groups), max(map(len, groups))), padding, np.int32)
    for row, sites in zip(stacked, groups, strict=True):
        row[: len(sites)] = sites
    return stacked
