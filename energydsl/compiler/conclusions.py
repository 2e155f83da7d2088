"""What the compiler concluded about a model, held apart from the model's numbers."""

from __future__ import annotations

from energydsl._identity import Content, Known, content
from energydsl._types import Refusal
from energydsl.analysis.structure import Structure
from energydsl.language.model import Model
from energydsl.language.skeleton import Skeleton
from energydsl.normalizer import RULES, AbstractRule, Budget, Normalizer, Survey


class Findings(Known):
    """What the compiler concluded: one static object.

    Equal where structure, budget and rules are; rules are known by type, settings and code.
    """

    def __init__(
        self,
        structure: Structure,
        budget: Budget,
        rules: tuple[AbstractRule, ...],
        lowerings: tuple[tuple[str, Refusal | None], ...],
    ) -> None:
        self.structure = structure
        self.lowerings = lowerings
        """The lowerings of a sweep that were considered, in order, with why not."""
        self.budget = budget
        self.rules = rules
        """Those for exact log Z that the user gave."""
        self.survey = Survey(structure, budget, (*rules, *RULES))
        """What each rule offers."""
        self.seconds = 0.0
        """How long the compiler took."""
        self._content = content(structure.skeleton, budget, rules)
        self._normalizers: dict[Skeleton, Normalizer] = {}

    def normalizer_of(self, rest: Model) -> Normalizer:
        """Of the same model with more of it held: found once for each set of sites."""
        if rest.skeleton not in self._normalizers:
            survey = Survey(Structure(rest), self.budget, self.survey.rules)
            self._normalizers[rest.skeleton] = survey.choose()
        return self._normalizers[rest.skeleton]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Findings) and other.content == self.content

    def __hash__(self) -> int:
        return hash(self._content)

    @property
    def content(self) -> Content:
        """What the rest follows from: the structure, the budget, the rules."""
        return self._content
