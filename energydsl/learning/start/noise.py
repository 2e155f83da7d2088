"""Chains that begin at random configurations."""

from __future__ import annotations

from typing import Any

from jax import Array

from energydsl._types import Configuration
from energydsl.learning.start.base import AbstractStart, Walkers


class AtNoise(AbstractStart):
    """``"noise"``: the chains begin at random configurations, as `energydsl.EBM.start` draws them.

    Source: Nijkamp et al. (2019), NeurIPS 32.
    """

    def begin(
        self, walkers: Walkers, state: None, examples: Configuration, *, key: Array
    ) -> tuple[Any, None]:
        return walkers.anew(key=key), None
