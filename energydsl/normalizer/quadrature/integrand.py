"""The potential energy U(z) of several components at once, in unconstrained coordinates z."""

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
"""A coordinate is resolved by a dtype if applying the bijection and its inverse changes it by less
than this, relative."""


class Surface:
    """U(z) of several components, separately for each joint state of their finite sites.

    A problem is one joint state of one component. Problems are numbered with the components running
    fastest. If a component has fewer states than another, its remaining problems have infinite U.

    Args:
        structure: the structure of the model.
        components: the numbers of the components, all with the same number of coordinates.
    """

    def __init__(self, structure: Structure, components: np.ndarray) -> None:
        self.components, self.dim = len(components), int(dimensions(structure)[components[0]])
        self._coordinates = Coordinates(structure, components)
        self._states = States(structure, components, structure.levels > 0)
        self._energies = Energies(structure, components)
        self.states = self._states.largest
        self.count = self.states * self.components
        """The number of problems."""
        self.bits = int(state_bits(structure)[components].max())
        self.size = (self._energies.size + structure.sites) * self.states
        """The numbers that are held in memory for one point z of each problem."""
        self.transforms = self._coordinates.transforms

    def __call__(self, model: Model, z: Array) -> tuple[Array, Array]:
        """U(z) with its Jacobian term, and whether the dtype resolves the values at z.

        Args:
            model: the model, with its present parameters.
            z: a point of each problem, (problems, coordinates).
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
        """`log_summed`, repeated for each problem of the component."""
        return jnp.tile(self.log_summed(logs), self.states)


class Coordinates:
    """The unconstrained coordinates of the free continuous sites of several components.

    Args:
        structure: the structure of the model.
        components: the numbers of the components; z has a row for each component and a column for
            each of its coordinates.
    """

    def __init__(self, structure: Structure, components: np.ndarray) -> None:
        self._count, self._events = len(components), []
        self.transforms: list[Transform] = []
        """The bijections of domains whose events are single sites."""
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
            # The columns of a component's j-th event follow those of its earlier events.
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
        """`values` with the values at the coordinates z written into them.

        Returns:
            The values; for each component the log-determinant of the Jacobian, and whether the
            dtype distinguishes its values from the ends of their domains.
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
    """The sites of each free event of a variable, and the number of coordinates of one event."""
    return structure.free_events(v), math.prod(v.domain.transform.inverse_shape(v.event_shape))


def dimensions(structure: Structure) -> np.ndarray:
    """The number of unconstrained coordinates of each component."""
    dims = np.zeros(len(structure.component_sizes), int)
    for v in structure.variables:
        if v.domain.transform is not None:
            sites, each = free_events(structure, v)
            np.add.at(dims, structure.component_of[sites[:, 0]], each)
    return dims


def _written(old: Array, sites: np.ndarray, new: Array) -> Array:
    """`old` with new values at flat positions; reshaped only, if these are all, in order."""
    if len(sites) == old.size and (sites == np.arange(old.size)).all():
        return new.reshape(old.shape)
    return old.ravel().astype(new.dtype).at[sites].set(new).reshape(old.shape)
