"""The arena: where the messages between wide steps lie, each until it is read."""

from __future__ import annotations

from collections.abc import Iterable


class Arena:
    """Places in one array; one that was read is given back and serves another message."""

    def __init__(self, *, reused: bool) -> None:
        self.size, self.reused = 0, reused
        self._taken: dict[int, int] = {}

    def take(self, cells: int) -> int:
        """The first place with room for so many cells."""
        begin = 0
        for start, length in sorted(self._taken.items()):
            if start - begin >= cells:
                break
            begin = start + length
        self._taken[begin] = cells
        self.size = max(self.size, begin + cells)
        return begin

    def give_back(self, places: Iterable[int]) -> None:
        if self.reused:
            for begin in places:
                del self._taken[begin]
