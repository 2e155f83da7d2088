"""Directed models: products of normalised conditional densities, so that log Z = 0."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array, lax

from energydsl._types import Configuration
from energydsl.analysis import graph
from energydsl.analysis.factor import Factor, Whole
from energydsl.analysis.joint_states import Rows, int32, owned_rows
from energydsl.analysis.structure import Structure, repeats
from energydsl.language.model import Model
from energydsl.normalizer.base import AbstractPlan, AbstractRule, Fields, Lack, Offer

MAX_ARROWS = 5_000_000
"""The largest number of (parent, child) pairs of sites in a batch for which the rule applies."""


@dataclasses.dataclass(frozen=True)
class Directed(AbstractRule):
    r"""$\log Z_c = \log \int \prod_k q_k(x_k \mid x_{<k})\,dx_c = 0$: a directed model.

    The rule applies where every factor is a normalised conditional density with weight one, whose
    support is its variable's domain (`AbstractPotential.normalised`); every site is the child of
    exactly one density; no clamped site has a free parent; and the directed graph has no cycle.
    Draws are ancestral, where every density can be drawn from (`AbstractPotential.draw`).

    Source: Koller & Friedman (2009), Probabilistic Graphical Models, 3.2 and 12.1.
    """

    name: ClassVar[str] = "normalised"

    def offer(self, structure: Structure) -> Offer:
        found = _find(structure)
        undrawn = np.zeros(len(found.fits), bool)
        for number, owner in enumerate(structure.row_components):
            if number in found.drawn and not _has_draws(structure, structure.factors[number]):
                undrawn[owner[owner >= 0]] = True

        def plan(components: np.ndarray) -> tuple[AbstractPlan, ...]:
            return (_plan(self, structure, components, found),)

        closed = (
            "it has no closed form in a directed model: the parents would have to be summed out"
        )
        return Offer(
            operations=np.where(found.fits, 1.0, np.inf),
            reason=lambda _: (
                "it is not a product of normalised conditional densities along an acyclic graph"
            ),
            plan=plan,
            lacks={
                "marginals": Lack(True, closed),
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

    def log_partition(self, model: Model, fields: Fields | None = None) -> Array:
        return jnp.zeros(())

    def draw_prepared(self, model: Model, prepared: Any, *, key: Array) -> Configuration:
        """An ancestral draw, by as many rounds as the graph has generations.

        Every density is drawn in every round, with the same random numbers each time. After the
        last round every site was drawn given the final values of its parents.
        """
        start_key, *keys = jr.split(key, 1 + len(self.rows))
        starts = jr.split(start_key, len(self.structure.variables))
        blank = model.blank()
        start = {
            v.name: blank[v.name]
            if v.name in model.evidence
            else v.domain.start(v.shape, key=k).astype(v.domain.dtype)
            for v, k in zip(self.structure.variables, starts, strict=True)
        }

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
        variable = next(iter(factor.sites.values())).variable
        flat = values[variable.name].ravel()
        flat = flat.at[sites.ravel()].set(new.ravel().astype(flat.dtype))
        return {**values, variable.name: flat.reshape(variable.shape)}


class _Found(NamedTuple):
    """Which components are directed models, and their batches of densities."""

    fits: np.ndarray
    drawn: dict[int, _Drawn]
    arrows: np.ndarray
    """Pairs of a free parent site and its child."""


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


def _plan(
    rule: AbstractRule, structure: Structure, components: np.ndarray, found: _Found
) -> DirectedPlan:
    rows = owned_rows(structure, components)
    sites = []
    for part in rows:
        owner = structure.row_components[part.number]
        own = np.isin(owner, components)
        variable = next(iter(structure.factors[part.number].sites.values())).variable
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


def _find(structure: Structure) -> _Found:
    free = structure.free
    fits = np.ones(len(structure.component_sizes), bool)
    times, arrows = np.zeros(structure.sites, int), [np.zeros((0, 2), np.int32)]
    known = {}
    for number, (factor, owner) in enumerate(
        zip(structure.factors, structure.row_components, strict=True)
    ):
        drawn = _drawn(structure, factor)
        if drawn is None:
            fits[owner[owner >= 0]] = False
            continue
        known[number] = drawn
        fits[owner[~free[drawn.sites].all(axis=1) & (owner >= 0)]] = False
        np.add.at(times, drawn.sites, 1)
        arrows.append(_arrows(drawn))
    fits[structure.component_of[free & (times != 1)]] = False
    listed = np.concatenate(arrows)
    listed = listed[free[listed].all(axis=1)]
    fits[structure.component_of[graph.on_cycles(structure.sites, listed)]] = False
    return _Found(fits, known, listed)


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
    shape = next(iter(factor.sites.values())).index.shape[1:]
    static, returned = structure.function(factor), []

    def one(density: Any, *rest: Any) -> Array:
        drawing = _Watched(eqx.combine(density, static), jr.key(0), returned)
        return factor.energy(drawing, *rest)

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
