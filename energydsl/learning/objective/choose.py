"""Which objectives apply to a model and its data: the one place that names others."""

from __future__ import annotations

from energydsl._types import Configuration, IntractableError
from energydsl.compiler.ebm import EBM
from energydsl.learning.objective.base import AbstractObjective, DoesNotFit, check_fits
from energydsl.learning.objective.contrastive_divergence import ContrastiveDivergence
from energydsl.learning.objective.maximum_likelihood import MaximumLikelihood
from energydsl.learning.objective.noise_contrastive import NoiseContrastive
from energydsl.learning.objective.pseudo_likelihood import PseudoLikelihood
from energydsl.learning.objective.ratio_matching import RatioMatching
from energydsl.learning.objective.score_matching import ScoreMatching

OBJECTIVES: tuple[type[AbstractObjective], ...] = (
    MaximumLikelihood,
    PseudoLikelihood,
    RatioMatching,
    ScoreMatching,
    NoiseContrastive,
    ContrastiveDivergence,
)
"""The objectives that are suggested, in this order. Each has settings that serve by default."""


def check_applies(objective: AbstractObjective, ebm: EBM, data: Configuration) -> None:
    """Raise TypeError or ValueError unless an objective applies to a model and its data.

    If it does not fit them, the message names those that do.
    """
    try:
        check_fits(objective, ebm, data)
    except DoesNotFit as error:
        others = [f"{kind.__name__}()" for kind in OBJECTIVES if _fits(kind, ebm, data)]
        *most, last = others or ["no objective of this package"]
        listed = f"{', '.join(most)} or {last}" if most else last
        raise TypeError(f"{error} Use {listed}.") from None


def _fits(kind: type[AbstractObjective], ebm: EBM, data: Configuration) -> bool:
    """Whether an objective with its default settings applies."""
    try:
        check_fits(kind(), ebm, data)
    except (TypeError, ValueError, IntractableError):
        return False
    return True
