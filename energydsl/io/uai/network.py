"""The contents of a UAI file: cardinalities, scopes and tables, checked."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from energydsl.io.uai.words import Words
from energydsl.language.domain.finite import MAX_LEVEL

HEADERS = (b"MARKOV", b"BAYES")


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """What a UAI file declares.

    Attributes:
        cardinalities: the number of levels of each variable.
        scopes: for each function its variables, the last of which varies fastest.
        starts: for each function the place of its table in `potentials`.
        potentials: the entries of all tables, one after another.
    """

    cardinalities: np.ndarray
    scopes: list[tuple[int, ...]]
    starts: np.ndarray
    potentials: np.ndarray

    def groups(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Functions of like tables: their scopes, (function, site), and tables.

        Each scope is in the order of its variables' cardinalities, so that few groups arise.
        """
        alike: dict[tuple[int, ...], list[int]] = {}
        levels = self.cardinalities.tolist()
        for number, scope in enumerate(self.scopes):
            alike.setdefault(tuple(levels[i] for i in scope), []).append(number)
        sorted_alike: dict[tuple[int, ...], list[tuple[np.ndarray, np.ndarray]]] = {}
        for shape, numbers in alike.items():
            order = np.argsort(shape, kind="stable")
            scopes = np.array([self.scopes[n] for n in numbers], int)
            places = self.starts[numbers, None] + np.arange(math.prod(shape))
            tables = self.potentials[places].reshape(-1, *shape)
            pair = scopes[:, order], tables.transpose(0, *(order + 1))
            sorted_alike.setdefault(tuple(sorted(shape)), []).append(pair)
        for pairs in sorted_alike.values():
            scopes, tables = zip(*pairs, strict=True)
            yield np.concatenate(scopes), np.concatenate(tables)


def ranks_of(cardinalities: np.ndarray) -> np.ndarray:
    """For each variable, the number of variables before it with the same cardinality."""
    order = np.argsort(cardinalities, kind="stable")
    ordered = cardinalities[order]
    ranks = np.empty_like(order)
    ranks[order] = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    return ranks


def parse(words: Words) -> Network:
    """The network that a file declares.

    Raises:
        ValueError: the file is not a valid UAI file; the message names the line.
    """
    cardinalities = cardinalities_of(words)
    scopes = _scopes(words, len(cardinalities))
    first = words.place
    starts = _starts(words, [math.prod(cardinalities[i] for i in scope) for scope in scopes])
    words.finish("the last table")
    potentials = _potentials(words, first)
    return Network(np.array(cardinalities), scopes, starts - first, potentials)


def cardinalities_of(words: Words) -> list[int]:
    """The number of levels of each variable, from the start of a file."""
    if not words.all or words.all[0] not in HEADERS:
        words.refuse("the header MARKOV or BAYES", 0)
    words.place = 1
    count = words.whole("the number of variables", 1)
    if count > len(words.all):
        words.refuse(
            f"{count} cardinalities, one for each variable; the file is too short", words.place
        )
    return [words.whole(f"the cardinality of variable {i}", 1, MAX_LEVEL) for i in range(count)]


def _scopes(words: Words, variables: int) -> list[tuple[int, ...]]:
    count = words.whole("the number of functions", 0)
    scopes = []
    for k in range(count):
        size = words.whole(f"the number of variables of function {k}", 0, variables)
        what = f"a variable of function {k}"
        scope = tuple(words.whole(what, 0, variables - 1) for _ in range(size))
        if len(set(scope)) < size:
            again = next(i for i in range(size) if scope[i] in scope[:i])
            place = words.place - size + again
            words.refuse(f"variables of function {k} that differ", place)
        scopes.append(scope)
    return scopes


def _starts(words: Words, sizes: list[int]) -> np.ndarray:
    """The place of the first entry of each table, for tables of these sizes."""
    starts, end = [], len(words.all)
    for k, size in enumerate(sizes):
        words.whole(f"the number of entries of the table of function {k}", size, size)
        starts.append(words.place)
        words.place += size
        if words.place > end:
            words.refuse(f"{size} entries of the table of function {k}", end)
    return np.array(starts, int)


def _potentials(words: Words, first: int) -> np.ndarray:
    """All numbers from the word `first` on: potentials, and their counts, which were checked."""
    texts = words.all[first:]
    try:
        numbers = np.array(list(map(float, texts)))
    except ValueError:
        numbers = np.array([_number(text) for text in texts])
    bad = ~(np.isfinite(numbers) & (numbers >= 0))
    bad[[k for k in np.flatnonzero(numbers == 0) if _is_positive(texts[k])]] = True
    bad[[k for k, text in enumerate(texts) if b"_" in text]] = True
    if bad.any():
        expected = "a potential: 0, or a positive number that float64 can hold"
        words.refuse(expected, first + int(np.argmax(bad)))
    return numbers


def _number(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _is_positive(text: bytes) -> bool:
    """Whether a number that float64 rounds to 0 is positive."""
    return bool(text.lower().partition(b"e")[0].strip(b"+-0."))
