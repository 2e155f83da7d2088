"""Two layers: one enumerated, the other summed in closed form given it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import lru_cache
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from energydsl.analysis import graph
from energydsl.analysis.conditional import AbstractConditional, Gaussian, conditional_for
from energydsl.analysis.evaluation import argument, factor_energies
from energydsl.analysis.factor import Factor, Sites, Whole
from energydsl.analysis.joint_states import States, held_energy, owners, positions
from energydsl.analysis.layer import by_slope, sum_out
from energydsl.analysis.structure import Structure
from energydsl.language.expression import Environment
from energydsl.language.model import Model
from energydsl.normalizer.base import AbstractRule

CHUNK = 2**20
"""Numbers held at once."""


class Bipartite(AbstractRule):
    r"""$Z_c = \sum_s e^{-E(s, 0)} \prod_i \sum_{t_i} e^{-E(s, t_i) + E(s, 0)}$.

    No two sites of a layer interact. The layer with fewer states is enumerated (s); each site of
    the other (t) is summed, or integrated where it is real and its energy quadratic.

    Source: Salakhutdinov & Murray (2008), ICML 25, equation (6), for the RBM.
    """

    name: ClassVar[str] = "bipartite"

    def costs(self, structure: Structure, budget: int) -> np.ndarray:
        layers = _layers(structure)
        factors = max(sum(f.size for f in structure.factors), 1)
        terms = np.exp2(np.minimum(layers.bits, budget)) * factors * layers.levels
        fits = (layers.bits <= budget) & (structure.component_sizes > 1)
        return np.where(fits, terms, np.inf)

    def reason(self, structure: Structure, component: int, budget: int) -> str:
        if structure.component_sizes[component] == 1:
            return "one site has no second layer"
        layers = _layers(structure)
        if not layers.proper[component]:
            return "its interactions have an odd cycle"
        if np.isinf(layers.bits[component]):
            return "no layer is finite while the other has conditionals of a known family"
        return f"2^{layers.bits[component]:.4g} states of the smaller layer; budget 2^{budget}"

    def bytes(self, structure: Structure, components: np.ndarray) -> float:
        return 8.0 * max(CHUNK, sum(f.size for f in structure.factors))

    def log_partition(self, structure: Structure, model: Model, components: np.ndarray) -> Array:
        layers = _layers(structure)
        states = States(structure, components, layers.counted)
        summed = np.isin(structure.component_of, components) & ~layers.counted
        laws = [law for law, _ in _by_name(structure, summed).values()]
        if len(structure.component_sizes) == 1 and all(map(by_slope, laws)):
            energies, size = _whole(structure, model, states, summed), structure.sites
        else:
            energies = _by_factor(structure, model, states, summed, components)
            size = int(layers.levels.max()) * sum(f.size for f in structure.factors)
        width = int(max(1, min(states.largest, CHUNK // max(size, 1))))

        @jax.checkpoint
        def step(total: Array, first: Array) -> tuple[Array, None]:
            t = first + jnp.arange(width)
            seen = jnp.where(t[:, None] < states.states, -jax.vmap(energies)(t), -jnp.inf)
            return jnp.logaddexp(total, jax.nn.logsumexp(seen, axis=0)), None

        start = jnp.full(len(components), -jnp.inf)
        passes = math.ceil(states.largest / width)
        total, _ = lax.scan(step, start, jnp.arange(passes) * width)
        return total.sum()

    def trouble(self, structure: Structure, model: Model, components: np.ndarray) -> str | None:
        summed = np.isin(structure.component_of, components) & ~_layers(structure).counted
        laws = _by_name(structure, summed)
        real = [n for n, (law, _) in laws.items() if isinstance(law, Gaussian)]
        if not real:
            return None
        return (
            f"the energy of the real sites of {', '.join(real)} does not rise in every direction "
            "for some state of the other layer: their curvature must be positive"
        )


class _Layers(NamedTuple):
    """For each component, whether it has two layers, and log2 of the states of the one to count.

    `counted` is True at the sites of that layer; `levels` is the most that a site of the other
    has, which is what summing it costs.
    """

    proper: np.ndarray
    bits: np.ndarray
    levels: np.ndarray
    counted: np.ndarray


@lru_cache(maxsize=16)
def _layers(structure: Structure) -> _Layers:
    free, count = structure.free, len(structure.component_sizes)
    owner = structure.component_of
    proper, side = _sides(structure)
    laws = [_law(structure, v.name) is not None for v in structure.variables]
    known = np.repeat(laws, [v.size for v in structure.variables])
    with np.errstate(divide="ignore"):
        site_bits = np.where(structure.levels > 0, np.log2(structure.levels), np.inf)
    bits = np.full((2, count), np.inf)
    most = np.ones((2, count))
    for k in (0, 1):
        mine, other = free & (side == k), free & (side != k)
        total = np.bincount(owner[mine], site_bits[mine], count)
        closed = np.bincount(owner[other], ~known[other], count) == 0
        bits[k] = np.where(proper & closed, total, np.inf)
        np.maximum.at(most[k], owner[other], np.maximum(structure.levels[other], 1))
    smaller = np.argmin(bits, axis=0)
    each = np.arange(count)
    counted = free & (side == smaller[owner])
    return _Layers(proper, bits[smaller, each], most[smaller, each], counted)


def _sides(structure: Structure) -> tuple[np.ndarray, np.ndarray]:
    """Which components are bipartite, and the side of each site."""
    count = len(structure.component_sizes)
    if structure.crowded:
        return np.zeros(count, bool), np.zeros(structure.sites, int)
    side = graph.parity(structure.sites, structure.edges)
    a, b = structure.edges.T
    odd = structure.component_of[a[side[a] == side[b]]]
    return np.bincount(odd, minlength=count) == 0, side


def _law(structure: Structure, name: str) -> AbstractConditional | None:
    variable = next(v for v in structure.variables if v.name == name)
    return conditional_for(variable.domain, structure.degree_in(variable))


def _by_name(
    structure: Structure, sites: np.ndarray
) -> dict[str, tuple[AbstractConditional, np.ndarray]]:
    """For each variable with some of these sites, its conditional and which of its sites."""
    found = {}
    for v in structure.variables:
        where = np.flatnonzero(sites[structure.offset[v.name] :][: v.size])
        law = _law(structure, v.name)
        if len(where) and law is not None:
            found[v.name] = law, where
    return found


def _whole(
    structure: Structure, model: Model, states: States, summed: np.ndarray
) -> Callable[[Array], Array]:
    """The free energy of the t-th state, from derivatives of the whole energy: dense algebra."""
    sites, blank = _by_name(structure, summed), model.blank()
    held = held_energy(structure, model)

    def energies(t: Array) -> Array:
        return (sum_out(model.energy_of, states.put(blank, t), sites) - held)[None]

    return energies


def _by_factor(
    structure: Structure,
    model: Model,
    states: States,
    summed: np.ndarray,
    components: np.ndarray,
) -> Callable[[Array], Array]:
    """The free energy of each component's t-th state, from its factors."""
    blank, laws = model.blank(), _by_name(structure, summed)
    position = positions(structure, components)
    parts = [_Part(structure, f, owners(structure, f, components)) for f in structure.factors]
    quiet = [part.of(~summed[structure.scope(part.factor)].any(axis=1)) for part in parts]
    loud = {n: [part.at(n, where) for part in parts] for n, (_, where) in laws.items()}

    def energies(t: Array) -> Array:
        env = model.environment(states.put(blank, t))
        total = jnp.zeros(len(components))
        for part in quiet:
            if len(part.rows):
                each = factor_energies(part.factor, env)[part.rows]
                total += jax.ops.segment_sum(each, part.owner, len(components))
        for n, (law, where) in laws.items():
            measures = jnp.zeros((len(law.measure(lambda v: v * 0.0)), structure.sites))
            for part in loud[n]:
                if len(part.rows):
                    measured, at_zero = part.measure(law, env)
                    measures = measures.at[:, part.site].add(measured.T)
                    total += jax.ops.segment_sum(at_zero, part.owner, len(components))
            numbers = where + structure.offset[n]
            each = law.log_normalizer(measures[:, numbers])
            owner = position[structure.component_of[numbers]]
            total -= jax.ops.segment_sum(each, owner, len(components))
        return total

    return energies


@dataclasses.dataclass(frozen=True, eq=False)
class _Part:
    """Some factors of a batch, each with the component that owns it and at most one site."""

    structure: Structure
    factor: Factor
    owner: np.ndarray
    rows: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, int))
    site: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, int))

    def of(self, chosen: np.ndarray) -> _Part:
        """Those chosen, of those that are owned."""
        rows = np.flatnonzero(chosen & (self.owner >= 0))
        return dataclasses.replace(self, owner=self.owner[rows], rows=rows)

    def at(self, name: str, where: np.ndarray) -> _Part:
        """Those with one of these sites of a variable, and with which."""
        sites = np.zeros(self.structure.sites, bool)
        sites[where + self.structure.offset[name]] = True
        scope = self.structure.scope(self.factor)
        found = self.of(sites[scope].any(axis=1))
        site = np.where(sites[scope], scope, -1).max(axis=1, initial=-1)[found.rows]
        return dataclasses.replace(found, site=site)

    def measure(self, law: AbstractConditional, env: Environment) -> tuple[Array, Array]:
        """Each factor's measures of its site; its energy at 0, where measures leave that out."""
        values, masks = [], []
        for leaf in self.factor.leaves:
            index = None if isinstance(leaf, Whole) else leaf.index[self.rows]
            values.append(argument(leaf, index, env))
            mask = None
            if isinstance(leaf, Sites):
                numbers = leaf.index[self.rows] + self.structure.offset[leaf.variable.name]
                mask = numbers == self.site.reshape(-1, *(1,) * (numbers.ndim - 1))
            masks.append(mask)

        def one(values: list, masks: list) -> tuple[Array, Array]:
            def energy(value: Array) -> Array:
                pairs = zip(values, masks, strict=True)
                return self.factor.energy(
                    *(v if m is None else jnp.where(m, value.astype(v.dtype), v) for v, m in pairs)
                )

            zero = jnp.zeros((), law.domain.energy_dtype)
            silent = by_slope(law)
            return law.measure(energy), energy(zero) if silent else jnp.zeros(())

        axes = [None if isinstance(leaf, Whole) else 0 for leaf in self.factor.leaves]
        return jax.vmap(one, in_axes=(axes, 0))(values, masks)
