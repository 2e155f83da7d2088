"""Proven bounds on both sides."""

from __future__ import annotations

import equinox as eqx
import jax.random as jr
from jax import Array

from energydsl._messages import described
from energydsl.compiler.ebm import EBM
from energydsl.estimator.base import AbstractEstimator
from energydsl.estimator.mean_field import MeanField
from energydsl.estimator.tree_reweighted import TreeReweighted
from energydsl.normalizer.log_z import LogZ


@described
class Bounds(AbstractEstimator):
    """Proven bounds: `MeanField` below and `TreeReweighted` above, for pairwise finite models.

    Args:
        below: the lower bound.
        above: the upper bound.

    Raises:
        TypeError, ValueError: as of the two.
    """

    below: MeanField = eqx.field(default_factory=MeanField)
    above: TreeReweighted = eqx.field(default_factory=TreeReweighted)

    def estimate(self, ebm: EBM, *, key: Array) -> LogZ:
        below_key, above_key = jr.split(key)
        # The upper bound comes first: it tells where Z = 0.
        above = self.above.estimate(ebm, key=above_key)
        below = self.below.estimate(ebm, key=below_key)
        return LogZ.proven(below.lower, above.upper, "bounds", below.doubts)

    def doubled(self) -> Bounds:
        return Bounds(self.below.doubled(), self.above.doubled())
