"""Sites with finitely many levels, whatever their energies."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import jax.random as jr
import numpyro.distributions as dist
from jax import Array

from energydsl.analysis.conditional.base import AbstractConditional
from energydsl.analysis.structure import Structure
from energydsl.language.domain import AbstractDomain
from energydsl.language.variable import Variable


class LevelConditional(AbstractConditional):
    r"""The distribution $p(v) \propto e^{-g(v)}$ of a site with finitely many levels.

    It is determined by the energy at each level.
    """

    derivatives: ClassVar[int] = 0
    no_law: ClassVar[str] = (
        "has no level that is allowed: given the other sites, every level has zero weight"
    )

    @classmethod
    def serves(cls, domain: AbstractDomain) -> bool:
        return domain.levels is not None

    @classmethod
    def refusal(cls, structure: Structure, variable: Variable) -> str | None:
        return None

    def draw(self, total: Array, *, key: Array) -> Array:
        lowest = jnp.min(total, axis=0)
        # Where all levels have zero weight there is no conditional distribution; the chain is
        # outside the support, and a uniform draw lets it go on.
        weights = jnp.where(jnp.isinf(lowest), 1.0, jnp.exp(lowest - total))
        ladder = jnp.cumsum(weights, axis=0)
        # In (0, 1], so that neither a first nor a last level of weight 0 is ever drawn.
        height = (1.0 - jr.uniform(key, total.shape[1:])) * ladder[-1]
        level = jnp.sum(height > ladder, axis=0)
        return jnp.asarray(self.domain.values, self.domain.dtype)[level]

    def energies(self, total: Array) -> Array:
        """The energy at each level, up to a constant."""
        return total

    def distribution(self, total: Array) -> Any:
        # NumPyro's validation would refuse the infinite logit of a forbidden level.
        return dist.Categorical(logits=-jnp.moveaxis(total, 0, -1), validate_args=False)

    def log_normalizer(self, total: Array) -> Array:
        return log_sum(-total)

    def mean(self, total: Array) -> Array:
        return jnp.tensordot(self.numbers, jax.nn.softmax(-total, axis=0), axes=1)

    def improper(self, total: Array) -> Array:
        return ~jnp.isfinite(jnp.min(total, axis=0))


def log_sum(logs: Array) -> Array:
    """The log of the sum of exponentials over the first axis; where all are -inf, it is constant.

    The derivative of `jax.nn.logsumexp` is NaN there, which would spoil all marginals.
    """
    never = jnp.all(jnp.isneginf(logs), axis=0)
    return jnp.where(never, -jnp.inf, jax.nn.logsumexp(jnp.where(never, 0.0, logs), axis=0))
