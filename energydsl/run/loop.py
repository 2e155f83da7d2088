"""Long runs in compiled chunks: what drawing and learning have in common.

Between chunks a bar moves, a checkpoint is written, and Ctrl-C is heard; a run is only ever found
after whole chunks.
"""

from __future__ import annotations

import abc
import dataclasses
import time
from os import PathLike
from typing import Any, ClassVar, NamedTuple

import numpy as np
from tqdm import tqdm

from energydsl.run.checkpoint import Checkpoint

CHUNK_SECONDS = 0.25
"""How long a chunk should take: the bar's and Ctrl-C's beat."""

SAVE_SHARE = 20
"""A checkpoint is written once the run has gone on for this many times what the last one took."""


class At(NamedTuple):
    """How far a run is. Replaced whole, so that Ctrl-C never finds half an advance."""

    carry: Any
    steps: int
    rows: int


@dataclasses.dataclass(frozen=True)
class Store:
    """Room on the host for what a run produces, row by row along `axis`."""

    arrays: dict[str, np.ndarray]
    axis: int = 0

    def between(self, first: int, last: int) -> dict[str, np.ndarray]:
        """Views of some rows."""
        return {k: a[self._at(first, last)] for k, a in self.arrays.items()}

    def put(self, first: int, new: dict[str, np.ndarray]) -> int:
        """Write rows from `first` on; returns where they end."""
        last = first + next(iter(new.values())).shape[self.axis]
        for name, values in new.items():
            self.arrays[name][self._at(first, last)] = values
        return last

    def _at(self, first: int, last: int) -> tuple[slice, ...]:
        return (slice(None),) * self.axis + (slice(first, last),)


class AbstractRun(abc.ABC):
    """A run in progress: where it is on the device, and what it has produced on the host."""

    word: ClassVar[str]
    """What its rows are called."""

    at: At
    store: Store
    rows: int
    """How many are wanted."""
    length: int = 1
    """How many rows the next chunk tries."""
    saver: Saver | None = None

    @abc.abstractmethod
    def chunk(self, length: int) -> str | None:
        """Advance by at most `length` rows. Returns why to stop, if there is a reason."""

    @abc.abstractmethod
    def note(self) -> str:
        """What the bar says of the run, in a few words."""

    def resume(self, checkpoint: str | PathLike | None, identity: dict[str, Any]) -> None:
        """Go on from an earlier run's checkpoint in this folder, and write there from now on."""
        if checkpoint is not None:
            self.saver = Saver(Checkpoint(checkpoint, identity), self.word)
            self.at = self.saver.resume(self.at, self.store, self.rows)

    def go(self, total: int, title: str, progress: bool) -> str | None:
        """Advance to the end. Returns why the run stopped before it, if it did."""
        stopped = None
        bar = tqdm(total=total, initial=self.at.steps, disable=None if progress else True,
                   desc=title, unit="step")  # fmt: skip
        try:
            with bar:
                while self.at.rows < self.rows and stopped is None:
                    before = self.at.steps
                    stopped = self._beat()
                    bar.set_postfix_str(self.note(), refresh=False)
                    bar.update(self.at.steps - before)
                    if self.saver is not None:
                        self.saver.save_when_due(self.at, self.store)
        except KeyboardInterrupt:
            stopped = f"interrupted after {self.at.rows} of {self.rows} {self.word}"
        finally:
            if self.saver is not None:
                self.saver.save(self.at, self.store)
        if stopped is not None and not self.at.rows and stopped.startswith("interrupted"):
            raise KeyboardInterrupt
        return stopped

    def _beat(self) -> str | None:
        """A chunk as long as a bar's beat, found by trying. Returns why to stop, if there is."""
        began = time.perf_counter()
        stopped = self.chunk(self.length)
        seconds = time.perf_counter() - began
        if seconds < CHUNK_SECONDS / 8:
            self.length *= 8
        elif seconds < CHUNK_SECONDS / 2:
            self.length *= 2
        elif seconds > CHUNK_SECONDS * 2:
            self.length = max(1, self.length // 2)
        return stopped


class Saver:
    """When a run writes its checkpoint: often, but never at more than a few percent of its time."""

    def __init__(self, checkpoint: Checkpoint, word: str) -> None:
        self.checkpoint = checkpoint
        self.word = word
        self.saved = 0
        self.last = time.perf_counter()
        self.cost = 0.05

    def resume(self, at: At, store: Store, rows: int) -> At:
        """Where an earlier run stood, its rows put into `store`; `at` where there was none."""
        if not self.checkpoint.exists:
            return at
        carry, counters, parts = self.checkpoint.load(at.carry)
        done = counters[self.word]
        if done > rows:
            raise ValueError(
                f"The checkpoint holds {done} {self.word}, more than {self.word}={rows}. "
                "Ask for at least as many, or give another folder."
            )
        for part in parts:
            self.saved = store.put(self.saved, part)
        return At(carry, counters["advanced"], done)

    def save_when_due(self, at: At, store: Store) -> None:
        """Save if the run has gone on long enough since the last time."""
        if time.perf_counter() - self.last > max(1.0, SAVE_SHARE * self.cost):
            self.save(at, store)

    def save(self, at: At, store: Store) -> None:
        """Write what was produced since the last time, and where the run is."""
        began = time.perf_counter()
        fresh = store.between(self.saved, at.rows) if at.rows > self.saved else {}
        self.checkpoint.save(at.carry, {"advanced": at.steps, self.word: at.rows}, fresh)
        self.saved, self.last = at.rows, time.perf_counter()
        self.cost = self.last - began
