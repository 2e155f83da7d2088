"""Blocks: a long sequence as short blocks of runs that repeat, each one compiled loop."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence

import numpy as np

LONGEST = 64
"""The most runs of a block."""


def loops(kinds: Sequence[Hashable]) -> list[list[np.ndarray]]:
    """The places of a sequence's items as nested loops, so that few bodies have to be compiled.

    A body is a run of equal items; a block of bodies is repeated as often as the sequence repeats
    them. For each block, and each of its bodies, there are places of the shape (repeat, run).
    """
    runs = [(kind, len(list(alike))) for kind, alike in itertools.groupby(kinds)]
    starts = np.cumsum([0, *(count for _, count in runs)])
    found = []
    for first, length, repeats in _blocks(runs):
        block = []
        for k in range(first, first + length):
            begin = starts[k + length * np.arange(repeats)]
            block.append(begin[:, None] + np.arange(runs[k][1]))
        found.append(block)
    return found


def _blocks(items: Sequence[Hashable]) -> list[tuple[int, int, int]]:
    """A sequence as blocks that repeat: where each begins, its length, and how often it occurs."""
    numbers: dict[Hashable, int] = {}
    ids = np.array([numbers.setdefault(item, len(numbers)) for item in items], int)
    longest = min(LONGEST, len(ids) // 2)
    equal = [_runs_of_true(ids[p:] == ids[:-p]) for p in range(1, longest + 1)]
    found, first = [], 0
    while first < len(ids):
        best = first, 1, 1
        for length, run in enumerate(equal, start=1):
            repeats = 1 + int(run[first]) // length if first < len(run) else 1
            if (repeats - 1) * length > (best[2] - 1) * best[1]:
                best = first, length, repeats
        found.append(best)
        first += best[1] * best[2]
    return found


def _runs_of_true(flags: np.ndarray) -> np.ndarray:
    """For each place, how many flags in succession are true from there on."""
    place = np.arange(len(flags))
    next_false = np.minimum.accumulate(np.where(flags, len(flags), place)[::-1])[::-1]
    return next_false - place
