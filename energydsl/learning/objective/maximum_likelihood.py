"""Exact maximum likelihood."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from energydsl._messages import described
from energydsl._types import Configuration
from energydsl.analysis.value_checks import no_growth
from energydsl.compiler.ebm import EBM, log_partition
from energydsl.learning.divergence import LossKind
from energydsl.learning.objective.base import AbstractObjective, DoesNotFit
from energydsl.learning.shown import energy_shown, why_not_summed
from energydsl.normalizer import Intractable


@described
class MaximumLikelihood(AbstractObjective):
    r"""Maximum likelihood: minus the mean log-likelihood, $\frac1n \sum_i F(v_i) + \log Z$.

    $F$ is the energy, or the free energy if there are latents or missing entries, which are summed
    out. Both terms are computed exactly, so the loss is the negative log-likelihood in nats per
    example.

    Source: Ackley, Hinton & Sejnowski (1985), Cognitive Science 9(1), 147-169, eq. (8).
    """

    missing_entries: ClassVar[bool] = True
    loss_kind: ClassVar[LossKind] = "measure"

    def check(self, ebm: EBM, data: Configuration) -> None:
        if isinstance(ebm.normalizer, Intractable):
            raise DoesNotFit(f"MaximumLikelihood needs exact log Z, which is {ebm.normalizer}.")
        reason = why_not_summed(ebm, data)
        if reason is not None:
            raise DoesNotFit(
                f"MaximumLikelihood needs all that data do not show summed out exactly. {reason}."
            )

        lost = no_growth(ebm.structure, ebm.model)
        if lost is not None:
            raise ValueError(
                f"MaximumLikelihood cannot compute log Z at the initial parameters: {lost}."
            )

    def init(self, ebm: EBM, data: Configuration, *, key: Array) -> None:
        return None

    def loss(
        self, ebm: EBM, batch: Configuration, state: None, *, key: Array
    ) -> tuple[Array, tuple[None, dict[str, Array]]]:
        free = energy_shown(ebm)
        data_term = jnp.mean(jax.vmap(free)(batch))
        return data_term + log_partition(ebm), (None, {})
