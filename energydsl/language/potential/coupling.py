"""Pairwise coupling of two vectors of sites."""

from __future__ import annotations

from typing import Any

from energydsl.language.potential.base import AbstractPotential


class Coupling(AbstractPotential):
    r"""Pairwise coupling of two vectors: $E(x, y) = -x^\top W y$.

    Args:
        weight: $W$, of shape (n, m); positive entries favour equal signs. Unit: $k_B T$.

    Source: Hopfield (1982), PNAS 79(8), 2554-2558.
    """

    transparent = True

    weight: Any

    def energy(self, x: Any, y: Any) -> Any:
        return -(x @ self.weight @ y)
