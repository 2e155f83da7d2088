"""The choice of the cheapest rule for each connected component."""

from __future__ import annotations

from functools import cached_property

import jax
import numpy as np

from energydsl.analysis.structure import Structure
from energydsl.normalizer.base import (
    AbstractRule,
    Budget,
    Intractable,
    Normalizer,
    Offer,
    Question,
    planned,
)


class Survey:
    """The offers of all rules for one structure; plans are made when first needed."""

    def __init__(
        self, structure: Structure, budget: Budget, rules: tuple[AbstractRule, ...]
    ) -> None:
        self.structure, self.budget, self.rules = structure, budget, rules
        self._chosen: dict[Question, Normalizer] = {}

    @cached_property
    def offers(self) -> tuple[Offer, ...]:
        """The offer of each rule, in the order of `rules`."""
        return tuple(rule.offer(self.structure) for rule in self.rules)

    def choose(self, question: Question = "log_partition") -> Normalizer:
        """The cheapest plans that compute a quantity, or why some component has no such plan."""
        if question not in self._chosen:
            # Plans are cached, so they must not contain values of the trace that is in progress.
            with jax.ensure_compile_time_eval():
                self._chosen[question] = self._choose(question)
        return self._chosen[question]

    def cheapest(self, component: int) -> tuple[AbstractRule, float, float] | None:
        """The cheapest rule for log Z of one component, with its operations and its bytes."""
        best, cost = self._log_z
        if np.isinf(cost[component]):
            return None
        rule, offer = self.rules[best[component]], self.offers[best[component]]
        return rule, float(offer.operations[component]), float(offer.numbers()[1][component])

    def refused(self, component: int, question: Question = "log_partition") -> dict[str, str]:
        """For each rule that cannot compute a quantity for a component, the reason."""
        said = {
            rule.name: offer.refusal(component, question, self.budget)
            for rule, offer in zip(self.rules, self.offers, strict=True)
        }
        return {name: reason for name, reason in said.items() if reason is not None}

    def _choose(self, question: Question) -> Normalizer:
        best, costs = self._log_z if question == "log_partition" else self._cheapest(question)
        stuck = np.flatnonzero(np.isinf(costs))
        if len(stuck):
            worst = int(stuck[np.argmax(self.structure.component_sizes[stuck])])
            reasons = self.refused(worst, question).items()
            return Intractable("; ".join(f"{name}: {reason}" for name, reason in reasons))
        plans = []
        for k, offer in enumerate(self.offers):
            components = np.flatnonzero(best == k)
            if len(components):
                plans += offer.plan(components)
        for plan in plans:
            said = self.budget.excess(0.0, "", plan.bytes)
            if said is not None:
                count = len(plan.components)
                return Intractable(f"{plan.rule.name}, of {count:,} components at once: {said}")
        return planned(self.structure, tuple(plans))

    @cached_property
    def _log_z(self) -> tuple[np.ndarray, np.ndarray]:
        return self._cheapest("log_partition")

    def _cheapest(self, question: Question) -> tuple[np.ndarray, np.ndarray]:
        """For each component, the number of the cheapest rule and its cost.

        Of equally cheap rules the first is taken. The cost is `inf` where no rule applies.
        """
        least = np.full(len(self.structure.component_sizes), np.inf)
        best = np.zeros(len(least), np.int32)
        for k, offer in enumerate(self.offers):
            better = offer.answers(question) & (offer.costs < least)
            better[better] = ~self.budget.exceeded(*(a[better] for a in offer.numbers()))
            best[better], least[better] = k, offer.costs[better]
        return best, least
