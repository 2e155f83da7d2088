"""Tables: the energies of factors at every joint state of their finite free sites."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from energydsl.analysis.evaluation import argument, common_argument
from energydsl.analysis.factor import Factor, Leaf, Sites, Whole, is_common
from energydsl.analysis.joint_states import int32, positions
from energydsl.analysis.structure import Structure
from energydsl.language.model import Model

CHUNK = 2**21
"""The most numbers that arguments of factors take at once, unless one factor needs more."""

OTHER, HELD = -2, -1
"""What marks the place of a free site that is not finite, and of a clamped one."""


class Tables(eqx.Module):
    """Factors of one batch whose finite free sites stand in the same places of their arguments.

    The states of a table are numbered in mixed radix; the last site's level varies fastest.
    """

    structure: Structure = eqx.field(static=True)
    number: int = eqx.field(static=True)
    """The number of the batch."""
    places: tuple[int, ...] = eqx.field(static=True)
    """For each site argument, the position of its site in the table's scope; -1 for others."""
    levels: tuple[int, ...] = eqx.field(static=True)
    """The numbers of levels of the scope's sites."""
    indices: tuple[Array | None, ...]
    """The entries of each leaf, (factor, *argument); None for an argument that all share."""

    @property
    def states(self) -> int:
        """The number of joint states of one table."""
        return math.prod(self.levels)

    def energies(self, model: Model) -> Array:
        """The energy of each factor in each of its states, (factor, state)."""
        factor = self.structure.factors[self.number]
        most = max(1, CHUNK // (self.states * _arguments(factor, self.places)))
        count = max((len(i) for i in self.indices if i is not None), default=1)
        if count <= most:
            return self._energies(model, self.indices)

        @jax.checkpoint
        def one(indices: tuple[Array | None, ...]) -> Array:
            return self._energies(model, jax.tree.map(lambda i: i[None], indices))[0]

        return lax.map(one, self.indices, batch_size=most)

    def _energies(self, model: Model, indices: tuple[Array | None, ...]) -> Array:
        factor = self.structure.factors[self.number]
        values, axes = self._arguments(model, indices)
        energy = jax.vmap(factor.energy, [a for _, a in axes])
        return jax.vmap(energy, [a for a, _ in axes])(*values)

    def at_states(self, model: Model, function: Callable[[list[Any]], Any]) -> Any:
        """A function of all factors' arguments in one state, mapped over states.

        Free sites that are not finite are as in `model.blank()`.

        Args:
            model: the model.
            function: takes the arguments of all factors, as `Rows.arguments` gives them, and
                returns arrays whose first axis is that of the factors.

        Returns:
            The arrays with the axes (factor, state, ...).
        """
        values, axes = self._arguments(model, self.indices)
        count = max(len(i) for i in self.indices if i is not None)
        leaves = self.structure.factors[self.number].leaves
        values = [
            jnp.broadcast_to(v, (count, *v.shape)) if own is None and _is_still(leaf) else v
            for leaf, v, (own, _) in zip(leaves, values, axes, strict=True)
        ]
        states = [None if state is None else 1 for _, state in axes]
        return jax.vmap(lambda *v: function(list(v)), states, out_axes=1)(*values)

    def _arguments(
        self, model: Model, indices: tuple[Array | None, ...]
    ) -> tuple[list[Any], list[tuple[int | None, int | None]]]:
        """The arguments of each factor in each state, and the axes along which to map over both.

        The axes are those of the factors and, once these are mapped over, of the states.
        """
        factor = self.structure.factors[self.number]
        env = model.environment(model.blank())
        digits = np.indices(self.levels).reshape(len(self.levels), self.states)
        values, axes, place = [], [], 0
        for leaf, index in zip(factor.leaves, indices, strict=True):
            value = common_argument(leaf, env) if index is None else argument(leaf, index, env)
            moving = False
            if isinstance(leaf, Sites):
                width = math.prod(leaf.index.shape[1:])
                own = np.array(self.places[place : place + width], int)
                place += width
                # Without a finite free site there is one state, over which some axis must run.
                moving = bool((own >= 0).any()) or max(self.places) < 0
                value = self._placed(value, leaf, own, digits) if moving else value
            values.append(value)
            axes.append((None, None) if index is None else (0, 0 if moving else None))
        return values, axes

    def _placed(self, value: Array, leaf: Sites, own: np.ndarray, digits: np.ndarray) -> Array:
        """Values of a site argument in every state, (factor, state, *argument).

        An entry has its site's level if the site has a place, else its present value.
        """
        if (own < 0).all():
            return value[:, None]
        known = np.asarray(leaf.variable.domain.values).astype(value.dtype)
        levels = known[digits[np.maximum(own, 0)]].T
        placed = jnp.where(own >= 0, levels, value.reshape(len(value), 1, -1))
        return placed.reshape(len(value), self.states, *value.shape[1:])


class Group(NamedTuple):
    """Factors of one batch whose finite free sites stand in the same places of their arguments.

    Factors without other differences share a table, as all factors of a homogeneous chain do.
    """

    number: int
    """The number of the batch."""
    members: np.ndarray
    """The factors of the batch that are in this group."""
    rows: np.ndarray
    """For each table, a factor that it belongs to."""
    table: np.ndarray
    """For each factor, the position of its table."""
    places: tuple[int, ...]
    """See `Tables`."""
    scopes: np.ndarray
    """The finite free sites of each factor, (factor, position)."""


class Scopes:
    """The tables of some components, before any number is computed.

    `chosen` marks, for each batch, the factors that have tables here; by default all have.
    """

    def __init__(
        self,
        structure: Structure,
        components: np.ndarray,
        chosen: tuple[np.ndarray, ...] | None = None,
    ) -> None:
        self.structure = structure
        self.groups: list[Group] = []
        position = positions(structure, components)
        for number, component in enumerate(structure.row_components):
            owned = position[component] >= 0
            rows = np.flatnonzero(owned if chosen is None else owned & chosen[number])
            if len(rows):
                self.groups += _groups(structure, number, rows)

    @property
    def arguments(self) -> float:
        """The largest number of arguments, and energies, that are computed at once."""
        factors = self.structure.factors
        sizes = [
            (math.prod(self.levels(g)) * _arguments(factors[g.number], g.places), len(g.rows))
            for g in self.groups
        ]
        return max((max(size, min(CHUNK, size * count)) for size, count in sizes), default=0)

    def levels(self, group: Group) -> tuple[int, ...]:
        """The numbers of levels of the sites of each table of a group."""
        return tuple(self.structure.levels[group.scopes[0]].tolist())

    def listed(self, begin: int) -> tuple[list[list[int]], np.ndarray]:
        """The sites of every factor, and the cell where its table begins; the first's: `begin`."""
        scopes, starts = [], [np.zeros(0, np.int64)]
        for group in self.groups:
            size = math.prod(self.levels(group))
            scopes += group.scopes.tolist()
            starts.append(begin + size * group.table)
            begin += size * len(group.rows)
        return scopes, np.concatenate(starts)

    @property
    def cells(self) -> int:
        """The number of cells of all tables."""
        return sum(len(g.rows) * math.prod(self.levels(g)) for g in self.groups)

    def built(self) -> tuple[Tables, ...]:
        """The tables as pytrees."""
        return tuple(
            Tables(self.structure, g.number, g.places, self.levels(g), self._indices(g))
            for g in self.groups
        )

    def _indices(self, group: Group) -> tuple[Array | None, ...]:
        leaves = self.structure.factors[group.number].leaves
        return tuple(
            None if isinstance(leaf, Whole) or _is_still(leaf) else int32(leaf.index[group.rows])
            for leaf in leaves
        )


def _is_still(leaf: Leaf) -> bool:
    """Whether an argument is the same for all factors, and in every state of their sites."""
    return is_common(leaf) and not isinstance(leaf, Sites)


def _arguments(factor: Factor, places: tuple[int, ...]) -> int:
    """The numbers of one state of a table: the energy, and the arguments that differ by state."""
    count, place = 1, 0
    for leaf in factor.sites.values():
        width = math.prod(leaf.index.shape[1:])
        count += width if max(places[place : place + width]) >= 0 else 0
        place += width
    return count


def table_sizes(
    structure: Structure, chosen: tuple[np.ndarray, ...] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """For each component, log2 of the cells of its largest table, and the cells of all.

    `chosen` marks, for each batch, the factors that have tables; by default all have.
    """
    bits = np.zeros(len(structure.component_sizes))
    cells = np.zeros(len(bits))
    weights = np.log2(np.maximum(structure.levels, 1)) * structure.free
    for number, owner in enumerate(structure.row_components):
        scope = np.sort(structure.scope(structure.factors[number]), axis=1)
        first = np.diff(scope, axis=1, prepend=-1) > 0
        own = (weights[scope] * first).sum(axis=1)
        inside = owner >= 0 if chosen is None else (owner >= 0) & chosen[number]
        np.maximum.at(bits, owner[inside], own[inside])
        cells += np.bincount(owner[inside], np.exp2(own[inside]), len(cells))
    return bits, cells


def _groups(structure: Structure, number: int, rows: np.ndarray) -> list[Group]:
    """Rows of a batch grouped by the places of their free sites."""
    scope = structure.scope(structure.factors[number])[rows]
    free = structure.free[scope] & (structure.levels[scope] > 0)
    # The first column that has the same site; a site that is an argument twice has one place.
    first, moving = np.full(scope.shape, -1), np.flatnonzero(free.any(axis=0))
    if len(moving):
        own = scope[:, moving]
        first[:, moving] = moving[(own[:, :, None] == own[:, None, :]).argmax(axis=2)]
    first[~free] = np.where(structure.free[scope], OTHER, HELD)[~free]
    if (first == first[:1]).all():
        kinds, kind = first[:1], np.zeros(len(first), int)
    else:
        kinds, kind = np.unique(first, axis=0, return_inverse=True)
    groups = []
    for k, columns in enumerate(kinds):
        chosen = np.flatnonzero(kind.ravel() == k)
        sites = sorted(set(columns.tolist()) - {OTHER, HELD})
        places = tuple(-1 if c < 0 else sites.index(c) for c in columns.tolist())
        held = scope[chosen][:, columns == HELD]
        one, table = _distinct(structure, number, rows[chosen], held)
        groups.append(Group(number, rows[chosen], one, table, places, scope[chosen][:, sites]))
    return groups


def _distinct(
    structure: Structure, number: int, rows: np.ndarray, held: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows that differ in more than their free sites, and for each row the position of its like."""
    parts = [held]
    for leaf in structure.factors[number].leaves:
        if not isinstance(leaf, Sites | Whole):
            parts.append(leaf.index[rows].reshape(len(rows), -1))
    differing = np.concatenate(parts, axis=1)
    if not differing.shape[1]:
        return rows[:1], np.zeros(len(rows), np.int64)
    # One column alone is sorted as numbers, which is faster than rows.
    axis = 0 if differing.shape[1] > 1 else None
    _, first, table = np.unique(differing, axis=axis, return_index=True, return_inverse=True)
    return rows[first], table.ravel()
