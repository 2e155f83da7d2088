"""Components with continuous sites, all at once: U(z) over their unconstrained coordinates."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.distributions.transforms import Transform

from energydsl._types import Configuration
from energydsl.analysis.joint_states import Energies, States, by_owner, positions, state_bits, take
from energydsl.analysis.structure import Structure
from energydsl.language.model import Model
from energydsl.language.variable import Variable

RESOLVED = 1e-2
"""Coordinates count as held by a dtype where the bijection can be undone to this precision."""


class Surface:
    """U(z) of some components at once, each state of their finite sites by itself.

    A problem is a state of a component; problems are numbered with the components running fastest,
    and those beyond a component's own number of states have infinite U.

    Args:
        structure: of the model.
        components: by number, all with equally many coordinates.
    """

    def __init__(self, structure: Structure, components: np.ndarray) -> None:
        self.components, self.dim = len(components), int(dimensions(structure)[components[0]])
        self._coordinates = Coordinates(structure, components)
        self._states = States(structure, components, structure.levels > 0)
        self._energies = Energies(structure, components)
        self.states = self._states.largest
        self.count = self.states * self.components
        """Problems."""
        self.bits = int(state_bits(structure)[components].max())
        self.size = (self._energies.size + structure.sites) * self.states
        """Numbers that one z of each problem takes."""
        self.transforms = self._coordinates.transforms

    def __call__(self, model: Model, z: Array) -> tuple[Array, Array]:
        """U, Jacobian included, and whether the dtype holds what lies at z (see `Coordinates`).

        Args:
            model: whose energy it is.
            z: (problems, coordinates).
        """

        def one(t: Array, z: Array) -> tuple[Array, Array]:
            values, jacobian, held = self._coordinates.put(model.blank(), z)
            energy = self._energies(model, self._states.put(values, t))
            return jnp.where(t < self._states.states, energy, jnp.inf) - jacobian, held

        z = z.reshape(self.states, self.components, self.dim)
        if self.states == 1:
            return one(jnp.zeros((), int), z[0])
        u, held = jax.vmap(one)(jnp.arange(self.states), z)
        return u.ravel(), held.ravel()

    def summed(self, parts: Array) -> Array:
        """Each component's sum over its states."""
        return jnp.sum(parts.reshape(self.states, self.components), axis=0)

    def log_summed(self, logs: Array) -> Array:
        """Log of the sum of exponentials over each component's states."""
        return jax.nn.logsumexp(logs.reshape(self.states, self.components), axis=0)

    def together(self, logs: Array) -> Array:
        """`log_summed`, handed to each of the problems that were summed."""
        return jnp.tile(self.log_summed(logs), self.states)


class Coordinates:
    """The unconstrained reals behind the continuous free sites of some components.

    Args:
        structure: of the model.
        components: by number; z has a row for each, and a column for each of its coordinates.
    """

    def __init__(self, structure: Structure, components: np.ndarray) -> None:
        self._count, self._events = len(components), []
        self.transforms: list[Transform] = []
        """Bijections of the sites that have one each."""
        used = np.zeros(len(components), int)
        position = positions(structure, components)
        for v in structure.variables:
            if v.domain.transform is None:
                continue
            sites, width = free_events(structure, v)
            owner = position[structure.component_of[sites[:, 0]]]
            sites, owner = sites[owner >= 0] - structure.offset[v.name], owner[owner >= 0]
            if not len(owner):
                continue
            # The j-th event of a component stands behind those before it.
            order = np.argsort(owner, kind="stable")
            sites, owner = sites[order], owner[order]
            first = np.searchsorted(owner, owner)
            start = used[owner] + (np.arange(len(owner)) - first) * width
            columns = start[:, None] + np.arange(width)
            used += np.bincount(owner, minlength=len(components)) * width
            self._events.append((v, sites, owner, columns))
            if not v.domain.event_ndim:
                self.transforms.append(v.domain.transform)

    def put(self, values: Configuration, z: Array) -> tuple[Configuration, Array, Array]:
        """`values` with what lies at z written into them.

        Returns:
            The values; for each component the log-determinant of the Jacobian, and whether the
            dtype holds the values apart from those at the domain's ends.
        """
        values = dict(values)
        jacobian, held = jnp.zeros(self._count), jnp.ones(self._count, bool)
        for v, sites, owner, columns in self._events:
            transform = v.domain.transform
            part = take(z.ravel(), owner[:, None] * z.shape[1] + columns)
            part = part if v.domain.event_ndim else part[:, 0]
            x = transform(part)
            jacobian += by_owner(transform.log_abs_det_jacobian(part, x), owner, self._count)
            back = jnp.abs(transform.inv(x) - part) < RESOLVED * (1 + jnp.abs(part))
            lost = ~jnp.all(back.reshape(len(owner), -1), axis=1)
            held &= by_owner(lost.astype(int), owner, self._count) == 0
            values[v.name] = _written(values[v.name], sites.ravel(), x.ravel())
        return values, jacobian, held


def free_events(structure: Structure, v: Variable) -> tuple[np.ndarray, int]:
    """The sites of each free event of a variable, and the coordinates one event has."""
    sites = structure.skeleton.free_events(v).sites + structure.offset[v.name]
    return sites, math.prod(v.domain.transform.inverse_shape(v.event_shape))


def dimensions(structure: Structure) -> np.ndarray:
    """Unconstrained coordinates of each component."""
    dims = np.zeros(len(structure.component_sizes), int)
    for v in structure.variables:
        if v.domain.transform is not None:
            sites, each = free_events(structure, v)
            np.add.at(dims, structure.component_of[sites[:, 0]], each)
    return dims


def _written(old: Array, sites: np.ndarray, new: Array) -> Array:
    """`old` with new values at flat positions; no scatter where they are all, in order."""
    if len(sites) == old.size and (sites == np.arange(old.size)).all():
        return new.reshape(old.shape)
    return old.ravel().astype(new.dtype).at[sites].set(new).reshape(old.shape)
