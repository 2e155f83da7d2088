"""Sites with finitely many numbers as levels, in which the energy is linear."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl.analysis.conditional.levels import AbstractNumbers, LevelConditional
from energydsl.analysis.structure import Structure
from energydsl.analysis.uniform import open_uniform, uniform
from energydsl.language.variable import Variable

FLAT = 1e-30
"""A slope below which all levels are equally probable to many more digits than floats have."""


class SlopeConditional(AbstractNumbers):
    r"""The distribution $p(v) \propto e^{-b v}$ of a site with finitely many numbers as levels.

    It is determined by the slope $b$. For two levels $v_0 < v_1$,
    $p(v_1) = \sigma(-b (v_1 - v_0))$. For m consecutive integers, the number of steps k from the
    more probable end has $P(k < j) = (1 - e^{-|b| j}) / (1 - e^{-|b| m})$, which is inverted.
    """

    derivatives: ClassVar[int] = 1
    no_law: ClassVar[str] = "is undefined: the slope of its energy is NaN"

    @classmethod
    def refusal(cls, structure: Structure, variable: Variable) -> str | None:
        degree = structure.degree_in(variable)
        return None if degree <= 1 else "its energy is not shown to be linear in single sites"

    def energies(self, total: Array) -> Array:
        return jnp.tensordot(self.numbers, total[0], axes=0)

    def draw(self, total: Array, *, key: Array) -> Array:
        levels = self.domain.values
        if len(levels) == 2:
            low, high = (int(v) for v in levels)
            up = uniform(key, total.shape[1:]) < jax.nn.sigmoid((low - high) * total[0])
            return jnp.where(up, *jnp.asarray([high, low], self.domain.dtype))
        if np.all(np.diff(levels) == 1):
            return self._inverted(total[0], open_uniform(key, total.shape[1:]))
        return LevelConditional(self.domain).draw(self.energies(total), key=key)

    def _inverted(self, slope: Array, u: Array) -> Array:
        """The draws that belong to uniform numbers, for consecutive levels."""
        levels, rate = self.domain.values, jnp.abs(slope)
        share = -jnp.expm1(-rate * len(levels))
        # Below the smallest normal number, rate and share would be rounded to 0.
        steps = jnp.where(
            rate > FLAT, -jnp.log1p(-u * share) / jnp.maximum(rate, FLAT), u * len(levels)
        )
        steps = jnp.minimum(steps.astype(self.domain.dtype), len(levels) - 1)
        return jnp.where(slope > 0, int(levels[0]) + steps, int(levels[-1]) - steps)

    def log_normalizer(self, total: Array) -> Array:
        if len(self.domain.values) != 2:
            return super().log_normalizer(total)
        low, high = (int(v) for v in self.domain.values)
        return -low * total[0] + jax.nn.softplus((low - high) * total[0])

    def mean(self, total: Array) -> Array:
        if len(self.domain.values) != 2:
            return super().mean(total)
        low, high = (int(v) for v in self.domain.values)
        return low + (high - low) * jax.nn.sigmoid((low - high) * total[0])

    def improper(self, total: Array) -> Array:
        return jnp.isnan(total[0])
