"""What the compiler concluded about a model, held apart from the model's numbers."""

from __future__ import annotations

from energydsl._types import Refusal
from energydsl.model import Model, Skeleton
from energydsl.normalizer import Normalizer, choose
from energydsl.structure import Structure


class Findings:
    """What the compiler concluded: one static object, equal where structure and budget are."""

    def __init__(
        self,
        structure: Structure,
        normalizer: Normalizer,
        lowerings: tuple[tuple[str, Refusal | None], ...],
        budget: int,
        seconds: float,
    ) -> None:
        self.structure = structure
        self.normalizer = normalizer
        self.lowerings = lowerings
        """The lowerings of a sweep that were considered, in order, with why not."""
        self.budget = budget
        self.seconds = seconds
        self._normalizers: dict[Skeleton, Normalizer] = {}

    def normalizer_of(self, rest: Model) -> Normalizer:
        """Of the same model with more of it held: found once for each set of sites."""
        if rest.skeleton not in self._normalizers:
            self._normalizers[rest.skeleton] = choose(Structure(rest), self.budget)
        return self._normalizers[rest.skeleton]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Findings):
            return False
        return other.budget == self.budget and other.structure == self.structure

    def __hash__(self) -> int:
        return hash((self.structure, self.budget))
