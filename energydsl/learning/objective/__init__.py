"""Objectives of learning, one per file."""

from energydsl.learning.objective.base import AbstractObjective as AbstractObjective
from energydsl.learning.objective.contrastive_divergence import (
    ContrastiveDivergence as ContrastiveDivergence,
)
from energydsl.learning.objective.maximum_likelihood import MaximumLikelihood as MaximumLikelihood
from energydsl.learning.objective.pseudo_likelihood import PseudoLikelihood as PseudoLikelihood
from energydsl.learning.objective.score_matching import ScoreMatching as ScoreMatching
from energydsl.learning.objective.variational import Variational as Variational
