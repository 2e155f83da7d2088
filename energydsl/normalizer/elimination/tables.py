"""Tables: the energies of factors at every joint state of their free sites."""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl.analysis.evaluation import argument
from energydsl.analysis.factor import Sites, Whole
from energydsl.analysis.joint_states import int32, positions
from energydsl.analysis.structure import Structure
from energydsl.language.model import Model


class Tables(eqx.Module):
    """Factors of one batch whose free sites stand in the same places of their arguments.

    The states of a table are numbered in mixed radix; the last site's level varies fastest.
    """

    structure: Structure = eqx.field(static=True)
    number: int = eqx.field(static=True)
    """The number of the batch."""
    places: tuple[int, ...] = eqx.field(static=True)
    """For each site argument, the position of its site in the table's scope; -1 if clamped."""
    levels: tuple[int, ...] = eqx.field(static=True)
    """The numbers of levels of the scope's sites."""
    rows: Array

    @property
    def states(self) -> int:
        """The number of joint states of one table."""
        return math.prod(self.levels)

    def energies(self, model: Model) -> Array:
        """The energy of each factor in each of its states, (factor, state)."""
        factor = self.structure.factors[self.number]
        env = model.environment(model.blank())
        digits = np.indices(self.levels).reshape(len(self.levels), self.states)
        values, axes, place = [], [], 0
        for leaf in factor.leaves:
            index = None if isinstance(leaf, Whole) else jnp.asarray(leaf.index)[self.rows]
            value = argument(leaf, index, env)
            if isinstance(leaf, Sites):
                width = math.prod(leaf.index.shape[1:])
                own = self.places[place : place + width]
                place += width
                value = self._placed(value, leaf, own, digits)
            values.append(value)
            axes.append(
                (None, None) if index is None else (0, 0 if isinstance(leaf, Sites) else None)
            )
        energy = jax.vmap(factor.energy, [a for _, a in axes])
        return jax.vmap(energy, [a for a, _ in axes])(*values)

    def _placed(self, value: Array, leaf: Sites, own: tuple[int, ...], digits: np.ndarray) -> Array:
        """Values of a site argument in every state, (factor, state, *argument)."""
        count, known = len(value), jnp.asarray(leaf.variable.domain.values).astype(value.dtype)
        flat = value.reshape(count, -1)
        columns = [
            jnp.broadcast_to(flat[:, k, None], (count, self.states))
            if at < 0
            else jnp.broadcast_to(known[digits[at]], (count, self.states))
            for k, at in enumerate(own)
        ]
        return jnp.stack(columns, axis=-1).reshape(count, self.states, *value.shape[1:])


class Scopes:
    """The tables of some components, before any number is computed.

    Attributes:
        groups: one entry for each `Tables`: the batch, its rows, the places, and the sites (table,
            position) that are the tables' scopes.
    """

    def __init__(self, structure: Structure, components: np.ndarray) -> None:
        self.structure = structure
        self.groups: list[tuple[int, np.ndarray, tuple[int, ...], np.ndarray]] = []
        position = positions(structure, components)
        for number, component in enumerate(structure.row_components):
            rows = np.flatnonzero(position[component] >= 0)
            if len(rows):
                self.groups += [(number, *group) for group in _alike(structure, number, rows)]

    @property
    def arguments(self) -> int:
        """The number of site arguments, and one more, of all factors in every state of theirs."""
        return sum(
            len(rows) * (1 + len(places)) * math.prod(self.levels(k))
            for k, (_, rows, places, _) in enumerate(self.groups)
        )

    def levels(self, group: int) -> tuple[int, ...]:
        """The numbers of levels of the sites of each table of a group."""
        return tuple(self.structure.levels[self.groups[group][3][0]].tolist())

    def built(self) -> tuple[Tables, ...]:
        """The tables as pytrees."""
        return tuple(
            Tables(self.structure, number, places, self.levels(k), int32(rows))
            for k, (number, rows, places, _) in enumerate(self.groups)
        )


def table_sizes(structure: Structure) -> tuple[np.ndarray, np.ndarray]:
    """For each component, log2 of the cells of its largest table, and the cells of all."""
    bits = np.zeros(len(structure.component_sizes))
    cells = np.zeros(len(bits))
    weights = np.log2(np.maximum(structure.levels, 1)) * structure.free
    for number, owner in enumerate(structure.row_components):
        scope = np.sort(structure.scope(structure.factors[number]), axis=1)
        first = np.diff(scope, axis=1, prepend=-1) > 0
        own = (weights[scope] * first).sum(axis=1)
        inside = owner >= 0
        np.maximum.at(bits, owner[inside], own[inside])
        cells += np.bincount(owner[inside], np.exp2(own[inside]), len(cells))
    return bits, cells


def _alike(
    structure: Structure, number: int, rows: np.ndarray
) -> list[tuple[np.ndarray, tuple[int, ...], np.ndarray]]:
    """Rows of a batch grouped by the places of their free sites, with these sites."""
    scope = structure.scope(structure.factors[number])[rows]
    free = structure.free[scope]
    # The first column that has the same site; a site that is an argument twice has one place.
    first, moving = np.full(scope.shape, -1), np.flatnonzero(free.any(axis=0))
    own = scope[:, moving]
    first[:, moving] = moving[(own[:, :, None] == own[:, None, :]).argmax(axis=2)]
    first[~free] = -1
    kinds, kind = np.unique(first, axis=0, return_inverse=True)
    groups = []
    for k, columns in enumerate(kinds):
        chosen = np.flatnonzero(kind.ravel() == k)
        own = sorted(set(columns.tolist()) - {-1})
        places = tuple(-1 if c < 0 else own.index(c) for c in columns.tolist())
        groups.append((rows[chosen], places, scope[chosen][:, own]))
    return groups
