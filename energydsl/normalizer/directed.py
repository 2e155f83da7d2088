"""Normalised conditional densities of sites that nothing else depends on: they integrate to 1."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array, lax

from energydsl._types import Configuration
from energydsl.analysis import graph
from energydsl.analysis.factor import Factor, Sites, Whole
from energydsl.analysis.joint_states import Rows, int32, owned_rows
from energydsl.analysis.structure import Structure, repeats
from energydsl.language.model import Model
from energydsl.language.variable import Variable
from energydsl.normalizer.base import AbstractPlan, AbstractRule, Fields, Lack, Offer, integrated

MAX_ARROWS = 5_000_000
"""The largest number of (parent, child) pairs of sites in a batch for which the rule applies."""


NO_LEAF = "no site is drawn from one normalised conditional density and is in no other factor"


@dataclasses.dataclass(frozen=True)
class Directed(AbstractRule):
    r"""$\int q(y \mid x)\,dy = 1$: normalised densities of sites in no other factor are removed.

    A leaf is the variable y of a normalised conditional density $q(y \mid x)$ with weight one,
    whose support is its variable's domain (`AbstractPotential.normalised`), where y is free, in no
    other factor and not among x. When it is removed, its parents x may become leaves. A directed
    model has nothing left, so that $\log Z = 0$; otherwise the other rules answer for what is left:
    the undirected part, and what is observed with its ancestors. Draws are ancestral, first of the
    rest and then of the leaves, where every density can be drawn from (`AbstractPotential.draw`).

    Source: Koller & Friedman (2009), Probabilistic Graphical Models, 3.2, 9.3.2 (barren nodes)
    and 12.1.
    """

    name: ClassVar[str] = "normalised"

    def offer(self, structure: Structure) -> Offer:
        found = _find(structure)
        owner, count = structure.component_of, len(structure.component_sizes)
        removed = np.bincount(owner[found.removed], minlength=count)
        mixed = (removed > 0) & (removed < structure.component_sizes)
        undrawn = np.zeros(count, bool)
        for number, rows in enumerate(found.densities):
            if rows.any() and not _has_draws(structure, structure.factors[number]):
                undrawn[structure.row_components[number][rows]] = True

        def plan(components: np.ndarray) -> tuple[AbstractPlan, ...]:
            whole, parts = components[~mixed[components]], components[mixed[components]]
            plans = [_plan(self, structure, whole)] if len(whole) else []
            if len(parts):
                leaves = _leaves(structure, found, np.isin(owner, parts))
                plans.append(_plan(self, leaves, np.arange(len(leaves.component_sizes))))
            return tuple(plans)

        def done(component: int) -> str:
            inside = found.removed & (owner == component)
            return integrated(_names(structure, inside))

        closed = (
            "it has no closed form in a directed model: the parents would have to be summed out"
        )
        return Offer(
            operations=np.where(removed > 0, 1.0, np.inf),
            reason=lambda _: "; ".join([NO_LEAF, *doubts(structure)]),
            plan=plan,
            rest=_rest(structure, found, mixed) if mixed.any() else None,
            done=done if mixed.any() else None,
            lacks={
                "marginals": Lack(True, closed),
                "known_marginals": Lack(~mixed, closed),
                "mode": Lack(True, closed),
                "draw": Lack(undrawn, "one of the densities has no method for draws"),
            },
        )


class DirectedPlan(AbstractPlan):
    """A plan that draws ancestrally, one generation of sites after another."""

    wide: ClassVar[bool] = False

    rows: tuple[Rows, ...]
    sites: tuple[Array, ...]
    """For each batch of densities, the indices of their child sites within the variable."""
    generations: int = eqx.field(static=True)

    @property
    def leaves(self) -> tuple[str, ...]:
        return _names(self.structure, self.structure.free) if self.structure.partial else ()

    @property
    def differentiable(self) -> bool:
        """Whether draws are differentiable functions of parameters, inputs and parents."""
        densities = (self.structure.function(self.structure.factors[r.number]) for r in self.rows)
        return all(getattr(density, "reparametrised", False) for density in densities)

    def log_partition(self, model: Model, fields: Fields | None = None) -> Array:
        return jnp.zeros(())

    def marginals(self, model: Model) -> dict[str, Array]:
        return {}

    def draw_prepared(self, model: Model, prepared: Any, *, key: Array) -> Configuration:
        """An ancestral draw, by as many rounds as the graph has generations.

        Every density is drawn in every round, with the same random numbers each time. After the
        last round every site was drawn given the final values of its parents.
        """
        start_key, *keys = jr.split(key, 1 + len(self.rows))
        starts, start = jr.split(start_key, len(self.rows)), model.blank()
        for rows, sites, k in zip(self.rows, self.sites, starts, strict=True):
            v = self._child(rows)
            start = _written(start, v, sites, v.domain.start(v.shape, key=k).ravel()[sites])

        def again(_: Any, values: Configuration) -> Configuration:
            for rows, sites, k in zip(self.rows, self.sites, keys, strict=True):
                values = self._redrawn(model, values, rows, sites, k)
            return values

        return lax.fori_loop(0, self.generations, again, start)

    def _redrawn(
        self, model: Model, values: Configuration, rows: Rows, sites: Array, key: Array
    ) -> Configuration:
        factor = self.structure.factors[rows.number]
        arguments = rows.arguments(model.environment(values))
        axes = [None if isinstance(leaf, Whole) else 0 for leaf in factor.leaves]
        draw = jax.vmap(_draw_of(factor), in_axes=(0, *axes))
        new = draw(jr.split(key, len(rows)), *arguments)
        return _written(values, self._child(rows), sites, new)

    def _child(self, rows: Rows) -> Variable:
        return _child(self.structure.factors[rows.number]).variable


class _Found(NamedTuple):
    """Which sites integrate out, and by which densities."""

    removed: np.ndarray
    """True at each site that is removed."""
    densities: tuple[np.ndarray, ...]
    """For each batch, True at the densities of these sites."""
    drawn: dict[int, _Drawn]
    """The batches of densities, by number."""
    arrows: np.ndarray
    """Pairs of a parent site and its child."""


class _Drawn(NamedTuple):
    """For each density of a batch, its child sites and its parent sites."""

    sites: np.ndarray
    given: np.ndarray


class _Drawing(NamedTuple):
    """Replaces the density of a factor, and returns a draw instead of an energy."""

    density: Any
    key: Array

    def energy(self, x: Array, *given: Array) -> Array:
        return self.density.draw(x.shape, *given, key=self.key)


class _Watched(NamedTuple):
    """Replaces the density of a factor, and records the shape of a draw, if there is one."""

    density: Any
    key: Array
    shapes: list[tuple[int, ...] | None]

    def energy(self, x: Array, *given: Array) -> Array:
        draw = getattr(self.density, "draw", None)
        drawn = None if draw is None else draw(x.shape, *given, key=self.key)
        self.shapes.append(None if drawn is None else drawn.shape)
        return jnp.zeros(())


def _draw_of(factor: Factor) -> Callable[..., Any]:
    """A function that returns one draw, from a key and the factor's arguments.

    The factor returns its density's value unchanged (`Factor.bare`), so it returns the draw, too.
    """
    return lambda key, density, *rest: factor.energy(_Drawing(density, key), *rest)


def normalised_densities(structure: Structure) -> list[tuple[Rows, np.ndarray]]:
    """The densities that integrate to 1, with the child sites of each, by batch.

    Each is the conditional density of its child sites given their parents, in the distribution of
    all sites: whatever is drawn from these sites is integrated out, too.
    """
    found, listed = _find(structure), []
    for number, chosen in enumerate(found.densities):
        rows = np.flatnonzero(chosen)
        if len(rows):
            batch = Rows(structure, number, rows, np.zeros(len(rows), int))
            listed.append((batch, found.drawn[number].sites[rows]))
    return listed


def doubts(structure: Structure, names: Collection[str] | None = None) -> list[str]:
    """Why densities of these variables are not taken to be normalised; by default of all."""
    told = [
        getattr(structure.function(f), "doubt", "")
        for f in structure.factors
        if names is None or (f.sites and _child(f).variable.name in names)
    ]
    return list(dict.fromkeys(filter(None, told)))


def _plan(rule: AbstractRule, structure: Structure, components: np.ndarray) -> DirectedPlan:
    rows, found = owned_rows(structure, components), _find(structure)
    sites = []
    for part in rows:
        owner = structure.row_components[part.number]
        own = np.isin(owner, components)
        variable = _child(structure.factors[part.number]).variable
        sites.append(int32(found.drawn[part.number].sites[own] - structure.offset[variable.name]))
    inside = np.isin(structure.component_of, components)
    arrows = found.arrows[inside[found.arrows].all(axis=1)]
    count = float(sum(map(len, rows)))
    return DirectedPlan(
        rule=rule,
        structure=structure,
        components=int32(components),
        operations=float(len(components)),
        bytes=8.0 * count,
        rows=rows,
        sites=tuple(sites),
        generations=graph.generations(structure.sites, arrows),
    )


def _leaves(structure: Structure, found: _Found, inside: np.ndarray) -> Structure:
    """The part of the structure that is removed from the components of the marked sites."""
    chosen = [
        rows & inside[structure.scope(factor)].any(axis=1)
        for factor, rows in zip(structure.factors, found.densities, strict=True)
    ]
    return structure.part(found.removed & inside, tuple(chosen))


def _rest(structure: Structure, found: _Found, mixed: np.ndarray) -> Structure:
    """The part of the structure that remains of components that are not removed as a whole."""
    within = np.append(mixed, False)
    chosen = [
        within[owner] & ~rows
        for owner, rows in zip(structure.row_components, found.densities, strict=True)
    ]
    return structure.part(~found.removed & within[structure.component_of], tuple(chosen))


def _names(structure: Structure, sites: np.ndarray) -> tuple[str, ...]:
    """The names of the variables with some of these sites."""
    return tuple(
        v.name for v in structure.variables if sites[structure.offset[v.name] :][: v.size].any()
    )


def _child(factor: Factor) -> Sites:
    """The argument of a density that it is a density of."""
    return next(iter(factor.sites.values()))


def _written(values: Configuration, v: Variable, sites: Array, new: Array) -> Configuration:
    """The values with new ones at some sites of a variable."""
    flat = values[v.name].ravel()
    flat = flat.at[sites.ravel()].set(new.ravel().astype(flat.dtype))
    return {**values, v.name: flat.reshape(v.shape)}


@lru_cache(maxsize=4)
def _find(structure: Structure) -> _Found:
    free, drawn = structure.free, {}
    times, kept = np.zeros(structure.sites, int), np.zeros(structure.sites, bool)
    arrows = [np.zeros((0, 2), np.int32)]
    together = [np.zeros((0, 2), np.int32)]
    for number, factor in enumerate(structure.factors):
        density = _drawn(structure, factor)
        if density is None:
            kept[structure.scope(factor)] = True
            continue
        drawn[number] = density
        np.add.at(times, density.sites, 1)
        arrows.append(_arrows(density))
        together += [density.sites[:, [0, k]] for k in range(1, density.sites.shape[1])]
    # A density stays if one of its sites does, and with it all its arguments stay.
    listed, events = np.concatenate(arrows), np.concatenate(together)
    circular = graph.on_cycles(structure.sites, listed[free[listed].all(axis=1)])
    kept |= (times != 1) | circular | ~free
    back = np.concatenate([listed[:, ::-1], events, events[:, ::-1]])
    removed = ~graph.reached(structure.sites, back, kept)
    densities = tuple(
        removed[drawn[number].sites[:, 0]] if number in drawn else np.zeros(factor.size, bool)
        for number, factor in enumerate(structure.factors)
    )
    return _Found(removed, densities, drawn, listed)


def _drawn(structure: Structure, factor: Factor) -> _Drawn | None:
    """The children and parents of a batch of densities; None for other factors."""
    normalised = getattr(structure.function(factor), "normalised", None)
    if normalised is None:
        return None
    leaf, *others = factor.sites.values()
    own = structure.numbers(leaf)
    if repeats(own) or not normalised(leaf.variable.domain, leaf.index.shape[1:]):
        return None
    given = np.concatenate([own[:, :0], *(structure.numbers(other) for other in others)], axis=1)
    return _Drawn(own, given) if own.size * given.shape[1] <= MAX_ARROWS else None


def _has_draws(structure: Structure, factor: Factor) -> bool:
    """Whether the density draws events of the right shape, found by tracing one draw.

    A sampler that is not there, such as that of a flow whose inverse has no closed form, raises
    NotImplementedError or RuntimeError: the density then has no draws.
    """
    shape = _child(factor).index.shape[1:]
    returned = []

    def one(*arrays: Any) -> Array:
        density, *rest = structure.completed(factor, arrays)
        return factor.energy(_Watched(density, jr.key(0), returned), *rest)

    try:
        jax.eval_shape(one, *map(structure.abstract, factor.leaves))
    except (NotImplementedError, RuntimeError):
        return False
    return returned == [shape]


def _arrows(drawn: _Drawn) -> np.ndarray:
    """Pairs of a parent site and its child."""
    shape = (len(drawn.sites), drawn.given.shape[1], drawn.sites.shape[1])
    tails = np.broadcast_to(drawn.given[:, :, None], shape)
    heads = np.broadcast_to(drawn.sites[:, None, :], shape)
    return np.stack([tails.ravel(), heads.ravel()], axis=1)
