"""Numbers of a run in words, with their units and errors.

A zoo model may have a constant ``WORDS``, from what a number is called to how it is written, such
as ``{"energy per site": "{energy ± error} J (exact {exact:.4f})"}``. In brackets stand names of the
numbers that ``main`` returns, or of those of each of its cases. Numbers that no text uses keep
their names, and a text is left out where one of its numbers is missing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

FIELD = re.compile(r"\{([^{}:±]+?)(?: ± ([^{}:±]+?))?(?::([^{}]*))?\}")
"""A number in a text: its name, the name of its error, and its format."""

ESTIMATE = {"mean": "{mean ± error}", "exact": " (exact {exact:.5g})", "z": ", {z:+.1f} errors off"}
"""How an estimate is written: the parts whose number it has."""


def told(numbers: Mapping[str, Any], words: Mapping[str, str]) -> dict[str, Any]:
    """Numbers in words, in the order of the words; cases, which are dicts, after single numbers."""
    single = {name: value for name, value in numbers.items() if not isinstance(value, dict)}
    cases = {name: value for name, value in numbers.items() if isinstance(value, dict)}
    return _said(single, words) | {name: _said(flat(case), words) for name, case in cases.items()}


def flat(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Nested numbers by dotted names; an estimate, which has a mean and an error, as one text."""
    found: dict[str, Any] = {}
    for name, value in numbers.items():
        if not isinstance(value, dict):
            found[name] = value
        elif {"mean", "error"} <= value.keys():
            found[name] = "".join(_filled(t, value) for n, t in ESTIMATE.items() if n in value)
        else:
            found |= {f"{name}.{key}": inner for key, inner in flat(value).items()}
    return found


def _said(numbers: dict[str, Any], words: Mapping[str, str]) -> dict[str, Any]:
    """The texts whose numbers are all there, then the numbers that no text uses."""
    texts = {word: text for word, text in words.items() if _names(text) <= numbers.keys()}
    used = set().union(*map(_names, texts.values())) if texts else set()
    said = {word: _filled(text, numbers) for word, text in texts.items()}
    return said | {name: value for name, value in numbers.items() if name not in used}


def _names(text: str) -> set[str]:
    fields: Iterable[tuple[str, ...]] = FIELD.findall(text)
    return {name for value, error, _ in fields for name in (value, error) if name}


def _filled(text: str, numbers: Mapping[str, Any]) -> str:
    def one(field: re.Match[str]) -> str:
        name, error, form = field.groups()
        value = numbers[name]
        if value is None:
            return "undefined"
        return with_error(value, numbers[error]) if error else format(value, form or "")

    return FIELD.sub(one, text)


def with_error(value: float, error: float | None) -> str:
    """A number with its standard error, which is written with two digits."""
    if not error:
        return f"{value:.5g} ± {'undefined' if error is None else 0}"
    digits = max(0, 1 - math.floor(math.log10(float(f"{error:.1e}"))))
    return f"{value:.{digits}f} ± {error:.{digits}f}"
