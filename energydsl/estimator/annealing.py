r"""Annealing: a path of energies from a law that is known, $E_\beta = (1-\beta) E_0 + \beta E$.

The base is uniform on finite sites and, on continuous ones, independent normals in unconstrained
coordinates, where they are placed.
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
from jax import Array

from energydsl._types import Configuration
from energydsl.analysis.structure import Structure
from energydsl.compiler.compile import compile as compile_model
from energydsl.compiler.ebm import EBM
from energydsl.language.domain import AbstractDomain
from energydsl.language.expression import Apply, Expression, View
from energydsl.language.model import Model
from energydsl.language.potential import AbstractPotential
from energydsl.language.variable import Variable


class Place(NamedTuple):
    """Means and standard deviations of the base's normals, in unconstrained coordinates."""

    loc: Configuration
    scale: Configuration


class Base(eqx.Module):
    """The law that annealing begins with.

    Static, and known by the structure, so that new parameter values find the compiled program.
    """

    structure: Structure = eqx.field(static=True)

    @property
    def smooth(self) -> tuple[Variable, ...]:
        """The variables that are placed."""
        return tuple(v for v in self.structure.skeleton.free if v.domain.transform is not None)

    @property
    def log_partition(self) -> float:
        """Log Z of the base: normals are normalised, and every state of a finite site counts."""
        skeleton = self.structure.skeleton
        finite = [v for v in skeleton.free if v.domain.levels is not None]
        return float(sum(np.log(len(v.domain.values)) * (~skeleton.mask(v)).sum() for v in finite))

    def standard(self, x: Configuration) -> Place:
        """Standard normals, for configurations like `x`."""
        shapes = jax.eval_shape(self.coordinates, x)
        zeros = {n: jnp.zeros(s.shape, s.dtype) for n, s in shapes.items()}
        return Place(zeros, {n: jnp.ones_like(z) for n, z in zeros.items()})

    def coordinates(self, x: Configuration) -> Configuration:
        """The unconstrained coordinates of the free events, (events, *coordinates)."""
        return {
            v.name: v.domain.transform.inv(x[v.name].reshape(-1, *_event(v))[self._rows(v)])
            for v in self.smooth
        }

    def draw(self, ebm: EBM, place: Place, *, key: Array) -> Configuration:
        """An exact draw."""
        x_key, z_key = jr.split(key)
        # Finite sites start uniformly.
        x = ebm.start(key=x_key)
        for v, k in zip(self.smooth, jr.split(z_key, len(self.smooth)), strict=True):
            loc, scale = place.loc[v.name], place.scale[v.name]
            events = v.domain.transform(loc + scale * jr.normal(k, loc.shape))
            old = x[v.name].reshape(-1, *_event(v))
            x[v.name] = old.at[self._rows(v)].set(events).reshape(v.shape)
        return x

    def log_density(self, place: Place, x: Configuration) -> Array:
        """Of the continuous sites."""
        total, z = jnp.zeros(()), self.coordinates(x)
        for v in self.smooth:
            potential = _Placed(v.domain)
            events = x[v.name].reshape(-1, *_event(v))[self._rows(v)]
            arguments = (events, z[v.name], place.loc[v.name], place.scale[v.name])
            total -= jnp.sum(jax.vmap(potential.of)(*arguments))
        return total

    def energy(self, place: Place) -> Expression:
        """The same with the sign of an energy, as an expression."""
        parts = []
        for v in self.smooth:
            loc, scale = place.loc[v.name], place.scale[v.name]
            events = View.of(v).reshape((-1, *_event(v)))[self._rows(v)]
            ndims = (v.domain.event_ndim, *(loc.ndim - 1,) * 2)
            parts.append(Apply.of(_Placed(v.domain), (events, loc, scale), ndims).sum())
        return sum(parts[1:], parts[0])

    def _rows(self, v: Variable) -> np.ndarray:
        """Numbers of the events that are not clamped."""
        held = self.structure.skeleton.mask(v)
        return np.flatnonzero(~held.reshape(-1, int(np.prod(_event(v), dtype=int)))[:, 0])


class Path(eqx.Module):
    """The EBMs between the base and the target, compiled once: beta is a parameter."""

    ebm: EBM
    mixed: EBM
    base: Base

    def __init__(self, ebm: EBM) -> None:
        self.ebm, self.base = ebm, Base(ebm.structure)
        place = self.base.standard(ebm.start(key=jr.key(0)))
        self.mixed = compile_model(self._model(jnp.asarray(0.5, float), place), budget=0)

    def at(self, beta: Array, place: Place) -> EBM:
        """The EBM of E_beta."""
        return eqx.tree_at(lambda e: e.model, self.mixed, self._model(beta, place))

    def gap(self, x: Configuration, place: Place) -> Array:
        """E - E_base of one configuration."""
        return self.ebm.energy(x) + self.base.log_density(place, x)

    def _model(self, beta: Array, place: Place) -> Model:
        model = beta * self.ebm.model
        return model + (1 - beta) * self.base.energy(place) if self.base.smooth else model


class _Placed(AbstractPotential):
    """Minus the log-density of an event whose unconstrained coordinates are normal."""

    domain: AbstractDomain = eqx.field(static=True)

    def energy(self, x: Array, loc: Array, scale: Array) -> Array:
        return self.of(x, self.domain.transform.inv(x), loc, scale)

    def of(self, x: Array, z: Array, loc: Array, scale: Array) -> Array:
        """The same, its coordinates known."""
        jacobian = jnp.sum(self.domain.transform.log_abs_det_jacobian(z, x))
        return jacobian - jnp.sum(dist.Normal(loc, scale).log_prob(z))


def _event(v: Variable) -> tuple[int, ...]:
    return v.shape[len(v.shape) - v.domain.event_ndim :]
