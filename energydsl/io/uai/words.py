"""A text file of words between blanks, and errors that name the line of a word."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from os import PathLike
from pathlib import Path
from typing import NoReturn

LONGEST = 40
"""The most characters of a word that an error message shows."""


class Words:
    """The words of a file, which are read one after another."""

    def __init__(self, path: str | PathLike[str]) -> None:
        self._path = Path(path)
        self._text = self._path.read_bytes()
        self.all = self._text.split()
        self.place = 0
        """The number of words that have been read."""

    def whole(self, what: str, low: int, high: int | None = None) -> int:
        """The next word as a whole number.

        Raises:
            ValueError: it is not one, or not between `low` and `high`, both included.
        """
        place, text = self.place, b"".join(self.all[self.place : self.place + 1])
        self.place += 1
        try:
            # int() also takes 1_000.
            number = low - 1 if b"_" in text else int(text)
        except ValueError:
            number = low - 1
        if number < low or (high is not None and number > high):
            self.refuse(f"{what}, {_between(low, high)}", place)
        return number

    def finish(self, last: str) -> None:
        """Raise ValueError if a word follows `last`, the end of the contents."""
        if self.place < len(self.all):
            self.refuse(f"nothing after {last}", self.place)

    def refuse(self, expected: str, place: int) -> NoReturn:
        """Raise ValueError: the word at `place`, or the end of the file there, is not expected."""
        if place < len(self.all):
            found = repr(self.all[place].decode("utf-8", "backslashreplace"))
            found = found if len(found) <= LONGEST else f"{found[:LONGEST]}..."
        else:
            found = "the end of the file"
        self.fail(f"found {found}; expected {expected}", place)

    def fail(self, said: str, place: int) -> NoReturn:
        """Raise ValueError about the word at `place`."""
        raise ValueError(f"{self._path}, line {self._line(place)}: {said}.")

    def lines(self) -> list[int]:
        """The number of words of each line that has some."""
        counts = (len(line.split()) for line in self._text.splitlines())
        return [count for count in counts if count]

    def _line(self, place: int) -> int:
        ends = list(accumulate(len(line.split()) for line in self._text.splitlines()))
        return min(bisect_right(ends, place) + 1, max(len(ends), 1))


def _between(low: int, high: int | None) -> str:
    if high is None:
        return f"a whole number of at least {low}"
    return f"a whole number from {low} to {high}" if low < high else f"which is {low}"
