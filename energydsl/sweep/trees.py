r"""Trees of finite sites: their log sum over all joint states, and joint draws.

Given all other sites, the energy of a forest is
$\sum_i h_i(x_i) + \sum_{(i, j)} w_{ij}(x_i, x_j)$, over its sites and its edges. From the leaves to
the root, each site i sends its parent j the energy of its subtree,

$$m_i(x_j) = -\log \sum_{x_i} e^{-w_{ij}(x_i, x_j) - h_i(x_i) - \sum_k m_k(x_i)},$$

with its children k. The sums at the roots are the sum over all states. From the root to the leaves,
each site is then drawn from the summand, given its parent. All trees are visited at once, one
distance from the root after another.

Source: Carter & Kohn (1994), Biometrika 81(3), 541-553; Hamze & de Freitas (2004), UAI, 243-250.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from energydsl._types import Refusal
from energydsl.analysis.conditional import conditional_for
from energydsl.analysis.conditional.levels import LevelConditional, log_sum
from energydsl.analysis.conditional.slope import SlopeConditional
from energydsl.analysis.incidence import (
    SiteFactors,
    first_of,
    site_factors,
    still_arguments,
    totals,
)
from energydsl.analysis.structure import Structure
from energydsl.analysis.uniform import open_uniform
from energydsl.language.expression import Environment
from energydsl.language.variable import Variable
from energydsl.sweep.forest import Forest
from energydsl.sweep.pairs import Chosen, Pairs, pairs_of


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
    levels: int = eqx.field(static=True)
    """The largest number of levels of a site."""
    pairs: tuple[Pairs, ...]
    first: Array
    """The root above each lane of the body's first row."""
    above: Array | None
    held: Array
    """True at each place of the body that has a site."""

    def placed(self, rows: Array) -> tuple[Array, Array]:
        """Rows of slots, (..., slot, chain), as those of roots and (distance, ..., lane, chain)."""
        body = rows[..., self.roots :, :].reshape(*rows.shape[:-2], *self.shape, rows.shape[-1])
        return rows[..., : self.roots, :], jnp.moveaxis(body, -3, 0)


class Passed(NamedTuple):
    """What the pass to the roots leaves: energies of subtrees, (level, ..., chain).

    `lost` is the sum of what was subtracted from messages, and `bonds` has the energies of pairs,
    (distance, level, level, lane, chain).
    """

    roots: Array
    body: Array
    bonds: Array
    lost: Array


def load(
    structure: Structure, free: tuple[Variable, ...], trees: Trees, env: Environment
) -> tuple[Any, Any, Array]:
    """The constant arguments of single sites and of pairs, and the constant energies of pairs."""
    single = [still_arguments(trees.part, free, seen, env) for seen in trees.sites]
    double = [pairs.arguments(structure, free, env) for pairs in trees.pairs]
    still = jnp.zeros((trees.levels, trees.levels, math.prod(trees.shape)))
    blank = {v.name: jnp.zeros((v.size, 1)) for v in free}
    for pairs, arguments in zip(trees.pairs, double, strict=True):
        if pairs.still:
            found = pairs.energies(structure, arguments, blank)
            still = still.at[:, :, pairs.slots].add(found)
    return single, double, still


def upwards(
    structure: Structure,
    trees: Trees,
    tables: Any,
    state: dict[str, Array],
    betas: Array | None = None,
) -> Passed:
    """The messages from the leaves to the roots, given all sites outside the trees.

    Args:
        structure: the structure of the model.
        trees: the trees.
        tables: what `load` returned.
        state: the values of each free variable, (site, chain).
        betas: a number for each chain, by which its energies are multiplied; 1 by default.
    """
    single, double, bonds = tables
    bonds = bonds[..., None]
    for pairs, arguments in zip(trees.pairs, double, strict=True):
        if not pairs.still:
            found = pairs.energies(structure, arguments, state)
            grown = jnp.broadcast_to(bonds, (*bonds.shape[:3], found.shape[-1]))
            bonds = grown.at[:, :, pairs.slots].add(found)
    bonds = jnp.moveaxis(bonds.reshape(*bonds.shape[:2], *trees.shape, bonds.shape[-1]), 2, 0)
    # XLA would otherwise compute the fields again for every use.
    roots, body = trees.placed(lax.optimization_barrier(_fields(trees, single, state)))
    if betas is not None:
        roots, body, bonds = roots * betas, body * betas, bonds * betas
    if not trees.shape[0]:
        return Passed(roots, body, bonds, jnp.zeros(roots.shape[-1]))
    below = None if trees.above is None else jnp.concatenate([trees.above[1:], trees.above[:1]])

    def collect(carry: Any, row: Any) -> tuple[Any, Array]:
        messages, lost = carry
        field, bond, lanes, held = row
        field = field + (messages if lanes is None else _added(messages, lanes, trees.shape[1]))
        messages, least = _message(field, bond)
        lost = lost + jnp.where(held[:, None], least, 0.0).sum(axis=0)
        return (messages, lost), field

    start = jnp.zeros_like(body[0]), jnp.zeros(body.shape[-1])
    rows = body, bonds, below, trees.held
    (messages, lost), body = lax.scan(collect, start, rows, reverse=True)
    return Passed(roots + _added(messages, trees.first, trees.roots), body, bonds, lost)


def log_sums(passed: Passed) -> Array:
    """The log of the sum of exp(-E) over all states of the trees, for each chain."""
    return log_sum(-passed.roots).sum(axis=0) - passed.lost


def downwards(trees: Trees, passed: Passed, *, key: Array) -> Array:
    """The drawn level of each slot, (slot, chain), from the roots to the leaves."""
    chains = passed.roots.shape[-1]
    shape = trees.roots + math.prod(trees.shape), chains
    # One axis: XLA draws arrays with a short last axis ten times more slowly.
    roots_u, body_u = trees.placed(open_uniform(key, (math.prod(shape),)).reshape(shape))
    top = _picked(passed.roots, roots_u)
    if not trees.shape[0]:
        return top
    ups = trees.above
    if ups is not None:
        ups = ups.at[0].set(jnp.arange(trees.shape[1]))

    def spread(parents: Array, row: Any) -> tuple[Array, Array]:
        field, bond, lanes, u = row
        parents = parents if lanes is None else parents[lanes]
        drawn = _picked(field + _at(bond, parents), u)
        return drawn, drawn

    rows = passed.body, passed.bonds, ups, body_u
    rest = lax.scan(spread, top[trees.first], rows)[1]
    return jnp.concatenate([top, rest.reshape(-1, chains)])


def written(trees: Trees, state: dict[str, Array], levels: Array) -> dict[str, Array]:
    """The state with the sites of the slots at these levels, (slot, chain)."""
    if trees.order is not None:
        blank = jnp.zeros((sum(seen.sites.size for seen in trees.sites) + 1, levels.shape[-1]), int)
        levels = blank.at[trees.order].set(levels)
    start, new = 0, dict(state)
    for seen in trees.sites:
        v, count = seen.variable, seen.sites.size
        known = jnp.asarray(v.domain.values, state[v.name].dtype)
        own = known[levels[start : start + count]]
        new[v.name] = state[v.name].at[seen.sites[0]].set(own, mode="drop")
        start += count
    return new


def _fields(trees: Trees, tables: Any, state: dict[str, Array]) -> Array:
    """The energy of each slot's levels given all sites outside the trees, (level, slot, chain)."""
    found = []
    for seen, (each, shared) in zip(trees.sites, tables, strict=True):
        one, each = first_of((seen, each))
        assert isinstance(seen.law, LevelConditional | SlopeConditional)
        own = seen.law.energies(totals(trees.part, one, (each, shared), state))
        missing = ((0, trees.levels - len(own)), (0, 0), (0, 0))
        found.append(jnp.pad(own, missing, constant_values=jnp.inf))
    if trees.order is None:
        return found[0]
    # Padding stands after all sites.
    return jnp.pad(jnp.concatenate(found, axis=1), ((0, 0), (0, 1), (0, 0)))[:, trees.order]


def _message(field: Array, bond: Array) -> tuple[Array, Array]:
    """The energies of subtrees at each level of the sites above, less the lowest, and that."""
    terms = [energy + row for energy, row in zip(field, bond, strict=True)]
    # Folded and not reduced: XLA makes a reduction a loop of its own.
    lowest = lax.stop_gradient(functools.reduce(jnp.minimum, terms))
    never = jnp.isinf(lowest)
    total = sum(jnp.exp(jnp.where(never, 0.0, lowest - term)) for term in terms)
    message = jnp.where(never, jnp.inf, lowest - jnp.log(total))
    least = lax.stop_gradient(functools.reduce(jnp.minimum, message))
    least = jnp.where(jnp.isinf(least), 0.0, least)
    return message - least, least


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


def trees_of(structure: Structure, inside: np.ndarray) -> Trees:
    """The trees that some finite free sites induce."""
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
    values = _level_values(structure, inside)
    sites, order = _sites(part, slots, inside)
    return Trees(
        part,
        len(forest.roots),
        (forest.body.shape[0], forest.body.shape[1]),
        sites,
        order,
        values.shape[1],
        tuple(pairs_of(structure, chosen, values) for chosen in joined),
        jnp.asarray(forest.above()[0] if len(forest.body) else np.zeros(0), jnp.int32),
        None if forest.straight else jnp.asarray(forest.above(), jnp.int32),
        jnp.asarray(forest.body >= 0),
    )


def _ends(scope: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest site inside of each factor; -1 where there is none.

    A factor of three sites joins them all, so that they would close a cycle.
    """
    own = inside[scope]
    high = np.where(own, scope, -1).max(axis=1, initial=-1)
    low = np.where(own, scope, len(inside)).min(axis=1, initial=len(inside))
    return np.where(high < 0, -1, low), high


def _level_values(structure: Structure, inside: np.ndarray) -> np.ndarray:
    """The values of each site's levels, (site, level), the last one repeated."""
    most = int(structure.levels[inside].max())
    values = np.zeros((structure.sites, most), np.float32)
    for v in structure.variables:
        if v.domain.levels is not None:
            known = np.asarray(v.domain.values, np.float32)
            rows = slice(structure.offset[v.name], structure.offset[v.name] + v.size)
            values[rows] = np.pad(known, (0, max(most - len(known), 0)), mode="edge")[:most]
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
            raise TypeError(f"The finite sites cannot be joined to trees: {seen.reason}.")
        found.append(seen)
        numbers.append(np.flatnonzero(own))
    if len(shown) == 1:
        return tuple(found), None
    listed = np.concatenate(numbers)
    order = np.full(len(slots), len(listed), np.int32)
    order[listed] = np.arange(len(listed))
    return tuple(found), jnp.asarray(order)
