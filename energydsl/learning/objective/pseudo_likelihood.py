"""Pseudo-likelihood: every site is predicted from all others, without log Z."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from jax import Array

from energydsl._messages import described
from energydsl._types import Configuration
from energydsl.analysis.incidence import SiteFactors
from energydsl.compiler.ebm import EBM
from energydsl.learning.divergence import LossKind
from energydsl.learning.latent import visible
from energydsl.learning.objective.base import AbstractObjective
from energydsl.learning.objective.conditionals import (
    blocks_of,
    check_conditionals,
    free_sites,
    law_of,
    levels_of,
    measured,
)


@described
class PseudoLikelihood(AbstractObjective):
    r"""Minus the mean log pseudo-likelihood, $-\sum_i \log p(x_i \mid x_{-i})$ over all sites.

    Every site needs a conditional distribution of a known family: finite, Gaussian or exponential.
    The estimator is consistent: with enough data it approaches the maximum-likelihood estimate. One
    step of learning costs about as much as one Gibbs sweep.

    Source: Besag (1975), The Statistician 24(3), 179-195.
    """

    loss_kind: ClassVar[LossKind] = "measure"

    def check(self, ebm: EBM, data: Configuration) -> None:
        check_conditionals("PseudoLikelihood", ebm, data)

    def init(self, ebm: EBM, data: Configuration, *, key: Array) -> dict[str, SiteFactors]:
        return blocks_of(ebm)

    def loss(
        self, ebm: EBM, batch: Configuration, state: dict[str, SiteFactors], *, key: Array
    ) -> tuple[Array, tuple[dict[str, SiteFactors], dict[str, Array]]]:
        numbers, total = measured(ebm, batch, state), jnp.zeros(())
        for v in visible(ebm):
            law, seen = law_of(ebm, v), levels_of(v, batch)
            said = jnp.asarray(law.distribution(numbers[v.name]).log_prob(seen))
            total -= jnp.sum(jnp.where(free_sites(ebm, v), said, 0.0)) / len(seen)
        return total, (state, {})
