"""Tables of a discrete model: the energies of its factors at the joint states of their sites."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import numpy as np

from energydsl._types import is_traced
from energydsl.analysis.evaluation import as_double
from energydsl.analysis.joint_states import held_rows
from energydsl.analysis.structure import Structure
from energydsl.analysis.tables import Group, Scopes
from energydsl.language.model import Model

Site = tuple[str, tuple[int, ...]]
"""A site of a model: its variable's name, and its index there."""

MAX_STATES = 2**20
"""The most entries of one table."""

MAX_ENTRIES = 2**25
"""The most entries of all tables."""


class Tabulated(NamedTuple):
    """Tables of one shape: their scopes, (table, site), and energies, (table, *levels)."""

    scopes: np.ndarray
    energies: np.ndarray


def tabulated(model: Model, function: str) -> tuple[Structure, list[Tabulated]]:
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
    scopes = Scopes(structure, np.arange(len(structure.component_sizes)))
    _check_entries(scopes, function)
    with jax.enable_x64(True):
        double = as_double(model)
        env = double.environment(double.blank())
        found = [
            Tabulated(group.scopes, _energies(tables.energies(double), group, scopes))
            for group, tables in zip(scopes.groups, scopes.built(), strict=True)
        ]
        for rows in held_rows(structure):
            found.append(Tabulated(np.zeros((len(rows), 0), int), np.asarray(rows.energies(env))))
    return structure, found


def _energies(energies: jax.Array, group: Group, scopes: Scopes) -> np.ndarray:
    """The energies of each factor of a group; factors share tables."""
    return np.asarray(energies)[group.table].reshape(-1, *scopes.levels(group))


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


def _check_entries(scopes: Scopes, function: str) -> None:
    """Refuse tables with too many entries."""
    entries = 0
    for group in scopes.groups:
        levels = scopes.levels(group)
        _check_states(scopes.structure, group.scopes[0], levels, function)
        entries += len(group.scopes) * math.prod(levels)
    if entries > MAX_ENTRIES:
        raise ValueError(
            f"{function} got a model whose tables have {entries:,} entries; it takes up to "
            f"{MAX_ENTRIES:,}. Clamp some sites by model.condition."
        )


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
