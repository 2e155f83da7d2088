"""Rules for exact log Z, one a file, and how one is chosen for each component."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl.analysis.evaluation import as_double
from energydsl.analysis.joint_states import held_energy
from energydsl.analysis.structure import Structure
from energydsl.language.model import Model
from energydsl.normalizer.base import AbstractRule as AbstractRule
from energydsl.normalizer.base import Exact as Exact
from energydsl.normalizer.base import Intractable as Intractable
from energydsl.normalizer.base import Normalizer as Normalizer
from energydsl.normalizer.base import Plan as Plan
from energydsl.normalizer.bipartite import Bipartite
from energydsl.normalizer.directed import Expert
from energydsl.normalizer.enumeration import Enumeration, Independent
from energydsl.normalizer.gaussian import Gaussian
from energydsl.normalizer.quadrature import Quadrature

RULES: tuple[AbstractRule, ...] = (
    Expert(),
    Independent(),
    Gaussian(),
    Bipartite(),
    Enumeration(),
    Quadrature(),
)
"""Every rule that is tried; a new one is a file of this folder and a name here."""


def choose(structure: Structure, budget: int, more: tuple[AbstractRule, ...] = ()) -> Normalizer:
    """The cheapest rule for each component, of `RULES` and more, or why some has none."""
    rules = (*more, *RULES)
    costs = np.stack([rule.costs(structure, budget) for rule in rules])
    stuck = np.flatnonzero(np.isinf(costs).all(axis=0))
    if len(stuck):
        worst = int(stuck[np.argmax(structure.component_sizes[stuck])])
        reasons = [f"{rule.name}: {rule.reason(structure, worst, budget)}" for rule in rules]
        return Intractable("; ".join(reasons))
    chosen = costs.argmin(axis=0)
    plans = []
    for k, rule in enumerate(rules):
        components = np.flatnonzero(chosen == k)
        if len(components):
            operations = float(costs[k, components].sum())
            plans.append(Plan(rule, components, operations, rule.bytes(structure, components)))
    return Exact(structure, tuple(plans))


@eqx.filter_custom_jvp
def log_partition_of(model: Model, normalizer: Exact, dtype: np.dtype) -> Array:
    """Log Z by the plans, computed in float64 and handed over as `dtype`."""
    with jax.enable_x64(True):
        return _log_partition(model, normalizer).astype(dtype)


@log_partition_of.def_jvp
def _log_partition_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    # The whole gradient is taken here: left to JAX, its second half would run where float64 is off.
    model, normalizer, dtype = primals
    with jax.enable_x64(True):
        value, slopes = eqx.filter_value_and_grad(_log_partition)(model, normalizer)
        pairs = zip(_leaves(tangents[0]), _leaves(slopes), strict=True)
        moves = [jnp.sum(t * g).astype(dtype) for t, g in pairs if t is not None]
        return value.astype(dtype), sum(moves, jnp.zeros((), dtype))


def error_of(model: Model, normalizer: Exact) -> float:
    """The numerical error of log Z, in nats."""
    with jax.enable_x64(True):
        double = as_double(model)
        return sum(
            plan.rule.error(normalizer.structure, double, plan.components)
            for plan in normalizer.plans
        )


def trouble(model: Model, normalizer: Exact) -> str:
    """Why log Z is NaN."""
    with jax.enable_x64(True):
        double = as_double(model)
        for plan in normalizer.plans:
            said = plan.rule.trouble(normalizer.structure, double, plan.components)
            if said is not None:
                return said
    return "a parameter or an energy is NaN"


def _leaves(tree: Any) -> list[Any]:
    """Leaves, None among them where something is not differentiated."""
    return jax.tree.leaves(tree, is_leaf=lambda leaf: leaf is None)


@eqx.filter_jit
def _log_partition(model: Model, normalizer: Exact) -> Array:
    """The plans' sum, with the energy of factors that contain no free site."""
    model, structure = as_double(model), normalizer.structure
    parts = [p.rule.log_partition(structure, model, p.components) for p in normalizer.plans]
    return jnp.sum(jnp.stack([*parts, -held_energy(structure, model)]))
