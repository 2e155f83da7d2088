r"""Unconstrained coordinates: the free continuous sites of some variables as one real vector.

Each event x goes through its domain's bijection, x = T(z), and the energy gains the Jacobian:
$U(z) = E(T(z)) - \log|\det T'(z)|$, so that z has the density that x asks for.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from energydsl._types import Configuration
from energydsl.analysis.structure import Structure
from energydsl.language.variable import Variable


@dataclasses.dataclass(frozen=True)
class Unconstrained:
    """The coordinates of the continuous variables named, in a model of this structure."""

    structure: Structure
    names: tuple[str, ...]

    @staticmethod
    def of(structure: Structure, names: tuple[str, ...] | None = None) -> Unconstrained:
        """Of the variables named, or of every free continuous one.

        Raises:
            ValueError: an unknown name.
            TypeError: a discrete variable.
        """
        free = {v.name: v for v in structure.skeleton.free}
        if names is None:
            smooth = tuple(n for n, v in free.items() if v.domain.transform is not None)
            return Unconstrained(structure, smooth)
        for name in names:
            if name not in free:
                raise ValueError(f"{name!r} is no free variable; those are {list(free)}.")
            domain = free[name].domain
            if domain.transform is None:
                other = "Gibbs" if domain.levels is not None else "MetropolisHastings"
                raise TypeError(
                    f"{name!r} is {domain}, which has no unconstrained coordinates to move in. "
                    f"Leave it to {other}: ed.Cycle(ed.{other}(), ...)."
                )
        return Unconstrained(structure, names)

    @cached_property
    def variables(self) -> tuple[Variable, ...]:
        """Those whose sites have coordinates."""
        return tuple(v for v in self.structure.skeleton.free if v.name in self.names)

    def coordinates(self, x: Configuration) -> Array:
        """Z of a configuration, as one vector."""
        return ravel_pytree(self._parts(x))[0]

    def configuration(self, z: Array, x: Configuration) -> Configuration:
        """`x` with the sites that have coordinates put where z says."""
        parts = self._unravel(z, x)
        new = {}
        for v in self.variables:
            rows = _rows(x[v.name], v)
            moved = v.domain.transform(parts[v.name])
            kept = self._free_events(v)
            rows = moved if kept.all() else rows.at[np.flatnonzero(kept)].set(moved)
            new[v.name] = rows.reshape(v.shape)
        return {**x, **new}

    def potential(
        self, energy: Callable[[Configuration], Array], z: Array, x: Configuration
    ) -> Array:
        """U(z), the other sites standing as in `x`."""
        return energy(self.configuration(z, x)) - self.log_jacobian(z, x)

    def log_jacobian(self, z: Array, x: Configuration) -> Array:
        """Log |det T'(z)|."""
        parts = self._unravel(z, x)
        total = jnp.zeros(())
        for v in self.variables:
            transform, part = v.domain.transform, parts[v.name]
            total += jnp.sum(transform.log_abs_det_jacobian(part, transform(part)))
        return total

    def _parts(self, x: Configuration) -> dict[str, Array]:
        return {
            v.name: v.domain.transform.inv(
                _rows(jnp.asarray(x[v.name]), v)[np.flatnonzero(self._free_events(v))]
            )
            for v in self.variables
        }

    def _unravel(self, z: Array, x: Configuration) -> dict[str, Array]:
        shapes = jax.eval_shape(self._parts, {v.name: x[v.name] for v in self.variables})
        blank = {n: jnp.zeros(s.shape, s.dtype) for n, s in shapes.items()}
        return ravel_pytree(blank)[1](z)

    def _free_events(self, v: Variable) -> np.ndarray:
        held = self.structure.skeleton.mask(v)
        return ~_rows(held, v).reshape(-1, math.prod(event_shape(v)))[:, 0]


def event_shape(v: Variable) -> tuple[int, ...]:
    """The axes of one event."""
    return v.shape[len(v.shape) - v.domain.event_ndim :]


def _rows(array: Any, v: Variable) -> Any:
    """An array of the variable's shape as (events, *event)."""
    return array.reshape(-1, *event_shape(v))
