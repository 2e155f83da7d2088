"""Pseudo-likelihood: every site is predicted from all others, without log Z."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl._messages import described
from energydsl._types import Configuration, Refusal
from energydsl.analysis.conditional import AbstractConditional, conditional_for, conditionals
from energydsl.analysis.incidence import SiteFactors, measures, no_law, site_factors
from energydsl.compiler.ebm import EBM
from energydsl.language.variable import Variable
from energydsl.learning.divergence import LossKind
from energydsl.learning.latent import latent, visible
from energydsl.learning.objective.base import AbstractObjective


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
        hidden = [w.name for w in latent(ebm)]
        if hidden:
            raise TypeError(
                f"PseudoLikelihood predicts each site from all others, and data does not show "
                f"{hidden}. Use ContrastiveDivergence(), or MaximumLikelihood() where log Z is "
                "exact."
            )
        for name, law in conditionals(ebm.structure).items():
            if isinstance(law, Refusal):
                raise TypeError(
                    f"PseudoLikelihood needs the conditional of every site, and {name!r} has none "
                    f"of a known family ({law.reason}). Use ScoreMatching() if all variables are "
                    "real, else ContrastiveDivergence()."
                )
        self._blocks(ebm)
        wrong = no_law(ebm.structure, ebm.model, jax.tree.map(lambda a: a[0], data))
        if wrong is not None:
            raise ValueError(
                f"PseudoLikelihood needs the conditional of every site, but at the first example "
                f"{wrong}. Start from parameters for which it exists."
            )

    def init(self, ebm: EBM, data: Configuration, *, key: Array) -> dict[str, SiteFactors]:
        return self._blocks(ebm)

    def loss(
        self, ebm: EBM, batch: Configuration, state: dict[str, SiteFactors], *, key: Array
    ) -> tuple[Array, tuple[dict[str, SiteFactors], dict[str, Array]]]:
        measured = _slopes(ebm, batch) | _gathered(ebm, batch, state)
        size = len(next(iter(batch.values())))
        total = jnp.zeros(())
        for v in visible(ebm):
            law = _law(ebm, v)
            seen = batch[v.name].reshape(size, -1)
            if v.domain.levels is not None:
                seen = jnp.searchsorted(jnp.asarray(v.domain.values), seen)
            said = jnp.asarray(law.distribution(measured[v.name]).log_prob(seen))
            free = ~ebm.structure.skeleton.mask(v).ravel()
            total -= jnp.sum(jnp.where(free, said, 0.0)) / size
        return total, (state, {})

    def _blocks(self, ebm: EBM) -> dict[str, SiteFactors]:
        """The site factors of the variables whose conditionals do not follow from one gradient."""
        blocks = {}
        for v in visible(ebm):
            law = _law(ebm, v)
            if law.derivatives == 1:
                continue
            every = np.arange(v.size, dtype=np.int32).reshape(1, -1)
            block = site_factors(ebm.structure, v, law, every)
            if isinstance(block, Refusal):
                raise TypeError(f"PseudoLikelihood does not apply: {block.reason}.")
            blocks[v.name] = block
        return blocks


def _law(ebm: EBM, v: Variable) -> AbstractConditional:
    law = conditional_for(ebm.structure, v)
    assert isinstance(law, AbstractConditional)
    return law


def _slopes(ebm: EBM, batch: Configuration) -> dict[str, Array]:
    """Measures, (measure, example, site), of the sites in which the energy is linear.

    For these, dE/dx_i does not depend on x_i, so one gradient gives the measures of all sites.
    """
    linear = [v for v in visible(ebm) if _law(ebm, v).derivatives == 1]
    if not linear:
        return {}

    def slopes(x: Configuration) -> dict[str, Array]:
        moving = {v.name: x[v.name].astype(v.domain.energy_dtype) for v in linear}
        slope = jax.grad(lambda m: ebm.energy({**x, **m}))(moving)
        return {n: s.ravel() for n, s in slope.items()}

    return {n: s[None] for n, s in jax.vmap(slopes)(batch).items()}


def _gathered(ebm: EBM, batch: Configuration, blocks: dict[str, SiteFactors]) -> dict[str, Array]:
    """Measures of the other sites, from the factors that contain them."""
    return {
        name: jnp.swapaxes(measures(ebm.structure, ebm.model, block, batch), 1, 2)
        for name, block in blocks.items()
    }
