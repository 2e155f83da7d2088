"""Exact log Z by elimination: any finite sites whose interaction graph has a narrow order."""

from __future__ import annotations

import dataclasses
import math
from functools import cached_property, lru_cache
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl._types import Configuration
from energydsl.analysis.joint_states import int32
from energydsl.analysis.structure import Structure
from energydsl.analysis.tables import Scopes, Tables, table_sizes
from energydsl.language.model import Model
from energydsl.normalizer.base import AbstractPlan, AbstractRule, Fields, Offer, uniform
from energydsl.normalizer.elimination.batches import MAX_CELLS
from energydsl.normalizer.elimination.order import Order, find_order
from energydsl.normalizer.elimination.passes import Found, Passes
from energydsl.normalizer.elimination.schedule import CELLS, Schedule, schedule
from energydsl.normalizer.elimination.steps import Steps

TERM = 16.0
"""The operations of a term: its tables are added, and it is compared, shifted, exponentiated and
summed."""

STEP = 1000.0
"""The operations that take as long as a step without terms."""

SETUP = 1e6
"""The operations that could be carried out while the loops of a schedule are compiled. Compiling
takes longer; but log Z is asked for more than once."""

NAMED = 6
"""The most sites of a clique that a message names."""

MAX_TABLE = 24.0
"""log2 of the joint states of a factor above which its table is not computed."""


@dataclasses.dataclass(frozen=True)
class Elimination(AbstractRule):
    r"""$\log Z$ by summing over one site after another, in log space and float64.

    The cost grows with the joint states of the largest clique of the order of elimination, so that
    trees, chains, strips and graphs of small treewidth of any length are exact. Forbidden states,
    whose energy is infinite, are allowed. Marginals are read from a second pass in the opposite
    direction, draws and a mode choose the sites in that direction.

    Source: Koller & Friedman (2009), Probabilistic Graphical Models, chapters 9, 10 and 13.
    """

    name: ClassVar[str] = "elimination"

    def offer(self, structure: Structure) -> Offer:
        search = _search(structure)

        def plan(components: np.ndarray) -> tuple[AbstractPlan, ...]:
            return (_plan(self, search, components),)

        if structure.crowded:
            nothing = np.full(search.count, np.inf)
            return Offer(nothing, lambda _: "a factor has too many sites to list its pairs", plan)
        operations, terms, memory = search.costs
        return Offer(
            operations, lambda k: str(search.orders[k]), plan, terms, memory,
            "joint states of the widest clique", bottleneck=search.widest, setup=SETUP,
        )  # fmt: skip


class EliminationPlan(AbstractPlan):
    """A plan that carries out a schedule of eliminations."""

    passes: Passes
    tables: tuple[Tables, ...]
    cells: int = eqx.field(static=True)
    slot_of: Array
    """The slot of each site; -1 at sites of other components."""

    def log_partition(self, model: Model, fields: Fields | None = None) -> Array:
        assert fields is None, "marginals are computed without fields"
        return self.passes.log_sum(self._cells(model))

    def _cells(self, model: Model) -> Array:
        """The cells of all tables, those of the messages still 0."""
        known = [jnp.array([0.0, -jnp.inf])]
        known += [-t.energies(model).ravel() for t in self.tables]
        missing = self.cells - sum(len(a) for a in known)
        return jnp.concatenate([*known, jnp.zeros(missing)])

    def marginals(self, model: Model) -> dict[str, Array]:
        found = self.passes.sums(self._cells(model))
        each = self.passes.down(found)[1]
        most = max(self.structure.levels) - each.shape[1]
        each = jnp.pad(each, ((0, 0), (0, most)))
        known = jnp.where(self.slot_of[:, None] >= 0, each[self.slot_of], 0.0)
        return {
            v.name: known[self._place(v.name, v.size), : v.domain.levels]
            for v in self.structure.skeleton.free
            if v.domain.levels is not None
        }

    def prepare(self, model: Model) -> Found:
        return self.passes.sums(self._cells(model))

    def draw_prepared(self, model: Model, prepared: Found, *, key: Array) -> Configuration:
        heights = uniform(key, (self.passes.slots,))

        def pick(sums: Array, slots: Array) -> Array:
            weights = jnp.exp(sums - jnp.max(sums, axis=1, keepdims=True))
            ladder = jnp.cumsum(weights, axis=1)
            level = jnp.sum(ladder < heights[slots, None] * ladder[:, -1:], axis=1)
            return jnp.minimum(level, sums.shape[1] - 1)

        return self._placed(model, self.passes.choose(prepared, pick))

    def mode(self, model: Model) -> Configuration:
        found = self.passes.maxima(self._cells(model))

        def pick(sums: Array, slots: Array) -> Array:
            # The first of equal ones. JAX cannot lower argmax of float64 with float64 disabled.
            best = sums == jnp.max(sums, axis=1, keepdims=True)
            return jnp.min(jnp.where(best, jnp.arange(sums.shape[1]), sums.shape[1] - 1), axis=1)

        return self._placed(model, self.passes.choose(found, pick))

    def _placed(self, model: Model, chosen: Array) -> Configuration:
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


class _Search:
    """The orders of elimination of every component, searched for once.

    Components whose edges and levels are equal share an order.
    """

    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        self.count = len(structure.component_sizes)

    def members(self, component: int) -> np.ndarray:
        """The free sites of a component, in increasing order."""
        sites, starts = self._sites
        return sites[starts[component] : starts[component + 1]]

    @cached_property
    def _sites(self) -> tuple[np.ndarray, np.ndarray]:
        sites = np.flatnonzero(self.structure.free)
        return _by_owner(sites, self.structure.component_of[sites], self.count)

    @cached_property
    def _edges(self) -> tuple[np.ndarray, np.ndarray]:
        edges = self.structure.edges
        return _by_owner(edges, self.structure.component_of[edges[:, 0]], self.count)

    @property
    def largest_table(self) -> np.ndarray:
        """For each component, log2 of the cells of its largest table."""
        return self._table_sizes[0]

    @property
    def tables(self) -> np.ndarray:
        """For each component, the cells of all tables of its factors."""
        return self._table_sizes[1]

    @cached_property
    def _table_sizes(self) -> tuple[np.ndarray, np.ndarray]:
        return table_sizes(self.structure)

    @cached_property
    def unlisted(self) -> np.ndarray:
        """True at each component with a site that has no finite list of levels."""
        lost = self.structure.free & (self.structure.levels == 0)
        return np.bincount(self.structure.component_of[lost], minlength=self.count) > 0

    @cached_property
    def orders(self) -> list[Order | str]:
        """For each component an order of its sites, numbered within it, or why there is none."""
        levels = self.structure.levels
        edges, starts = self._edges
        known: dict[tuple[bytes, bytes], Order | str] = {}
        found: list[Order | str] = []
        for k in range(self.count):
            if self.unlisted[k]:
                found.append("a site has no finite list of levels")
                continue
            if self.largest_table[k] > MAX_TABLE:
                found.append(f"a factor has more than 2^{MAX_TABLE:g} joint states")
                continue
            sites = self.members(k)
            own = np.searchsorted(sites, edges[starts[k] : starts[k + 1]])
            key = own.tobytes(), levels[sites].tobytes()
            if key not in known:
                known[key] = find_order(own, levels[sites])
            found.append(_numbered(known[key], self.tables[k]))
        return found

    @cached_property
    def costs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each component: operations, log2 of the largest clique's states, and bytes."""
        costs = np.full((3, self.count), np.inf)
        for k, order in enumerate(self.orders):
            if isinstance(order, Order):
                widest = order.bits.max()
                costs[:, k] = (
                    TERM * order.terms + STEP * len(order.sites),
                    widest,
                    _memory(order.terms / 2, 4 * np.exp2(widest), 0.0),
                )
        return costs[0], costs[1], costs[2]

    def widest(self, component: int) -> str:
        """The sites of the clique with the most joint states."""
        order, members = self.orders[component], self.members(component)
        assert isinstance(order, Order)
        step = int(np.argmax(order.bits))
        clique = members[sorted({order.sites[step], *order.separators[step]})].tolist()
        named = ", ".join(self.structure.describe(i) for i in clique[:NAMED])
        more = f" and {len(clique) - NAMED} more" if len(clique) > NAMED else ""
        return f"of {named}{more}"


def _numbered(order: Order | str, cells: float) -> Order | str:
    """The order, or the reason why its tables, padded, may have too many cells to be numbered."""
    if isinstance(order, Order) and order.terms + cells > MAX_CELLS / 2:
        return (
            f"its tables may have more than 2^{math.log2(MAX_CELLS):g} cells; the widest clique "
            f"has 2^{order.bits.max():.4g} joint states"
        )
    return order


@lru_cache(maxsize=4)
def _search(structure: Structure) -> _Search:
    return _Search(structure)


def _plan(rule: Elimination, search: _Search, components: np.ndarray) -> EliminationPlan:
    structure, scopes = search.structure, Scopes(search.structure, components)
    sites, separators = [], []
    for k in components.tolist():
        order, members = search.orders[k], search.members(k).tolist()
        assert isinstance(order, Order)
        sites += [members[i] for i in order.sites]
        separators += [{members[j] for j in around} for around in order.separators]
    listed, starts = scopes.listed(CELLS)
    steps = Steps(listed, sites, separators, structure.levels.tolist())
    made = schedule(steps, starts, CELLS + scopes.cells)
    slot_of = np.full(structure.sites, -1)
    slot_of[list(made.slot)] = list(made.slot.values())
    return EliminationPlan(
        rule=rule,
        structure=structure,
        components=int32(components),
        operations=TERM * made.terms + STEP * len(steps.steps),
        bytes=_bytes(made, scopes),
        passes=Passes(made),
        tables=scopes.built(),
        cells=made.size,
        slot_of=int32(slot_of),
    )


def _by_owner(items: np.ndarray, owner: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The items in the order of their owners, and where those of each owner begin."""
    order = np.argsort(owner, kind="stable")
    return items[order], np.searchsorted(owner[order], np.arange(count + 1))


def _bytes(made: Schedule, scopes: Scopes) -> float:
    """Working memory of a plan: its arrays, and what the derivatives of log Z take."""
    if made.size > MAX_CELLS:
        return math.inf
    narrow = [math.prod(r.shape) * r.base[0, 0].size for r in made.runs if not r.layout]
    wide = [math.prod(r.shape) for r in made.runs if r.layout]
    gathered = max(narrow, default=0) + max(wide, default=0)
    indices = sum(r.base.size + r.pattern.size + r.others.size + r.strides.size for r in made.runs)
    patterns = sum(p.size for p in made.patterns)
    arenas = 8.0 * made.arena * (2 + made.copies)
    owners = scopes.cells if made.spread else 0
    numbers = _memory(made.size, gathered, scopes.arguments)
    return numbers + arenas + 4.0 * (indices + patterns + owners)


def _memory(cells: float, gathered: float, arguments: float) -> float:
    """Bytes of the numbers that derivatives of log Z take.

    Args:
        cells: the cells of all tables; there are their values and their derivatives.
        gathered: the cells that a batch reads; their places, values, shares and derivatives.
        arguments: the arguments of factors that are computed at once.
    """
    return 8.0 * (2 * cells + 4 * gathered + 2 * arguments)
