"""Sites with finitely many levels, whatever their energies."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array

from energydsl.analysis.conditional.base import AbstractConditional
from energydsl.analysis.structure import Structure
from energydsl.analysis.uniform import uniform
from energydsl.language.domain import AbstractDomain
from energydsl.language.variable import Variable


class AbstractLevels(AbstractConditional):
    """The distribution of a site with finitely many levels, from the energy at each of them."""

    @classmethod
    def serves(cls, domain: AbstractDomain) -> bool:
        return domain.levels is not None

    @abc.abstractmethod
    def energies(self, total: Array) -> Array:
        """The energy of each level, (level, *site), up to a constant for each site.

        With derivatives, the energy at 0 is 0.
        """

    def distribution(self, total: Array) -> Any:
        # NumPyro's validation would refuse the infinite logit of a forbidden level.
        logits = -jnp.moveaxis(self.energies(total), 0, -1)
        return dist.Categorical(logits=logits, validate_args=False)

    def log_normalizer(self, total: Array) -> Array:
        return log_sum(-self.energies(total))

    def mean(self, total: Array) -> Array:
        return jnp.tensordot(self.numbers, jax.nn.softmax(-self.energies(total), axis=0), axes=1)


class AbstractNumbers(AbstractLevels):
    """The distribution of a site whose levels are numbers, from derivatives of the energy."""

    @classmethod
    def serves(cls, domain: AbstractDomain) -> bool:
        return super().serves(domain) and np.issubdtype(domain.energy_dtype, np.floating)


class LevelConditional(AbstractLevels):
    r"""The distribution $p(v) \propto e^{-g(v)}$ of a site with finitely many levels.

    It is determined by the energy at each level.
    """

    derivatives: ClassVar[int] = 0
    no_law: ClassVar[str] = (
        "has no level that is allowed: given the other sites, every level has zero weight"
    )

    @classmethod
    def refusal(cls, structure: Structure, variable: Variable) -> str | None:
        return None

    def energies(self, total: Array) -> Array:
        return total

    def draw(self, total: Array, *, key: Array) -> Array:
        level = drawn_level(total, uniform(key, total.shape[1:]))
        return jnp.asarray(self.domain.values, self.domain.dtype)[level]

    def improper(self, total: Array) -> Array:
        return ~jnp.isfinite(jnp.min(total, axis=0))


def drawn_level(total: Array, uniform: Array) -> Array:
    """The number of a level drawn by its energy; levels are along the first axis.

    Args:
        total: the energies, infinite where a level is forbidden.
        uniform: a random number in [0, 1) for each draw.
    """
    lowest = jnp.min(total, axis=0)
    # Where all levels have zero weight there is no conditional distribution; the chain is outside
    # the support, and a uniform draw lets it go on.
    weights = jnp.where(jnp.isinf(lowest), 1.0, jnp.exp(lowest - total))
    ladder = jnp.cumsum(weights, axis=0)
    # In (0, 1], so that neither a first nor a last level of weight 0 is ever drawn.
    height = (1.0 - uniform) * ladder[-1]
    return jnp.sum(height > ladder, axis=0)


def log_sum(logs: Array) -> Array:
    """The log of the sum of exponentials over the first axis; where all are -inf, it is constant.

    The derivative of `jax.nn.logsumexp` is NaN there, which would spoil all marginals.
    """
    never = jnp.all(jnp.isneginf(logs), axis=0)
    return jnp.where(never, -jnp.inf, jax.nn.logsumexp(jnp.where(never, 0.0, logs), axis=0))
