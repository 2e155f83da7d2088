"""Pseudo-likelihood: every site predicted from all others, without Z."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl._types import Configuration, Refusal
from energydsl.analysis.conditional import AbstractConditional, Linear
from energydsl.compiler.ebm import EBM
from energydsl.language.variable import Variable
from energydsl.learning.latent import latent, visible
from energydsl.learning.objective.base import AbstractObjective
from energydsl.sweep.base import conditionals
from energydsl.sweep.gather import GatherBlock, first_of, gather_block, load_block, totals


class PseudoLikelihood(AbstractObjective):
    r"""Minus the mean log pseudo-likelihood, $-\sum_i \log p(x_i \mid x_{-i})$, all sites at once.

    Sites are finite, or real with Gaussian conditionals. Consistent: with data enough it finds
    what maximum likelihood finds, at the cost of one sweep a step.

    Source: Besag (1975), The Statistician 24(3), 179-195.
    """

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
                    f"of a known family ({law.reason}). Use ScoreMatching() where all is real, "
                    "else ContrastiveDivergence()."
                )
        self._blocks(ebm)

    def init(self, ebm: EBM, data: Configuration, *, key: Array) -> dict[str, GatherBlock]:
        return self._blocks(ebm)

    def loss(
        self, ebm: EBM, batch: Configuration, state: dict[str, GatherBlock], *, key: Array
    ) -> tuple[Array, tuple[dict[str, GatherBlock], dict[str, Array]]]:
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

    def _blocks(self, ebm: EBM) -> dict[str, GatherBlock]:
        """The incidences of the variables whose laws one gradient does not show."""
        blocks = {}
        for v in visible(ebm):
            law = _law(ebm, v)
            if isinstance(law, Linear):
                continue
            every = np.arange(v.size, dtype=np.int32).reshape(1, -1)
            block = gather_block(ebm.structure, v, law, every)
            if isinstance(block, Refusal):
                raise TypeError(f"PseudoLikelihood is out of reach: {block.reason}.")
            blocks[v.name] = block
        return blocks


def _law(ebm: EBM, v: Variable) -> AbstractConditional:
    law = conditionals(ebm.structure)[v.name]
    assert isinstance(law, AbstractConditional)
    return law


def _slopes(ebm: EBM, batch: Configuration) -> dict[str, Array]:
    """Measures, (measure, example, site), of the sites in which the energy is linear.

    There dE/dx_i does not depend on x_i, so one gradient measures all sites.
    """
    linear = [v for v in visible(ebm) if isinstance(_law(ebm, v), Linear)]
    if not linear:
        return {}

    def slopes(x: Configuration) -> dict[str, Array]:
        moving = {v.name: x[v.name].astype(v.domain.energy_dtype) for v in linear}
        slope = jax.grad(lambda m: ebm.energy({**x, **m}))(moving)
        return {n: s.ravel() for n, s in slope.items()}

    return {n: s[None] for n, s in jax.vmap(slopes)(batch).items()}


def _gathered(ebm: EBM, batch: Configuration, blocks: dict[str, GatherBlock]) -> dict[str, Array]:
    """Measures of the other sites, from the factors that each is in."""
    free = ebm.structure.skeleton.free
    values = jax.vmap(ebm.model.complete)(batch)
    state: dict[str, Any] = {v.name: values[v.name].reshape(-1, v.size).T for v in free}
    env = ebm.model.environment(ebm.model.evidence)
    measured = {}
    for name, block in blocks.items():
        each, shared = load_block(ebm.structure, free, block, env)
        block, each = first_of((block, each))
        total = totals(ebm.structure, block, (each, shared), state)
        measured[name] = jnp.swapaxes(total, 1, 2)
    return measured
