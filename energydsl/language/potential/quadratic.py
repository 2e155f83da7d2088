"""A quadratic form: the energy of a Gaussian."""

from __future__ import annotations

from typing import Any

from energydsl.language.potential.base import AbstractPotential


class Quadratic(AbstractPotential):
    r"""A quadratic form: $E(x) = \tfrac12 x^\top A x - b \cdot x$.

    For real x and positive definite A this is the Gaussian with precision A and mean A^-1 b.

    Args:
        precision: $A$, of shape (n, n); only its symmetric part $(A + A^\top)/2$ matters. Unit:
            $k_B T$.
        linear: $b$, of length n. Unit: $k_B T$.
    """

    transparent = True

    precision: Any
    linear: Any = 0.0

    def energy(self, x: Any) -> Any:
        return 0.5 * (x @ self.precision @ x) - (self.linear * x).sum()
