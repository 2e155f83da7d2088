r"""The path of annealing, $E_\beta = (1-\beta) E_0 + \beta E$, from a base of known log Z.

The base consists of independent normals in unconstrained coordinates. On sites without such
coordinates it is the distribution of the domain's starts, which is uniform on finite sites.

A state that a table forbids has an infinite energy at every $\beta > 0$, and nearly all draws from
the base may be forbidden. Along the path an infinite entry is therefore replaced by a finite one
(`PENALTY`), so that chains can leave such states. Chains that end in one get the weight zero.
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
from energydsl.analysis.evaluation import with_finite
from energydsl.analysis.structure import Structure
from energydsl.compiler.compile import compile as compile_model
from energydsl.compiler.ebm import EBM
from energydsl.language.domain import AbstractDomain
from energydsl.language.expression import Apply, Expression, View
from energydsl.language.model import Model
from energydsl.language.potential import AbstractPotential
from energydsl.language.variable import Events, Variable

PENALTY = 12.0
"""The energy that replaces infinity at the end of the path, in units of k_B T. The log of the
number of factors is added, so that few chains end in forbidden states."""


class Place(NamedTuple):
    """Means and standard deviations of the base's normals, in unconstrained coordinates."""

    loc: Configuration
    scale: Configuration


class Base(eqx.Module):
    """The base distribution of annealing.

    It is static and compared by structure, so that new parameter values do not recompile.
    """

    structure: Structure = eqx.field(static=True)

    def __check_init__(self) -> None:
        for v in self.structure.skeleton.free:
            if v.domain.transform is None and v.domain.log_start_density(_start(v)) is None:
                raise ValueError(
                    f"Annealing needs the density of the starts of {v.name!r}, which {v.domain} "
                    "does not define: give the domain a log_start_density."
                )

    @property
    def smooth(self) -> tuple[Variable, ...]:
        """The variables with unconstrained coordinates, whose base is normal."""
        return tuple(v for v in self.structure.skeleton.free if v.domain.transform is not None)

    @property
    def uneven(self) -> tuple[Variable, ...]:
        """The other variables whose starts are not uniform."""
        rest = [v for v in self.structure.skeleton.free if v not in self.smooth]
        return tuple(v for v in rest if not _is_uniform(v.domain))

    @property
    def log_partition(self) -> float:
        """Log Z of the base: the log of the number of states of its uniform sites.

        All other parts of the base are normalised densities.
        """
        skeleton = self.structure.skeleton
        rest = [v for v in skeleton.free if v not in self.smooth + self.uneven]
        return float(sum(np.log(len(v.domain.values)) * (~skeleton.mask(v)).sum() for v in rest))

    def standard(self, x: Configuration) -> Place:
        """The parameters of standard normals, for configurations of the shapes of `x`."""
        shapes = jax.eval_shape(self.coordinates, x)
        zeros = {n: jnp.zeros(s.shape, s.dtype) for n, s in shapes.items()}
        return Place(zeros, {n: jnp.ones_like(z) for n, z in zeros.items()})

    def coordinates(self, x: Configuration) -> Configuration:
        """The unconstrained coordinates of the free events, (events, *coordinates)."""
        return {v.name: v.domain.transform.inv(self._events(v).of(x[v.name])) for v in self.smooth}

    def draw(self, ebm: EBM, place: Place, *, key: Array) -> Configuration:
        """An exact draw from the base."""
        x_key, z_key = jr.split(key)
        x = ebm.start(key=x_key)
        for v, k in zip(self.smooth, jr.split(z_key, len(self.smooth)), strict=True):
            loc, scale = place.loc[v.name], place.scale[v.name]
            drawn = v.domain.transform(loc + scale * jr.normal(k, loc.shape))
            x[v.name] = self._events(v).put(x[v.name], drawn)
        return x

    def log_density(self, place: Place, x: Configuration) -> Array:
        """The log density of the free sites, leaving out uniform ones."""
        total, z = jnp.zeros(()), self.coordinates(x)
        for v in self.uneven:
            events = self._events(v).of(x[v.name])
            total += jnp.sum(jnp.asarray(v.domain.log_start_density(events)))
        for v in self.smooth:
            potential = _Placed(v.domain)
            events = self._events(v).of(x[v.name])
            arguments = (events, z[v.name], place.loc[v.name], place.scale[v.name])
            total -= jnp.sum(jax.vmap(potential.of)(*arguments))
        return total

    def energy(self, place: Place) -> Expression:
        """Minus `log_density` as an expression."""
        parts = []
        for v in self.uneven:
            events = self._events(v).of(View.of(v))
            parts.append(Apply.of(_Started(v.domain), (events,), (v.domain.event_ndim,)).sum())
        for v in self.smooth:
            loc, scale = place.loc[v.name], place.scale[v.name]
            events = self._events(v).of(View.of(v))
            ndims = (v.domain.event_ndim, *(loc.ndim - 1,) * 2)
            parts.append(Apply.of(_Placed(v.domain), (events, loc, scale), ndims).sum())
        return sum(parts[1:], parts[0])

    def _events(self, v: Variable) -> Events:
        return self.structure.skeleton.free_events(v)


class Path(eqx.Module):
    """The EBMs between the base and the target, compiled once with beta as a parameter."""

    target: EBM
    ebm: EBM
    mixed: EBM
    base: Base

    def __init__(self, ebm: EBM) -> None:
        self.target, self.base = ebm, Base(ebm.structure)
        self.ebm = eqx.tree_at(lambda e: e.model, ebm, _softened(ebm))
        place = self.base.standard(ebm.start(key=jr.key(0)))
        self.mixed = compile_model(self._model(jnp.asarray(0.5, float), place), budget=0)

    def at(self, beta: Array, place: Place) -> EBM:
        """The EBM of E_beta."""
        return eqx.tree_at(lambda e: e.model, self.mixed, self._model(beta, place))

    def gap(self, x: Configuration, place: Place) -> Array:
        """E - E_base of one configuration, with forbidden entries at their finite energy."""
        return self.ebm.energy(x) + self.base.log_density(place, x)

    def forbidden(self, x: Configuration) -> Array:
        """Whether the target's energy of a configuration is infinite."""
        return jnp.isposinf(self.target.energy(x))

    def _model(self, beta: Array, place: Place) -> Model:
        model = beta * self.ebm.model
        alike = not (self.base.smooth or self.base.uneven)
        return model if alike else model + (1 - beta) * self.base.energy(place)


class _Placed(AbstractPotential):
    """Minus the log-density of an event whose unconstrained coordinates are normal."""

    domain: AbstractDomain = eqx.field(static=True)

    def energy(self, x: Array, loc: Array, scale: Array) -> Array:
        return self.of(x, self.domain.transform.inv(x), loc, scale)

    def of(self, x: Array, z: Array, loc: Array, scale: Array) -> Array:
        """The same energy, given the event's unconstrained coordinates."""
        jacobian = jnp.sum(self.domain.transform.log_abs_det_jacobian(z, x))
        return jacobian - jnp.sum(dist.Normal(loc, scale).log_prob(z))


class _Started(AbstractPotential):
    """Minus the log-density of a domain's starts."""

    domain: AbstractDomain = eqx.field(static=True)

    def energy(self, x: Array) -> Array:
        return -jnp.asarray(self.domain.log_start_density(x))


def _softened(ebm: EBM) -> Model:
    """The model with finite energies in place of the infinite entries of its tables."""
    price = PENALTY + float(np.log(sum(f.size for f in ebm.structure.factors)))
    return with_finite(ebm.model, price)


def _start(v: Variable) -> Array:
    return v.domain.start(v.shape, key=jr.key(0))


def _is_uniform(domain: AbstractDomain) -> bool:
    """Whether the starts of a domain are uniform over its levels."""
    if domain.levels is None:
        return False
    with jax.ensure_compile_time_eval():
        levels = jnp.asarray(domain.values, domain.dtype)
        return float(np.ptp(np.asarray(domain.log_start_density(levels)))) == 0.0
