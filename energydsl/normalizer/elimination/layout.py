"""Layouts: how the tables of a wide step lie along the axes of its clique.

A step whose clique has many joint states combines its tables as arrays with axes, each of length 1
where a table lacks a site, so that no index of a cell is stored or looked up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from energydsl.normalizer.elimination.blocks import loops
from energydsl.normalizer.elimination.steps import Step, Steps

MOST_WIDE = 96
"""The most wide steps that are compiled, as each takes some time."""

MOST_INDICES = 2**25
"""The most indices that the cliques of other steps take together, those of many levels apart: they
lie in memory before a plan's bytes are known, so that beyond this more wide steps are compiled."""

MOST_LEVELS = 64
"""The most levels of the eliminated site of a wide step, as each level's terms are an array."""

FEW = 16
"""How many times more joint states than some of its tables a clique has if these are combined
beforehand."""


class Input(NamedTuple):
    """A table of a wide step."""

    shape: tuple[int, ...]
    """The levels of its sites, in its own order."""
    order: tuple[int, ...]
    """Its axes in the order of the layout's."""
    axes: tuple[int, ...]
    """Its lengths along the axes of the layout, 1 where it lacks them."""
    strides: tuple[int, ...]
    """How far apart its cells are along each site of the clique, 0 where it lacks the site."""
    linear: bool
    """Whether it is the message of a wide step: it lies in the arena, and may be numbers."""
    few: bool
    """Whether it is combined with others before the clique is formed."""

    @property
    def cells(self) -> int:
        """The number of its cells."""
        return math.prod(self.shape)

    def read(self, cells: Array, begin: Array) -> Array:
        """The table, as an array along the axes of the layout."""
        flat = lax.dynamic_slice(cells, (begin,), (self.cells,))
        return flat.reshape(self.shape).transpose(self.order).reshape(self.axes)

    def summed(self, terms: Sequence[Array]) -> Array:
        """The sums of a clique's terms, given for each level of its site, at the table's cells."""
        absent = [k for k, n in enumerate(self.axes[:-1]) if n == 1]
        own = [level.sum(absent) for level in terms]
        whole = jnp.stack(own, axis=-1) if self.axes[-1] > 1 else sum(own, jnp.zeros(()))
        back = sorted(range(len(self.order)), key=self.order.__getitem__)
        return whole.reshape([self.shape[k] for k in self.order]).transpose(back).ravel()


class Layout(NamedTuple):
    """The axes of a clique, neighbouring sites merged where every table has all or none of them."""

    sizes: tuple[int, ...]
    """The lengths of the axes; the last is that of the eliminated site, 1 if there is none."""
    inputs: tuple[Input, ...]
    linear: bool
    """Whether a wide step reads the message: it lies in the arena, and may be numbers."""

    @property
    def shape(self) -> tuple[int, int]:
        """The levels of the eliminated site and the states of the message."""
        return self.sizes[-1], math.prod(self.sizes[:-1])

    @property
    def cells(self) -> int:
        """The cells of the message, and of the logarithm of its scale."""
        return self.shape[1] + self.linear

    @property
    def without_few(self) -> tuple[int, ...]:
        """The message's axes along which the tables with few cells, combined, have the length 1."""
        shared = [i.axes for i in self.inputs if i.few]
        message = range(len(self.sizes) - 1)
        return tuple(k for k in message if all(axes[k] == 1 for axes in shared))


def layouts(steps: Steps) -> list[Layout | None]:
    """The layout of each step that is wide, None for the others."""
    terms = [steps.size(steps.clique(s)) for s in steps.steps]
    can = [s.site is None or steps.levels[s.site] <= MOST_LEVELS for s in steps.steps]
    reader = {i - steps.tables: k for k, s in enumerate(steps.steps) for i in s.inputs}
    least = steps.wide
    while True:
        wide = [n >= least and able for n, able in zip(terms, can, strict=True)]
        found = [
            _layout(steps, s, wide, k in reader and wide[reader[k]]) if wide[k] else None
            for k, s in enumerate(steps.steps)
        ]
        few = sum(map(len, loops([layout for layout in found if layout]))) <= MOST_WIDE
        indices = sum(
            n * len(s.inputs)
            for n, able, s in zip(terms, can, steps.steps, strict=True)
            if able and n < 2 * least
        )
        if few or indices > MOST_INDICES:
            return found
        least *= 2


def _layout(steps: Steps, step: Step, wide: Sequence[bool], linear: bool) -> Layout:
    clique = steps.clique(step)
    scopes = [steps.scopes[i] for i in step.inputs]
    groups: list[list[int]] = []
    for before, i in zip((None, *step.scope), step.scope, strict=False):
        if groups and all((before in scope) == (i in scope) for scope in scopes):
            groups[-1].append(i)
        else:
            groups.append([i])
    groups.append([] if step.site is None else [step.site])
    linears = [i >= steps.tables and wide[i - steps.tables] for i in step.inputs]
    few = _few(steps, scopes, linears, steps.size(clique))
    inputs = [
        _input(steps, scope, clique, groups, known, n in few)
        for n, (scope, known) in enumerate(zip(scopes, linears, strict=True))
    ]
    return Layout(tuple(steps.size(g) for g in groups), tuple(inputs), linear)


def _few(
    steps: Steps, scopes: Sequence[tuple[int, ...]], linears: Sequence[bool], states: int
) -> set[int]:
    """The tables that together have few joint states beside those of the clique."""
    few: set[int] = set()
    union: set[int] = set()
    for n in sorted(range(len(scopes)), key=lambda n: steps.size(scopes[n])):
        if not linears[n] and steps.size(union | set(scopes[n])) * FEW <= states:
            few.add(n)
            union |= set(scopes[n])
    return few


def _input(
    steps: Steps,
    scope: tuple[int, ...],
    clique: tuple[int, ...],
    groups: list[list[int]],
    linear: bool,
    few: bool,
) -> Input:
    """A table over some sites of a clique; `groups` are the clique's sites, axis by axis."""
    shape = tuple(steps.levels[i] for i in scope)
    place = {site: k for k, site in enumerate(scope)}
    own = [[i for i in group if i in place] for group in groups]
    return Input(
        shape=shape,
        order=tuple(place[i] for group in own for i in group),
        axes=tuple(steps.size(group) for group in own),
        strides=tuple(math.prod(shape[place[i] + 1 :]) if i in place else 0 for i in clique),
        linear=linear,
        few=few,
    )
