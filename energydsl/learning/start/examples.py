"""Chains that begin at the examples of the batch."""

from __future__ import annotations

from typing import Any, ClassVar

from jax import Array

from energydsl._types import Configuration
from energydsl.learning.start.base import AbstractStart, Walkers


class AtExamples(AbstractStart):
    """``"data"``: one chain per example, which begins at it.

    Source: Hinton (2002), Neural Computation 14(8), 1771-1800.
    """

    at_examples: ClassVar[bool] = True

    def begin(
        self, walkers: Walkers, state: None, examples: Configuration, *, key: Array
    ) -> tuple[Any, None]:
        return walkers.at(examples, key=key), None
