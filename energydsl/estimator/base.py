"""The contract of an estimator of log Z."""

from __future__ import annotations

import abc

import equinox as eqx
from jax import Array

from energydsl.compiler.ebm import EBM
from energydsl.normalizer.log_z import LogZ


class AbstractEstimator(eqx.Module):
    """A method that estimates log Z."""

    @abc.abstractmethod
    def estimate(self, ebm: EBM, *, key: Array) -> LogZ:
        """Log Z with its error, of kind "estimate" or "bound".

        Raises:
            TypeError, ValueError: the estimator's own arguments do not fit the model.
        """
