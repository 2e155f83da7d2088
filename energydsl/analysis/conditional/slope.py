"""Sites with finitely many numbers as levels, in which the energy is linear."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array

from energydsl.analysis.conditional.base import AbstractConditional
from energydsl.analysis.conditional.levels import LevelConditional
from energydsl.analysis.structure import Structure
from energydsl.language.domain import AbstractDomain
from energydsl.language.variable import Variable


class SlopeConditional(AbstractConditional):
    r"""The distribution $p(v) \propto e^{-b v}$ of a site with finitely many numbers as levels.

    It is determined by the slope $b$. For two levels $v_0 < v_1$,
    $p(v_1) = \sigma(-b (v_1 - v_0))$.
    """

    derivatives: ClassVar[int] = 1
    no_law: ClassVar[str] = "is undefined: the slope of its energy is NaN"

    @classmethod
    def serves(cls, domain: AbstractDomain) -> bool:
        floating = np.issubdtype(domain.energy_dtype, np.floating)
        return LevelConditional.serves(domain) and floating

    @classmethod
    def refusal(cls, structure: Structure, variable: Variable) -> str | None:
        degree = structure.degree_in(variable)
        return None if degree <= 1 else "its energy is not shown to be linear in single sites"

    def draw(self, total: Array, *, key: Array) -> Array:
        levels = self.domain.values
        if len(levels) != 2:
            return LevelConditional(self.domain).draw(self.energies(total), key=key)
        low, high = (int(v) for v in levels)
        up = jr.uniform(key, total.shape[1:]) < jax.nn.sigmoid((low - high) * total[0])
        return jnp.where(up, *jnp.asarray([high, low], self.domain.dtype))

    def distribution(self, total: Array) -> Any:
        return LevelConditional(self.domain).distribution(self.energies(total))

    def log_normalizer(self, total: Array) -> Array:
        if len(self.domain.values) != 2:
            return LevelConditional(self.domain).log_normalizer(self.energies(total))
        low, high = (int(v) for v in self.domain.values)
        return -low * total[0] + jax.nn.softplus((low - high) * total[0])

    def mean(self, total: Array) -> Array:
        if len(self.domain.values) != 2:
            return LevelConditional(self.domain).mean(self.energies(total))
        low, high = (int(v) for v in self.domain.values)
        return low + (high - low) * jax.nn.sigmoid((low - high) * total[0])

    def improper(self, total: Array) -> Array:
        return jnp.isnan(total[0])

    def energies(self, total: Array) -> Array:
        """The energy at each level, up to a constant."""
        return jnp.tensordot(self.numbers, total[0], axes=0)
