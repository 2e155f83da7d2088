"""Exact log Z by elimination: any finite sites whose interaction graph has a narrow order."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import ClassVar

import equinox as eqx
import numpy as np
from jax import Array

from energydsl._types import Configuration
from energydsl.analysis.joint_states import int32
from energydsl.analysis.structure import Structure
from energydsl.analysis.tables import Scopes, Tables, table_sizes
from energydsl.language.model import Model
from energydsl.normalizer.base import AbstractPlan, AbstractRule, Fields, Offer
from energydsl.normalizer.elimination.finite_sum import FiniteSum, plan_sum
from energydsl.normalizer.elimination.passes import Found
from energydsl.normalizer.elimination.schedule import CELLS
from energydsl.normalizer.elimination.search import SETUP, Network, Search


@dataclasses.dataclass(frozen=True)
class Elimination(AbstractRule):
    r"""$\log Z$ by summing over one site after another, in float64.

    The cost grows with the joint states of the largest clique of the order of elimination, so that
    trees, chains, strips and graphs of small treewidth of any length are exact. Forbidden states,
    whose energy is infinite, are allowed: sums are computed in log space, except for large cliques
    where plain numbers are shown to suffice. Marginals are read from a second pass in the opposite
    direction, draws and a mode choose the sites in that direction.

    Source: Koller & Friedman (2009), Probabilistic Graphical Models, chapters 9, 10 and 13.
    """

    name: ClassVar[str] = "elimination"

    def offer(self, structure: Structure) -> Offer:
        def plan(components: np.ndarray) -> tuple[AbstractPlan, ...]:
            return (_plan(self, _search(structure), components),)

        if structure.crowded:
            nothing = np.full(len(structure.component_sizes), np.inf)
            return Offer(nothing, lambda _: "a factor has too many sites to list its pairs", plan)
        search = _search(structure)
        operations, terms, memory = search.costs
        return Offer(
            operations, search.reason, plan, terms, memory,
            "joint states of the widest clique", bottleneck=search.widest, setup=SETUP,
        )  # fmt: skip


class EliminationPlan(AbstractPlan):
    """A plan that sums over finite sites, whose tables are those of the factors."""

    sums: FiniteSum
    tables: tuple[Tables, ...]
    both_ways: float = eqx.field(static=True)
    """Predicted working memory of passes in both directions, in bytes."""

    @property
    def most_bytes(self) -> float:
        return self.both_ways

    def log_partition(self, model: Model, fields: Fields | None = None) -> Array:
        assert fields is None, "marginals are computed without fields"
        return self.sums.log_sum(self._cells(model))

    def marginals(self, model: Model) -> dict[str, Array]:
        return self.sums.laws(self.prepare(model))[0]

    def prepare(self, model: Model) -> Found:
        return self.sums.summed(self._cells(model))

    def draw_prepared(self, model: Model, prepared: Found, *, key: Array) -> Configuration:
        return self.sums.placed(model, self.sums.drawn(prepared, key=key))

    def mode(self, model: Model) -> Configuration:
        return self.sums.placed(model, self.sums.likeliest(self._cells(model)))

    def _cells(self, model: Model) -> Array:
        return self.sums.filled(t.energies(model) for t in self.tables)


@lru_cache(maxsize=4)
def _search(structure: Structure) -> Search:
    largest, cells = table_sizes(structure)
    unlisted = np.zeros(len(structure.component_sizes), bool)
    unlisted[structure.component_of[structure.free & (structure.levels == 0)]] = True
    why = "a site has no finite list of levels"
    edges = structure.edges
    network = Network(structure, structure.free, edges, largest, cells, unlisted, lambda _: why)
    return Search(network)


def _plan(rule: Elimination, search: Search, components: np.ndarray) -> EliminationPlan:
    scopes = Scopes(search.structure, components)
    listed, starts = scopes.listed(CELLS)
    made = plan_sum(search, components, listed, starts, CELLS + scopes.cells, scopes.arguments)
    return EliminationPlan(
        rule=rule,
        structure=search.structure,
        components=int32(components),
        operations=made.operations,
        bytes=made.bytes,
        both_ways=made.most_bytes,
        sums=made.sums,
        tables=scopes.built(),
    )
