"""Schedules: the batches of an elimination as index arrays.

All tables lie one after another in one array: two cells (0 and -inf), the tables of the factors,
and the messages, which are the sums that the steps leave. A step adds some tables over the joint
states of a clique, sums over the clique's first site, and writes its message. Each step reads its
tables through index patterns; steps of one class have patterns of equal length, so that a batch is
one gather, and a run of batches of equal width is one compiled loop, whatever its length. A wide
step, whose clique has many states, reads its tables as arrays with axes instead (`layout.py`).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import NamedTuple

import numpy as np

from energydsl.normalizer.elimination.batches import Batch, Shape, find_batches
from energydsl.normalizer.elimination.layout import Layout
from energydsl.normalizer.elimination.steps import Steps

ZERO, NEVER = 0, 1
"""The cells whose values are 0 and -inf."""
CELLS = 2


@dataclasses.dataclass(frozen=True)
class Run:
    """Batches of one class and width. Arrays have the axes (batch, step of the batch, ...)."""

    shape: Shape
    """The levels and the message states of each step."""
    layout: Layout | None
    """The layout of wide steps; others are read through patterns."""
    kind: int
    """The number of the class of other steps."""
    base: np.ndarray
    """Where each input's table begins, (..., input)."""
    pattern: np.ndarray
    """The number of each input's pattern, (..., input)."""
    begin: np.ndarray
    """Where the messages of each batch begin, (batch,)."""
    first: np.ndarray
    """The slot of the first step of each batch, (batch,)."""
    others: np.ndarray
    """The slots of the steps that eliminate the message's sites, (..., site)."""
    strides: np.ndarray
    """The strides of these sites in the message, (..., site)."""


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Runs in the order in which they are carried out, and where their results lie."""

    patterns: tuple[np.ndarray, ...]
    """For each class of steps that are not wide, and each of its patterns, the place in a table of
    each state of the clique; -1 beyond its levels."""
    runs: tuple[Run, ...]
    size: int
    """The number of cells of all tables."""
    slots: int
    """The number of slots: one for each step of each batch, padding included."""
    slot: dict[int, int]
    """The slot of the step that eliminates each site."""
    roots: np.ndarray
    """The cells of the messages without sites; log Z is the sum of their values."""

    @property
    def terms(self) -> float:
        """The number of terms of all steps, padding included."""
        return float(sum(r.base.shape[0] * r.base.shape[1] * math.prod(r.shape) for r in self.runs))


class Placed(NamedTuple):
    """A batch, and where its messages and its slots begin."""

    batch: Batch
    begin: int
    first: int


def schedule(steps: Steps, starts: np.ndarray, end: int) -> Schedule:
    """The batches of the steps as index arrays.

    Args:
        steps: the steps.
        starts: where the table of each factor begins.
        end: the cell after these tables.
    """
    begin, count = [*starts.tolist(), *[0] * len(steps.steps)], 0
    slot: dict[int, int] = {}
    placed = []
    for batch in find_batches(steps):
        placed.append(Placed(batch, end, count))
        for place, k in enumerate(batch.steps):
            begin[steps.tables + k] = end + place * batch.shape[1]
            site = steps.steps[k].site
            if site is not None:
                slot[site] = count + place
        end, count = end + batch.width * batch.shape[1], count + batch.width
    shapes = sorted({p.batch.shape for p in placed if not p.batch.layout})
    book: dict[Shape, _Patterns] = {shape: _Patterns(*shape) for shape in shapes}
    runs = []
    for (shape, _, layout), members in itertools.groupby(placed, lambda p: p.batch[:3]):
        kind = -1 if layout else shapes.index(shape)
        runs.append(_run(steps, kind, list(members), book.get(shape), begin, slot))
    arrays = tuple(patterns.array() for patterns in book.values())
    ends = [k for k, s in enumerate(steps.steps) if s.site is not None and not s.scope]
    roots = np.array([begin[steps.tables + k] for k in ends], np.int64)
    return Schedule(arrays, tuple(runs), end, count, slot, roots)


class _Patterns:
    """The distinct patterns of one class; the first reads one cell in every state."""

    def __init__(self, levels: int, states: int) -> None:
        self.levels, self.states = levels, states
        self._numbers: dict[tuple, int] = {}
        self._patterns = [np.zeros(levels * states, np.int32)]

    def number(self, sizes: tuple[int, ...], sums: bool, places: tuple[int, ...]) -> int:
        """The pattern for a table in a clique.

        Args:
            sizes: the levels of the clique's sites.
            sums: whether the first of them is summed over.
            places: the position in the clique of each site of the table.
        """
        key = sizes, sums, places
        if key not in self._numbers:
            self._numbers[key] = len(self._patterns)
            self._patterns.append(self._pattern(*key))
        return self._numbers[key]

    def array(self) -> np.ndarray:
        return np.stack(self._patterns)

    def _pattern(self, sizes: tuple[int, ...], sums: bool, places: tuple[int, ...]) -> np.ndarray:
        cells = np.zeros(sizes, np.int32)
        stride = 1
        for place in reversed(places):
            along = np.arange(sizes[place], dtype=np.int32) * stride
            cells += along.reshape([-1 if k == place else 1 for k in range(len(sizes))])
            stride *= sizes[place]
        cells = cells.reshape(sizes[0] if sums else 1, -1)
        padded = np.zeros((self.levels, self.states), np.int32)
        padded[len(cells) :] = -1
        padded[: len(cells), : cells.shape[1]] = cells
        return padded.ravel()


def _run(
    steps: Steps,
    kind: int,
    members: list[Placed],
    patterns: _Patterns | None,
    begin: list[int],
    slot: dict[int, int],
) -> Run:
    batch = members[0].batch
    every = [steps.steps[k] for m in members for k in m.batch.steps]
    inputs = max(1, *(len(s.inputs) for s in every))
    others = max(len(s.scope) for s in every)
    shape = len(members), batch.width
    base, pattern = np.zeros((*shape, inputs), np.int64), np.zeros((*shape, inputs), np.int64)
    slots, strides = np.zeros((*shape, others), np.int64), np.zeros((*shape, others), np.int64)
    for b, member in enumerate(members):
        for w, k in enumerate(member.batch.steps):
            step = steps.steps[k]
            clique = steps.clique(step)
            place = {site: at for at, site in enumerate(clique)}
            sizes = tuple(steps.levels[i] for i in clique)
            for n, i in enumerate(step.inputs):
                base[b, w, n] = begin[i]
                if patterns is not None:
                    places = tuple(place[j] for j in steps.scopes[i])
                    pattern[b, w, n] = patterns.number(sizes, step.site is not None, places)
            stride = 1
            for n in reversed(range(len(step.scope))):
                slots[b, w, n], strides[b, w, n] = slot[step.scope[n]], stride
                stride *= steps.levels[step.scope[n]]
    cells, first = np.array([(m.begin, m.first) for m in members], np.int64).T
    return Run(batch.shape, batch.layout, kind, base, pattern, cells, first, slots, strides)
