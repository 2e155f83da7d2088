"""Exact log Z by elimination: any finite sites whose interaction graph has a narrow order."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from jax import Array

from energydsl._types import Configuration
from energydsl.analysis.joint_states import int32
from energydsl.analysis.structure import Structure
from energydsl.analysis.tables import Scopes, Tables, table_sizes
from energydsl.language.model import Model
from energydsl.normalizer.base import MAX_TERMS, AbstractPlan, AbstractRule, Budget, Fields, Offer
from energydsl.normalizer.elimination.cut import Cut
from energydsl.normalizer.elimination.finite_sum import FiniteSum, Planned, plan_sum
from energydsl.normalizer.elimination.schedule import CELLS
from energydsl.normalizer.elimination.search import SETUP, Network, Search, named
from energydsl.normalizer.elimination.slices import SlicedSum, plan_slices

SLACK = 32.0
"""How many times more memory than predicted a plan may take."""

EARLY = 8
"""The most components whose plans are made for that; many components have small ones."""

ATTEMPTS, SPARE = 8, 0.9
"""How often slices are planned that were predicted to fit, and the share of the memory that would
fit by the plan before at which the next attempt aims."""


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
        offer = Offer(
            operations, search.reason, plan, terms, memory,
            "joint states of the widest clique", bottleneck=search.widest, setup=SETUP,
        )  # fmt: skip
        return dataclasses.replace(offer, within=lambda budget: self._within(offer, search, budget))

    def _within(self, offer: Offer, search: Search, budget: Budget) -> Offer:
        """The offer with slices of the components that take too much memory otherwise."""
        cuts = search.cuts(min(budget.terms, MAX_TERMS), budget.memory)
        operations, terms, memory = search.sliced(cuts)
        known: dict[int, EliminationPlan] = {}
        # Index arrays and the width of batches are not predicted: where they may decide whether a
        # component fits into memory, its plan is made already.
        close = ~budget.exceeded(terms, memory) & (SLACK * memory > budget.memory)
        few = close.sum() <= EARLY
        for k in np.setdiff1d(np.flatnonzero(close & few), list(cuts)).tolist():
            known[k] = _plan(self, search, np.array([k]))
            if known[k].bytes > budget.memory:
                found = _sliced(self, search, k, budget, known[k])
                if found is not None:
                    known[k], cuts[k] = found
        if known:
            operations, terms, memory = search.sliced(cuts)
            memory[list(known)] = [plan.bytes for plan in known.values()]

        def plan(components: np.ndarray) -> tuple[AbstractPlan, ...]:
            apart = np.isin(components, [*cuts, *known])
            plans = [_plan(self, search, components[~apart])] if not apart.all() else []
            for k in components[apart].tolist():
                if k in known:
                    plans.append(known[k])
                    continue
                found = _sliced(self, search, k, budget)
                cuts[k] = cuts[k] if found is None else found[1]
                plans.append(found[0] if found else _plan_slices(self, search, k, cuts[k]))
            return tuple(plans)

        def done(component: int) -> str:
            made = cuts.get(component)
            if made is None:
                return self.name
            held = named(search.structure, search.members(component)[made.held])
            return f"{self.name} in {made.count:,} slices, one for each joint state of {held}"

        # Slices have little room for derivatives: another rule that applies has more.
        last = np.isin(np.arange(search.count), list(cuts))
        return dataclasses.replace(
            offer,
            operations=operations,
            terms=terms,
            memory=memory,
            plan=plan,
            done=done,
            last=last,
        )


class EliminationPlan(AbstractPlan):
    """A plan that sums over finite sites, whose tables are those of the factors."""

    sums: FiniteSum | SlicedSum
    tables: tuple[Tables, ...]

    def log_partition(self, model: Model, fields: Fields | None = None) -> Array:
        assert fields is None, "marginals are computed without fields"
        return self.sums.log_sum(self._cells(model))

    def marginals(self, model: Model) -> dict[str, Array]:
        return self.sums.marginals(self._cells(model))

    def prepare(self, model: Model) -> Any:
        return self.sums.summed(self._cells(model))

    def draw_prepared(self, model: Model, prepared: Any, *, key: Array) -> Configuration:
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
    return _built(rule, search, components, scopes, made.sums, made)


def _sliced(
    rule: Elimination,
    search: Search,
    component: int,
    budget: Budget,
    whole: EliminationPlan | None = None,
) -> tuple[EliminationPlan, Cut] | None:
    """A plan of slices that fits into memory; None if a few attempts find none.

    Index arrays are not predicted, so each attempt asks for less than the last one predicted, in
    proportion to what that really took; `whole` is the plan without slices, if it was made.
    """
    room = float(budget.memory)
    if whole is not None:
        room = SPARE * search.costs[2, component] * budget.memory / whole.bytes
    for _ in range(ATTEMPTS):
        made = search.cut(component, min(budget.terms, MAX_TERMS), room)
        if made is None:
            return None
        plan = _plan_slices(rule, search, component, made)
        if plan.bytes <= budget.memory:
            return plan, made
        room = SPARE * search.bytes(component, made.order) * budget.memory / plan.bytes
    return None


def _plan_slices(rule: Elimination, search: Search, component: int, cut: Cut) -> EliminationPlan:
    components = np.array([component])
    scopes = Scopes(search.structure, components)
    listed, starts = scopes.listed(CELLS)
    sums, made = plan_slices(search, component, cut, listed, starts, scopes.arguments)
    return _built(rule, search, components, scopes, sums, made)


def _built(
    rule: Elimination,
    search: Search,
    components: np.ndarray,
    scopes: Scopes,
    sums: FiniteSum | SlicedSum,
    made: Planned,
) -> EliminationPlan:
    return EliminationPlan(
        rule=rule,
        structure=search.structure,
        components=int32(components),
        operations=made.operations,
        bytes=made.bytes,
        more_bytes=made.more_bytes,
        sums=sums,
        tables=scopes.built(),
    )
