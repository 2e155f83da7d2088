"""Evidence on the variables of a UAI file, from a file or a mapping."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from os import PathLike

from energydsl.io.uai.words import Words

Evidence = str | PathLike[str] | Mapping[int, int]
"""The path of a UAI evidence file, or the observed level of each variable, by its number."""


def observed(evidence: Evidence | None, cardinalities: Sequence[int]) -> dict[int, int]:
    """The observed level of each variable that has one.

    Raises:
        TypeError: a number of a mapping is not a whole one.
        ValueError: the evidence does not fit the variables, or a file is malformed.
    """
    if evidence is None:
        return {}
    if isinstance(evidence, Mapping):
        return _of_mapping(evidence, cardinalities)
    return _of_file(Words(evidence), cardinalities)


def _of_mapping(evidence: Mapping[int, int], cardinalities: Sequence[int]) -> dict[int, int]:
    found = {operator.index(i): operator.index(level) for i, level in evidence.items()}
    for i, level in found.items():
        if not 0 <= i < len(cardinalities):
            raise ValueError(
                f"The evidence has variable {i}; the file's variables are 0 to "
                f"{len(cardinalities) - 1}."
            )
        if not 0 <= level < cardinalities[i]:
            raise ValueError(
                f"The evidence has level {level} of variable {i}; expected a whole number from 0 "
                f"to {cardinalities[i] - 1}."
            )
    return found


def _of_file(words: Words, cardinalities: Sequence[int]) -> dict[int, int]:
    _enter_sample(words)
    count = words.whole("the number of observed variables", 0)
    found: dict[int, int] = {}
    for _ in range(count):
        i = words.whole("an observed variable", 0, len(cardinalities) - 1)
        level = words.whole(f"the level of variable {i}", 0, cardinalities[i] - 1)
        if found.setdefault(i, level) != level:
            words.fail(
                f"variable {i} has level {level} here and level {found[i]} above; expected one "
                "level for each variable",
                words.place - 1,
            )
    words.finish(f"the {count} observed variables")
    return found


def _enter_sample(words: Words) -> None:
    """Pass over the number of samples, with which files of the older form begin.

    A sample is a count and that many pairs, so it has an odd number of words. In the older form
    the number of samples is alone on a line, and each sample follows on a line of its own. In one
    line, "1 0" is taken for a sample that was cut, and not for one without observed variables.
    """
    total, (head, *samples) = len(words.all), words.lines() or [0]
    if total % 2 == 0 and words.all[:1] == [b"1"] and (head == 1 or total > 2):
        words.place = 1
        return
    alone = head == 1 and words.all[0] == str(len(samples)).encode()
    if alone and len(samples) > 1 and _are_samples(words, samples):
        words.fail(
            f"found {len(samples)} samples; expected one. Write each sample into a file of its own",
            0,
        )


def _are_samples(words: Words, lengths: Sequence[int]) -> bool:
    """Whether each line after the first begins with the number of its pairs."""
    place = 1
    for length in lengths:
        if words.all[place] != str((length - 1) // 2).encode() or length % 2 == 0:
            return False
        place += length
    return True
