"""Estimators of log Z, one a file."""

from energydsl.estimator.ais import AIS as AIS
from energydsl.estimator.base import AbstractEstimator as AbstractEstimator
