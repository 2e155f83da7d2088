"""Long runs in compiled chunks: what drawing and learning have in common.

Between chunks a bar moves, a checkpoint is written, and Ctrl-C and SIGTERM are heard; a run is
only ever found after whole chunks.
"""

from __future__ import annotations

import abc
import dataclasses
import signal
import time
import warnings
from os import PathLike
from typing import Any, ClassVar, NamedTuple

import numpy as np
from tqdm import tqdm

from energydsl.run.checkpoint import Checkpoint, Identity
from energydsl.run.signals import Listener

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
    """A run in progress: where it is on the device, and what it has produced on the host.

    Enter it before it begins: it then hears signals, and lets go of its checkpoint at the end.
    """

    word: ClassVar[str]
    """What its rows are called."""

    at: At
    store: Store
    rows: int
    """How many are wanted."""
    length: int = 1
    """How many rows the next chunk tries."""
    saver: Saver | None = None

    def __enter__(self) -> None:
        self.listener = Listener().__enter__()

    def __exit__(self, *error: object) -> None:
        self.listener.__exit__()
        if self.saver is not None:
            self.saver.checkpoint.release()

    @abc.abstractmethod
    def chunk(self, length: int) -> str | None:
        """Advance by at most `length` rows. Returns why to stop, if there is a reason."""

    @abc.abstractmethod
    def note(self) -> str:
        """What the bar says of the run, in a few words."""

    def passed(self, steps: int) -> str:
        """The digest of what these first steps read of a stream; empty where nothing streams."""
        return ""

    def resume(self, checkpoint: str | PathLike | None, identity: Identity) -> None:
        """Go on from an earlier run's checkpoint in this folder, and write there from now on."""
        if checkpoint is not None:
            self.saver = Saver(Checkpoint(checkpoint, identity), self.word)
            self.at = self.saver.resume(self.at, self.store, self.rows)

    def go(self, total: int, title: str, progress: bool) -> str | None:
        """Advance to the end. Returns why the run stopped before it, if it did.

        Raises:
            KeyboardInterrupt: Ctrl-C or SIGTERM came before there was a row to return.
        """
        stopped = None
        self.listener.patient = True
        bar = tqdm(total=total, initial=self.at.steps, disable=None if progress else True,
                   desc=title, unit="step")  # fmt: skip
        try:
            with bar:
                while self.at.rows < self.rows and stopped is None:
                    before = self.at.steps
                    stopped = self._beat() or self._interrupted()
                    failed = self.saver is not None and self.saver.trouble is not None
                    said = "the checkpoint is not written" if failed else self.note()
                    bar.set_postfix_str(said, refresh=False)
                    bar.update(self.at.steps - before)
                    if self.saver is not None:
                        self.saver.save_when_due(self)
        except KeyboardInterrupt:
            # A third Ctrl-C, or the program's own handler.
            stopped = self._interrupted() or self._stood("interrupted")
        finally:
            if self.saver is not None:
                self.saver.save(self)
        if self.saver is not None and self.saver.trouble is not None:
            warnings.warn(self.saver.trouble, stacklevel=4)
        if stopped is not None and stopped.startswith("interrupted") and not self.at.rows:
            raise KeyboardInterrupt
        return stopped

    def _interrupted(self) -> str | None:
        """What to say of a signal that was heard."""
        heard = self.listener.heard
        if heard is None:
            return None
        return self._stood(
            "interrupted" if heard == signal.SIGINT else f"interrupted by {heard.name}"
        )

    def _stood(self, what: str) -> str:
        return f"{what} after {self.at.rows} of {self.rows} {self.word}"

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
    """When a run writes its checkpoint: often, but never at more than a few percent of its time.

    A disk that is full ends no run: the rows stay in memory, and each save tries them again.
    """

    def __init__(self, checkpoint: Checkpoint, word: str) -> None:
        self.checkpoint = checkpoint
        self.word = word
        self.last = time.perf_counter()
        self.cost = 0.05
        self.found = ""
        """The digest of the stream that an earlier run read."""
        self.trouble: str | None = None
        """What to say of the last save, where it failed."""

    def resume(self, at: At, store: Store, rows: int) -> At:
        """Where an earlier run stood, its rows put into `store`; `at` where there was none."""
        if not self.checkpoint.exists:
            return at
        found = self.checkpoint.load(at.carry)
        done = found.counters[self.word]
        if done > rows:
            raise ValueError(
                f"The checkpoint holds {done} {self.word}, more than {self.word}={rows}. "
                "Ask for at least as many, or give another folder."
            )
        saved = 0
        for part in found.parts:
            saved = store.put(saved, part)
        if saved != done:
            raise self.checkpoint.damaged("state", f"it counts {done} {self.word}, not {saved}")
        self.found = found.passed
        return At(found.state, found.counters["advanced"], done)

    def save_when_due(self, run: AbstractRun) -> None:
        """Save if the run has gone on long enough since the last time."""
        if time.perf_counter() - self.last > max(1.0, SAVE_SHARE * self.cost):
            self.save(run)

    def save(self, run: AbstractRun) -> None:
        """Write what was produced since the last time, and where the run is."""
        began, at, saved = time.perf_counter(), run.at, self.checkpoint.rows
        counters = {"advanced": at.steps, self.word: at.rows}
        fresh = run.store.between(saved, at.rows)
        try:
            self.checkpoint.save(at.carry, counters, run.passed(at.steps), fresh, at.rows - saved)
            self.trouble = None
        except OSError as error:
            self.trouble = (
                f"The checkpoint in {str(self.checkpoint.folder)!r} could not be written "
                f"({error}): it holds {saved} of {at.rows} {self.word}. All of them are returned; "
                "save them elsewhere."
            )
        self.last = time.perf_counter()
        self.cost = self.last - began
