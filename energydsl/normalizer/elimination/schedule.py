"""Schedules: the steps of an elimination, in batches of like steps that are carried out at once.

All tables lie one after another in one array: two cells (0 and -inf), the tables of the factors,
and the messages, which are the sums that the steps leave. A step adds some tables over the joint
states of a clique, sums over the clique's first site, and writes its message. Each step reads its
tables through index patterns; steps of one class have patterns of equal length, so that a batch is
one gather, and a run of batches of equal width is one compiled loop, whatever its length.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

ZERO, NEVER = 0, 1
"""The cells whose values are 0 and -inf."""
CELLS = 2

MAX_CELLS = 2**31
"""The most cells of all tables, as index arrays have 32 bits."""

MOST_INPUTS = 4
"""The most tables that a step adds; more are added beforehand, by steps that sum over nothing."""

BATCH = 2**20
"""The most numbers that a batch gathers, unless a single step needs more."""

RUN_COST = 3e6
"""The terms that could be summed in the time in which one more loop is compiled."""

FEW_RUNS = 12
"""The number of loops up to which steps are not padded to have fewer."""

GRIDS = (1.0, 2.0, 4.0, 16.0, 256.0, math.inf)
"""Ratios of successive lengths to which patterns are padded, so that there are fewer classes."""


@dataclasses.dataclass
class Step:
    """The elimination of one site, or the sum of some tables if `site` is None."""

    site: int | None
    scope: tuple[int, ...]
    """The sites of the message: all of the clique but the eliminated one."""
    inputs: list[int]
    """The numbers of the tables that are added; see `Steps`."""


class Steps:
    """All steps of an elimination. Tables are numbered: those of factors first, then messages.

    Args:
        scopes: the sites of each factor's table.
        sites: the sites in the order of their elimination.
        separators: for each of them, its neighbours at that moment.
        levels: the number of levels of each site.
    """

    def __init__(
        self,
        scopes: Sequence[Sequence[int]],
        sites: Sequence[int],
        separators: Sequence[Iterable[int]],
        levels: Sequence[int],
    ) -> None:
        self.levels, self.tables = levels, len(scopes)
        self.scopes = [tuple(scope) for scope in scopes]
        self.steps: list[Step] = []
        self._position = {site: k for k, site in enumerate(sites)}
        waiting: dict[int, list[int]] = defaultdict(list)
        for number, scope in enumerate(self.scopes):
            waiting[min(scope, key=self._position.__getitem__)].append(number)
        for site, separator in zip(sites, separators, strict=True):
            inputs = self._few(waiting.pop(site, []))
            message = self._add(site, self._sorted(separator), inputs)
            if separator:
                waiting[self.scopes[message][0]].append(message)

    def clique(self, step: Step) -> tuple[int, ...]:
        """The sites over whose joint states a step adds its tables."""
        return step.scope if step.site is None else (step.site, *step.scope)

    def size(self, sites: Iterable[int]) -> int:
        """The number of joint states of some sites."""
        return math.prod(self.levels[i] for i in sites)

    def _sorted(self, sites: Iterable[int]) -> tuple[int, ...]:
        return tuple(sorted(sites, key=self._position.__getitem__))

    def _add(self, site: int | None, scope: tuple[int, ...], inputs: list[int]) -> int:
        self.steps.append(Step(site, scope, inputs))
        self.scopes.append(scope)
        return len(self.scopes) - 1

    def _few(self, inputs: list[int]) -> list[int]:
        """At most `MOST_INPUTS` tables with the same sum; the smallest are added first."""
        while len(inputs) > MOST_INPUTS:
            inputs = sorted(inputs, key=lambda i: (self.size(self.scopes[i]), i))
            first = inputs[:MOST_INPUTS]
            scope = self._sorted(set().union(*(self.scopes[i] for i in first)))
            inputs = [*inputs[MOST_INPUTS:], self._add(None, scope, first)]
        return inputs


@dataclasses.dataclass(frozen=True)
class Run:
    """Batches of one class and width. Arrays have the axes (batch, step of the batch, ...)."""

    kind: int
    """The number of the class."""
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
class Class:
    """Steps whose cliques are padded to the same numbers of levels and of message states."""

    levels: int
    states: int
    patterns: np.ndarray
    """For each pattern, the place in a table of each state of the clique; -1 beyond its levels."""

    @property
    def terms(self) -> int:
        """The number of terms of one step."""
        return self.levels * self.states


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Runs in the order in which they are carried out, and where their results lie."""

    classes: tuple[Class, ...]
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
        return float(
            sum(r.base.shape[0] * r.base.shape[1] * self.classes[r.kind].terms for r in self.runs)
        )

    @property
    def gathered(self) -> float:
        """The number of table cells that all steps read."""
        return float(sum(r.base.size * self.classes[r.kind].terms for r in self.runs))


def schedule(steps: Steps, starts: np.ndarray, end: int) -> Schedule:
    """The batches of the steps, padded as costs least.

    Args:
        steps: the steps.
        starts: where the table of each factor begins.
        end: the cell after these tables.
    """
    best = _Plan(steps, GRIDS[0])
    for ratio in GRIDS[1:]:
        if best.runs <= FEW_RUNS:
            break
        best = min(best, _Plan(steps, ratio), key=lambda plan: plan.cost)
    return best.built(starts, end)


class _Plan:
    """The classes and batches for one ratio of padding."""

    def __init__(self, steps: Steps, ratio: float) -> None:
        self.steps = steps
        sizes = [
            (1 if s.site is None else steps.levels[s.site], steps.size(s.scope))
            for s in steps.steps
        ]
        self.shapes = _padded(sizes, ratio)
        self.batches = self._batches()

    @property
    def cost(self) -> float:
        """The terms of all batches, and those that could be summed while loops are compiled."""
        written = sum(width * states for (_, states), width, _ in self.batches)
        if written > MAX_CELLS / 4:
            return math.inf
        return self.terms + RUN_COST * self.runs

    @property
    def terms(self) -> float:
        """The number of terms of all batches."""
        return float(sum(width * math.prod(shape) for shape, width, _ in self.batches))

    @property
    def runs(self) -> int:
        """The number of runs of batches of equal class and width."""
        return 1 + sum(a[:2] != b[:2] for a, b in itertools.pairwise(self.batches))

    def _batches(self) -> list[tuple[tuple[int, int], int, list[int]]]:
        """The class, the width and the steps of each batch.

        Steps that are ready and of one class form a batch; a class is left when it has none.
        """
        steps, tables = self.steps.steps, self.steps.tables
        missing = [sum(i >= tables for i in s.inputs) for s in steps]
        reader = {i - tables: k for k, s in enumerate(steps) for i in s.inputs if i >= tables}
        ready: dict[tuple[int, int], list[int]] = defaultdict(list)
        for k, count in enumerate(missing):
            if not count:
                ready[self.shapes[k]].append(k)
        batches, shape = [], None
        while any(ready.values()):
            if shape is None or not ready[shape]:
                shape = max(ready, key=lambda c: (len(ready[c]), c))
            most = max(1, BATCH // (MOST_INPUTS * shape[0] * shape[1]))
            most = 2 ** int(math.log2(most))
            now, ready[shape] = ready[shape][:most], ready[shape][most:]
            batches.append((shape, 2 ** math.ceil(math.log2(len(now))), now))
            for k in now:
                if k in reader:
                    missing[reader[k]] -= 1
                    if not missing[reader[k]]:
                        ready[self.shapes[reader[k]]].append(reader[k])
        return batches

    def built(self, starts: np.ndarray, end: int) -> Schedule:
        steps, tables = self.steps, self.steps.tables
        shapes = sorted({shape for shape, _, _ in self.batches})
        book = {shape: _Patterns(*shape) for shape in shapes}
        begin, count = [*starts.tolist(), *[0] * len(steps.steps)], 0
        slot: dict[int, int] = {}
        slot_of = [0] * len(steps.steps)
        groups: list[tuple[tuple[int, int], int, list[tuple[int, int, list[int]]]]] = []
        for shape, width, now in self.batches:
            for place, k in enumerate(now):
                begin[tables + k], slot_of[k] = end + place * shape[1], count + place
                site = steps.steps[k].site
                if site is not None:
                    slot[site] = slot_of[k]
            if not groups or groups[-1][:2] != (shape, width):
                groups.append((shape, width, []))
            groups[-1][2].append((end, count, now))
            end, count = end + width * shape[1], count + width
        runs = tuple(
            _run(steps, shapes.index(shape), width, members, book[shape], begin, slot)
            for shape, width, members in groups
        )
        classes = tuple(Class(*shape, book[shape].array()) for shape in shapes)
        roots = [
            begin[tables + k]
            for k, s in enumerate(steps.steps)
            if s.site is not None and not s.scope
        ]
        return Schedule(classes, runs, end, count, slot, np.array(roots, np.int64))


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
    width: int,
    members: list[tuple[int, int, list[int]]],
    patterns: _Patterns,
    begin: list[int],
    slot: dict[int, int],
) -> Run:
    every = [steps.steps[k] for _, _, now in members for k in now]
    inputs = max(1, *(len(s.inputs) for s in every))
    others = max(len(s.scope) for s in every)
    shape = len(members), width
    base, pattern = np.zeros((*shape, inputs), np.int64), np.zeros((*shape, inputs), np.int64)
    slots, strides = np.zeros((*shape, others), np.int64), np.zeros((*shape, others), np.int64)
    for b, (_, _, now) in enumerate(members):
        for w, k in enumerate(now):
            step = steps.steps[k]
            clique = steps.clique(step)
            place = {site: at for at, site in enumerate(clique)}
            sizes = tuple(steps.levels[i] for i in clique)
            for n, i in enumerate(step.inputs):
                base[b, w, n] = begin[i]
                places = tuple(place[j] for j in steps.scopes[i])
                pattern[b, w, n] = patterns.number(sizes, step.site is not None, places)
            stride = 1
            for n in reversed(range(len(step.scope))):
                slots[b, w, n], strides[b, w, n] = slot[step.scope[n]], stride
                stride *= steps.levels[step.scope[n]]
    first, count = (np.array([m[k] for m in members], np.int64) for k in (0, 1))
    return Run(kind, base, pattern, first, count, slots, strides)


def _padded(sizes: list[tuple[int, int]], ratio: float) -> list[tuple[int, int]]:
    """The levels and the message states of each step, rounded up to those of its class."""
    if ratio == 1.0:
        return sizes
    levels, states = max(c for c, _ in sizes), max(s for _, s in sizes)
    if ratio == math.inf:
        return [(levels, states)] * len(sizes)

    def up(number: int, limit: int) -> int:
        return min(limit, math.ceil(ratio ** math.ceil(math.log(number, ratio) - 1e-9)))

    return [(up(c, levels), up(s, states)) for c, s in sizes]
