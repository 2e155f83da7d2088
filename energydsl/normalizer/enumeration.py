"""Exact log Z by enumeration of every joint state of a component."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import ClassVar

import numpy as np
from jax import Array

from energydsl._types import Configuration
from energydsl.analysis.joint_states import Energies, States, int32
from energydsl.analysis.structure import Structure
from energydsl.language.model import Model
from energydsl.normalizer.base import AbstractPlan, AbstractRule, Fields, Offer
from energydsl.normalizer.counting import (
    AbstractCountingPlan,
    like_sized,
    memory_of,
    width_of,
)

WORK = 5.0
"""The operations of a factor in one state: its sites are looked up, and it is computed."""

ALONE = 0.45
"""How many arrays with one number per factor and state are in memory at once for log Z alone: those
of the sites' values take a byte a number."""


@dataclasses.dataclass(frozen=True)
class Enumeration(AbstractRule):
    r"""$\log Z_c = \log \sum_{x_c} e^{-E_c(x_c)}$, summed in float64 over chunks of states.

    Draws invert the cumulative distribution over the joint states; a mode is a state of lowest
    energy.
    """

    name: ClassVar[str] = "enumeration"

    def offer(self, structure: Structure) -> Offer:
        return _offer(self, structure, np.ones(len(structure.component_sizes), bool))


@dataclasses.dataclass(frozen=True)
class Independent(AbstractRule):
    """Components of one finite site each, summed over the site's levels."""

    name: ClassVar[str] = "independent"

    def offer(self, structure: Structure) -> Offer:
        return _offer(self, structure, structure.component_sizes == 1)


class EnumerationPlan(AbstractCountingPlan):
    """A plan that enumerates every site of its components."""

    factors: Energies

    def energies(self, model: Model, t: Array, fields: Fields | None = None) -> Array:
        each = self.factors(model, self.states.put(model.blank(), t))
        return each if fields is None else each + self.states.fields(fields, t)

    def lowest(self, model: Model, t: Array) -> Array:
        return self.energies(model, t)

    def drawn(self, model: Model, t: Array, *, key: Array) -> Configuration:
        return self.completed(model, t)

    def completed(self, model: Model, t: Array) -> Configuration:
        return self.states.put(model.blank(), t)


def _offer(rule: AbstractRule, structure: Structure, chosen: np.ndarray) -> Offer:
    bits, every, memory = _costs(structure)
    sizes, operations = structure.component_sizes, np.where(chosen, every, np.inf)

    def reason(component: int) -> str:
        if not chosen[component]:
            return f"{sizes[component]:,} sites are connected"
        return _unlisted(structure, component)

    def plan(components: np.ndarray) -> tuple[AbstractPlan, ...]:
        return tuple(
            _plan(rule, structure, group, float(operations[group].sum()))
            for group in like_sized(bits, components)
        )

    return Offer(operations, reason, plan, bits, memory, "states")


@lru_cache(maxsize=1)
def _costs(structure: Structure) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each component: log2 of its number of states, its operations and its bytes."""
    bits, factors = _bits(structure), np.maximum(structure.factor_counts, 1)
    # A number of states that overflows exceeds every budget, but the rule still applies.
    states = np.exp2(np.minimum(bits, 1000.0))
    operations = np.where(np.isfinite(bits), states * factors, np.inf)
    return bits, operations, memory_of(bits, factors + structure.component_sizes, factors)


def _plan(
    rule: AbstractRule, structure: Structure, components: np.ndarray, operations: float
) -> EnumerationPlan:
    states, factors = States(structure, components), Energies(structure, components)
    size = factors.size + structure.sites
    width = width_of(states.largest, size)
    costs = np.log2(states.largest), float(size), 2.0 * size
    alone = float(memory_of(*costs, arrays=ALONE))
    return EnumerationPlan(
        rule=rule,
        structure=structure,
        components=int32(components),
        operations=WORK * operations,
        bytes=alone,
        more_bytes=float(memory_of(*costs)) - alone,
        states=states,
        width=width,
        factors=factors,
    )


def _bits(structure: Structure) -> np.ndarray:
    """log2 of the number of joint states of each component; infinite if a site has no levels."""
    free = structure.free
    with np.errstate(divide="ignore"):
        bits = np.log2(structure.levels[free].astype(float))
    bits = np.where(np.isneginf(bits), np.inf, bits)
    return np.bincount(structure.component_of[free], bits)


def _unlisted(structure: Structure, component: int) -> str:
    endless = (structure.component_of == component) & (structure.levels == 0)
    site = int(np.argmax(endless))
    binding = [v.name for v in structure.variables if v.domain.event_ndim and v.domain.discrete]
    if structure.of_variables(binding)[site]:
        return (
            f"{structure.describe(site)} is constrained jointly with the other entries of its event"
        )
    return f"{structure.describe(site)} has no finite list of levels"
