r"""Exact log Z by visiting every state of a component.

All components are enumerated at once: at step t each takes its own t-th state (mixed radix over
its sites' levels), so the number of passes is that of the largest, and a million independent
sites cost as many passes as one site has levels.
"""

from __future__ import annotations

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from energydsl.analysis.joint_states import Energies, States
from energydsl.analysis.structure import Structure
from energydsl.language.model import Model
from energydsl.normalizer.base import AbstractRule

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
        states, energies = States(structure, components), Energies(structure, components)
        blank = model.blank()
        width = int(max(1, min(states.largest, CHUNK // (energies.size + structure.sites))))
        passes = math.ceil(states.largest / width)

        @jax.checkpoint
        def step(total: Array, first: Array) -> tuple[Array, None]:
            t = first + jnp.arange(width)
            each = jax.vmap(lambda t: energies(model, states.put(blank, t)))(t)
            seen = jnp.where(t[:, None] < states.states, -each, -jnp.inf)
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
