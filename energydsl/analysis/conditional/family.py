"""The base class of conditionals whose energy is linear in the statistics of a known family."""

from __future__ import annotations

from collections.abc import Set
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from energydsl.analysis.conditional.base import AbstractConditional, SiteEnergy
from energydsl.analysis.statistics import SiteStatistics, site_statistics
from energydsl.analysis.structure import Structure
from energydsl.language.variable import Variable


class AbstractFamilyConditional(AbstractConditional):
    """A conditional that is determined by the slopes of the energy in some statistics.

    That the energy is linear in them is proven from its jaxpr. The slopes are then found from
    derivatives of the energy at fixed points, and add over factors.
    """

    derivatives: ClassVar[int] = 0

    statistics: ClassVar[tuple[str, ...]]
    """The names of the statistics, as in `energydsl.analysis.statistics`."""

    @classmethod
    def refusal(cls, structure: Structure, variable: Variable) -> str | None:
        found = site_statistics(structure, variable)
        names = " and ".join(cls.statistics)
        if found is None or not found.present <= cls.allowed():
            return f"its energy is not shown to be linear in {names} of single sites"
        return cls.misfit(found, structure, variable)

    @classmethod
    def allowed(cls) -> Set[str]:
        """The statistics that may occur."""
        return frozenset(cls.statistics)

    @classmethod
    def misfit(cls, found: SiteStatistics, structure: Structure, variable: Variable) -> str | None:
        """A further reason why this is not the conditional; None if there is none."""
        return None

    @property
    def size(self) -> int:
        return len(self.statistics)


def slopes_at(energy: SiteEnergy, points: Array) -> Array:
    """The derivative of a factor's energy at several values of the site."""
    return jax.vmap(jax.grad(energy))(jnp.asarray(points))
