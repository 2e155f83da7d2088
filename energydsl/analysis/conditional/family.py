"""The base class of conditionals whose energy is linear in the statistics of a known family."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl.analysis.conditional.base import AbstractConditional, SiteEnergy
from energydsl.analysis.statistics import LOG_FACTORIAL, Linear
from energydsl.analysis.structure import Structure, repeats
from energydsl.language.variable import Variable


class SiteStatistics(NamedTuple):
    """The energy of single sites of a variable, which is linear in statistics.

    `factorials` is the slope of log x! for each site.
    """

    present: frozenset[str]
    factorials: np.ndarray


def site_statistics(structure: Structure, variable: Variable) -> SiteStatistics | None:
    """The statistics in which the energy of each site is linear, with all other sites fixed.

    Returns:
        None if the energy is not shown to be linear in the statistics of the domain.
    """
    present: set[str] = set()
    factorials = np.zeros(variable.size)
    for number, factor in enumerate(structure.factors):
        own = [
            k
            for k, leaf in factor.sites.items()
            if leaf.variable == variable and structure.free[structure.numbers(leaf)].any()
        ]
        columns = [structure.numbers(factor.sites[k]) for k in own]
        # A site that a factor contains twice must be read in both places at once.
        joint = bool(own) and repeats(np.concatenate(columns, axis=1))
        for group in [own] if joint else [[k] for k in own]:
            linear = Linear.of(structure, number, group)
            if linear.present is None or linear.factorials is None:
                return None
            present |= {name for name, there in linear.present.items() if there}
            if linear.present.get(LOG_FACTORIAL):
                if joint or factor.sites[group[0]].index.ndim > 1:
                    return None
                np.add.at(factorials, factor.sites[group[0]].index, linear.factorials)
    return SiteStatistics(frozenset(present), factorials)


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
        if found is None or not found.present <= set(cls.statistics):
            return f"its energy is not shown to be linear in {names} of single sites"
        return cls.misfit(found, structure, variable)

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
