"""Tables of a discrete model: the energies of its factors at the joint states of their sites."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jax import Array

from energydsl._types import is_traced
from energydsl.analysis.evaluation import argument, as_double
from energydsl.analysis.factor import Factor, Sites, Whole
from energydsl.analysis.joint_states import Rows
from energydsl.analysis.structure import Structure
from energydsl.language.expression import Environment
from energydsl.language.model import Model

Site = tuple[str, tuple[int, ...]]
"""A site of a model: its variable's name, and its index there."""

MAX_STATES = 2**20
"""The most entries of one table."""

MAX_ENTRIES = 2**25
"""The most entries of all tables."""

CHUNK = 2**20
"""The most values of sites that are made at once."""


class Tables(NamedTuple):
    """Tables of one shape: their scopes, (table, site), and energies, (table, *levels)."""

    scopes: np.ndarray
    energies: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Alike:
    """Factors of one batch in whose scopes the same places are clamped, or are the same site."""

    number: int
    """The number of the batch."""
    rows: np.ndarray
    scopes: np.ndarray
    """All sites of each factor, with repeats."""
    first: np.ndarray
    """For each place of a scope, the first place with the same site; -1 if it is clamped."""
    levels: tuple[int, ...]
    """The number of levels of each distinct free site."""

    @property
    def kept(self) -> np.ndarray:
        """The first place of each distinct free site."""
        return np.flatnonzero(self.first == np.arange(len(self.first)))

    @property
    def entries(self) -> int:
        """The number of entries of all tables."""
        return len(self.rows) * math.prod(self.levels)


def tabulated(model: Model, function: str) -> tuple[Structure, list[Tables]]:
    """The structure of a model, and the tables of all its factors, in float64.

    Raises:
        TypeError: this is no model, or its values are not known inside a JAX transformation.
        ValueError: a free site has no finite list of levels, no site is free, or the tables would
            have too many entries. The messages name the public `function`.
    """
    if not isinstance(model, Model):
        raise TypeError(f"{function} got {type(model).__name__}; expected an ed.Model.")
    if is_traced(model):
        raise TypeError(f"{function} was called inside a JAX transformation; call it outside.")
    structure = Structure(model)
    _check_free(structure, function)
    groups = _alike(structure, function)
    with jax.enable_x64(True):
        double = as_double(model)
        env = double.environment(double.blank())
        return structure, [_tabulate(structure, group, env) for group in groups]


def free_sites(structure: Structure) -> list[Site]:
    """The variable and the index of each free site."""
    return [
        (v.name, tuple(int(i) for i in np.unravel_index(site, v.shape)))
        for v in structure.variables
        for site in np.flatnonzero(structure.free[structure.offset[v.name] :][: v.size])
    ]


def described(structure: Structure, sites: np.ndarray) -> str:
    """The names of the sites of a table."""
    return ", ".join(structure.describe(int(site)) for site in sites) or "no free site"


def _check_free(structure: Structure, function: str) -> None:
    if not structure.free.any():
        raise ValueError(
            f"{function} got a model whose sites are all clamped; expected a free one."
        )
    endless = structure.free & (structure.levels == 0)
    if endless.any():
        first = structure.describe(int(np.argmax(endless)))
        raise ValueError(
            f"{function} got {int(endless.sum())} free sites without a finite list of levels, "
            f"{first} first; it takes finite variables only. Clamp such sites by model.condition."
        )


def _alike(structure: Structure, function: str) -> list[Alike]:
    """All factors of a structure whose free sites are finite.

    Raises:
        ValueError: the tables would have too many entries.
    """
    found = []
    for number, factor in enumerate(structure.factors):
        scopes = structure.scope(factor)
        first = np.where(structure.free[scopes], _first_places(scopes), -1)
        patterns, owner = np.unique(first, axis=0, return_inverse=True)
        for k, pattern in enumerate(patterns):
            rows = np.flatnonzero(owner.ravel() == k)
            kept = scopes[rows[0], pattern == np.arange(len(pattern))]
            levels = tuple(structure.levels[kept].tolist())
            _check_states(structure, kept, levels, function)
            found.append(Alike(number, rows, scopes[rows], pattern, levels))
    entries = sum(group.entries for group in found)
    if entries > MAX_ENTRIES:
        raise ValueError(
            f"{function} got a model whose tables have {entries:,} entries; it takes up to "
            f"{MAX_ENTRIES:,}. Clamp some sites by model.condition."
        )
    return found


def _tabulate(structure: Structure, group: Alike, env: Environment) -> Tables:
    """The tables of some factors, given the clamped sites; JAX's 64-bit mode must be on."""
    kept = group.kept
    if not len(kept):
        energies = Rows(structure, group.number, group.rows, group.rows).energies(env)
        return Tables(group.scopes[:, kept], np.asarray(energies))
    factor = structure.factors[group.number]
    energy, states = _mapped(factor), math.prod(group.levels)
    step = max(CHUNK // (states * group.scopes.shape[1]), 1)
    parts = [
        energy(*_arguments(structure, group, slice(start, start + step), env))
        for start in range(0, len(group.rows), step)
    ]
    energies = np.concatenate([np.asarray(part) for part in parts])
    return Tables(group.scopes[:, kept], energies.reshape(-1, *group.levels))


def _first_places(scopes: np.ndarray) -> np.ndarray:
    """For each place of a row, the first place with the same number."""
    order = np.argsort(scopes, axis=1, kind="stable")
    ordered = np.take_along_axis(scopes, order, axis=1)
    new = np.diff(ordered, axis=1, prepend=-1) > 0
    run = np.maximum.accumulate(np.where(new, np.arange(scopes.shape[1]), 0), axis=1)
    first = np.empty_like(order)
    np.put_along_axis(first, order, np.take_along_axis(order, run, axis=1), axis=1)
    return first


def _check_states(
    structure: Structure, sites: np.ndarray, levels: tuple[int, ...], function: str
) -> None:
    if math.prod(levels) > MAX_STATES:
        named = ", ".join(structure.describe(int(site)) for site in sites[:3])
        raise ValueError(
            f"{function} got a factor of {len(sites)} free sites ({named} ...) with "
            f"2^{sum(map(math.log2, levels)):.4g} joint states; it takes tables of up to "
            f"{MAX_STATES:,} entries. Clamp some of the sites by model.condition."
        )


def _mapped(factor: Factor) -> Callable[..., Array]:
    """The energies of factors at states: values of sites have both axes, others the first."""
    leaves = factor.leaves
    states = tuple(0 if isinstance(leaf, Sites) else None for leaf in leaves)
    rows = tuple(None if isinstance(leaf, Whole) else 0 for leaf in leaves)
    return eqx.filter_jit(jax.vmap(jax.vmap(factor.energy, in_axes=states), in_axes=rows))


def _arguments(structure: Structure, group: Alike, part: slice, env: Environment) -> Iterator[Any]:
    """The arguments of some factors at all joint states, (factor, state, ...)."""
    factor, end = structure.factors[group.number], 0
    rows, kept = group.rows[part], group.kept.tolist()
    digits = np.indices(group.levels).reshape(len(kept), -1)
    for leaf in factor.leaves:
        if not isinstance(leaf, Sites):
            index = None if isinstance(leaf, Whole) else leaf.index[rows]
            yield argument(leaf, index, env)
            continue
        given = np.asarray(argument(leaf, leaf.index[rows], env))
        values = np.repeat(given.reshape(len(rows), 1, -1), digits.shape[1], axis=1)
        start, end = end, end + values.shape[2]
        for place, first in enumerate(group.first[start:end].tolist()):
            if first >= 0:
                values[:, :, place] = leaf.variable.domain.values[digits[kept.index(first)]]
        yield values.reshape(len(rows), -1, *leaf.index.shape[1:])
