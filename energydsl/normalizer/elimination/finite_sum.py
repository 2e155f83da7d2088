"""The sum over finite sites by a schedule of eliminations, whatever their tables come from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl._types import Configuration
from energydsl.analysis.joint_states import int32
from energydsl.analysis.structure import Structure
from energydsl.language.model import Model
from energydsl.normalizer.base import uniform
from energydsl.normalizer.elimination.batches import MAX_CELLS
from energydsl.normalizer.elimination.order import Order
from energydsl.normalizer.elimination.passes import Found, Passes, log_sum
from energydsl.normalizer.elimination.schedule import CELLS, Schedule, schedule
from energydsl.normalizer.elimination.search import Search, memory
from energydsl.normalizer.elimination.steps import Steps

CELL = 8.0
"""The operations that compute one cell of a factor's table."""

SHARE = 0.75
"""The share of the arguments from which tables are computed that log Z alone takes."""


class FiniteSum(eqx.Module):
    """The finite sites of some components, summed over in a given order."""

    structure: Structure = eqx.field(static=True)
    alone: Passes | None
    """The passes for log Z where nothing else is asked for, if others take less memory for it."""
    passes: Passes
    cells: int = eqx.field(static=True)
    slot_of: Array
    """The slot of each site; -1 at the sites that are not summed over."""

    def filled(self, energies: Iterable[Array]) -> Array:
        """The cells of all tables from the energies of each, those of the messages still 0."""
        known = [jnp.array([0.0, -jnp.inf]), *(-jnp.ravel(e) for e in energies)]
        missing = self.cells - sum(len(a) for a in known)
        return jnp.concatenate([*known, jnp.zeros(missing)])

    def log_sum(self, cells: Array) -> Array:
        """Log Z, from cells without messages."""
        return log_sum(self.alone or self.passes, self.passes, cells)

    def summed(self, cells: Array) -> Found:
        """What the pass that sums leaves to `laws` and `drawn`."""
        return self.passes.sums(cells)

    def laws(self, summed: Found) -> tuple[dict[str, Array], Array]:
        """The probabilities of each site's levels, by variable, and those of each cell's states."""
        slopes, each = self.passes.down(summed)
        return self.by_variable(each), slopes

    def marginals(self, cells: Array) -> dict[str, Array]:
        """The probabilities of each site's levels, by variable, from cells without messages."""
        return self.laws(self.summed(cells))[0]

    def by_variable(self, each: Array) -> dict[str, Array]:
        """The probabilities of each slot's levels, (slot, level), by variable."""
        most = max(self.structure.levels)
        each = jnp.pad(each, ((0, 0), (0, most - each.shape[1])))
        known = jnp.where(self.slot_of[:, None] >= 0, each[self.slot_of], 0.0)
        return {
            v.name: known[self._place(v.name, v.size), : v.domain.levels]
            for v in self.structure.skeleton.free
            if v.domain.levels is not None
        }

    def greatest(self, cells: Array) -> Array:
        """The greatest sum of all tables of each component, from cells without messages."""
        return self.passes.maxima(cells).cells[self.passes.roots]

    def drawn(self, summed: Found, *, key: Array) -> Array:
        """The level of each slot's site in an independent draw."""
        heights = uniform(key, (self.passes.slots,))

        def pick(sums: Array, slots: Array) -> Array:
            weights = jnp.exp(sums - jnp.max(sums, axis=1, keepdims=True))
            ladder = jnp.cumsum(weights, axis=1)
            level = jnp.sum(ladder < heights[slots, None] * ladder[:, -1:], axis=1)
            return jnp.minimum(level, sums.shape[1] - 1)

        return self.passes.choose(summed, pick)

    def likeliest(self, cells: Array) -> Array:
        """The level of each slot's site at a maximum of the sum of all tables."""

        def pick(sums: Array, slots: Array) -> Array:
            # The first of equal ones. JAX cannot lower argmax of float64 with float64 disabled.
            best = sums == jnp.max(sums, axis=1, keepdims=True)
            return jnp.min(jnp.where(best, jnp.arange(sums.shape[1]), sums.shape[1] - 1), axis=1)

        return self.passes.choose(self.passes.maxima(cells), pick)

    def placed(self, model: Model, chosen: Array) -> Configuration:
        """The blank configuration with the chosen levels at the sites that are summed over."""
        values = dict(model.blank())
        for v in self.structure.skeleton.free:
            if v.domain.levels is not None:
                slot = self.slot_of[self._place(v.name, v.size)]
                level = jnp.asarray(v.domain.values, v.domain.dtype)[chosen[slot]]
                own = jnp.where(slot >= 0, level, values[v.name].ravel())
                values[v.name] = own.reshape(v.shape)
        return values

    def _place(self, name: str, size: int) -> slice:
        start = self.structure.offset[name]
        return slice(start, start + size)


class Planned(NamedTuple):
    """A sum over finite sites, with its predicted operations and bytes."""

    sums: FiniteSum
    operations: float
    bytes: float
    """Working memory of log Z alone."""
    more_bytes: float
    """What derivatives, marginals, draws and modes take beyond that."""


def plan_sum(
    search: Search,
    components: np.ndarray,
    scopes: Sequence[Sequence[int]],
    starts: np.ndarray,
    end: int,
    arguments: float,
) -> Planned:
    """The sum over the finite sites of some components.

    Args:
        search: the orders in which the sites are eliminated.
        components: the numbers of the components.
        scopes: the sites of each table.
        starts: the cell where each table begins.
        end: the cell after the tables.
        arguments: the numbers from which tables are computed at once.
    """
    structure = search.structure
    sites, separators = [], []
    for k in components.tolist():
        order, members = search.orders[k], search.members(k).tolist()
        assert isinstance(order, Order)
        sites += [members[i] for i in order.sites]
        separators += [{members[j] for j in around} for around in order.separators]
    steps = Steps(scopes, sites, separators, structure.levels.tolist())
    return planned_sum(structure, steps, starts, end, arguments)


def planned_sum(
    structure: Structure, steps: Steps, starts: np.ndarray, end: int, arguments: float
) -> Planned:
    """The sum that these steps carry out; see `plan_sum`."""
    alone, made = schedule(steps, starts, end)
    upwards = _upwards(alone, arguments) + (0.0 if alone is made else _indices(made))
    slot_of = np.full(structure.sites, -1)
    slot_of[list(made.slot)] = list(made.slot.values())
    return Planned(
        FiniteSum(
            structure=structure,
            alone=None if alone is made else Passes(alone),
            passes=Passes(made),
            cells=made.size,
            slot_of=int32(slot_of),
        ),
        operations=alone.operations + CELL * (end - CELLS),
        bytes=upwards,
        more_bytes=0.0 if upwards == math.inf else max(0.0, _both_ways(made, arguments) - upwards),
    )


def _upwards(made: Schedule, arguments: float) -> float:
    """Working memory of the passes upwards, in bytes."""
    if max(made.size, made.arena) > MAX_CELLS:
        return math.inf
    # The places and the values of what a batch gathers, and the terms of a wide step.
    numbers = made.size + made.arena + _gathered(made) + _widest(made) + SHARE * arguments
    return 8.0 * numbers + 4.0 * _gathered(made) + _indices(made)


def _both_ways(made: Schedule, arguments: float) -> float:
    """Working memory of the passes in both directions, in bytes."""
    if max(made.size, made.arena) > MAX_CELLS:
        return math.inf
    numbers = memory(made.size, _gathered(made) + _widest(made), arguments)
    return numbers + 8.0 * made.arena * (2 + made.copies) + _indices(made)


def _indices(made: Schedule) -> float:
    """The bytes of the index arrays."""
    runs = ((r.base, r.pattern, r.begin, r.first, r.others, r.strides) for r in made.runs)
    return 4.0 * sum(a.size for arrays in (*runs, made.patterns) for a in arrays)


def _gathered(made: Schedule) -> float:
    """The cells that the largest batch of steps that are not wide reads."""
    narrow = (math.prod(r.shape) * r.base[0, 0].size for r in made.runs if not r.layout)
    return float(max(narrow, default=0))


def _widest(made: Schedule) -> float:
    """The terms of the largest wide step."""
    return float(max((math.prod(r.shape) for r in made.runs if r.layout), default=0))
