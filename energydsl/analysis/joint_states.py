"""The states of chosen finite sites, numbered within each component; who owns which factor.

Rules that visit states let all components advance together: at step t each takes its own t-th
state (mixed radix over its sites' levels), so that the passes are those of the largest.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl._types import Configuration
from energydsl.analysis.evaluation import factor_energies
from energydsl.analysis.factor import Factor
from energydsl.analysis.structure import Structure
from energydsl.language.model import Model


class States:
    """Site i takes level (t // stride_i) mod levels_i.

    Args:
        structure: of the model.
        components: those to visit, by number.
        sites: True at the finite sites to count over; the free sites of `components` by default.
    """

    def __init__(
        self, structure: Structure, components: np.ndarray, sites: np.ndarray | None = None
    ) -> None:
        self.inside = np.isin(structure.component_of, components)
        if sites is not None:
            self.inside = self.inside & sites
        owner = positions(structure, components)[structure.component_of]
        order = np.argsort(owner, kind="stable")
        order = order[self.inside[order]]
        levels = structure.levels[order].astype(np.float64)
        logs, labels = np.log2(levels), owner[order]
        total = np.bincount(labels, logs, len(components))
        before = np.cumsum(logs) - logs
        base = np.cumsum(total) - total
        self.stride = np.ones(structure.sites, np.int64)
        self.stride[order] = np.rint(np.exp2(before - base[labels])).astype(np.int64)
        self.states = np.rint(np.exp2(total)).astype(np.int64)
        self.largest = int(self.states.max())
        self._structure = structure

    def put(self, values: Configuration, t: Array) -> Configuration:
        """`values` of all variables with the t-th state written into them."""
        structure, values = self._structure, dict(values)
        for v in structure.variables:
            place = slice(structure.offset[v.name], structure.offset[v.name] + v.size)
            if self.inside[place].any():
                level = t // self.stride[place] % len(v.domain.values)
                new = jnp.asarray(v.domain.values, v.domain.dtype)[level]
                old = values[v.name].ravel()
                values[v.name] = jnp.where(self.inside[place], new, old).reshape(v.shape)
        return values


class Energies:
    """The energy of each of some components: of the factors that contain a free site of theirs."""

    def __init__(self, structure: Structure, components: np.ndarray) -> None:
        self._count, self._owned = len(components), []
        for factor in structure.factors:
            owner = owners(structure, factor, components)
            rows = np.flatnonzero(owner >= 0)
            if len(rows):
                self._owned.append((factor, rows, owner[rows]))
        self.size = sum(factor.size for factor, _, _ in self._owned)

    def __call__(self, model: Model, values: Configuration) -> Array:
        """At values of all variables."""
        env, total = model.environment(values), jnp.zeros(self._count)
        for factor, rows, owner in self._owned:
            total += by_owner(take(factor_energies(factor, env), rows), owner, self._count)
        return total


def state_bits(structure: Structure) -> np.ndarray:
    """log2 of how many states the finite free sites of each component have, rounded up."""
    finite = structure.free & (structure.levels > 0)
    bits = np.log2(structure.levels[finite].astype(float))
    total = np.bincount(structure.component_of[finite], bits, len(structure.component_sizes))
    return np.ceil(total - 1e-9).astype(int)


def positions(structure: Structure, components: np.ndarray) -> np.ndarray:
    """Where each component stands in `components`; -1 elsewhere, and at index -1 (clamped)."""
    position = np.full(len(structure.component_sizes) + 1, -1)
    position[components] = np.arange(len(components))
    return position


def owners(structure: Structure, factor: Factor, components: np.ndarray) -> np.ndarray:
    """Which of `components`, by position, each factor of a batch belongs to; -1 for none."""
    scope = structure.scope(factor)
    if not scope.shape[1]:
        return np.full(factor.size, -1)
    owner = structure.component_of[scope].max(axis=1)
    return positions(structure, components)[owner]


def held_energy(structure: Structure, model: Model) -> Array:
    """The energy of factors without a free site, which belong to no component."""
    total = jnp.zeros(())
    env = model.environment(model.blank())
    for factor in structure.factors:
        scope = structure.scope(factor)
        rows = np.flatnonzero(~structure.free[scope].any(axis=1))
        if len(rows):
            total = total + factor_energies(factor, env)[rows].sum()
    return total


def by_owner(numbers: Array, owner: np.ndarray, count: int) -> Array:
    """The sum over what each owner has."""
    if count == 1:
        return jnp.sum(numbers)[None]
    return jax.ops.segment_sum(numbers, owner, count)


def take(flat: Array, index: np.ndarray) -> Array:
    """Entries by position; no gather where they are all, in order."""
    if index.size == flat.size and (index.ravel() == np.arange(flat.size)).all():
        return flat.reshape(index.shape)
    return flat[index]
