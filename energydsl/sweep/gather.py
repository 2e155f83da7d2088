"""Sweeps over irregular graphs: each site gathers the factors it is in, colour by colour.

Chains stand last, so that a gather reads whole rows. A few blocks are written out one after
another; many (a dense graph has a colour for each site) are padded alike and scanned, so that the
program never grows with the graph.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, TypeGuard

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array, lax

from energydsl._types import Configuration, Refusal
from energydsl.analysis.conditional import AbstractConditional
from energydsl.analysis.evaluation import argument
from energydsl.analysis.factor import Factor, Leaf, Sites, Whole, common_entry
from energydsl.analysis.structure import Structure, repeats
from energydsl.language.expression import Environment
from energydsl.language.model import Model
from energydsl.language.variable import Variable
from energydsl.sweep.base import AbstractSweep, Block, laws_of

UNROLLED = 8
"""Blocks of one variable up to which each gets code of its own."""

MAX_ENTRIES = 2**28
"""Index entries at most; beyond it a sweep would not fit in memory."""


class Incidence(eqx.Module):
    """For each site of a block, the factors of one batch that contain it, padded.

    Index arrays have the axes (block, site, factor, what one factor sees). `own` marks which
    arguments are the site itself, where that is not simply all of leaf `slot`.
    """

    number: int = eqx.field(static=True)
    slot: int = eqx.field(static=True)
    shared: tuple[int | None, ...] = eqx.field(static=True)
    """For each leaf, the one entry that all these factors use, if there is one."""
    indices: tuple[Any, ...]
    own: tuple[Any, ...] | None
    valid: Array | None


class GatherBlock(eqx.Module):
    """Blocks of one variable, padded alike: sites have the axes (block, site)."""

    variable: Variable = eqx.field(static=True)
    law: AbstractConditional
    sites: Array
    incidences: tuple[Incidence, ...]


class GatherSweep(AbstractSweep):
    """Colour by colour; see the module."""

    lowering: ClassVar[str] = "gather"

    drawn: tuple[str, ...] = eqx.field(static=True)
    note: str = eqx.field(static=True)
    variables: tuple[Variable, ...] = eqx.field(static=True)
    blocks: tuple[GatherBlock, ...]

    def load(self, structure: Structure, model: Model) -> Any:
        env = model.environment(model.evidence)
        return [load_block(structure, self.variables, b, env) for b in self.blocks]

    def pack(self, x: Configuration) -> dict[str, Array]:
        return {n: a.reshape(a.shape[0], -1).T for n, a in x.items()}

    def unpack(self, state: dict[str, Array]) -> Configuration:
        return {v.name: state[v.name].T.reshape((-1, *v.shape)) for v in self.variables}

    def sweep(self, structure: Structure, tables: Any, state: Any, *, key: Array) -> Any:
        keys = jr.split(key, len(self.blocks))
        for block, table, block_key in zip(self.blocks, tables, keys, strict=True):
            state = _visit(structure, block, table, state, block_key)
        return state


def plan_gather(structure: Structure, blocks: list[Block]) -> GatherSweep | Refusal:
    """Gather by block: applies to any graph that fits in memory."""
    drawn = tuple(dict.fromkeys(b.variable.name for b in blocks))
    laws = laws_of(structure, drawn)
    free = structure.skeleton.free
    built = []
    for v in (v for v in free if v.name in drawn):
        own = [b.sites for b in blocks if b.variable == v]
        grouped = [[s] for s in own] if len(own) <= UNROLLED else [own]
        for group in grouped:
            block = gather_block(structure, v, laws[v.name], _stack(group, v.size))
            if isinstance(block, Refusal):
                return block
            built.append(block)
    note = f"{len(blocks)} blocks" + (", scanned" if len(built) < len(blocks) else "")
    return GatherSweep(drawn, note, free, tuple(built))


def gather_block(
    structure: Structure, variable: Variable, law: AbstractConditional, sites: np.ndarray
) -> GatherBlock | Refusal:
    """The incidences of `sites` (block, site), each with its batch's index arrays gathered."""
    incidences = []
    for number, factor in enumerate(structure.factors):
        leaves = {k: leaf for k, leaf in factor.sites.items() if leaf.variable == variable}
        if not leaves:
            continue
        slots = list(leaves)
        columns = [structure.numbers(leaf) for leaf in leaves.values()]
        # A leaf of one site is a number only where it has no axes of its own.
        single = all(leaf.index.ndim == 1 for leaf in leaves.values())
        plain = single and not repeats(np.concatenate(columns, axis=1))
        for group in [[k] for k in slots] if plain else [slots]:
            found = _incidence(structure, number, group, sites, plain)
            if isinstance(found, Refusal):
                return found
            if found is not None:
                incidences.append(found)
    return GatherBlock(variable, law, jnp.asarray(sites, np.int32), tuple(incidences))


def load_block(
    structure: Structure, free: tuple[Variable, ...], block: GatherBlock, env: Environment
) -> tuple[Any, Any]:
    """The arguments that do not move: those with an entry a block, and those shared by all."""
    each, shared = [], []
    for incidence in block.incidences:
        leaves = structure.factors[incidence.number].leaves
        still = [not (isinstance(leaf, Sites) and leaf.variable in free) for leaf in leaves]
        rows = list(zip(leaves, incidence.indices, incidence.shared, still, strict=True))
        each.append([argument(f, i, env) if s and i is not None else None for f, i, _, s in rows])
        shared.append([argument(f, k, env) if s and i is None else None for f, i, k, s in rows])
    return each, shared


def totals(
    structure: Structure, block: GatherBlock, tables: tuple[Any, Any], state: dict[str, Array]
) -> Array:
    """The measures of every site of one block, summed over factors: (measure, site, chain)."""
    chains = next(iter(state.values())).shape[-1]
    length = len(block.law.measure(lambda v: v * 0.0))
    total = jnp.zeros((length, block.sites.shape[-1], chains))
    for incidence, each, shared in zip(block.incidences, *tables, strict=True):
        constants = [s if e is None else e for e, s in zip(each, shared, strict=True)]
        total = total + _total(structure, block.law, incidence, constants, state)
    return total


def _visit(
    structure: Structure, block: GatherBlock, tables: tuple[Any, Any], state: Any, key: Array
) -> dict[str, Array]:
    each, shared = tables

    def one(state: dict[str, Array], part: tuple) -> tuple[dict[str, Array], None]:
        block, each, key = part
        total = totals(structure, block, (each, shared), state)
        # XLA would otherwise recompute the gathers in every use.
        drawn = block.law.draw(lax.optimization_barrier(total), key=key)
        name = block.variable.name
        return state | {name: state[name].at[block.sites].set(drawn, mode="drop")}, None

    count = block.sites.shape[0]
    if count == 1:
        return one(state, (*first_of((block, each)), key))[0]
    return lax.scan(one, state, (block, each, jr.split(key, count)))[0]


def first_of(stacked: Any) -> Any:
    """The first of blocks that stand along a leading axis."""
    return jax.tree.map(lambda a: a[0], stacked)


def _total(
    structure: Structure,
    law: AbstractConditional,
    incidence: Incidence,
    constants: list[Any],
    state: dict[str, Array],
) -> Array:
    factor = structure.factors[incidence.number]
    own = incidence.own or (None,) * len(factor.leaves)
    arguments = []
    for leaf, index, constant in zip(factor.leaves, incidence.indices, constants, strict=True):
        if _moves(leaf, state):
            v = leaf.variable
            constant = state[v.name][index].astype(v.domain.energy_dtype)
        arguments.append(constant)

    def measure(*values: Any) -> Array:
        given, masks = values[: len(arguments)], values[len(arguments) :]

        def energy(value: Array) -> Array:
            if incidence.own is None:
                replaced = [value if k == incidence.slot else g for k, g in enumerate(given)]
            else:
                replaced = [
                    g if m is None else jnp.where(m, value.astype(g.dtype), g)
                    for g, m in zip(given, masks, strict=True)
                ]
            return factor.energy(*replaced)

        return law.measure(energy)

    measured = _batch(measure, factor, incidence, state)(*arguments, *own)
    if incidence.valid is not None:
        measured = jnp.where(incidence.valid[:, :, None], measured, 0.0)
    return measured.sum(axis=2)


def _moves(leaf: Leaf, state: dict[str, Array]) -> TypeGuard[Sites]:
    return isinstance(leaf, Sites) and leaf.variable.name in state


def _batch(measure: Any, factor: Factor, incidence: Incidence, state: dict[str, Array]) -> Any:
    """Over chains (innermost, last), then over the factors of a site, then over sites."""
    moving = [_moves(leaf, state) for leaf in factor.leaves]
    masks = incidence.own or (None,) * len(factor.leaves)
    chains = [-1 if m else None for m in moving] + [None] * len(masks)
    spread = [None if a is None else 0 for a in (*incidence.indices, *masks)]
    batched = jax.vmap(measure, in_axes=tuple(chains), out_axes=1)
    for _ in range(2):
        batched = jax.vmap(batched, in_axes=tuple(spread), out_axes=1)
    return batched


def _incidence(
    structure: Structure, number: int, slots: list[int], sites: np.ndarray, plain: bool
) -> Incidence | Refusal | None:
    factor = structure.factors[number]
    variable = factor.sites[slots[0]].variable
    members = [factor.sites[k].index.reshape(factor.size, -1) for k in slots]
    site = np.concatenate([m.ravel() for m in members]).astype(np.int64)
    row = np.concatenate([np.repeat(np.arange(factor.size), m.shape[1]) for m in members])
    if not plain:
        site, row = np.unique(np.stack([site, row]), axis=1)
    order = np.argsort(site, kind="stable")
    counts = np.bincount(site, minlength=variable.size + 1)
    starts = np.concatenate([[0], np.cumsum(counts)])
    degree = int(counts[sites].max(initial=0))
    if not degree:
        return None
    indices = {k: leaf.index for k, leaf in enumerate(factor.leaves) if not isinstance(leaf, Whole)}
    entries = sites.size * degree * max(math.prod(i.shape[1:]) for i in indices.values())
    if entries > MAX_ENTRIES:
        return Refusal(
            f"{sites.size:,} sites of {variable.name!r} with up to {degree:,} factors each need "
            f"{entries:.2g} index entries; budget {MAX_ENTRIES:.2g}"
        )
    ranks = np.arange(degree)
    valid = ranks < counts[sites][..., None]
    rows = row[order[np.where(valid, starts[sites][..., None] + ranks, 0)]]
    shared = tuple(common_entry(leaf) for leaf in factor.leaves)
    gathered = {k: i[rows] for k, i in indices.items() if shared[k] is None}
    own = {k: _expand(sites, gathered[k].ndim) == gathered[k] for k in ([] if plain else slots)}
    every = range(len(factor.leaves))
    return Incidence(
        number,
        slots[0],
        shared,
        tuple(jnp.asarray(gathered[k]) if k in gathered else None for k in every),
        None if plain else tuple(jnp.asarray(own[k]) if k in own else None for k in every),
        None if valid.all() else jnp.asarray(valid),
    )


def _expand(array: np.ndarray, ndim: int) -> np.ndarray:
    return array.reshape(array.shape + (1,) * (ndim - array.ndim))


def _stack(groups: list[np.ndarray], padding: int) -> np.ndarray:
    """Blocks as rows, padded with a site that does not exist."""
    stacked = np.full((len(groups), max(map(len, groups))), padding, np.int32)
    for row, sites in zip(stacked, groups, strict=True):
        row[: len(sites)] = sites
    return stacked
