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
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array, lax

from energydsl._types import Configuration, Refusal
from energydsl.analysis.conditional import AbstractConditional
from energydsl.analysis.evaluation import argument, common_argument
from energydsl.analysis.factor import Factor, Sites, Whole, is_common
from energydsl.analysis.incidence import (
    SiteFactors,
    first_of,
    site_factors,
    still_arguments,
    too_many,
    totals,
)
from energydsl.analysis.structure import Structure
from energydsl.language.expression import Environment
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

MEASURED = 2**20
"""The most numbers that describe the sites of a block, in each chain: a block with more, of sites
with many levels, is drawn in parts."""

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
        betas: Array | None,
        *,
        key: Array,
    ) -> Array:
        """New values of the sites, (site, chain); `betas` are as in `AbstractSweep.sweep`."""


class DrawRule(AbstractRule):
    """Each site is drawn from its conditional distribution."""

    def update(
        self,
        structure: Structure,
        block: SiteFactors,
        tables: tuple[Any, Any],
        state: dict[str, Array],
        betas: Array | None,
        *,
        key: Array,
    ) -> Array:
        assert block.law is not None
        total = totals(structure, block, tables, state)
        total = total if betas is None else total * betas
        # XLA would otherwise recompute the gathers for every use.
        return block.law.draw(lax.optimization_barrier(total), key=key)


class GatherSweep(AbstractSweep):
    """A sweep that updates sites colour by colour; see the module."""

    lowering: ClassVar[str] = "gather"

    drawn: tuple[str, ...] = eqx.field(static=True)
    note: str = eqx.field(static=True)
    variables: tuple[Variable, ...] = eqx.field(static=True)
    blocks: tuple[SiteFactors, ...]
    places: tuple[tuple[Any, ...], ...]
    """For each leaf of each batch of factors the entries that it uses, (factor, *axes); None where
    all factors have the same argument."""
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

    def sweep(
        self,
        structure: Structure,
        tables: Any,
        state: Any,
        *,
        key: Array,
        betas: Array | None = None,
    ) -> Any:
        keys = jr.split(key, len(self.blocks))
        for block, table, block_key in zip(self.blocks, tables, keys, strict=True):
            state = _visit(block, table, state, structure, self.rule, betas, key=block_key)
        return state

    def energies(self, structure: Structure, model: Model, state: dict[str, Array]) -> Array:
        """Sums over factors, whose arguments are gathered for all chains at once."""
        env = model.environment(model.evidence)
        total = jnp.zeros(next(iter(state.values())).shape[-1])
        for factor, places in zip(structure.factors, self.places, strict=True):
            total = total + _energies(factor, places, env, state)
        return total


def gathered(
    structure: Structure,
    laws: Mapping[Variable, AbstractConditional | None],
    blocks: Sequence[Block],
    rule: AbstractRule,
) -> Callable[[], GatherSweep] | Refusal:
    """A function that builds the sweep of some blocks by a rule, or why there is none."""
    groups = _grouped(blocks, laws)
    for v, sites in groups:
        refusal = too_many(structure, v, sites)
        if refusal is not None:
            return refusal
    return partial(_build, structure, laws, groups, rule)


def _grouped(
    blocks: Sequence[Block], laws: Mapping[Variable, AbstractConditional | None]
) -> list[tuple[Variable, np.ndarray]]:
    """Groups of blocks that are compiled together: their variable and sites, (block, site)."""
    groups = []
    for v, run in itertools.groupby(blocks, lambda b: b.variable):
        law = laws[v]
        most = MEASURED if law is None else max(1, MEASURED // law.size)
        own = [part for b in run for part in np.split(b.sites, range(most, len(b.sites), most))]
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
    free, places = structure.skeleton.free, tuple(map(_places, structure.factors))
    return GatherSweep(tuple(v.name for v in laws), note, free, tuple(built), places, rule)


def _places(factor: Factor) -> tuple[Any, ...]:
    return tuple(
        None if isinstance(leaf, Whole) or is_common(leaf) else jnp.asarray(leaf.index)
        for leaf in factor.leaves
    )


def _energies(
    factor: Factor, places: tuple[Any, ...], env: Environment, state: dict[str, Array]
) -> Array:
    """The sum of a batch of factors, for each chain; a scalar if no chain moves it."""
    values, chains, each = [], [], []
    for leaf, place in zip(factor.leaves, places, strict=True):
        if isinstance(leaf, Sites) and leaf.variable.name in state:
            values.append(_of_chains(leaf, place, state))
            chains.append(-1)
        else:
            known = common_argument(leaf, env) if place is None else argument(leaf, place, env)
            values.append(known)
            chains.append(None)
        each.append(None if place is None else 0)
    energy = factor.energy
    if any(axis is not None for axis in chains):
        energy = jax.vmap(energy, in_axes=tuple(chains), out_axes=-1)
    if all(axis is None for axis in each):
        return factor.size * energy(*values)
    return jax.vmap(energy, in_axes=tuple(each))(*values).sum(axis=0)


def _of_chains(leaf: Sites, place: Any, state: dict[str, Array]) -> Array:
    read = leaf.index[0] if place is None else place
    return state[leaf.variable.name][read].astype(leaf.variable.domain.energy_dtype)


def _visit(
    block: SiteFactors,
    tables: tuple[Any, Any],
    state: dict[str, Array],
    structure: Structure,
    rule: AbstractRule,
    betas: Array | None,
    *,
    key: Array,
) -> dict[str, Array]:
    """The state after all blocks of one variable are updated, one after another."""
    each, shared = tables

    def one(state: dict[str, Array], part: tuple) -> tuple[dict[str, Array], None]:
        block, each, key = part
        name = block.variable.name
        new = rule.update(structure, block, (each, shared), state, betas, key=key)
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
