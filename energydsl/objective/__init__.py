"""Objectives: what learning goes down, one a file."""

from energydsl.objective.base import AbstractObjective as AbstractObjective
from energydsl.objective.contrastive_divergence import (
    ContrastiveDivergence as ContrastiveDivergence,
)
from energydsl.objective.maximum_likelihood import MaximumLikelihood as MaximumLikelihood
from energydsl.objective.pseudo_likelihood import PseudoLikelihood as PseudoLikelihood
from energydsl.objective.score_matching import ScoreMatching as ScoreMatching
