"""Batches: steps that are alike and carried out at once, and blocks of batches that repeat."""

from __future__ import annotations

import math
from collections import defaultdict
from functools import cached_property
from typing import NamedTuple

import numpy as np

from energydsl.normalizer.elimination.blocks import loops
from energydsl.normalizer.elimination.layout import Layout, layouts
from energydsl.normalizer.elimination.steps import MOST_INPUTS, Steps

MAX_CELLS = 2**31
"""The most cells of all tables, as index arrays have 32 bits."""

BATCH = 2**20
"""The most numbers that a batch gathers, unless a single step needs more."""

BODY_COST = 3e6
"""The terms that could be summed in the time in which one more batch of a block is compiled."""

FEW_BODIES = 12
"""The number of compiled batches up to which steps are not padded to have fewer."""

GRIDS = (1.0, 2.0, 4.0, 16.0, 256.0, math.inf)
"""Ratios of successive lengths to which patterns are padded, so that there are fewer classes."""

Shape = tuple[int, int]
"""What defines a class of steps: the levels of their sites, and the states of their messages."""


class Batch(NamedTuple):
    """Steps of one class, padded to a number of them; a wide step is alone."""

    shape: Shape
    width: int
    layout: Layout | None
    steps: list[int]


class Batches:
    """The batches of an elimination in their order, for one ratio of padding.

    A step is carried out after those whose messages it reads. Steps that are ready and of one class
    form a batch; a class is left when none of it is ready. Wide steps of one layout are a class.
    """

    def __init__(self, steps: Steps, wide: list[Layout | None], ratio: float) -> None:
        self.steps, self.wide = steps, wide
        shapes = _padded(steps, wide, ratio)
        self._kinds = list(zip(shapes, wide, strict=True))
        self.all = self._found()

    @property
    def cost(self) -> float:
        """The terms of all batches, and those that could be summed while loops are compiled."""
        written = sum(batch.width * batch.shape[1] for batch in self.all)
        if written > MAX_CELLS / 4:
            return math.inf
        terms = sum(batch.width * math.prod(batch.shape) for batch in self.all)
        return terms + BODY_COST * self.bodies

    @property
    def bodies(self) -> int:
        """The number of batches that are compiled: those of one block of each loop."""
        return sum(map(len, self.loops))

    @cached_property
    def loops(self) -> list[list[np.ndarray]]:
        """The places of the batches as nested loops; see `blocks.loops`."""
        return loops([batch[:3] for batch in self.all])

    def _found(self) -> list[Batch]:
        steps, tables = self.steps.steps, self.steps.tables
        missing = [sum(i >= tables for i in s.inputs) for s in steps]
        reader = {i - tables: k for k, s in enumerate(steps) for i in s.inputs if i >= tables}
        ready: dict[tuple[Shape, Layout | None], list[int]] = defaultdict(list)
        for k, count in enumerate(missing):
            if not count:
                ready[self._kinds[k]].append(k)
        found, kind = [], None
        while any(ready.values()):
            if kind is None or not ready[kind]:
                kind = max(ready, key=lambda c: (len(ready[c]), c[0], c[1] or ()))
            shape, layout = kind
            most = 1 if layout else _widest(shape)
            now, ready[kind] = ready[kind][:most], ready[kind][most:]
            found.append(Batch(shape, 2 ** math.ceil(math.log2(len(now))), layout, now))
            for k in now:
                if k in reader:
                    missing[reader[k]] -= 1
                    if not missing[reader[k]]:
                        ready[self._kinds[reader[k]]].append(reader[k])
        return found


def find_batches(steps: Steps) -> Batches:
    """The batches of the steps, padded as costs least."""
    wide = layouts(steps)
    best = Batches(steps, wide, GRIDS[0])
    for ratio in GRIDS[1:]:
        if best.bodies <= FEW_BODIES:
            break
        best = min(best, Batches(steps, wide, ratio), key=lambda batches: batches.cost)
    return best


def _widest(shape: Shape) -> int:
    """The most steps of a batch: a power of two."""
    return 2 ** int(math.log2(max(1, BATCH // (MOST_INPUTS * math.prod(shape)))))


def _padded(steps: Steps, wide: list[Layout | None], ratio: float) -> list[Shape]:
    """The levels and the message states of each step, rounded up to those of its class."""
    sizes = [
        (1 if s.site is None else steps.levels[s.site], steps.size(s.scope)) for s in steps.steps
    ]
    if ratio == 1.0:
        return sizes
    narrow = [size for size, layout in zip(sizes, wide, strict=True) if not layout]
    levels, states = (max((size[k] for size in narrow), default=1) for k in range(2))

    def up(number: int, limit: int) -> int:
        if ratio == math.inf:
            return limit
        return min(limit, math.ceil(ratio ** math.ceil(math.log(number, ratio) - 1e-9)))

    padded = {(c, s): (up(c, levels), up(s, states)) for c, s in set(narrow)}
    return [
        layout.shape if layout else padded[size] for size, layout in zip(sizes, wide, strict=True)
    ]
