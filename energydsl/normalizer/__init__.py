"""Rules for exact log Z, one per file, and the choice of a rule for each connected component."""

from __future__ import annotations

from energydsl.normalizer.base import AbstractPlan as AbstractPlan
from energydsl.normalizer.base import AbstractRule as AbstractRule
from energydsl.normalizer.base import Budget as Budget
from energydsl.normalizer.base import Exact as Exact
from energydsl.normalizer.base import Intractable as Intractable
from energydsl.normalizer.base import Normalizer as Normalizer
from energydsl.normalizer.base import Numerical as Numerical
from energydsl.normalizer.base import Offer as Offer
from energydsl.normalizer.base import Question as Question
from energydsl.normalizer.bipartite import Bipartite
from energydsl.normalizer.choice import Survey as Survey
from energydsl.normalizer.conditional_gaussian.rule import ConditionalGaussian
from energydsl.normalizer.directed import Directed
from energydsl.normalizer.elimination.rule import Elimination
from energydsl.normalizer.enumeration import Enumeration, Independent
from energydsl.normalizer.evaluate import error_of as error_of
from energydsl.normalizer.evaluate import log_partition_of as log_partition_of
from energydsl.normalizer.evaluate import slopes_of as slopes_of
from energydsl.normalizer.evaluate import trouble as trouble
from energydsl.normalizer.exponential_family import ExponentialFamily
from energydsl.normalizer.gaussian.dense import Gaussian
from energydsl.normalizer.gaussian.sparse import SparseGaussian
from energydsl.normalizer.planar import Planar
from energydsl.normalizer.quadrature.rule import Quadrature

RULES: tuple[AbstractRule, ...] = (
    Directed(),
    Independent(),
    Gaussian(),
    SparseGaussian(),
    ExponentialFamily(),
    Bipartite(),
    Enumeration(),
    Elimination(),
    ConditionalGaussian(),
    Planar(),
    Quadrature(),
)
"""Every rule that is tried. A new rule is a new file in this folder and an entry in this tuple."""
