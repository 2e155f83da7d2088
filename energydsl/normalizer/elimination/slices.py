r"""Slices: the sum for each joint state of a few sites, one after another, to take less memory.

The sites that `cut` found are held in each slice, and log Z is that of all slices together. A slice
has tables of its own, which are read from the whole ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array, lax

from energydsl._types import Configuration
from energydsl.analysis.joint_states import int32
from energydsl.language.model import Model
from energydsl.normalizer.elimination.cut import Cut
from energydsl.normalizer.elimination.finite_sum import FiniteSum, Planned, planned_sum
from energydsl.normalizer.elimination.schedule import CELLS
from energydsl.normalizer.elimination.search import Search
from energydsl.normalizer.elimination.steps import Steps


class Reading(NamedTuple):
    """The tables of a slice, as the cells of whole tables that they are read from."""

    starts: np.ndarray
    """Where the table of each scope begins in a slice."""
    at: np.ndarray
    """The cell that each cell of a slice is read from, if all that is held has its first level."""
    strides: np.ndarray
    """How far from there it is at the next level of each site that is held, (site, cell)."""


def reading(
    scopes: Sequence[Sequence[int]],
    starts: np.ndarray,
    levels: Sequence[int],
    held: Sequence[int],
    begin: int,
) -> Reading:
    """How tables are read in a slice; those that share cells and hold the same sites still do.

    Args:
        scopes: the sites of each table.
        starts: where each whole table begins.
        levels: the number of levels of each site.
        held: the sites that are held.
        begin: where the first table of a slice begins.
    """
    known: dict[tuple, int] = {}
    places, at, strides = [], [np.zeros(0, np.int64)], [np.zeros((len(held), 0), np.int64)]
    for scope, start in zip(scopes, starts.tolist(), strict=True):
        key = start, tuple(held.index(i) if i in held else -1 for i in scope)
        if key not in known:
            step = {i: math.prod(levels[j] for j in scope[k + 1 :]) for k, i in enumerate(scope)}
            cells = np.array(start)
            for i in scope:
                if i not in held:
                    cells = cells[..., None] + np.arange(levels[i]) * step[i]
            at.append(cells.ravel())
            own = np.array([step.get(i, 0) for i in held])
            strides.append(np.broadcast_to(own[:, None], (len(held), cells.size)))
            known[key], begin = begin, begin + cells.size
        places.append(known[key])
    return Reading(np.array(places), np.concatenate(at), np.concatenate(strides, axis=1))


class SlicedSum(eqx.Module):
    """A finite sum as the sum of its slices. It answers like `FiniteSum`, from whole tables."""

    inner: FiniteSum
    """The sum of a slice; the slots of what is held follow those of its steps."""
    levels: tuple[int, ...] = eqx.field(static=True)
    """The numbers of levels of the sites that are held."""
    at: Array
    strides: Array
    apart: Array
    apart_strides: Array
    """Like `at` and `strides`, for the tables all of whose sites are held."""

    @property
    def count(self) -> int:
        """The number of slices."""
        return math.prod(self.levels)

    def filled(self, energies: Iterable[Array]) -> Array:
        """The cells of all whole tables from the energies of each."""
        return jnp.concatenate([jnp.array([0.0, -jnp.inf]), *(-jnp.ravel(e) for e in energies)])

    def log_sum(self, cells: Array) -> Array:
        """Log Z, from the cells of whole tables."""
        return _log_sum_exp(self._log_sums(cells))

    def summed(self, cells: Array) -> tuple[Array, Array]:
        """The cells, and log Z of each slice."""
        return cells, self._log_sums(cells)

    def marginals(self, cells: Array) -> dict[str, Array]:
        """The probabilities of each site's levels, by variable."""
        sums = self._log_sums(cells)
        shares = jnp.exp(sums - _log_sum_exp(sums))
        most = max(self.inner.structure.levels)

        def add(total: Array, k: Array) -> tuple[Array, None]:
            each = self.inner.passes.down(self.inner.summed(self._slice(cells, k)[0]))[1]
            each = jnp.pad(each, ((0, 0), (0, most - each.shape[1])))
            own = jax.nn.one_hot(self._digits(k), most, dtype=each.dtype)
            new = jnp.concatenate([each, own])
            return total + jnp.where(shares[k] > 0, shares[k] * new, 0.0), None

        slots = self.inner.passes.slots + len(self.levels)
        total = lax.scan(add, jnp.zeros((slots, most)), jnp.arange(self.count))[0]
        return self.inner.by_variable(total)

    def drawn(self, summed: tuple[Array, Array], *, key: Array) -> Array:
        """The level of each slot's site in an independent draw."""
        cells, sums = summed
        which, rest = jr.split(key)
        k = jr.categorical(which, sums)
        inside = self.inner.summed(self._slice(cells, k)[0])
        return jnp.concatenate([self.inner.drawn(inside, key=rest), self._digits(k)])

    def likeliest(self, cells: Array) -> Array:
        """The level of each slot's site at a maximum of the sum of all tables."""

        def greatest(k: Array) -> Array:
            own, apart = self._slice(cells, k)
            return jnp.sum(self.inner.greatest(own)) + apart

        heights = lax.map(greatest, jnp.arange(self.count))
        # The first of equal ones. JAX cannot lower argmax of float64 with float64 disabled.
        numbers = jnp.where(heights == jnp.max(heights), jnp.arange(self.count), self.count - 1)
        k = jnp.min(numbers)
        return jnp.concatenate([self.inner.likeliest(self._slice(cells, k)[0]), self._digits(k)])

    def placed(self, model: Model, chosen: Array) -> Configuration:
        """The blank configuration with the chosen levels at the sites that are summed over."""
        return self.inner.placed(model, chosen)

    def _log_sums(self, cells: Array) -> Array:
        # A derivative computes each slice again: to keep them all is what there is no memory for.
        @jax.checkpoint
        def log_sum(cells: Array, k: Array) -> Array:
            own, apart = self._slice(cells, k)
            return self.inner.log_sum(own) + apart

        return lax.map(lambda k: log_sum(cells, k), jnp.arange(self.count))

    def _slice(self, cells: Array, k: Array) -> tuple[Array, Array]:
        """The cells of the k-th slice, and the sum of the tables all of whose sites are held."""
        digits = self._digits(k)
        own, apart = (
            cells[at + jnp.sum(digits[:, None] * strides, axis=0)]
            for at, strides in ((self.at, self.strides), (self.apart, self.apart_strides))
        )
        return self.inner.filled([-own]), jnp.sum(apart)

    def _digits(self, k: Array) -> Array:
        """The levels of what is held in the k-th slice."""
        places = [math.prod(self.levels[j + 1 :]) for j in range(len(self.levels))]
        return (k // np.array(places) % np.array(self.levels)).astype(jnp.int32)


def _log_sum_exp(sums: Array) -> Array:
    peak = lax.stop_gradient(jnp.max(sums))
    peak = jnp.where(jnp.isfinite(peak), peak, 0.0)
    return jnp.log(jnp.sum(jnp.exp(sums - peak))) + peak


def plan_slices(
    search: Search,
    component: int,
    cut: Cut,
    scopes: Sequence[Sequence[int]],
    starts: np.ndarray,
    arguments: float,
) -> tuple[SlicedSum, Planned]:
    """The sum over the finite sites of a component, and what it costs; see `plan_sum`."""
    structure, members = search.structure, search.members(component).tolist()
    levels, held = structure.levels.tolist(), [members[i] for i in cut.held]
    sites = [members[i] for i in cut.order.sites]
    separators = [{members[j] for j in around} for around in cut.order.separators]
    apart = np.array([set(scope) <= set(held) for scope in scopes])
    inside = [scope for scope, out in zip(scopes, apart, strict=True) if not out]
    read = reading(inside, starts[~apart], levels, held, CELLS)
    # One by one, as factors that share cells have one term each.
    alone = [
        reading([scope], starts[k : k + 1], levels, held, 0)
        for k, scope in enumerate(scopes)
        if apart[k]
    ]
    blank = np.zeros((len(held), 0), np.int64)
    rest = [tuple(i for i in scope if i not in held) for scope in inside]
    steps = Steps(rest, sites, separators, levels)
    inner = planned_sum(structure, steps, read.starts, CELLS + len(read.at), arguments)
    slot_of = np.array(inner.sums.slot_of)
    slot_of[held] = inner.sums.passes.slots + np.arange(len(held))
    sums = SlicedSum(
        inner=eqx.tree_at(lambda s: s.slot_of, inner.sums, int32(slot_of)),
        levels=tuple(levels[i] for i in held),
        at=int32(read.at),
        strides=int32(read.strides),
        apart=int32(np.concatenate([np.zeros(0, int), *(r.at for r in alone)])),
        apart_strides=int32(np.hstack([blank, *(r.strides for r in alone)])),
    )
    more = 8.0 * (cut.count + 4 * len(read.at) * (1 + len(held)))
    operations = cut.count * inner.operations
    return sums, Planned(inner.sums, operations, inner.bytes + more, inner.more_bytes)
