"""Estimators of log Z, one per file."""

from energydsl.estimator.ais import AIS as AIS
from energydsl.estimator.ais import ReverseAIS as ReverseAIS
from energydsl.estimator.base import AbstractEstimator as AbstractEstimator
from energydsl.estimator.belief_propagation import BeliefPropagation as BeliefPropagation
from energydsl.estimator.bounds import Bounds as Bounds
from energydsl.estimator.bracket import Bracket as Bracket
from energydsl.estimator.mbar import MBAR as MBAR
from energydsl.estimator.mean_field import MeanField as MeanField
from energydsl.estimator.smc import SMC as SMC
from energydsl.estimator.thermodynamic import (
    ThermodynamicIntegration as ThermodynamicIntegration,
)
from energydsl.estimator.tree_reweighted import TreeReweighted as TreeReweighted
