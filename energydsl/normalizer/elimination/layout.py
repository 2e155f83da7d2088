"""Layouts: how the tables of a wide step lie along the axes of its clique.

A step whose clique has many joint states adds its tables as arrays with axes, each of length 1
where a table lacks a site, so that no index of a cell is stored or looked up.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

from jax import Array, lax

from energydsl.normalizer.elimination.steps import Step, Steps

WIDE, MOST_WIDE = 2**11, 96
"""The joint states of a clique from which its step is wide, and the most changes of layout from one
wide step to the next, as each compiles one more loop."""


class Input(NamedTuple):
    """A table of a wide step."""

    shape: tuple[int, ...]
    """The levels of its sites, in its own order."""
    order: tuple[int, ...]
    """Its axes in the order of the clique's sites."""
    axes: tuple[int, ...]
    """Its lengths along the axes of the layout, 1 where it lacks them."""
    strides: tuple[int, ...]
    """How far apart its cells are along each site of the clique, 0 where it lacks the site."""

    def read(self, cells: Array, begin: Array) -> Array:
        """The table, as an array along the axes of the layout."""
        flat = lax.dynamic_slice(cells, (begin,), (math.prod(self.shape),))
        return flat.reshape(self.shape).transpose(self.order).reshape(self.axes)

    def add(self, cells: Array, begin: Array, terms: Array) -> Array:
        """The cells with terms over the whole clique added to those of the table."""
        absent = tuple(k for k, n in enumerate(self.axes) if n == 1)
        own = terms.sum(absent).reshape([self.shape[k] for k in self.order])
        back = sorted(range(len(self.order)), key=self.order.__getitem__)
        flat = own.transpose(back).ravel()
        old = lax.dynamic_slice(cells, (begin,), flat.shape)
        return lax.dynamic_update_slice(cells, old + flat, (begin,))


class Layout(NamedTuple):
    """The axes of a clique, neighbouring sites merged where every table has all or none of them."""

    sizes: tuple[int, ...]
    """The lengths of the axes; the first is that of the eliminated site, 1 if there is none."""
    inputs: tuple[Input, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """The levels of the eliminated site and the states of the message."""
        return self.sizes[0], math.prod(self.sizes[1:])


def layouts(steps: Steps) -> list[Layout | None]:
    """The layout of each step that is wide, None for the others."""
    terms = [steps.size(steps.clique(s)) for s in steps.steps]
    least = WIDE
    while True:
        found = [
            _layout(steps, s) if n >= least else None
            for s, n in zip(steps.steps, terms, strict=True)
        ]
        wide = [layout for layout in found if layout]
        if sum(a != b for a, b in itertools.pairwise(wide)) < MOST_WIDE:
            return found
        least *= 2


def _layout(steps: Steps, step: Step) -> Layout:
    clique = steps.clique(step)
    levels = [steps.levels[i] for i in clique]
    scopes = [steps.scopes[i] for i in step.inputs]
    own = [tuple(i in scope for scope in scopes) for i in clique]
    groups = [[0]] if step.site is not None else [[]]
    for k in range(len(groups[0]), len(clique)):
        if len(groups) > 1 and own[k] == own[k - 1]:
            groups[-1].append(k)
        else:
            groups.append([k])
    inputs = [
        _input(steps, scope, clique, [[k for k in g if own[k][n]] for g in groups])
        for n, scope in enumerate(scopes)
    ]
    return Layout(tuple(math.prod(levels[k] for k in g) for g in groups), tuple(inputs))


def _input(
    steps: Steps, scope: tuple[int, ...], clique: tuple[int, ...], groups: list[list[int]]
) -> Input:
    """A table over some sites of a clique; `groups` has their positions there, axis by axis."""
    shape = tuple(steps.levels[i] for i in scope)
    place = {site: k for k, site in enumerate(scope)}
    return Input(
        shape=shape,
        order=tuple(place[i] for i in clique if i in place),
        axes=tuple(math.prod(steps.levels[clique[k]] for k in g) for g in groups),
        strides=tuple(math.prod(shape[place[i] + 1 :]) if i in place else 0 for i in clique),
    )
