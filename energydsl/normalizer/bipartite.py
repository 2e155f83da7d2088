"""Two layers: one enumerated, the other summed in closed form given it."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array

from energydsl._types import Configuration
from energydsl.analysis import graph
from energydsl.analysis.conditional import AbstractConditional, Gaussian, conditional_for
from energydsl.analysis.factor import Sites, Whole
from energydsl.analysis.joint_states import (
    Rows,
    States,
    by_owner,
    held_rows,
    int32,
    owned_rows,
    positions,
)
from energydsl.analysis.layer import by_slope, measured
from energydsl.analysis.structure import Structure
from energydsl.language.expression import Environment, Value, post_order
from energydsl.language.model import Model
from energydsl.normalizer.base import AbstractPlan, AbstractRule, Fields, Offer, normal, uniform
from energydsl.normalizer.counting import (
    AbstractCountingPlan,
    like_sized,
    memory_of,
    width_of,
)


@dataclasses.dataclass(frozen=True)
class Bipartite(AbstractRule):
    r"""$Z_c = \sum_s e^{-E(s, 0)} \prod_i \sum_{t_i} e^{-E(s, t_i) + E(s, 0)}$.

    No two sites of a layer interact. The layer with fewer states is enumerated (s); each site of
    the other (t) is summed, or integrated where it is real and its energy quadratic. A draw takes
    s from its law and then each t from its conditional; a mode maximises over t for each s.

    Source: Salakhutdinov & Murray (2008), ICML 25, equation (6), for the RBM.
    """

    name: ClassVar[str] = "bipartite"

    def offer(self, structure: Structure) -> Offer:
        layers = _layers(structure)
        sizes, factors = structure.component_sizes, np.maximum(structure.factor_counts, 1)
        fits = np.isfinite(layers.bits) & (sizes > 1)
        bits = np.where(fits, layers.bits, 0.0)
        with np.errstate(over="ignore"):
            terms = np.minimum(np.exp2(bits) * factors * layers.levels, np.finfo(float).max)
        operations = np.where(fits, terms, np.inf)
        memory = memory_of(bits, factors * layers.levels + sizes, factors)

        def reason(component: int) -> str:
            if sizes[component] == 1:
                return "one site has no second layer"
            if not layers.proper[component]:
                return "its interactions have an odd cycle"
            return "no layer is finite while the other has conditionals of a known family"

        def plan(components: np.ndarray) -> tuple[AbstractPlan, ...]:
            return tuple(
                _plan(self, structure, layers, group, float(operations[group].sum()))
                for group in like_sized(layers.bits, components)
            )

        return Offer(operations, reason, plan, bits, memory, "states of the smaller layer")


class Summed(eqx.Module):
    """Some sites of one variable that are summed out: their law, places and components."""

    law: AbstractConditional
    where: Array
    owner: Array
    parts: tuple[Part, ...]
    """Their factors, where the energy is not measured as a whole."""


class Part(eqx.Module):
    """Some factors of a batch, each with one site that is summed out."""

    rows: Rows
    site: Array
    """The place of that site among those of its variable that are summed out."""
    own: tuple[Array | None, ...]
    """For each leaf, where it holds that site."""

    def measure(self, law: AbstractConditional, env: Environment) -> tuple[Array, Array]:
        """Each factor's measures of its site; its energy at 0, where measures leave that out."""
        factor = self.rows.structure.factors[self.rows.number]

        def one(values: list, own: tuple) -> tuple[Array, Array]:
            def energy(value: Array) -> Array:
                pairs = zip(values, own, strict=True)
                return factor.energy(
                    *(v if m is None else jnp.where(m, value.astype(v.dtype), v) for v, m in pairs)
                )

            zero = jnp.zeros((), law.domain.energy_dtype)
            return law.measure(energy), energy(zero) if by_slope(law) else jnp.zeros(())

        axes = [None if isinstance(leaf, Whole) else 0 for leaf in factor.leaves]
        return jax.vmap(one, in_axes=(axes, 0))(self.rows.arguments(env), self.own)


class BipartitePlan(AbstractCountingPlan):
    """One layer is counted over; `summed` is the other, by variable.

    Where there is one component and slopes at 0 say all about the summed sites, the energy is
    measured as a whole, by dense algebra; else factor by factor.
    """

    summed: dict[str, Summed]
    quiet: tuple[Rows, ...]
    """The factors without a summed site; measured as a whole, those without a free one."""
    whole: bool = eqx.field(static=True)

    def energies(self, model: Model, t: Array, fields: Fields | None = None) -> Array:
        base, totals = self._measured(model, t)
        for name, layer in self.summed.items():
            if fields is None:
                each = layer.law.log_normalizer(totals[name])
            else:
                each = _log_normalizer(layer.law, totals[name], fields[name][layer.where].T)
            base -= by_owner(each, layer.owner, len(base))
        return base if fields is None else base + self.states.fields(fields, t)

    def lowest(self, model: Model, t: Array) -> Array:
        base, totals = self._measured(model, t)
        for name, layer in self.summed.items():
            each = _lowest(layer.law, totals[name])[0]
            base += by_owner(each, layer.owner, len(base))
        return base

    def drawn(self, model: Model, t: Array, *, key: Array) -> Configuration:
        totals, keys = self._measured(model, t)[1], jr.split(key, max(len(self.summed), 1))
        new = {
            name: _drawn(layer.law, totals[name], k)
            for (name, layer), k in zip(self.summed.items(), keys, strict=False)
        }
        return self._put(model, t, new)

    def completed(self, model: Model, t: Array) -> Configuration:
        totals = self._measured(model, t)[1]
        new = {n: _lowest(layer.law, totals[n])[1] for n, layer in self.summed.items()}
        return self._put(model, t, new)

    def trouble(self, model: Model) -> str | None:
        real = [n for n, layer in self.summed.items() if isinstance(layer.law, Gaussian)]
        if not real:
            return None
        return (
            f"the energy of the real sites of {', '.join(real)} does not rise in every direction "
            "for some state of the other layer: their curvature must be positive"
        )

    def _measured(self, model: Model, t: Array) -> tuple[Array, dict[str, Array]]:
        """E(s, 0) of each component at its t-th state s, and the measures of the summed sites."""
        values = self.states.put(model.blank(), t)
        count = self.states.counts.shape[1]
        if self.whole:
            layer = {n: (s.law, s.where) for n, s in self.summed.items()}
            base, totals = measured(model.energy_of, values, layer)
            env = model.environment(model.blank())
            held = sum((jnp.sum(rows.energies(env)) for rows in self.quiet), jnp.zeros(()))
            return (base - held)[None], totals
        env, base, totals = model.environment(values), jnp.zeros(count), {}
        for rows in self.quiet:
            base += by_owner(rows.energies(env), rows.owner, count)
        for name, layer in self.summed.items():
            measures = len(layer.law.measure(lambda v: v * 0.0))
            totals[name] = jnp.zeros((measures, len(layer.where)))
            for part in layer.parts:
                each, at_zero = part.measure(layer.law, env)
                totals[name] = totals[name].at[:, part.site].add(each.T)
                base += by_owner(at_zero, part.rows.owner, count)
        return base, totals

    def _put(self, model: Model, t: Array, new: dict[str, Array]) -> Configuration:
        values = self.states.put(model.blank(), t)
        for name, layer in self.summed.items():
            flat = jnp.ravel(values[name])
            flat = flat.at[layer.where].set(new[name].astype(flat.dtype))
            values[name] = flat.reshape(values[name].shape)
        return values


class _Layers(NamedTuple):
    """For each component, whether it has two layers, and log2 of the states of the one to count.

    `counted` is True at the sites of that layer; `levels` is the most that a site of the other
    has, which is what summing it costs.
    """

    proper: np.ndarray
    bits: np.ndarray
    levels: np.ndarray
    counted: np.ndarray


def _layers(structure: Structure) -> _Layers:
    free, count = structure.free, len(structure.component_sizes)
    owner = structure.component_of
    proper, side = _sides(structure)
    known = np.repeat(
        [_law(structure, v.name) is not None for v in structure.variables],
        [v.size for v in structure.variables],
    )
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
    """The conditional of a variable's sites by themselves."""
    variable = next(v for v in structure.variables if v.name == name)
    if variable.domain.event_ndim:
        return None
    return conditional_for(variable.domain, structure.degree_in(variable))


def _plan(
    rule: AbstractRule,
    structure: Structure,
    layers: _Layers,
    components: np.ndarray,
    operations: float,
) -> BipartitePlan:
    states = States(structure, components, layers.counted)
    summed = np.isin(structure.component_of, components) & ~layers.counted
    names = [v for v in structure.variables if summed[structure.offset[v.name] :][: v.size].any()]
    laws = {v.name: _law(structure, v.name) for v in names}
    whole = len(structure.component_sizes) == 1 and all(map(by_slope, laws.values()))
    levels = int(layers.levels[components].max())
    if whole:
        tree = post_order(structure.skeleton.root)
        size = sum(node.size for node in tree if not isinstance(node, Value))
        quiet = held_rows(structure)
    else:
        size = int(levels * structure.factor_counts[components].sum()) + structure.sites
        within = tuple(~summed[structure.scope(f)].any(axis=1) for f in structure.factors)
        quiet = owned_rows(structure, components, within)
    factors = structure.factor_counts[components].sum()
    return BipartitePlan(
        rule=rule,
        structure=structure,
        components=int32(components),
        operations=operations,
        bytes=float(memory_of(np.log2(states.largest), float(size), float(factors))),
        states=states,
        width=width_of(states.largest, size),
        summed={
            name: _summed(structure, name, law, summed, components, whole)
            for name, law in laws.items()
        },
        quiet=quiet,
        whole=whole,
    )


def _summed(
    structure: Structure,
    name: str,
    law: Any,
    summed: np.ndarray,
    components: np.ndarray,
    whole: bool,
) -> Summed:
    inside = summed & structure.of_variables([name])
    numbers = np.flatnonzero(inside)
    owner = positions(structure, components)[structure.component_of[numbers]]
    parts = []
    if not whole:
        place = np.zeros(structure.sites, int)
        place[numbers] = np.arange(len(numbers))
        touched = tuple(inside[structure.scope(f)].any(axis=1) for f in structure.factors)
        for rows in owned_rows(structure, components, touched):
            number = rows.number
            chosen = touched[number] & np.isin(structure.row_components[number], components)
            parts.append(_part(structure, rows, np.flatnonzero(chosen), inside, place))
    return Summed(law, int32(numbers - structure.offset[name]), int32(owner), tuple(parts))


def _part(
    structure: Structure, rows: Rows, chosen: np.ndarray, inside: np.ndarray, place: np.ndarray
) -> Part:
    factor = structure.factors[rows.number]
    scope = structure.scope(factor)[chosen]
    site = np.where(inside[scope], scope, -1).max(axis=1)
    own = []
    for leaf in factor.leaves:
        mask = None
        if isinstance(leaf, Sites):
            numbers = leaf.index[chosen] + structure.offset[leaf.variable.name]
            mask = jnp.asarray(numbers == site.reshape(-1, *(1,) * (numbers.ndim - 1)))
        own.append(mask)
    return Part(rows, int32(place[site]), tuple(own))


def _level_energies(law: AbstractConditional, total: Array) -> Array:
    """The energy of each level of finite sites, (levels, sites), less that at 0 by slopes."""
    return jnp.tensordot(law.numbers, total[0], axes=0) if by_slope(law) else total


def _log_normalizer(law: AbstractConditional, total: Array, field: Array) -> Array:
    """`law.log_normalizer` with energies added to single sites, (levels or 2, sites)."""
    if isinstance(law, Gaussian):
        return law.log_normalizer(total + jnp.stack([field[0], 2 * field[1]]))
    return jax.nn.logsumexp(-_level_energies(law, total) - field, axis=0)


def _drawn(law: AbstractConditional, total: Array, key: Array) -> Array:
    """Each site from its conditional."""
    if isinstance(law, Gaussian):
        slope, curvature = total
        return -slope / curvature + normal(key, slope.shape) / jnp.sqrt(curvature)
    energies = _level_energies(law, total)
    ladder = jnp.cumsum(jnp.exp(jnp.min(energies, axis=0) - energies), axis=0)
    level = jnp.sum(ladder < uniform(key, ladder.shape[1:]) * ladder[-1], axis=0)
    return jnp.asarray(law.domain.values)[level]


def _lowest(law: AbstractConditional, total: Array) -> tuple[Array, Array]:
    """The least energy of each site, and the value that has it."""
    if isinstance(law, Gaussian):
        slope, curvature = total
        curvature = jnp.where(curvature > 0, curvature, jnp.nan)
        return -(slope**2) / (2 * curvature), -slope / curvature
    energies = _level_energies(law, total)
    best = jnp.min(energies, axis=0)
    # Of equals the first; an argmin of float64 cannot be lowered with 64 bits off.
    levels = jnp.arange(len(energies))[:, None]
    level = jnp.min(jnp.where(energies == best, levels, len(energies) - 1), axis=0)
    return best, jnp.asarray(law.domain.values)[level]
