"""Exact log Z by elimination: any finite sites whose interaction graph has a narrow order."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl._types import Configuration
from energydsl.analysis.joint_states import int32
from energydsl.analysis.structure import Structure
from energydsl.language.model import Model
from energydsl.normalizer.base import AbstractPlan, AbstractRule, Fields, Offer, uniform
from energydsl.normalizer.elimination.order import Order, find_order
from energydsl.normalizer.elimination.passes import Passes, highest, log_sum_exp
from energydsl.normalizer.elimination.schedule import CELLS, Schedule, Steps, schedule
from energydsl.normalizer.elimination.tables import Scopes, Tables, table_bits

STEP = 100.0
"""The operations of a step apart from its terms, in terms."""

SETUP = 3e5
"""The operations that could be carried out while the loops of a schedule are compiled. Compiling
takes longer; but log Z is asked for more than once."""

NAMED = 6
"""The most sites of a clique that a message names."""

MAX_TABLE = 24.0
"""log2 of the joint states of a factor above which its table is not computed."""

MAX_CELLS = 2**31
"""The most cells of all tables, as index arrays have 32 bits."""


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
        return _Search(self, structure).offer()


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
        cells = self.passes.up(self._cells(model), log_sum_exp)
        slopes = jnp.zeros(self.cells).at[self.passes.roots].set(1.0)
        levels = self.passes.down(cells, slopes)[1]
        most = max(self.structure.levels)
        each = jnp.concatenate([jnp.pad(p, ((0, 0), (0, most - p.shape[1]))) for p in levels])
        known = jnp.where(self.slot_of[:, None] >= 0, each[self.slot_of], 0.0)
        return {
            v.name: known[self._place(v.name, v.size), : v.domain.levels]
            for v in self.structure.skeleton.free
            if v.domain.levels is not None
        }

    def prepare(self, model: Model) -> Array:
        return self.passes.up(self._cells(model), log_sum_exp)

    def draw_prepared(self, model: Model, prepared: Array, *, key: Array) -> Configuration:
        heights = uniform(key, (self.passes.slots,))

        def pick(sums: Array, slots: Array) -> Array:
            weights = jnp.exp(sums - jnp.max(sums, axis=1, keepdims=True))
            ladder = jnp.cumsum(weights, axis=1)
            level = jnp.sum(ladder < heights[slots, None] * ladder[:, -1:], axis=1)
            return jnp.minimum(level, sums.shape[1] - 1)

        return self._placed(model, self.passes.choose(prepared, pick))

    def mode(self, model: Model) -> Configuration:
        cells = self.passes.up(self._cells(model), highest)

        def pick(sums: Array, slots: Array) -> Array:
            # The first of equal ones. JAX cannot lower argmax of float64 with float64 disabled.
            best = sums == jnp.max(sums, axis=1, keepdims=True)
            return jnp.min(jnp.where(best, jnp.arange(sums.shape[1]), sums.shape[1] - 1), axis=1)

        return self._placed(model, self.passes.choose(cells, pick))

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

    def __init__(self, rule: Elimination, structure: Structure) -> None:
        self.rule, self.structure = rule, structure
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

    @cached_property
    def unlisted(self) -> np.ndarray:
        """True at each component with a site that has no finite list of levels."""
        lost = self.structure.free & (self.structure.levels == 0)
        return np.bincount(self.structure.component_of[lost], minlength=self.count) > 0

    @cached_property
    def orders(self) -> list[Order | str]:
        """For each component an order of its sites, numbered within it, or why there is none."""
        levels, wide = self.structure.levels, table_bits(self.structure) > MAX_TABLE
        edges, starts = self._edges
        known: dict[tuple[bytes, bytes], Order | str] = {}
        found: list[Order | str] = []
        for k in range(self.count):
            if self.unlisted[k]:
                found.append("a site has no finite list of levels")
                continue
            if wide[k]:
                found.append(f"a factor has more than 2^{MAX_TABLE:g} joint states")
                continue
            sites = self.members(k)
            own = np.searchsorted(sites, edges[starts[k] : starts[k + 1]])
            key = own.tobytes(), levels[sites].tobytes()
            if key not in known:
                known[key] = find_order(own, levels[sites])
            found.append(known[key])
        return found

    def offer(self) -> Offer:
        operations, terms, memory = np.full((3, self.count), np.inf)
        if self.structure.crowded:
            reason = "a factor has too many sites to list its pairs"
            return Offer(operations, lambda _: reason, self.plan)
        for k, order in enumerate(self.orders):
            if isinstance(order, Order):
                operations[k] = order.terms + STEP * len(order.sites)
                terms[k] = order.bits.max()
                memory[k] = 16.0 * (order.terms + 4 * np.exp2(order.bits.max()))
        return Offer(operations, lambda k: str(self.orders[k]), self.plan, terms, memory,
                     "joint states of the widest clique", bottleneck=self.widest,
                     setup=SETUP)  # fmt: skip

    def widest(self, component: int) -> str:
        """The sites of the clique with the most joint states."""
        order, members = self.orders[component], self.members(component)
        assert isinstance(order, Order)
        step = int(np.argmax(order.bits))
        clique = members[sorted({order.sites[step], *order.separators[step]})].tolist()
        named = ", ".join(self.structure.describe(i) for i in clique[:NAMED])
        more = f" and {len(clique) - NAMED} more" if len(clique) > NAMED else ""
        return f"of {named}{more}"

    def plan(self, components: np.ndarray) -> tuple[AbstractPlan, ...]:
        structure = self.structure
        scopes = Scopes(structure, components)
        sites, separators = [], []
        for k in components.tolist():
            order, members = self.orders[k], self.members(k).tolist()
            assert isinstance(order, Order)
            sites += [members[i] for i in order.sites]
            separators += [{members[j] for j in around} for around in order.separators]
        listed = [row for *_, scope in scopes.groups for row in scope.tolist()]
        steps = Steps(listed, sites, separators, structure.levels.tolist())
        sizes = [steps.size(scope) for scope in listed]
        starts = CELLS + np.cumsum([0, *sizes])[:-1]
        made = schedule(steps, starts)
        slot_of = np.full(structure.sites, -1)
        slot_of[list(made.slot)] = list(made.slot.values())
        plan = EliminationPlan(
            rule=self.rule,
            structure=structure,
            components=int32(components),
            operations=made.terms + STEP * len(steps.steps),
            bytes=_bytes(made),
            passes=Passes(made),
            tables=scopes.built(),
            cells=made.size,
            slot_of=int32(slot_of),
        )
        return (plan,)


def _by_owner(items: np.ndarray, owner: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The items in the order of their owners, and where those of each owner begin."""
    order = np.argsort(owner, kind="stable")
    return items[order], np.searchsorted(owner[order], np.arange(count + 1))


def _bytes(made: Schedule) -> float:
    """Working memory: the cells twice, the index arrays, and the largest batch's clique."""
    batch = max(r.base.shape[1] * made.classes[r.kind].terms for r in made.runs)
    indices = sum(r.base.size + r.pattern.size + r.others.size + r.strides.size for r in made.runs)
    patterns = sum(c.patterns.size for c in made.classes)
    return float(16.0 * made.size + 4.0 * (indices + patterns) + 24.0 * batch)
