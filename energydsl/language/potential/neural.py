"""A network as an energy."""

from __future__ import annotations

from typing import Any

from jax import Array

from energydsl.language.potential.base import AbstractPotential


class Neural(AbstractPotential):
    r"""Any Equinox module or pytree callable: $E(x) = f_\theta(x)$, one factor over the view.

    Args:
        network: called on the arrays of the views, it returns a scalar; its arrays are parameters.
    """

    network: Any

    def __check_init__(self) -> None:
        if not callable(self.network):
            raise TypeError(f"Neural got {type(self.network).__name__}; expected a callable.")

    @property
    def name(self) -> str:
        return f"Neural[{getattr(self.network, '__name__', type(self.network).__name__)}]"

    def energy(self, *values: Array) -> Array:
        return self.network(*values)
