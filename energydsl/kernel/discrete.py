"""The base class of kernels for finite sites that are led by predicted changes of the energy.

Such a kernel does not evaluate the energy at every level of every site, as a Gibbs sweep of a dense
model must. One derivative predicts the change of the energy for each site and level. A wrong
prediction makes proposals worse, but never the stationary distribution, which the Metropolis test
keeps.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property

import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl._types import Configuration
from energydsl.analysis.differences import predicted_changes, unpredictable
from energydsl.analysis.structure import Structure
from energydsl.compiler.ebm import EBM
from energydsl.kernel.acceptance import FORBIDDEN, finite
from energydsl.kernel.point import AbstractPointKernel, Point
from energydsl.language.variable import Events, Variable

MOST = 100.0
"""The largest predicted change that is believed, so that every move has a positive probability."""


@dataclasses.dataclass(frozen=True)
class Levels:
    """The free sites of some finite variables, as one vector of the numbers of their levels."""

    structure: Structure
    names: tuple[str, ...]

    @cached_property
    def variables(self) -> tuple[Variable, ...]:
        """The variables in the order of the vector."""
        return tuple(v for v in self.structure.skeleton.free if v.name in self.names)

    @cached_property
    def events(self) -> tuple[Events, ...]:
        """The free sites of each variable."""
        return tuple(map(self.structure.skeleton.free_events, self.variables))

    @cached_property
    def values(self) -> dict[str, np.ndarray]:
        """The levels of each variable's domain."""
        return {v.name: np.asarray(v.domain.values) for v in self.variables}

    def of(self, x: Configuration) -> Array:
        """The numbers of the levels of a configuration."""
        parts = [
            jnp.searchsorted(jnp.asarray(self.values[v.name]), events.of(jnp.asarray(x[v.name])))
            for v, events in zip(self.variables, self.events, strict=True)
        ]
        return jnp.concatenate(parts).astype(jnp.int32)

    def configuration(self, z: Array, x: Configuration) -> Configuration:
        """The configuration `x` with these levels."""
        new = {}
        for v, events, part in zip(self.variables, self.events, self.split(z), strict=True):
            values = jnp.asarray(self.values[v.name], v.domain.dtype)[part]
            new[v.name] = events.put(jnp.asarray(x[v.name]), values)
        return {**x, **new}

    def split(self, z: Array) -> list[Array]:
        """The part of each variable of a vector over sites."""
        return jnp.split(z, np.cumsum([len(e.numbers) for e in self.events])[:-1].tolist())


class AbstractDiscreteKernel(AbstractPointKernel):
    """A kernel for the free finite sites, or for those of `variables`.

    The slope of its points has for each variable the predicted change of the energy for each site
    and level.
    """

    def at(self, ebm: EBM, z: Array, x: Configuration) -> Point:
        space, energy = self.space(ebm), finite(ebm).model.energy_anywhere
        full = space.configuration(z, x)
        value, predicted = predicted_changes(energy, full, space.values)
        slopes = []
        for v, events, level in zip(space.variables, space.events, space.split(z), strict=True):
            each = predicted[v.name][events.numbers]
            change = each - jnp.take_along_axis(each, level[:, None], axis=1)
            change = jnp.where(jnp.isnan(change), 0.0, change)
            slopes.append(jnp.clip(change, -MOST, MOST))
        return Point(z, value, tuple(slopes), x)

    def enter(self, ebm: EBM, x: Configuration) -> Point:
        return self.at(ebm, self.space(ebm).of(x), x)

    def leave(self, ebm: EBM, point: Point) -> Configuration:
        return self.space(ebm).configuration(point.z, point.x)

    def energy_at(self, ebm: EBM, point: Point) -> Array:
        return jnp.where(point.energy < FORBIDDEN / 2, point.energy, jnp.inf)

    def moves(self, ebm: EBM) -> np.ndarray:
        return ebm.structure.of_variables(self.space(ebm).names)

    def reason(self, ebm: EBM) -> str:
        if self.variables is not None:
            return f"its argument `variables` names only {', '.join(self.variables)}"
        hidden = sorted(unpredictable(ebm.structure))
        return _unpredicted(hidden) if hidden else "it moves finite sites only"

    def space(self, ebm: EBM) -> Levels:
        """The sites that it moves.

        Raises:
            ValueError: a name in `variables` is unknown.
            TypeError: a variable named there is not finite, or no change is predicted for it.
        """
        free = {v.name: v for v in ebm.structure.skeleton.free}
        hidden = unpredictable(ebm.structure)
        finite = {n for n, v in free.items() if v.domain.levels is not None}
        if self.variables is None:
            return Levels(ebm.structure, tuple(n for n in free if n in finite - hidden))
        for name in self.variables:
            if name not in free:
                raise ValueError(
                    f"{name!r} is no free variable; the free variables are {list(free)}."
                )
            if name not in finite:
                other = "NUTS" if free[name].domain.transform is not None else "MetropolisHastings"
                raise TypeError(
                    f"{name!r} is {free[name].domain}, which has no levels to choose from. Update "
                    f"it by {other}: ed.Cycle(ed.{type(self).__name__}(), ed.{other}())."
                )
            if name in hidden:
                raise TypeError(
                    f"{type(self).__name__} cannot move {name!r}: {_unpredicted([name])}."
                )
        return Levels(ebm.structure, tuple(self.variables))


def _unpredicted(names: list[str]) -> str:
    return (
        f"the energy uses the labels of {', '.join(names)} in a way that predicts no change (a "
        "loop, a condition, an operation on integers); one-hot vectors, comparisons and indices "
        "do, and MetropolisHastings needs no prediction"
    )
