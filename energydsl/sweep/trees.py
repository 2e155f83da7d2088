r"""Sweeps that draw whole trees of finite sites jointly from their distribution given the rest.

The finite sites are split into a few sets, each of which induces a forest. Given all other sites,
the energy of a forest is $\sum_i h_i(x_i) + \sum_{(i, j)} w_{ij}(x_i, x_j)$, over its sites and its
edges. From the leaves to the root, each site i sends its parent j the energy of its subtree,

$$m_i(x_j) = -\log \sum_{x_i} e^{-w_{ij}(x_i, x_j) - h_i(x_i) - \sum_k m_k(x_i)},$$

with its children k. From the root to the leaves, each site is then drawn from the summand, given
its parent. All trees of a set are visited at once, one distance from the root after another.

Source: Hamze & de Freitas (2004), UAI, 243-250; Carter & Kohn (1994), Biometrika 81(3), 541-553.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array, lax

from energydsl._types import Configuration, Refusal
from energydsl.analysis.conditional import conditional_for
from energydsl.analysis.conditional.levels import LevelConditional
from energydsl.analysis.conditional.slope import SlopeConditional
from energydsl.analysis.incidence import (
    MAX_ENTRIES,
    SiteFactors,
    first_of,
    site_factors,
    still_arguments,
    totals,
)
from energydsl.analysis.structure import Structure
from energydsl.analysis.uniform import open_uniform
from energydsl.language.expression import Environment
from energydsl.language.model import Model
from energydsl.language.variable import Variable
from energydsl.sweep.base import AbstractSweep, Block, Offer
from energydsl.sweep.forest import Forest, finite_sites, forest_sets
from energydsl.sweep.pairs import Chosen, Pairs, pairs_of

MAX_SETS = 16
"""The most sets of trees, as each is compiled separately."""

VISIT = 40
"""The cost of a draw for each level of a site, beside its factors."""


class Trees(eqx.Module):
    """One set of trees: a slot for each root, then the body with the axes (distance, lane).

    A lane of the body is a path if `above` is None; else `above` has the lane of each parent.
    """

    part: Structure = eqx.field(static=True)
    """The structure of the factors that contain exactly one site of the set."""
    roots: int = eqx.field(static=True)
    shape: tuple[int, int] = eqx.field(static=True)
    sites: tuple[SiteFactors, ...]
    """The sites of each variable, with these factors."""
    order: Array | None
    """The place of each slot's site among those of all variables; None if that is the slot."""
    values: Array
    """The values of each slot's levels, (level, slot)."""
    pairs: tuple[Pairs, ...]
    first: Array
    """The root above each lane of the body's first row."""
    above: Array | None

    def placed(self, rows: Array) -> tuple[Array, Array]:
        """Rows of slots, (..., slot, chain), as those of roots and (distance, ..., lane, chain)."""
        body = rows[..., self.roots :, :].reshape(*rows.shape[:-2], *self.shape, rows.shape[-1])
        return rows[..., : self.roots, :], jnp.moveaxis(body, -3, 0)


class TreeSweep(AbstractSweep):
    """A sweep that draws one set of trees after another; see the module."""

    lowering: ClassVar[str] = "trees"

    drawn: tuple[str, ...] = eqx.field(static=True)
    note: str = eqx.field(static=True)
    variables: tuple[Variable, ...] = eqx.field(static=True)
    sets: tuple[Trees, ...]

    @classmethod
    def plan(cls, structure: Structure, blocks: Sequence[Block] | None) -> Offer | Refusal:
        if structure.crowded:
            return Refusal("a factor has too many sites to list its pairs")
        if not finite_sites(structure).any():
            return Refusal("no free site has finitely many levels")
        sets = forest_sets(structure)
        count = int(sets.max()) + 1
        if count > MAX_SETS:
            return Refusal(
                f"the graph is so dense that its sites fall into {count:,} sets of trees; at most "
                f"{MAX_SETS}"
            )
        levels = structure.levels[sets >= 0].astype(float)
        if levels.max() ** 2 * len(levels) > MAX_ENTRIES:
            return Refusal(
                f"all pairs of up to {levels.max():.0f} levels at {len(levels):,} sites need more "
                f"than {MAX_ENTRIES:.2g} numbers"
            )
        return Offer(VISIT * float((levels**2).sum()), partial(_build, structure, sets))

    def load(self, structure: Structure, model: Model) -> Any:
        env = model.environment(model.evidence)
        return [_load(structure, self.variables, trees, env) for trees in self.sets]

    def pack(self, x: Configuration) -> dict[str, Array]:
        return {n: a.reshape(a.shape[0], -1).T for n, a in x.items()}

    def unpack(self, state: dict[str, Array]) -> Configuration:
        return {v.name: state[v.name].T.reshape((-1, *v.shape)) for v in self.variables}

    def sweep(self, structure: Structure, tables: Any, state: Any, *, key: Array) -> Any:
        keys = jr.split(key, len(self.sets))
        for trees, table, tree_key in zip(self.sets, tables, keys, strict=True):
            state = _draw(structure, trees, table, state, tree_key)
        return state


def _load(
    structure: Structure, free: tuple[Variable, ...], trees: Trees, env: Environment
) -> tuple[Any, Any, Array]:
    """The constant arguments of single sites and of pairs, and the constant energies of pairs."""
    single = [still_arguments(trees.part, free, seen, env) for seen in trees.sites]
    double = [pairs.arguments(structure, free, env) for pairs in trees.pairs]
    levels, slots = trees.values.shape
    still = jnp.zeros((levels, levels, slots - trees.roots))
    blank = {v.name: jnp.zeros((v.size, 1)) for v in free}
    for pairs, arguments in zip(trees.pairs, double, strict=True):
        if pairs.still:
            found = pairs.energies(structure, arguments, blank)
            still = still.at[:, :, pairs.slots].add(found)
    return single, double, still


def _draw(
    structure: Structure, trees: Trees, tables: Any, state: dict[str, Array], key: Array
) -> dict[str, Array]:
    """The state after one set of trees is drawn."""
    single, double, still = tables
    fields = _fields(trees, single, state)
    bonds = still[..., None]
    for pairs, arguments in zip(trees.pairs, double, strict=True):
        if not pairs.still:
            found = pairs.energies(structure, arguments, state)
            grown = jnp.broadcast_to(bonds, (*bonds.shape[:3], found.shape[-1]))
            bonds = grown.at[:, :, pairs.slots].add(found)
    # One axis: XLA draws arrays with a short last axis ten times more slowly.
    u = open_uniform(key, (math.prod(fields.shape[1:]),)).reshape(fields.shape[1:])
    # XLA would otherwise compute the fields again for every use.
    levels = _sampled(trees, *lax.optimization_barrier((fields, bonds, u)))
    values = jnp.take_along_axis(trees.values[..., None], levels[None], axis=0)[0]
    return _written(trees, state, values)


def _fields(trees: Trees, tables: Any, state: dict[str, Array]) -> Array:
    """The energy of each slot's levels given all sites outside the trees, (level, slot, chain)."""
    levels, found = len(trees.values), []
    for seen, (each, shared) in zip(trees.sites, tables, strict=True):
        one, each = first_of((seen, each))
        assert isinstance(seen.law, LevelConditional | SlopeConditional)
        own = seen.law.energies(totals(trees.part, one, (each, shared), state))
        missing = ((0, levels - len(own)), (0, 0), (0, 0))
        found.append(jnp.pad(own, missing, constant_values=jnp.inf))
    if trees.order is None:
        return found[0]
    # Padding stands after all sites.
    return jnp.pad(jnp.concatenate(found, axis=1), ((0, 0), (0, 1), (0, 0)))[:, trees.order]


def _sampled(trees: Trees, fields: Array, bonds: Array, u: Array) -> Array:
    """The drawn level of each slot, (slot, chain)."""
    (root_fields, body), (root_u, body_u) = trees.placed(fields), trees.placed(u)
    if not trees.shape[0]:
        return _picked(root_fields, root_u)
    bonds = jnp.moveaxis(bonds.reshape(*bonds.shape[:2], *trees.shape, -1), 2, 0)
    ups = trees.above
    below = None if ups is None else jnp.concatenate([ups[1:], ups[:1]])

    def collect(messages: Array, row: Any) -> tuple[Array, Array]:
        field, bond, lanes = row
        field = field + (messages if lanes is None else _added(messages, lanes, trees.shape[1]))
        return _message(field, bond), field

    def spread(parents: Array, row: Any) -> tuple[Array, Array]:
        field, bond, lanes, u = row
        parents = parents if lanes is None else parents[lanes]
        drawn = _picked(field + _at(bond, parents), u)
        return drawn, drawn

    blank = jnp.zeros_like(body[0])
    messages, body = lax.scan(collect, blank, (body, bonds, below), reverse=True)
    top = _picked(root_fields + _added(messages, trees.first, trees.roots), root_u)
    if ups is not None:
        ups = ups.at[0].set(jnp.arange(trees.shape[1]))
    _, rest = lax.scan(spread, top[trees.first], (body, bonds, ups, body_u))
    return jnp.concatenate([top, rest.reshape(-1, rest.shape[-1])])


def _message(field: Array, bond: Array) -> Array:
    """The energies of subtrees at each level of the sites above, less the lowest of them."""
    terms = [energy + row for energy, row in zip(field, bond, strict=True)]
    # Folded and not reduced: XLA makes a reduction a loop of its own.
    lowest = functools.reduce(jnp.minimum, terms)
    never = jnp.isinf(lowest)
    total = sum(jnp.exp(jnp.where(never, 0.0, lowest - term)) for term in terms)
    message = jnp.where(never, jnp.inf, lowest - jnp.log(total))
    least = functools.reduce(jnp.minimum, message)
    return message - jnp.where(jnp.isinf(least), 0.0, least)


def _added(messages: Array, lanes: Array, count: int) -> Array:
    """The sums of messages to each lane of the row above, (level, lane, chain)."""
    levels, _, chains = messages.shape
    return jnp.zeros((levels, count, chains)).at[:, lanes].add(messages)


def _at(bond: Array, parents: Array) -> Array:
    """The energies of pairs at the parents' levels, (level, lane, chain)."""
    found = bond[:, 0]
    for level in range(1, bond.shape[1]):
        found = jnp.where(parents == level, bond[:, level], found)
    return found


def _picked(energies: Array, u: Array) -> Array:
    """The level drawn for each slot from the energies of its levels, by uniform numbers."""
    lowest = functools.reduce(jnp.minimum, energies)
    # As in `LevelConditional`, a chain outside of the support draws uniformly and goes on.
    never = jnp.isinf(lowest)
    ladder = list(
        itertools.accumulate(jnp.where(never, 1.0, jnp.exp(lowest - e)) for e in energies)
    )
    height = u * ladder[-1]
    return sum(
        ((height > step).astype(jnp.int32) for step in ladder[:-1]),
        jnp.zeros_like(never, jnp.int32),
    )


def _written(trees: Trees, state: dict[str, Array], values: Array) -> dict[str, Array]:
    """The state with the values of the slots."""
    if trees.order is not None:
        blank = jnp.zeros((sum(seen.sites.size for seen in trees.sites) + 1, values.shape[-1]))
        values = blank.at[trees.order].set(values)
    start, new = 0, dict(state)
    for seen in trees.sites:
        name, count = seen.variable.name, seen.sites.size
        own = values[start : start + count].astype(state[name].dtype)
        new[name] = state[name].at[seen.sites[0]].set(own, mode="drop")
        start += count
    return new


def _build(structure: Structure, sets: np.ndarray) -> TreeSweep:
    count = int(sets.max()) + 1
    built = tuple(_trees(structure, sets == k) for k in range(count))
    drawn = tuple(v.name for v in structure.skeleton.free if v.domain.levels is not None)
    deepest = max(trees.shape[0] + 1 for trees in built)
    note = f"{count} sets of trees, up to {deepest:,} sites from a root to a leaf"
    return TreeSweep(drawn, note, structure.skeleton.free, built)


def _trees(structure: Structure, inside: np.ndarray) -> Trees:
    edges = structure.edges[inside[structure.edges].all(axis=1)]
    forest = Forest(structure.sites, np.flatnonzero(inside), edges)
    slots, alone, joined = forest.slots, [], []
    slot_of = np.full(structure.sites, -1)
    slot_of[slots[slots >= 0]] = np.flatnonzero(slots >= 0)
    for number, factor in enumerate(structure.factors):
        low, high = _ends(structure.scope(factor), inside)
        alone.append((low >= 0) & (low == high))
        rows = np.flatnonzero(low != high)
        if len(rows):
            low, high = low[rows], high[rows]
            child = np.where(forest.parent[low] == high, low, high)
            place = slot_of[child] - len(forest.roots)
            joined.append(Chosen(number, rows, child, low + high - child, place))
    part = structure.part(inside, tuple(alone))
    values = _level_values(structure)
    sites, order = _sites(part, slots, inside)
    return Trees(
        part,
        len(forest.roots),
        (forest.body.shape[0], forest.body.shape[1]),
        sites,
        order,
        jnp.asarray(values[slots].T),
        tuple(pairs_of(structure, chosen, values) for chosen in joined),
        jnp.asarray(forest.above()[0] if len(forest.body) else np.zeros(0), jnp.int32),
        None if forest.straight else jnp.asarray(forest.above(), jnp.int32),
    )


def _ends(scope: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest site inside of each factor; -1 where there is none.

    A factor of three sites joins them all, so that they would close a cycle.
    """
    own = inside[scope]
    high = np.where(own, scope, -1).max(axis=1, initial=-1)
    low = np.where(own, scope, len(inside)).min(axis=1, initial=len(inside))
    return np.where(high < 0, -1, low), high


def _level_values(structure: Structure) -> np.ndarray:
    """The values of each site's levels, (site, level), the last one repeated."""
    finite = finite_sites(structure)
    most = int(structure.levels[finite].max())
    values = np.zeros((structure.sites, most), np.float32)
    for v in structure.variables:
        if v.domain.levels is not None:
            known = np.asarray(v.domain.values, np.float32)
            rows = slice(structure.offset[v.name], structure.offset[v.name] + v.size)
            values[rows] = np.pad(known, (0, most - len(known)), mode="edge")[:most]
    return values


def _sites(
    part: Structure, slots: np.ndarray, inside: np.ndarray
) -> tuple[tuple[SiteFactors, ...], Array | None]:
    """The sites of each variable with their factors, and the order of slots among them all."""
    found, numbers = [], []
    shown = [v for v in part.skeleton.free if (inside & part.of_variables([v.name])).any()]
    for v in shown:
        start = part.offset[v.name]
        own = (slots >= start) & (slots < start + v.size)
        # A single variable keeps the order of the slots; padding is a site that does not exist.
        chosen = np.where(own, slots - start, v.size) if len(shown) == 1 else slots[own] - start
        law = conditional_for(part, v)
        assert not isinstance(law, Refusal)
        seen = site_factors(part, v, law, chosen[None])
        if isinstance(seen, Refusal):
            raise TypeError(f"Gibbs cannot draw trees: {seen.reason}.")
        found.append(seen)
        numbers.append(np.flatnonzero(own))
    if len(shown) == 1:
        return tuple(found), None
    listed = np.concatenate(numbers)
    order = np.full(len(slots), len(listed), np.int32)
    order[listed] = np.arange(len(listed))
    return tuple(found), jnp.asarray(order)
