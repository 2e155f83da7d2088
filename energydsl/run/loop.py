"""The loop over compiled chunks that sampling and learning share.

Between chunks the progress bar is updated, the checkpoint is written, and Ctrl-C and SIGTERM are
handled, so that a run always stops after a complete chunk.
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
"""How long a chunk should take, which is the interval between updates of the progress bar."""

SAVE_SHARE = 20
"""Time between checkpoints, as a multiple of the time that writing the last one took."""


class At(NamedTuple):
    """The progress of a run. It is replaced as a whole, so that Ctrl-C leaves it consistent."""

    carry: Any
    steps: int
    rows: int


@dataclasses.dataclass(frozen=True)
class Store:
    """Arrays on the host for the results of a run, with its rows along `axis`."""

    arrays: dict[str, np.ndarray]
    axis: int = 0

    def between(self, first: int, last: int) -> dict[str, np.ndarray]:
        """Views of the rows from `first` up to `last`."""
        return {k: a[self._at(first, last)] for k, a in self.arrays.items()}

    def put(self, first: int, new: dict[str, np.ndarray]) -> int:
        """Write rows from `first` on, and return the number of the row after them."""
        last = first + next(iter(new.values())).shape[self.axis]
        for name, values in new.items():
            self.arrays[name][self._at(first, last)] = values
        return last

    def _at(self, first: int, last: int) -> tuple[slice, ...]:
        return (slice(None),) * self.axis + (slice(first, last),)


class AbstractRun(abc.ABC):
    """A run in progress: its state on the device, and its results on the host.

    It is a context manager, which handles signals and releases the checkpoint at the end.
    """

    word: ClassVar[str]
    """The word for its rows, such as "draws"."""

    at: At
    store: Store
    rows: int
    """The number of rows to produce."""
    length: int = 1
    """The number of rows of the next chunk."""
    saver: Saver | None = None
    compiled: float = 0.0
    """The seconds of the first chunk, with compiling the program of all chunks."""

    def __enter__(self) -> None:
        self.listener = Listener().__enter__()

    def __exit__(self, *error: object) -> None:
        self.listener.__exit__()
        if self.saver is not None:
            self.saver.checkpoint.release()

    @abc.abstractmethod
    def chunk(self, length: int) -> str | None:
        """Advance by at most `length` rows, and return a reason to stop, if there is one."""

    @abc.abstractmethod
    def note(self) -> str:
        """A short text for the progress bar."""

    def passed(self, steps: int) -> str:
        """The digest of the batches that the first steps read; empty if data is not a stream."""
        return ""

    def resume(self, checkpoint: str | PathLike | None, identity: Identity) -> None:
        """Resume from the checkpoint in a folder, if there is one, and save there from now on."""
        if checkpoint is not None:
            self.saver = Saver(Checkpoint(checkpoint, identity), self.word)
            self.at = self.saver.resume(self.at, self.store, self.rows)

    def go(self, total: int, title: str, progress: bool) -> str | None:
        """Advance to the end, and return the reason if the run stopped earlier.

        Raises:
            KeyboardInterrupt: Ctrl-C or SIGTERM arrived before the first row was complete.
        """
        stopped = None
        self.listener.patient = True
        bar = tqdm(total=total, initial=self.at.steps, disable=None if progress else True,
                   desc=title, unit="step")  # fmt: skip
        try:
            with bar:
                bar.set_postfix_str("compiling")
                while self.at.rows < self.rows and stopped is None:
                    before = self.at.steps
                    stopped = self._beat() or self._interrupted()
                    failed = self.saver is not None and self.saver.trouble is not None
                    said = "the checkpoint could not be written" if failed else self.note()
                    said = said or f"compiled in {self.compiled:.1f} s"
                    bar.set_postfix_str(said, refresh=False)
                    bar.update(self.at.steps - before)
                    if self.saver is not None:
                        self.saver.save_when_due(self)
        except KeyboardInterrupt:
            # Raised by a third Ctrl-C, or by a signal handler of the program.
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
        """A message about the received signal, if there was one."""
        heard = self.listener.heard
        if heard is None:
            return None
        return self._stood(
            "interrupted" if heard == signal.SIGINT else f"interrupted by {heard.name}"
        )

    def _stood(self, what: str) -> str:
        return f"{what} after {self.at.rows} of {self.rows} {self.word}"

    def _beat(self) -> str | None:
        """Run one chunk and adapt the chunks' length; returns a reason to stop, if there is one."""
        began = time.perf_counter()
        stopped = self.chunk(self.length)
        seconds = time.perf_counter() - began
        self.compiled = self.compiled or seconds
        if seconds < CHUNK_SECONDS / 8:
            self.length *= 8
        elif seconds < CHUNK_SECONDS / 2:
            self.length *= 2
        elif seconds > CHUNK_SECONDS * 2:
            self.length = max(1, self.length // 2)
        return stopped


class Saver:
    """Saves a run's checkpoint as often as a few percent of its time allow.

    A full disk does not end the run: the rows stay in memory, and the next save includes them.
    """

    def __init__(self, checkpoint: Checkpoint, word: str) -> None:
        self.checkpoint = checkpoint
        self.word = word
        self.last = time.perf_counter()
        self.cost = 0.05
        self.found = ""
        """The digest of the batches that the earlier run read from its stream."""
        self.trouble: str | None = None
        """A message about the last save if it failed, else None."""

    def resume(self, at: At, store: Store, rows: int) -> At:
        """The earlier run's progress, with its rows put into `store`; `at` if there was none."""
        if not self.checkpoint.exists:
            return at
        found = self.checkpoint.load(at.carry)
        done = found.counters[self.word]
        if done > rows:
            raise ValueError(
                f"The checkpoint holds {done} {self.word}, more than {self.word}={rows}. "
                "Give at least that number, or another folder."
            )
        saved = 0
        for part in found.parts:
            saved = store.put(saved, part)
        if saved != done:
            raise self.checkpoint.damaged("state", f"it counts {done} {self.word}, not {saved}")
        self.found = found.passed
        return At(found.state, found.counters["advanced"], done)

    def save_when_due(self, run: AbstractRun) -> None:
        """Save if enough time has passed since the last save."""
        if time.perf_counter() - self.last > max(1.0, SAVE_SHARE * self.cost):
            self.save(run)

    def save(self, run: AbstractRun) -> None:
        """Save the rows produced since the last save, and the state of the run."""
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
