"""For each site, the factors that contain it, with their other arguments.

Index arrays depend on structure only. They are padded, so that all sites of a block have arrays of
the same shape. Sweeps, `EBM.conditional` and pseudo-likelihood use them to compute conditional
distributions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeGuard

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl._types import Configuration, Refusal
from energydsl.analysis.conditional import AbstractConditional, conditional_for
from energydsl.analysis.evaluation import argument
from energydsl.analysis.factor import Factor, Leaf, Sites, Whole, common_entries
from energydsl.analysis.structure import Structure, repeats
from energydsl.language.expression import Environment
from energydsl.language.model import Model
from energydsl.language.variable import Variable

MAX_ENTRIES = 2**28
"""The most index entries that are built; more would not fit in memory."""


class Incidence(eqx.Module):
    """For each site of a block, the factors of one batch that contain it, padded.

    Index arrays have the axes (block, site, factor, *axes of one factor's argument). `own` marks
    the entries of arguments that are the site itself; None if these are exactly leaf `slot`.
    `valid` is False at padding; None if there is none.
    """

    number: int = eqx.field(static=True)
    slot: int = eqx.field(static=True)
    shared: tuple[Any, ...] = eqx.field(static=True)
    """For each leaf, the entries that all these factors use; None if they differ."""
    indices: tuple[Any, ...]
    own: tuple[Any, ...] | None
    valid: Array | None


class SiteFactors(eqx.Module):
    """Blocks of sites of one variable, padded to equal length, with the factors of each site.

    `sites` has the axes (block, site).
    """

    variable: Variable = eqx.field(static=True)
    law: AbstractConditional
    sites: Array
    incidences: tuple[Incidence, ...]


def site_factors(
    structure: Structure, variable: Variable, law: AbstractConditional, sites: np.ndarray
) -> SiteFactors | Refusal:
    """The factors of `sites`, an array with the axes (block, site), or why there are too many."""
    incidences = []
    for group in _groups(structure, variable):
        found = _incidence(structure, group, sites)
        if isinstance(found, Refusal):
            return found
        if found is not None:
            incidences.append(found)
    return SiteFactors(variable, law, jnp.asarray(sites, np.int32), tuple(incidences))


def too_many(structure: Structure, variable: Variable, sites: np.ndarray) -> Refusal | None:
    """The reason for which `site_factors` would refuse these sites; None if it would not."""
    for group in _groups(structure, variable):
        site, _ = _members(structure, group)
        counts = np.bincount(site, minlength=variable.size + 1)
        refusal = _too_many(structure, group, sites, int(counts[sites].max(initial=0)))
        if refusal is not None:
            return refusal
    return None


def still_arguments(
    structure: Structure, free: tuple[Variable, ...], seen: SiteFactors, env: Environment
) -> tuple[Any, Any]:
    """The arguments that are constant during sampling: those of each block, and common ones."""
    each, shared = [], []
    for incidence in seen.incidences:
        leaves = structure.factors[incidence.number].leaves
        still = [not (isinstance(leaf, Sites) and leaf.variable in free) for leaf in leaves]
        rows = list(zip(leaves, incidence.indices, incidence.shared, still, strict=True))
        each.append([argument(f, i, env) if s and i is not None else None for f, i, _, s in rows])
        shared.append([_common(f, k, env) if s and i is None else None for f, i, k, s in rows])
    return each, shared


def _common(leaf: Leaf, entries: Any, env: Environment) -> Any:
    return argument(leaf, None if entries is None else np.asarray(entries), env)


def totals(
    structure: Structure, seen: SiteFactors, tables: tuple[Any, Any], state: dict[str, Array]
) -> Array:
    """The sufficient numbers of each site of one block, summed over factors.

    Returns:
        An array with the axes (number, site, chain); see `AbstractConditional.measure`.
    """
    chains = next(iter(state.values())).shape[-1]
    total = jnp.zeros((seen.law.size, seen.sites.shape[-1], chains))
    for incidence, each, shared in zip(seen.incidences, *tables, strict=True):
        constants = [s if e is None else e for e, s in zip(each, shared, strict=True)]
        total = total + _total(structure, seen.law, incidence, constants, state)
    return total


def measures(structure: Structure, model: Model, seen: SiteFactors, xs: Configuration) -> Array:
    """The `totals` of one block's sites for a batch of configurations.

    Returns:
        An array with the axes (number, site, configuration).
    """
    free = structure.skeleton.free
    values = jax.vmap(model.complete)(xs)
    state = {v.name: values[v.name].reshape(-1, v.size).T for v in free}
    each, shared = still_arguments(structure, free, seen, model.environment(model.evidence))
    seen, each = first_of((seen, each))
    return totals(structure, seen, (each, shared), state)


def no_law(structure: Structure, model: Model, x: Configuration) -> str | None:
    """A message about a free site whose conditional does not exist at `x`; None if all exist.

    Variables whose conditional is of no known family are not examined.
    """
    numbers = [a for a in jax.tree.leaves(model.slots) if eqx.is_inexact_array(a)]
    finite = all(bool(jnp.isfinite(a).all()) for a in numbers)
    for v in structure.skeleton.free:
        law = conditional_for(structure, v)
        if isinstance(law, Refusal):
            continue
        # An energy that is linear in the levels of a site is finite at all of them.
        if finite and v.domain.levels is not None and law.derivatives == 1:
            continue
        seen = site_factors(structure, v, law, np.arange(v.size, dtype=np.int32)[None])
        if isinstance(seen, Refusal):
            continue
        total = measures(structure, model, seen, jax.tree.map(lambda a: jnp.asarray(a)[None], x))
        bad = np.asarray(law.improper(total[..., 0])) & ~structure.skeleton.mask(v).ravel()
        if bad.any():
            return f"the conditional of {v.describe(int(np.argmax(bad)))} {law.no_law}"
    return None


def first_of(stacked: Any) -> Any:
    """The first entry along the leading axis of each array."""
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
    rows = zip(factor.leaves, incidence.indices, incidence.shared, constants, strict=True)
    for leaf, index, common, constant in rows:
        if _moves(leaf, state):
            v = leaf.variable
            read = np.asarray(common) if index is None else index
            constant = state[v.name][read].astype(v.domain.energy_dtype)
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
    """The measure mapped over chains (the last axis), the factors of a site, and sites."""
    moving = [_moves(leaf, state) for leaf in factor.leaves]
    masks = incidence.own or (None,) * len(factor.leaves)
    chains = [-1 if m else None for m in moving] + [None] * len(masks)
    spread = [None if a is None else 0 for a in (*incidence.indices, *masks)]
    batched = jax.vmap(measure, in_axes=tuple(chains), out_axes=1)
    for _ in range(2):
        batched = jax.vmap(batched, in_axes=tuple(spread), out_axes=1)
    return batched


class _Group(NamedTuple):
    """Leaves of one batch that show the same variable and are processed together.

    `plain` if no factor contains a site twice and each leaf is one site; each leaf then is a group.
    """

    number: int
    slots: tuple[int, ...]
    plain: bool


def _groups(structure: Structure, variable: Variable) -> Iterator[_Group]:
    for number, factor in enumerate(structure.factors):
        leaves = {k: leaf for k, leaf in factor.sites.items() if leaf.variable == variable}
        if not leaves:
            continue
        columns = [structure.numbers(leaf) for leaf in leaves.values()]
        # A leaf is a single site only if one factor's argument is a scalar.
        single = all(leaf.index.ndim == 1 for leaf in leaves.values())
        plain = single and not repeats(np.concatenate(columns, axis=1))
        for slots in [(k,) for k in leaves] if plain else [tuple(leaves)]:
            yield _Group(number, slots, plain)


def _members(structure: Structure, group: _Group) -> tuple[np.ndarray, np.ndarray]:
    """The sites of the group's leaves, and for each the factor of the batch that contains it."""
    factor = structure.factors[group.number]
    members = [factor.sites[k].index.reshape(factor.size, -1) for k in group.slots]
    site = np.concatenate([m.ravel() for m in members]).astype(np.int64)
    row = np.concatenate([np.repeat(np.arange(factor.size), m.shape[1]) for m in members])
    if not group.plain and repeats(np.concatenate(members, axis=1)):
        # Pairs as single numbers, sorted: NumPy takes a hundred times longer to sort columns.
        pairs = np.sort(site * factor.size + row)
        site, row = np.divmod(pairs[np.diff(pairs, prepend=-1) > 0], factor.size)
    return site, row


def _too_many(
    structure: Structure, group: _Group, sites: np.ndarray, degree: int
) -> Refusal | None:
    factor = structure.factors[group.number]
    widths = [math.prod(f.index.shape[1:]) for f in factor.leaves if not isinstance(f, Whole)]
    entries = sites.size * degree * max(widths)
    if entries <= MAX_ENTRIES:
        return None
    name = factor.sites[group.slots[0]].variable.name
    return Refusal(
        f"{sites.size:,} sites of {name!r} with up to {degree:,} factors each need "
        f"{entries:.2g} index entries; budget {MAX_ENTRIES:.2g}"
    )


def _incidence(
    structure: Structure, group: _Group, sites: np.ndarray
) -> Incidence | Refusal | None:
    factor = structure.factors[group.number]
    site, row = _members(structure, group)
    order = np.argsort(site, kind="stable")
    variable = factor.sites[group.slots[0]].variable
    counts = np.bincount(site, minlength=variable.size + 1)
    starts = np.concatenate([[0], np.cumsum(counts)])
    degree = int(counts[sites].max(initial=0))
    if not degree:
        return None
    refusal = _too_many(structure, group, sites, degree)
    if refusal is not None:
        return refusal
    ranks = np.arange(degree)
    valid = ranks < counts[sites][..., None]
    rows = row[order[np.where(valid, starts[sites][..., None] + ranks, 0)]]
    shared = tuple(
        None if k in group.slots else common_entries(leaf) for k, leaf in enumerate(factor.leaves)
    )
    gathered = {
        k: leaf.index[rows]
        for k, leaf in enumerate(factor.leaves)
        if not isinstance(leaf, Whole) and shared[k] is None
    }
    looked_for = () if group.plain else group.slots
    own = {k: _expand(sites, gathered[k].ndim) == gathered[k] for k in looked_for}
    every = range(len(factor.leaves))
    return Incidence(
        group.number,
        group.slots[0],
        shared,
        tuple(jnp.asarray(gathered[k]) if k in gathered else None for k in every),
        None if group.plain else tuple(jnp.asarray(own[k]) if k in own else None for k in every),
        None if valid.all() else jnp.asarray(valid),
    )


def _expand(array: np.ndarray, ndim: int) -> np.ndarray:
    return array.reshape(array.shape + (1,) * (ndim - array.ndim))
