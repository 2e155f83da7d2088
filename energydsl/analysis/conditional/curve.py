"""Sites with consecutive integers as levels, in which the energy is quadratic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from energydsl.analysis.conditional.levels import AbstractNumbers
from energydsl.analysis.structure import Structure
from energydsl.analysis.uniform import uniform
from energydsl.language.variable import Variable

LARGEST = 2**12
"""The largest absolute value of a level. Derivatives are taken at 0, so that a conditional far from
there loses digits to rounding."""

UNSEEN = 2.0**-48
"""A weight, relative to the highest one, at which the two tails of a rising energy are left out:
the random numbers, of 23 bits, do not reach them."""


class CurveConditional(AbstractNumbers):
    r"""The distribution $p(v) \propto e^{-b v - a v^2 / 2}$ of a site with integers as levels.

    It is determined by the slope $b$ and the curvature $a$ at 0, which may have either sign. The
    levels are visited from the most probable one outwards, in two passes: one sums their weights,
    the other finds where the sum passes a uniform number. No array of levels times sites is formed.
    """

    derivatives: ClassVar[int] = 2
    no_law: ClassVar[str] = "is undefined: the slope or the curvature of its energy is NaN"

    @classmethod
    def refusal(cls, structure: Structure, variable: Variable) -> str | None:
        levels = variable.domain.values
        if structure.degree_in(variable) > 2:
            return "its energy is not shown to be quadratic in single sites"
        if np.any(np.diff(levels) != 1):
            return "its levels are not consecutive integers"
        if np.abs(levels).max() > LARGEST:
            return f"its levels go beyond {LARGEST:,}"
        return None

    def energies(self, total: Array) -> Array:
        slope, curvature = total
        linear = jnp.tensordot(self.numbers, slope, axes=0)
        return linear + jnp.tensordot(self.numbers**2 / 2, curvature, axes=0)

    def draw(self, total: Array, *, key: Array) -> Array:
        total = lax.stop_gradient(total)  # Levels do not move, and loops have no gradients.
        best = self._best(total)
        zero = jnp.zeros_like(best)

        def add(carry: Array, level: Array, weight: Array) -> Array:
            return carry + weight

        whole = self._outwards(total, best, zero, add)
        # In (0, 1], so that a level of weight 0 is never drawn.
        height = (1.0 - uniform(key, best.shape)) * whole

        def find(carry: tuple[Array, Array], level: Array, weight: Array) -> tuple[Array, Array]:
            below, found = carry
            reached = below + weight
            return reached, jnp.where((below < height) & (reached >= height), level, found)

        drawn = self._outwards(total, best, (zero, best), find)[1]
        return drawn.astype(self.domain.dtype)

    def improper(self, total: Array) -> Array:
        return jnp.isnan(total).any(axis=0)

    def _best(self, total: Array) -> Array:
        """The level of lowest energy, as a float; any of them if there are several."""
        slope, curvature = total
        low, high = self.numbers[0], self.numbers[-1]
        inside = jnp.round(-slope / jnp.where(curvature > 0, curvature, 1.0))
        # The energy of the upper end above that of the lower one is (high - low) * rise.
        rise = slope + curvature * (low + high) / 2
        end = jnp.where(rise > 0, low, high)
        return jnp.where(curvature > 0, jnp.clip(inside, low, high), end)

    def _outwards(self, total: Array, best: Array, carry: Any, visit: Callable[..., Any]) -> Any:
        """Visit the levels by their distance from the best one, with weights relative to it."""
        slope, curvature = total
        low, high = self.numbers[0], self.numbers[-1]

        def weight(level: Array) -> Array:
            # The difference of two energies: neither needs to be known to a small absolute error.
            above = (level - best) * (slope + curvature * (level + best) / 2)
            return jnp.where((low <= level) & (level <= high), jnp.exp(-above), 0.0)

        def more(loop: tuple[Array, Array, Any]) -> Array:
            step, seen, _ = loop
            # A concave energy has its second lowest level at the far end.
            return (step < len(self.domain.values)) & jnp.any((seen > UNSEEN) | (curvature < 0))

        def go(loop: tuple[Array, Array, Any]) -> tuple[Array, Array, Any]:
            step, _, carry = loop
            up, down = weight(best + step), weight(best - step)
            carry = visit(visit(carry, best + step, up), best - step, down)
            return step + 1, jnp.maximum(up, down), carry

        first = jnp.ones_like(best)
        carry = visit(carry, best, first)
        return lax.while_loop(more, go, (jnp.ones((), best.dtype), first, carry))[2]
