"""Ratio matching: every site's conditional probabilities are fitted, without log Z."""

from __future__ import annotations

from typing import ClassVar

import jax.nn as nn
import jax.numpy as jnp
from jax import Array

from energydsl._messages import described
from energydsl._types import Configuration
from energydsl.analysis.incidence import SiteFactors
from energydsl.compiler.ebm import EBM
from energydsl.learning.divergence import LossKind
from energydsl.learning.latent import visible
from energydsl.learning.objective.base import AbstractObjective, DoesNotFit
from energydsl.learning.objective.conditionals import (
    blocks_of,
    check_conditionals,
    free_sites,
    law_of,
    levels_of,
    measured,
)


@described
class RatioMatching(AbstractObjective):
    r"""Ratio matching: $\sum_i (1 - p(x_i \mid x_{-i}))^2$ for sites of two levels.

    It fits the ratios $p(x) / p(x^{(i)})$, where $x^{(i)}$ is x with site i at its other level, to
    those of the data. For sites of more levels, it is half the Brier score of every conditional,
    $\tfrac12 \sum_i \sum_k (p(k \mid x_{-i}) - [x_i = k])^2$, which for two levels is the same.
    The Brier score is strictly proper, so that the estimator is consistent, as pseudo-likelihood,
    the log score of the same conditionals, is. A site's loss is at most 1: a few examples that the
    model cannot explain change the estimate less than they change that of pseudo-likelihood.

    Source: Hyvarinen (2007), Computational Statistics & Data Analysis 51(5), 2499-2512;
    for more levels: Dawid, Lauritzen & Parry (2012), Annals of Statistics 40(1), 593-608.
    """

    loss_kind: ClassVar[LossKind] = "measure"

    def check(self, ebm: EBM, data: Configuration) -> None:
        many = [str(v) for v in visible(ebm) if v.domain.levels is None]
        if many:
            raise DoesNotFit(
                f"RatioMatching needs sites with finitely many levels, which {many} do not have."
            )
        check_conditionals("RatioMatching", ebm, data)

    def init(self, ebm: EBM, data: Configuration, *, key: Array) -> dict[str, SiteFactors]:
        return blocks_of(ebm)

    def loss(
        self, ebm: EBM, batch: Configuration, state: dict[str, SiteFactors], *, key: Array
    ) -> tuple[Array, tuple[dict[str, SiteFactors], dict[str, Array]]]:
        numbers, total = measured(ebm, batch, state), jnp.zeros(())
        for v in visible(ebm):
            seen = levels_of(v, batch)
            probs = jnp.asarray(law_of(ebm, v).distribution(numbers[v.name]).probs)
            gaps = probs - nn.one_hot(seen, probs.shape[-1])
            score = jnp.sum(gaps**2, axis=-1) / 2
            total += jnp.sum(jnp.where(free_sites(ebm, v), score, 0.0)) / len(seen)
        return total, (state, {})
