"""A field on every site."""

from __future__ import annotations

from typing import Any

from energydsl.language.potential.base import AbstractPotential


class Linear(AbstractPotential):
    r"""A linear energy, or field: $E(x) = b \cdot x$.

    Args:
        bias: $b$, of the view's shape; a positive entry favours low values. Unit: $k_B T$.
    """

    transparent = True

    bias: Any

    def energy(self, x: Any) -> Any:
        return (self.bias * x).sum()
