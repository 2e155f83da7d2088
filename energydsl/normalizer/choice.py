"""The choice of the cheapest rule for each connected component."""

from __future__ import annotations

import dataclasses
from functools import cached_property

import jax
import numpy as np

from energydsl.analysis.structure import Structure
from energydsl.normalizer.base import (
    AbstractPlan,
    AbstractRule,
    Budget,
    Intractable,
    Normalizer,
    Offer,
    Question,
    planned,
)

EXAMPLES = 100
"""How many examples with inputs of their own log Z is expected to be computed for at once."""


class Survey:
    """The offers of all rules for one structure; plans are made when first needed."""

    def __init__(
        self, structure: Structure, budget: Budget, rules: tuple[AbstractRule, ...]
    ) -> None:
        self.structure, self.budget, self.rules = structure, budget, rules
        self._chosen: dict[Question, Normalizer] = {}
        self._offers: dict[Question, tuple[Offer, ...]] = {}
        self._cheapest: dict[Question, tuple[np.ndarray, np.ndarray]] = {}

    def offers(self, question: Question = "log_partition") -> tuple[Offer, ...]:
        """The offer of each rule, in the order of `rules`; a rest is answered by all of them."""
        if question not in self._offers:
            self._offers[question] = tuple(
                offer if rest is None else rest.completed(rule.name, offer, question)
                for rule, (offer, rest) in zip(self.rules, self._made, strict=True)
            )
        return self._offers[question]

    @cached_property
    def _made(self) -> tuple[tuple[Offer, Rest | None], ...]:
        offers = [rule.offer(self.structure) for rule in self.rules]
        offers = [offer.within(self.budget) if offer.within else offer for offer in offers]
        return tuple((o, None if o.rest is None else Rest(self, o.rest)) for o in offers)

    def choose(self, question: Question = "log_partition") -> Normalizer:
        """The cheapest plans that compute a quantity, or why some component has no such plan."""
        if question not in self._chosen:
            # Plans are cached, so they must not contain values of the trace that is in progress.
            with jax.ensure_compile_time_eval():
                self._chosen[question] = self._choose(question)
        return self._chosen[question]

    def cheapest(self, component: int) -> str | None:
        """The name of the cheapest rule for log Z of one component; None if none applies."""
        best, cost = self.least("log_partition")
        if np.isinf(cost[component]):
            return None
        done = self.offers()[best[component]].done
        return self.rules[best[component]].name if done is None else done(component)

    def refused(self, component: int, question: Question = "log_partition") -> dict[str, str]:
        """For each rule that cannot compute a quantity for a component, the reason."""
        said = {
            rule.name: offer.refusal(component, question, self.budget)
            for rule, offer in zip(self.rules, self.offers(question), strict=True)
        }
        return {name: reason for name, reason in said.items() if reason is not None}

    def reasons(self, component: int, question: Question) -> str:
        """Why no rule computes a quantity for a component, as one text."""
        refused = self.refused(component, question).items()
        return "; ".join(f"{name}: {reason}" for name, reason in refused)

    def _choose(self, question: Question) -> Normalizer:
        costs = self.least(question)[1]
        stuck = np.flatnonzero(np.isinf(costs))
        if len(stuck):
            worst = int(stuck[np.argmax(self.structure.component_sizes[stuck])])
            return Intractable(self.reasons(worst, question))
        plans = self.plans(question, np.arange(len(costs)))
        for plan in plans:
            needed = plan.bytes if question == "log_partition" else plan.most_bytes
            said = self.budget.excess(0.0, "", needed)
            if said is not None:
                count = len(plan.components)
                return Intractable(f"{plan.rule.name}, of {count:,} components at once: {said}")
        return planned(self.structure, plans, self.budget)

    def plans(self, question: Question, components: np.ndarray) -> tuple[AbstractPlan, ...]:
        """The cheapest plans for these components; there must be one for each of them."""
        best, plans = self.least(question)[0][components], []
        for k, offer in enumerate(self.offers(question)):
            if (best == k).any():
                plans += offer.plan(components[best == k])
        return tuple(plans)

    def least(self, question: Question) -> tuple[np.ndarray, np.ndarray]:
        """For each component, the number of the cheapest rule and its cost.

        Of equally cheap rules the first is taken. The cost is `inf` where no rule applies.
        """
        if question not in self._cheapest:
            self._cheapest[question] = self._least(question)
        return self._cheapest[question]

    def _least(self, question: Question) -> tuple[np.ndarray, np.ndarray]:
        times = EXAMPLES if self.structure.skeleton.inputs else 1
        least = np.full(len(self.structure.component_sizes), np.inf)
        best = np.zeros(len(least), np.int32)
        for last in (False, True):
            left = np.isinf(least)
            for k, offer in enumerate(self.offers(question)):
                better = left & (offer.last == np.full(len(least), last))
                costs = offer.costs(times)
                better &= offer.answers(question) & (costs < least)
                better[better] = ~self.budget.exceeded(*(a[better] for a in offer.numbers()))
                best[better], least[better] = k, costs[better]
        return best, least


class Rest:
    """What a rule leaves of some components to the other rules."""

    def __init__(self, survey: Survey, structure: Structure) -> None:
        self.survey = Survey(structure, survey.budget, survey.rules)
        free = structure.free
        self.owner = np.zeros(len(structure.component_sizes), int)
        """The component of the whole structure to which each component of the rest belongs."""
        self.owner[structure.component_of[free]] = survey.structure.component_of[free]

    def completed(self, name: str, offer: Offer, question: Question) -> Offer:
        """The offer of the rule of this name together with the cheapest rules for the rest."""
        survey, count = self.survey, len(offer.operations)
        best, costs = survey.least(question)
        held = np.stack([o.numbers()[1] for o in survey.offers(question)])
        memory = np.bincount(self.owner, held[best, np.arange(len(best))], count)

        def reason(component: int) -> str:
            if np.isinf(offer.operations[component]):
                return offer.reason(component)
            stuck = np.flatnonzero((self.owner == component) & np.isinf(costs))
            worst = int(stuck[np.argmax(survey.structure.component_sizes[stuck])])
            size = survey.structure.component_sizes[worst]
            return (
                f"beside {offer.done(component) if offer.done else name}, no rule applies to "
                f"the rest, {size:,} site{'s' * int(size > 1)} ({survey.reasons(worst, question)})"
            )

        def done(component: int) -> str:
            rules = np.unique(best[self.owner == component])
            names = ", ".join(survey.rules[k].name for k in rules)
            said = f" (beside {offer.done(component)})" if offer.done else ""
            return names + said if names else name

        def plan(components: np.ndarray) -> tuple[AbstractPlan, ...]:
            mine = np.flatnonzero(np.isin(self.owner, components))
            # Draws of the offer's own plans are given those of the rest.
            return (*survey.plans(question, mine), *offer.plan(components))

        return dataclasses.replace(
            offer,
            operations=offer.operations + np.bincount(self.owner, costs, count),
            reason=reason,
            plan=plan,
            memory=np.broadcast_to(offer.memory, count) + memory,
            done=done,
            rest=None,
        )
