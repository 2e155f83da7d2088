"""Chains that continue from where the previous step of learning left them."""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn

from jax import Array

from energydsl._types import Configuration
from energydsl.learning.start.base import AbstractStart, Walkers


class Persistent(AbstractStart):
    """``"persistent"``: the chains go on from step to step; the state is their carry.

    Source: Tieleman (2008), ICML, 1064-1071.
    """

    draws: ClassVar[bool] = False

    def of_one_example(self) -> NoReturn:
        raise TypeError(
            "ContrastiveDivergence got start='persistent' and data with inputs: the chains would "
            "pass from the distribution of one example to that of another. Use start='data' or "
            "'noise'."
        )

    def init(self, walkers: Walkers, *, key: Array) -> Any:
        return walkers.anew(key=key)

    def begin(
        self, walkers: Walkers, state: Any, examples: Configuration, *, key: Array
    ) -> tuple[Any, None]:
        return walkers.ensemble.refresh(walkers.ebm, state), None

    def keep(self, walkers: Walkers, state: Any, begun: None, carry: Any) -> Any:
        return carry
