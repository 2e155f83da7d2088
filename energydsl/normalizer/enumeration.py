r"""Exact log Z by visiting every state of a component.

All components are enumerated at once: at step t each takes its own t-th state (mixed radix over
its sites' levels), so the number of passes is that of the largest, and a million independent
sites cost as many passes as one site has levels.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from energydsl.arguments import factor_energies
from energydsl.model import Model
from energydsl.normalizer.base import AbstractRule
from energydsl.structure import Structure

CHUNK = 2**20
"""Factor energies held at once."""


class Enumeration(AbstractRule):
    r"""$\log Z_c = \log \sum_{x_c} e^{-E_c(x_c)}$, in float64, streamed."""

    name: ClassVar[str] = "enumeration"

    def costs(self, structure: Structure, budget: int) -> np.ndarray:
        bits = _bits(structure)
        factors = sum(f.size for f in structure.factors)
        return np.where(bits <= budget, np.exp2(np.minimum(bits, budget)) * max(factors, 1), np.inf)

    def reason(self, structure: Structure, component: int, budget: int) -> str:
        inside = structure.component_of == component
        endless = inside & (structure.levels == 0)
        if endless.any():
            site = structure.describe(int(np.argmax(endless)))
            return f"{site} has no finite list of levels"
        return f"2^{_bits(structure)[component]:.4g} states; budget 2^{budget}"

    def bytes(self, structure: Structure, components: np.ndarray) -> float:
        return 8.0 * max(CHUNK, sum(f.size for f in structure.factors))

    def log_partition(self, structure: Structure, model: Model, components: np.ndarray) -> Array:
        radix = _Radix(structure, components)
        owners = [_owners(structure, f, components) for f in structure.factors]
        kept = [(f, o) for f, o in zip(structure.factors, owners, strict=True) if (o >= 0).any()]

        def energies(t: Array) -> Array:
            """Each component's energy in its t-th state."""
            env = model.environment(radix.values(structure, model, t))
            total = jnp.zeros(len(components))
            for factor, owner in kept:
                each = factor_energies(factor, env)
                rows = np.flatnonzero(owner >= 0)
                total += jax.ops.segment_sum(each[rows], owner[rows], len(components))
            return total

        size = sum(f.size for f, _ in kept) + structure.sites
        width = int(max(1, min(radix.largest, CHUNK // max(size, 1))))
        passes = math.ceil(radix.largest / width)

        @jax.checkpoint
        def step(total: Array, first: Array) -> tuple[Array, None]:
            t = first + jnp.arange(width)
            seen = jnp.where(t[:, None] < radix.states, -jax.vmap(energies)(t), -jnp.inf)
            return jnp.logaddexp(total, jax.nn.logsumexp(seen, axis=0)), None

        start = jnp.full(len(components), -jnp.inf)
        total, _ = lax.scan(step, start, jnp.arange(passes) * width)
        return total.sum()


class Independent(Enumeration):
    """Components of one finite site each: as many passes as a site has levels."""

    name: ClassVar[str] = "independent"

    def costs(self, structure: Structure, budget: int) -> np.ndarray:
        # One pass serves them all, so the cost of one is its levels alone.
        alone = (structure.component_sizes == 1) & (_bits(structure) <= budget)
        return np.where(alone, np.exp2(np.where(alone, _bits(structure), 0.0)), np.inf)

    def reason(self, structure: Structure, component: int, budget: int) -> str:
        if structure.component_sizes[component] > 1:
            return f"{structure.component_sizes[component]:,} sites are connected"
        return super().reason(structure, component, budget)


def _bits(structure: Structure) -> np.ndarray:
    """log2 of the number of states of each component; infinite where a site is not finite."""
    free = structure.free
    with np.errstate(divide="ignore"):
        bits = np.log2(structure.levels[free].astype(float))
    bits = np.where(np.isneginf(bits), np.inf, bits)
    return np.bincount(structure.component_of[free], bits)


class _Radix:
    """The t-th state of every component: site i takes level (t // stride_i) mod levels_i."""

    def __init__(self, structure: Structure, components: np.ndarray) -> None:
        self.inside = np.isin(structure.component_of, components)
        order = np.argsort(structure.component_of, kind="stable")
        order = order[self.inside[order]]
        levels = structure.levels[order].astype(np.float64)
        labels = structure.component_of[order]
        logs = np.log2(levels)
        before = np.cumsum(logs) - logs
        firsts = np.concatenate([[True], np.diff(labels) > 0])
        base = np.repeat(before[firsts], np.diff(np.append(np.flatnonzero(firsts), len(order))))
        stride = np.ones(structure.sites, np.int64)
        stride[order] = np.rint(np.exp2(before - base)).astype(np.int64)
        self.stride = stride
        last = np.append(np.flatnonzero(firsts)[1:] - 1, len(order) - 1)
        self.states = (stride[order] * levels.astype(np.int64))[last]
        self.largest = int(self.states.max())

    def values(self, structure: Structure, model: Model, t: Array) -> dict[str, Array]:
        values = model.blank()
        for v in structure.variables:
            place = slice(structure.offset[v.name], structure.offset[v.name] + v.size)
            if self.inside[place].any():
                level = t // self.stride[place] % v.domain.levels
                new = jnp.asarray(v.domain.values, v.domain.dtype)[level]
                old = values[v.name].ravel()
                values[v.name] = jnp.where(self.inside[place], new, old).reshape(v.shape)
        return values


def _owners(structure: Structure, factor: Any, components: np.ndarray) -> np.ndarray:
    """Which of `components` (by position) each factor belongs to; -1 for none of them."""
    scope = structure.scope(factor)
    if not scope.shape[1]:
        return np.full(factor.size, -1)
    owner = structure.component_of[scope].max(axis=1)
    position = np.full(len(structure.component_sizes) + 1, -1)
    position[components] = np.arange(len(components))
    return position[owner]
