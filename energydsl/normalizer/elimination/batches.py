"""Batches: steps that are alike and carried out at once, and runs of them in one compiled loop."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from typing import NamedTuple

from energydsl.normalizer.elimination.steps import MOST_INPUTS, Steps

MAX_CELLS = 2**31
"""The most cells of all tables, as index arrays have 32 bits."""

BATCH = 2**20
"""The most numbers that a batch gathers, unless a single step needs more."""

RUN_COST = 3e6
"""The terms that could be summed in the time in which one more loop is compiled."""

FEW_RUNS = 12
"""The number of loops up to which steps are not padded to have fewer."""

GRIDS = (1.0, 2.0, 4.0, 16.0, 256.0, math.inf)
"""Ratios of successive lengths to which patterns are padded, so that there are fewer classes."""

Shape = tuple[int, int]
"""What defines a class of steps: the levels of their sites, and the states of their messages."""


class Batch(NamedTuple):
    """Steps of one class, padded to a number of them."""

    shape: Shape
    width: int
    steps: list[int]


class Batches:
    """The batches of an elimination in their order, for one ratio of padding.

    A step is carried out after those whose messages it reads. Steps that are ready and of one class
    form a batch; a class is left when none of it is ready.
    """

    def __init__(self, steps: Steps, ratio: float) -> None:
        self.steps = steps
        self._shapes = _padded(steps, ratio)
        self.all = self._found()

    @property
    def cost(self) -> float:
        """The terms of all batches, and those that could be summed while loops are compiled."""
        written = sum(batch.width * batch.shape[1] for batch in self.all)
        if written > MAX_CELLS / 4:
            return math.inf
        terms = sum(batch.width * math.prod(batch.shape) for batch in self.all)
        return terms + RUN_COST * self.runs

    @property
    def runs(self) -> int:
        """The number of runs of batches of equal class and width."""
        return 1 + sum(a[:2] != b[:2] for a, b in itertools.pairwise(self.all))

    def _found(self) -> list[Batch]:
        steps, tables = self.steps.steps, self.steps.tables
        missing = [sum(i >= tables for i in s.inputs) for s in steps]
        reader = {i - tables: k for k, s in enumerate(steps) for i in s.inputs if i >= tables}
        ready: dict[Shape, list[int]] = defaultdict(list)
        for k, count in enumerate(missing):
            if not count:
                ready[self._shapes[k]].append(k)
        found, shape = [], None
        while any(ready.values()):
            if shape is None or not ready[shape]:
                shape = max(ready, key=lambda s: (len(ready[s]), s))
            most = _widest(shape)
            now, ready[shape] = ready[shape][:most], ready[shape][most:]
            found.append(Batch(shape, 2 ** math.ceil(math.log2(len(now))), now))
            for k in now:
                if k in reader:
                    missing[reader[k]] -= 1
                    if not missing[reader[k]]:
                        ready[self._shapes[reader[k]]].append(reader[k])
        return found


def find_batches(steps: Steps) -> list[Batch]:
    """The batches of the steps, padded as costs least."""
    best = Batches(steps, GRIDS[0])
    for ratio in GRIDS[1:]:
        if best.runs <= FEW_RUNS:
            break
        best = min(best, Batches(steps, ratio), key=lambda batches: batches.cost)
    return best.all


def _widest(shape: Shape) -> int:
    """The most steps of a batch: a power of two."""
    return 2 ** int(math.log2(max(1, BATCH // (MOST_INPUTS * math.prod(shape)))))


def _padded(steps: Steps, ratio: float) -> list[Shape]:
    """The levels and the message states of each step, rounded up to those of its class."""
    sizes = [
        (1 if s.site is None else steps.levels[s.site], steps.size(s.scope)) for s in steps.steps
    ]
    if ratio == 1.0:
        return sizes
    levels, states = max(c for c, _ in sizes), max(s for _, s in sizes)
    if ratio == math.inf:
        return [(levels, states)] * len(sizes)

    def up(number: int, limit: int) -> int:
        return min(limit, math.ceil(ratio ** math.ceil(math.log(number, ratio) - 1e-9)))

    return [(up(c, levels), up(s, states)) for c, s in sizes]
