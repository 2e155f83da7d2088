r"""Unconstrained coordinates: the free continuous sites of some variables as one real vector.

Each event x is the image of z under its domain's bijection, x = T(z). The potential energy of z is
$U(z) = E(T(z)) - \log|\det T'(z)|$, so that x = T(z) has the density proportional to
$e^{-E(x)}$.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cached_property

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from energydsl._types import Configuration
from energydsl.analysis.structure import Structure
from energydsl.language.variable import Events, Variable


@dataclasses.dataclass(frozen=True)
class Unconstrained:
    """The unconstrained coordinates of some continuous variables of a model."""

    structure: Structure
    names: tuple[str, ...]

    @staticmethod
    def of(structure: Structure, names: tuple[str, ...] | None = None) -> Unconstrained:
        """The coordinates of the named variables, or of all free continuous variables.

        Raises:
            ValueError: a name is unknown.
            TypeError: a variable is discrete.
        """
        free = {v.name: v for v in structure.skeleton.free}
        if names is None:
            smooth = tuple(n for n, v in free.items() if v.domain.transform is not None)
            return Unconstrained(structure, smooth)
        for name in names:
            if name not in free:
                raise ValueError(
                    f"{name!r} is no free variable; the free variables are {list(free)}."
                )
            domain = free[name].domain
            if domain.transform is None:
                other = "Gibbs" if domain.levels is not None else "MetropolisHastings"
                raise TypeError(
                    f"{name!r} is {domain}, which has no unconstrained coordinates to move in. "
                    f"Update it by {other}: ed.Cycle(ed.{other}(), ...)."
                )
        return Unconstrained(structure, names)

    @cached_property
    def variables(self) -> tuple[Variable, ...]:
        """The variables whose sites have coordinates."""
        return tuple(v for v in self.structure.skeleton.free if v.name in self.names)

    @cached_property
    def _events(self) -> tuple[Events, ...]:
        return tuple(map(self.structure.skeleton.free_events, self.variables))

    def coordinates(self, x: Configuration) -> Array:
        """The coordinates z of a configuration, as one vector."""
        return ravel_pytree(self._parts(x))[0]

    def configuration(self, z: Array, x: Configuration) -> Configuration:
        """The configuration `x` with T(z) at the sites that have coordinates."""
        parts = self._unravel(z, x)
        new = {}
        for v, events in zip(self.variables, self._events, strict=True):
            new[v.name] = events.put(x[v.name], v.domain.transform(parts[v.name]))
        return {**x, **new}

    def held(self, z: Array, x: Configuration) -> Array:
        """Whether T(z) in floating point is inside the support, so that T can be inverted.

        Near an end that is not in the support (0 for the positive numbers), a value may be rounded
        to that end, which has no finite coordinate.
        """
        parts = self._unravel(z, x)
        good = jnp.ones((), bool)
        for v in self.variables:
            back = v.domain.transform.inv(v.domain.transform(parts[v.name]))
            good &= jnp.all(jnp.isfinite(back))
        return good

    def potential(
        self, energy: Callable[[Configuration], Array], z: Array, x: Configuration
    ) -> Array:
        """The potential energy U(z), with the other sites as in `x`."""
        return energy(self.configuration(z, x)) - self.log_jacobian(z, x)

    def log_jacobian(self, z: Array, x: Configuration) -> Array:
        """The log Jacobian, log |det T'(z)|."""
        parts = self._unravel(z, x)
        total = jnp.zeros(())
        for v in self.variables:
            transform, part = v.domain.transform, parts[v.name]
            total += jnp.sum(transform.log_abs_det_jacobian(part, transform(part)))
        return total

    def _parts(self, x: Configuration) -> dict[str, Array]:
        return {
            v.name: v.domain.transform.inv(events.of(jnp.asarray(x[v.name])))
            for v, events in zip(self.variables, self._events, strict=True)
        }

    def _unravel(self, z: Array, x: Configuration) -> dict[str, Array]:
        shapes = jax.eval_shape(self._parts, {v.name: x[v.name] for v in self.variables})
        blank = {n: jnp.zeros(s.shape, s.dtype) for n, s in shapes.items()}
        return ravel_pytree(blank)[1](z)
