"""Schedules: the batches of an elimination as index arrays.

All tables lie one after another in one array: two cells (0 and -inf), the tables of the factors,
and the messages, which are the sums that the steps leave. A step adds some tables over the joint
states of a clique, sums over the clique's first site, and writes its message. Each step reads its
tables through index patterns; steps of one class have patterns of equal length, so that a batch is
one gather. Batches that repeat, alone or in blocks, are one compiled loop, whatever its length.

A wide step, whose clique has many states, reads its tables as arrays with axes instead
(`layout.py`). The messages between wide steps lie in an array of their own, the arena, where a
message gives its place to another once it was read.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from energydsl.normalizer.elimination.arena import Arena
from energydsl.normalizer.elimination.batches import Batch, Batches, Shape, find_batches
from energydsl.normalizer.elimination.layout import Layout
from energydsl.normalizer.elimination.spread import Spread
from energydsl.normalizer.elimination.steps import Steps

ZERO, NEVER = 0, 1
"""The cells whose values are 0 and -inf."""
CELLS = 2


@dataclasses.dataclass(frozen=True)
class Run:
    """Successive batches of one class and width, in each repeat of a block.

    Arrays have the axes (repeat, batch, step of the batch, ...).
    """

    shape: Shape
    """The levels and the message states of each step."""
    layout: Layout | None
    """The layout of wide steps; others are read through patterns."""
    kind: int
    """The number of the class of other steps."""
    base: np.ndarray
    """Where each input's table begins, in the cells or in the arena, (..., input)."""
    pattern: np.ndarray
    """The number of each input's pattern, (..., input)."""
    begin: np.ndarray
    """Where the messages of each batch begin, in the cells or in the arena, (repeat, batch)."""
    first: np.ndarray
    """The slot of the first step of each batch, (repeat, batch)."""
    others: np.ndarray
    """The slots of the steps that eliminate the message's sites, (..., site)."""
    strides: np.ndarray
    """The strides of these sites in the message, (..., site)."""


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Loops in the order in which they are carried out, and where their results lie."""

    patterns: tuple[np.ndarray, ...]
    """For each class of steps that are not wide, and each of its patterns, the place in a table of
    each state of the clique; -1 beyond its levels."""
    loops: tuple[tuple[Run, ...], ...]
    """For each loop, the runs of its block in their order."""
    size: int
    """The number of cells of all tables outside the arena."""
    arena: int
    """The number of cells of the arena."""
    copies: int
    """The most copies of the arena that are kept at once; 0 if its places are not reused. If they
    are, a pass in the opposite direction computes the messages of each block again, from a copy of
    the arena as it was before the block."""
    slots: int
    """The number of slots: one for each step of each batch, padding included."""
    slot: dict[int, int]
    """The slot of the step that eliminates each site."""
    spread: Spread | None
    """How far apart terms can be, if there are wide steps."""
    roots: np.ndarray
    """The cells of the messages without sites; log Z is the sum of their values."""

    @property
    def runs(self) -> list[Run]:
        """The runs of all blocks."""
        return [run for loop in self.loops for run in loop]

    @property
    def operations(self) -> float:
        """The operations of a pass upwards, padding included."""
        return float(sum(math.prod(r.base.shape[:3]) * _operations(r) for r in self.runs))


class Placed(NamedTuple):
    """A batch, and where its messages and its slots begin."""

    batch: Batch
    begin: int
    first: int


class _Places:
    """Where the messages of all batches lie."""

    def __init__(
        self, steps: Steps, batches: Batches, starts: np.ndarray, end: int, *, reused: bool
    ) -> None:
        self.begin = [*starts.tolist(), *[0] * len(steps.steps)]
        self.slot: dict[int, int] = {}
        self.batches: list[Placed] = []
        self.end, self.slots, self.arena = end, 0, Arena(reused=reused)
        for batch in batches.all:
            self._add(steps, batch)

    def _add(self, steps: Steps, batch: Batch) -> None:
        layout, states = batch.layout, batch.shape[1]
        if layout and layout.linear:
            begin = self.arena.take(layout.cells)
        else:
            begin, self.end = self.end, self.end + batch.width * states
        self.batches.append(Placed(batch, begin, self.slots))
        for place, k in enumerate(batch.steps):
            self.begin[steps.tables + k] = begin + place * states
            site = steps.steps[k].site
            if site is not None:
                self.slot[site] = self.slots + place
        if layout:
            tables = zip(steps.steps[batch.steps[0]].inputs, layout.inputs, strict=True)
            self.arena.give_back(self.begin[i] for i, table in tables if table.linear)
        self.slots += batch.width


def schedule(steps: Steps, starts: np.ndarray, end: int) -> tuple[Schedule, Schedule]:
    """The batches of the steps as index arrays: for log Z alone, and for passes in both directions.

    Args:
        steps: the steps.
        starts: where the table of each factor begins.
        end: the cell after these tables.
    """
    batches = find_batches(steps)
    shapes = sorted({batch.shape for batch in batches.all if not batch.layout})
    book = {shape: _Patterns(*shape) for shape in shapes}
    kept = _Places(steps, batches, starts, end, reused=False)
    if not kept.arena.size:
        whole = _scheduled(steps, batches, kept, book, starts, end, copies=0)
        return whole, whole
    reused, copies = _Places(steps, batches, starts, end, reused=True), _copies(batches)
    alone = _scheduled(steps, batches, reused, book, starts, end, copies=copies)
    if (1 + copies) * reused.arena.size < kept.arena.size:
        return alone, alone
    return alone, _scheduled(steps, batches, kept, book, starts, end, copies=0)


def _operations(run: Run) -> float:
    """The operations of one step, given as numbers if it is wide."""
    levels, states = run.shape
    terms = levels * states
    if run.layout is None:
        # Cells are found by their indices and added; the terms are compared with the greatest,
        # shifted, exponentiated and added up.
        return terms * (4 * run.base.shape[3] + 4) + 5 * states
    products = sum(1 for table in run.layout.inputs if not table.few)
    numbers = sum(table.cells for table in run.layout.inputs if not table.linear)
    return terms * (products + 1) + 5 * numbers + states * (not run.layout.linear)


def _scheduled(
    steps: Steps,
    batches: Batches,
    places: _Places,
    book: dict[Shape, _Patterns],
    starts: np.ndarray,
    end: int,
    *,
    copies: int,
) -> Schedule:
    kinds = {shape: kind for kind, shape in enumerate(book)}
    loops = []
    for block in batches.loops:
        loop = []
        for numbers in block:
            alike = [places.batches[k] for k in numbers.ravel()]
            shape, layout = alike[0].batch.shape, alike[0].batch.layout
            kind = -1 if layout else kinds[shape]
            patterns = None if layout else book[shape]
            loop.append(_run(steps, kind, alike, numbers.shape, patterns, places))
        loops.append(tuple(loop))
    wide = [layout is not None for layout in batches.wide]
    ends = [k for k, s in enumerate(steps.steps) if s.site is not None and not s.scope]
    return Schedule(
        patterns=tuple(patterns.array() for patterns in book.values()),
        loops=tuple(loops),
        size=places.end,
        arena=places.arena.size,
        copies=copies,
        slots=places.slots,
        slot=places.slot,
        spread=Spread(steps, wide, starts, end) if any(wide) else None,
        roots=np.array([places.begin[steps.tables + k] for k in ends], np.int64),
    )


def _copies(batches: Batches) -> int:
    """A copy of the arena before each repeat of a block, and before each wide step of one block."""
    wide = [
        [places for places in block if batches.all[places[0, 0]].layout] for block in batches.loops
    ]
    repeats = sum(len(block[0]) for block in wide if block)
    return repeats + max((sum(places.shape[1] for places in block) for block in wide), default=0)


class _Patterns:
    """The distinct patterns of one class; the first reads one cell in every state."""

    def __init__(self, levels: int, states: int) -> None:
        self.levels, self.states = levels, states
        self._numbers: dict[tuple, int] = {}
        self._patterns = [np.zeros(levels * states, np.int32)]
        self._stacked = np.zeros((0, levels * states), np.int32)

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
        if len(self._stacked) < len(self._patterns):
            self._stacked = np.stack(self._patterns)
        return self._stacked

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
    repeats: tuple[int, int],
    patterns: _Patterns | None,
    places: _Places,
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
                base[b, w, n] = places.begin[i]
                if patterns is not None:
                    at = tuple(place[j] for j in steps.scopes[i])
                    pattern[b, w, n] = patterns.number(sizes, step.site is not None, at)
            stride = 1
            for n in reversed(range(len(step.scope))):
                slots[b, w, n], strides[b, w, n] = places.slot[step.scope[n]], stride
                stride *= steps.levels[step.scope[n]]
    begin, first = np.array([(m.begin, m.first) for m in members], np.int64).T
    arrays = [
        a.reshape(*repeats, *a.shape[1:]) for a in (base, pattern, begin, first, slots, strides)
    ]
    return Run(batch.shape, batch.layout, kind, *arrays)
