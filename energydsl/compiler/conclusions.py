"""What the compiler concluded about a model: it does not depend on the model's numbers."""

from __future__ import annotations

from energydsl._identity import Content, Known, content
from energydsl.analysis.structure import Structure
from energydsl.language.model import Model
from energydsl.language.skeleton import Skeleton
from energydsl.normalizer import RULES, AbstractRule, Budget, Normalizer, Survey
from energydsl.normalizer.base import Question
from energydsl.sweep import Considered


class Conclusions(Known):
    """What the compiler concluded, as one static object.

    Two are equal if their structures, budgets and rules are. Rules are compared by type, settings
    and source code.
    """

    def __init__(
        self,
        structure: Structure,
        budget: Budget,
        rules: tuple[AbstractRule, ...],
        lowerings: Considered,
    ) -> None:
        self.structure = structure
        self.lowerings = lowerings
        """Each lowering of the Gibbs sweep, with its cost or the reason why it does not apply."""
        self.budget = budget
        self.rules = rules
        """The user's own rules for exact log Z."""
        self.survey = Survey(structure, budget, (*rules, *RULES))
        """The offers of all rules."""
        self.seconds = 0.0
        """The compile time in seconds."""
        self._content = content(structure.skeleton, budget, rules)
        self._normalizers: dict[tuple[Skeleton, Question], Normalizer] = {}

    def normalizer_of(self, rest: Model, question: Question = "log_partition") -> Normalizer:
        """The plans for a model made from this one: other sites clamped, or terms added.

        They obey the same budget and rules, and are cached by the structure.
        """
        asked = rest.skeleton, question
        if asked not in self._normalizers:
            survey = Survey(Structure(rest), self.budget, self.survey.rules)
            self._normalizers[asked] = survey.choose(question)
        return self._normalizers[asked]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Conclusions) and other.content == self.content

    def __hash__(self) -> int:
        return hash(self._content)

    @property
    def content(self) -> Content:
        """What determines all conclusions: the structure, the budget and the rules."""
        return self._content
