"""Estimators of log Z, one per file."""

from energydsl.estimator.ais import AIS as AIS
from energydsl.estimator.base import AbstractEstimator as AbstractEstimator
