"""Exact log Z of bipartite components: one layer is enumerated, the other summed out."""

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
from energydsl.analysis.conditional import (
    AbstractConditional,
    AbstractLevels,
    GaussianConditional,
    conditional_for,
    log_sum,
)
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
from energydsl.analysis.layer import measured
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

WORK = 2.0
"""The operations of a factor in one state of the smaller layer and one level of the larger."""

ALONE = 1.9
"""How many arrays with one number per factor and state are in memory at once for log Z alone."""


@dataclasses.dataclass(frozen=True)
class Bipartite(AbstractRule):
    r"""$Z_c = \sum_s e^{-E(s, 0)} \prod_i \sum_{t_i} e^{-E(s, t_i) + E(s, 0)}$.

    No two sites of the same layer interact. The layer with fewer joint states (s) is enumerated;
    each site of the other layer (t) is summed out, or integrated out where it is real and the
    energy quadratic in it. A draw takes s from its marginal distribution and then each t from its
    conditional distribution; a mode minimises the energy over t for each s.

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
    """The sites of one variable that are summed out, their conditionals and components."""

    law: AbstractConditional
    where: Array
    owner: Array
    parts: tuple[Part, ...]
    """Their factors; empty where the energy is evaluated as a whole."""


class Part(eqx.Module):
    """Factors of one batch that each contain one site that is summed out."""

    rows: Rows
    site: Array
    """The index of that site among the summed-out sites of its variable."""
    own: tuple[Array | None, ...]
    """For each leaf of the factor, a mask that is True where it contains that site."""

    def measure(self, law: AbstractConditional, env: Environment) -> tuple[Array, Array]:
        """The measures of each factor's site, and the factor's energy with that site at 0.

        The energy is zero where the measures already contain it.
        """
        factor = self.rows.structure.factors[self.rows.number]

        def one(values: list, own: tuple) -> tuple[Array, Array]:
            def energy(value: Array) -> Array:
                pairs = zip(values, own, strict=True)
                return factor.energy(
                    *(v if m is None else jnp.where(m, value.astype(v.dtype), v) for v, m in pairs)
                )

            zero = jnp.zeros((), law.domain.energy_dtype)
            return law.measure(energy), energy(zero) if law.derivatives else jnp.zeros(())

        axes = [None if isinstance(leaf, Whole) else 0 for leaf in factor.leaves]
        return jax.vmap(one, in_axes=(axes, 0))(self.rows.arguments(env), self.own)


class BipartitePlan(AbstractCountingPlan):
    """A plan that enumerates one layer; `summed` describes the other, by variable.

    If there is one component, and the conditionals of the summed sites follow from derivatives of
    the energy at 0, the energy is evaluated as a whole; otherwise it is evaluated factor by factor.
    """

    summed: dict[str, Summed]
    quiet: tuple[Rows, ...]
    """The factors without a summed site; if `whole`, those without any free site."""
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
        real = [n for n, s in self.summed.items() if not isinstance(s.law, AbstractLevels)]
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
            measures = layer.law.size
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
    """For each component, whether it is bipartite, and log2 of the states of the enumerated layer.

    `counted` is True at the sites of that layer; `levels` is the largest number of levels of a
    site of the other layer, to which the cost of summing it out is proportional.
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
    """Which components are bipartite, and the layer (0 or 1) of each site."""
    count = len(structure.component_sizes)
    if structure.crowded:
        return np.zeros(count, bool), np.zeros(structure.sites, int)
    side = graph.parity(structure.sites, structure.edges)
    a, b = structure.edges.T
    odd = structure.component_of[a[side[a] == side[b]]]
    return np.bincount(odd, minlength=count) == 0, side


def _law(structure: Structure, name: str) -> AbstractConditional | None:
    """The conditional distribution of a variable's sites, if it is finite or Gaussian."""
    variable = next(v for v in structure.variables if v.name == name)
    law = conditional_for(structure, variable)
    return law if isinstance(law, AbstractLevels | GaussianConditional) else None


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
    found = {v.name: _law(structure, v.name) for v in names}
    laws = {name: law for name, law in found.items() if law is not None}
    alone = len(structure.component_sizes) == 1 and not structure.partial
    whole = alone and all(law.derivatives for law in laws.values())
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
    costs = np.log2(states.largest), float(size), float(factors)
    alone = float(memory_of(*costs, arrays=ALONE))
    return BipartitePlan(
        rule=rule,
        structure=structure,
        components=int32(components),
        operations=WORK * operations,
        bytes=alone,
        more_bytes=float(memory_of(*costs)) - alone,
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


def _log_normalizer(law: AbstractConditional, total: Array, field: Array) -> Array:
    """`law.log_normalizer` with the fields of single sites added, (levels or 2, sites)."""
    if isinstance(law, AbstractLevels):
        return log_sum(-law.energies(total) - field)
    return law.log_normalizer(total + jnp.stack([field[0], 2 * field[1]]))


def _drawn(law: AbstractConditional, total: Array, key: Array) -> Array:
    """A draw of each site from its conditional distribution."""
    if not isinstance(law, AbstractLevels):
        slope, curvature = total
        return -slope / curvature + normal(key, slope.shape) / jnp.sqrt(curvature)
    energies = law.energies(total)
    ladder = jnp.cumsum(jnp.exp(jnp.min(energies, axis=0) - energies), axis=0)
    level = jnp.sum(ladder < uniform(key, ladder.shape[1:]) * ladder[-1], axis=0)
    return jnp.asarray(law.domain.values)[level]


def _lowest(law: AbstractConditional, total: Array) -> tuple[Array, Array]:
    """The lowest energy of each site, and the value that attains it."""
    if not isinstance(law, AbstractLevels):
        slope, curvature = total
        curvature = jnp.where(curvature > 0, curvature, jnp.nan)
        return -(slope**2) / (2 * curvature), -slope / curvature
    energies = law.energies(total)
    best = jnp.min(energies, axis=0)
    # The first of equal ones. JAX cannot lower argmin of float64 with float64 disabled.
    levels = jnp.arange(len(energies))[:, None]
    level = jnp.min(jnp.where(energies == best, levels, len(energies) - 1), axis=0)
    return best, jnp.asarray(law.domain.values)[level]
