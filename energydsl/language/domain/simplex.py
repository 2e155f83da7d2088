"""Probability vectors."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from numpyro.distributions import constraints

from energydsl.language.domain.continuous import AbstractContinuous


@dataclasses.dataclass(frozen=True)
class Simplex(AbstractContinuous):
    """Probability vectors along the last axis of the shape: non-negative, with sum 1."""

    event_ndim: ClassVar[int] = 1

    @property
    def constraint(self) -> Any:
        return constraints.simplex

    @property
    def support(self) -> str:
        return "non-negative vectors with sum 1 along the last axis"
