"""Objectives of learning, one per file."""

from energydsl.learning.objective.adversarial import Adversarial as Adversarial
from energydsl.learning.objective.base import AbstractObjective as AbstractObjective
from energydsl.learning.objective.contrastive_divergence import (
    ContrastiveDivergence as ContrastiveDivergence,
)
from energydsl.learning.objective.maximum_entropy import MaximumEntropy as MaximumEntropy
from energydsl.learning.objective.maximum_likelihood import MaximumLikelihood as MaximumLikelihood
from energydsl.learning.objective.noise_contrastive import NoiseContrastive as NoiseContrastive
from energydsl.learning.objective.pseudo_likelihood import PseudoLikelihood as PseudoLikelihood
from energydsl.learning.objective.ratio_matching import RatioMatching as RatioMatching
from energydsl.learning.objective.score_matching import ScoreMatching as ScoreMatching
from energydsl.learning.objective.variational import Variational as Variational
