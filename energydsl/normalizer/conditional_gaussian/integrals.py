r"""The Gaussian integrals of blocks of real sites, in each state of their finite neighbours.

In state d of its neighbours, a block has the energy $\frac12 x^\top A x - b^\top x + k$, where A, b
and k depend on d. Its integral is

$$\log\phi(d) = \frac n2 \log 2\pi - \frac12 \log\det A + \frac12 b^\top A^{-1} b - k.$$
"""

from __future__ import annotations

import math
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from energydsl.analysis.joint_states import int32
from energydsl.analysis.structure import Structure
from energydsl.analysis.tables import Scopes, Tables
from energydsl.language.model import Model
from energydsl.normalizer.conditional_gaussian.blocks import Alike
from energydsl.normalizer.gaussian.quadratic import (
    expand,
    lower_solve,
    upper_solve,
    with_reals,
)


class Part(eqx.Module):
    """Factors of one batch that belong to some blocks."""

    tables: Tables
    leaves: tuple[int, ...] = eqx.field(static=True)
    """The positions of the leaves that have real sites."""
    table: Array
    """The table of each factor."""
    owner: Array
    """The block of each factor."""
    places: Array
    """Where the factor's real sites are within the block, (factor, site); n for clamped ones."""
    columns: Array
    """Where its finite sites are among the block's neighbours, (factor, site)."""

    def expanded(self, model: Model) -> tuple[Array, Array, Array]:
        """Value, gradient and Hessian of each table's factor, (table, state, ...).

        They are taken where `model.blank()` has the real sites.
        """
        tables = self.tables
        factor = tables.structure.factors[tables.number]
        return tables.at_states(model, lambda values: expand(factor, values, self.leaves))

    def state(self, digits: Array) -> Array:
        """The state of each factor's finite sites, (factor, state of the block).

        Args:
            digits: the level of each neighbour of a block in each state, (neighbour, state).
        """
        strides = _strides(self.tables.levels)
        return jnp.sum(digits[self.columns] * strides[:, None], axis=1)


class Laws(NamedTuple):
    """The Gaussian distributions of blocks in each state; axes (block, state, ...).

    Where `improper`, the precision is not positive definite or not finite. There and in forbidden
    states, whose energy is infinite, `factor` and `mean` are those of a standard normal.
    """

    factor: Array
    """L with A = L L^T."""
    mean: Array
    integral: Array
    """log phi; -inf in forbidden states and where improper."""
    peak: Array
    """Minus the least energy; -inf as `integral`."""
    improper: Array

    def poisoned(self, bad: Array) -> Laws:
        """The same laws, with means of NaN if `bad`."""
        return self._replace(mean=jnp.where(bad, jnp.nan, self.mean))


class Integrals(eqx.Module):
    """Like blocks, all integrated at once."""

    structure: Structure = eqx.field(static=True)
    levels: tuple[int, ...] = eqx.field(static=True)
    """The numbers of levels of a block's finite neighbours."""
    sites: Array
    """The sites of each block, (block, n)."""
    around: Array
    """The finite neighbours of each block, (block, neighbour)."""
    parts: tuple[Part, ...]

    @property
    def states(self) -> int:
        """The number of joint states of a block's neighbours."""
        return math.prod(self.levels)

    @property
    def cells(self) -> int:
        """The number of cells of all blocks' tables."""
        return self.states * len(self.sites)

    def state(self, levels: Array) -> Array:
        """The number of the state with these levels of the neighbours, (block, neighbour)."""
        return jnp.sum(levels * _strides(self.levels), axis=1)

    def digits(self, states: Array) -> Array:
        """The level of each neighbour in some states, (neighbour, state)."""
        return states // _strides(self.levels)[:, None] % int32(np.array(self.levels))[:, None]

    def quadratic(self, model: Model) -> tuple[Array, Array, Array]:
        """A, b and k: (block, state, n, n), (block, state, n), (block, state)."""
        count, n = self.sites.shape
        # Entries of clamped sites go into an extra row and column n, which are then cut off.
        precision = jnp.zeros((count, self.states, n + 1, n + 1))
        slope = jnp.zeros((count, self.states, n + 1))
        constant = jnp.zeros((count, self.states))
        every = jnp.arange(self.states)
        digits = self.digits(every)
        # The evidence of a variable that is partly clamped has any numbers at its free sites.
        origin = jnp.zeros((count, n))
        model = model.around(with_reals(self.structure, model.blank(), self.sites, origin))
        for part in self.parts:
            at = part.table[:, None], part.state(digits)
            each, gradient, hessian = (a[at] for a in part.expanded(model))
            owner, place = part.owner[:, None], part.places[:, None, :]
            constant = constant.at[owner, every].add(each)
            owner, state = owner[..., None], every[:, None]
            slope = slope.at[owner, state, place].add(gradient)
            owner, state = owner[..., None], state[..., None]
            where = owner, state, place[..., :, None], place[..., None, :]
            precision = precision.at[where].add(hessian)
        return precision[..., :n, :n], -slope[..., :n], constant

    def laws(self, model: Model) -> Laws:
        """The Gaussian of each block in each state, with its integral."""
        precision, linear, constant = self.quadratic(model)
        n = precision.shape[-1]
        forbidden = constant == jnp.inf
        tried = jnp.linalg.cholesky(lax.stop_gradient(precision))
        proper = jnp.isfinite(jnp.diagonal(tried, axis1=-2, axis2=-1)).all(-1)
        known = proper & ~forbidden
        # Factorised again without the failures, whose derivatives would be NaN in every state.
        factor = jnp.linalg.cholesky(jnp.where(known[..., None, None], precision, jnp.eye(n)))
        linear = jnp.where(known[..., None], linear, 0.0)
        whitened = lower_solve(factor, linear[..., None])[..., 0]
        peak = jnp.sum(whitened**2, axis=-1) / 2 - jnp.where(known, constant, 0.0)
        half_log_det = jnp.sum(jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)), axis=-1)
        peak = jnp.where(known, peak, -jnp.inf)
        integral = peak + n / 2 * jnp.log(2 * jnp.pi) - half_log_det
        return Laws(factor, upper_solve(factor, whitened), integral, peak, ~proper & ~forbidden)


def variances(factor: Array) -> Array:
    """The diagonal of A^-1, from L."""
    units = jnp.broadcast_to(jnp.eye(factor.shape[-1]), factor.shape)
    return jnp.sum(lower_solve(factor, units) ** 2, axis=-2)


def _strides(levels: tuple[int, ...]) -> Array:
    """How far apart the states are that differ in one site's level; the last varies fastest."""
    return int32(np.cumprod([1, *levels[:0:-1]])[::-1][: len(levels)])


def integrals(structure: Structure, components: np.ndarray, alike: Alike) -> Integrals:
    """The integrals of like blocks of some components."""
    count, n = alike.sites.shape
    block, place = np.full(structure.sites, -1), np.full(structure.sites, n)
    block[alike.sites] = np.arange(count)[:, None]
    place[alike.sites] = np.arange(n)
    owners = tuple(block[structure.scope(f)].max(axis=1, initial=-1) for f in structure.factors)
    scopes = Scopes(structure, components, tuple(owner >= 0 for owner in owners))
    parts = []
    for group, tables in zip(scopes.groups, scopes.built(), strict=True):
        sites = {
            k: structure.numbers(leaf)[group.members]
            for k, leaf in structure.factors[group.number].sites.items()
        }
        leaves = tuple(k for k, numbers in sites.items() if (block[numbers] >= 0).any())
        owner = owners[group.number][group.members]
        around = alike.around[owner][:, None, :] == group.scopes[:, :, None]
        parts.append(
            Part(
                tables=tables,
                leaves=leaves,
                table=int32(group.table),
                owner=int32(owner),
                places=int32(place[np.concatenate([sites[k] for k in leaves], axis=1)]),
                columns=int32(around.argmax(axis=2)),
            )
        )
    return Integrals(
        structure=structure,
        levels=tuple(structure.levels[alike.around[0]].tolist()),
        sites=int32(alike.sites),
        around=int32(alike.around),
        parts=tuple(parts),
    )
