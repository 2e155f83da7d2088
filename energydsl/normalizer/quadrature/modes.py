"""The modes of a density over one to three unconstrained coordinates.

U is evaluated on a grid that spans 34 powers of ten about 0, and near the numbers that the model
holds: locations, scales, data, constants in the text of its functions. From the lowest local minima
of the grid, damped Newton steps go down to the modes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpyro.distributions.transforms import IdentityTransform

from energydsl.language.model import Model
from energydsl.normalizer.quadrature.cubature import REACH, Marks, first, first_largest, in_passes
from energydsl.normalizer.quadrature.integrand import Surface
from energydsl.normalizer.quadrature.landmarks import landmarks, width_of

_FAR = np.linspace(6, REACH, 18)

GRID = {
    1: np.linspace(-REACH, REACH, 4097),
    2: np.concatenate([-_FAR[::-1], np.linspace(-5.9, 5.9, 119), _FAR]),
    3: np.concatenate([-_FAR[::-4], np.linspace(-5.9, 5.9, 59), _FAR[1::4]]),
}
"""The grid of the search along each axis, as arcsinh(z), by dimension."""

STARTS = 24
"""Local minima of the grid from which a mode is sought.

A third are the lowest; the others are the lowest of those that are apart from all chosen before.
"""

APART = 1.0
"""How far apart such minima are, as a difference of arcsinh(z).

A narrow ridge has many minima on the grid, which would otherwise take all places.
"""

NEWTON_STEPS = 60
"""Damped Newton steps from each start."""

LANDMARKS = {1: 48, 2: 32, 3: 40}
"""How many of the model's numbers the grid has points near, by dimension.

In three dimensions the coordinates of values in domains with bounds count, too."""

SCANNED = {1: 4097 + 21 * 96, 2: (155 + 64) ** 2, 3: 69**3 + 40**3}
"""About how many points the grid has, by dimension."""

DENSER = {1: 0.5, 2: 0.5, 3: 2.0}
"""The scale of z = m + a sinh(t): a, divided by the width of the mode m, by dimension.

In three dimensions cells are few, and fewer do where the mode takes less of the box.
"""

NEGLIGIBLE = -40.0
"""Log of a fraction of the mass below which a mode is not resolved."""

UNRESOLVED = 1e-12
"""The least width of a mode, relative to its distance from 0."""


class Chart(NamedTuple):
    """z = centre + matrix sinh(t), for each problem."""

    centre: Array
    matrix: Array

    def __call__(self, t: Array) -> tuple[Array, Array]:
        """Z and log |det dz/dt|, for t of shape (problems, dimensions)."""
        z = self.centre + jnp.einsum("pij,pj->pi", self.matrix, jnp.sinh(t))
        slope = jnp.log(jnp.abs(_determinant(self.matrix)))
        return z, slope + jnp.sum(jnp.log(jnp.cosh(t)), axis=-1)


class Modes(NamedTuple):
    """Local minima of U: arrays of (modes, problems, ...).

    Attributes:
        place: the minimum, in z.
        matrix: its columns are steps along the principal axes over which U rises by 1/2.
        mass: log of about the integral of exp(-U) near it.
    """

    place: Array
    matrix: Array
    mass: Array


def search(surface: Surface, model: Model, text: Any) -> tuple[Chart, Marks]:
    """Coordinates about the mode of each problem with the largest mass, and all modes in them.

    Args:
        surface: of the components.
        model: whose energy it is.
        text: of that energy, see `text_of`.
    """
    modes = _modes(surface, model, text)
    best = first_largest(modes.mass)
    rows = jnp.arange(surface.count)
    chart = Chart(modes.place[best, rows], DENSER[surface.dim] * modes.matrix[best, rows])
    inverse = _inverse(chart.matrix)
    middle = jnp.einsum("pij,mpj->mpi", inverse, modes.place - chart.centre)
    # Half the width of a mode along each axis of the chart, the other axes held.
    shape = _inverse(jnp.einsum("pij,mpjk->mpik", inverse, modes.matrix))
    half = 1 / jnp.sqrt(jnp.sum(shape**2, axis=-2))
    counts = modes.mass > surface.together(jnp.max(modes.mass, axis=0)) + NEGLIGIBLE
    known = counts[..., None] & jnp.isfinite(middle) & jnp.isfinite(half)
    known = jnp.all(known, axis=-1, keepdims=True)
    middle, half = jnp.where(known, middle, 0.0), jnp.where(known, half, 0.0)

    def mapped(times: float) -> Array:
        return jnp.clip(jnp.arcsinh(middle + times * half), -REACH, REACH)

    widths = jnp.maximum((mapped(1.0) - mapped(-1.0)) / 2, 1e-12)
    # No cell can resolve a mode that is narrower than the rounding of its coordinates.
    lengths = jnp.sqrt(jnp.sum(modes.matrix**2, axis=-2))
    lost = jnp.any(lengths < UNRESOLVED * jnp.max(jnp.abs(modes.place), -1, keepdims=True), -1)
    widths = jnp.where(lost[..., None], 0.0, widths)
    return chart, Marks(mapped(0.0), jnp.where(known, widths, jnp.inf))


def _modes(surface: Surface, model: Model, text: Any) -> Modes:
    grids = [_scanned(surface, model, axis, text) for axis in _axes(surface, model, text)]
    points, lowest = (jnp.concatenate(part) for part in zip(*grids, strict=True))
    steps = jnp.arcsinh(points)[:, None]
    rows = jnp.arange(surface.count)

    def take(left: tuple[Array, Array], apart: Array) -> tuple[tuple[Array, Array], Array]:
        lowest, alone = left
        k = first_largest(-jnp.where(apart, alone, lowest))
        near = jnp.max(jnp.abs(steps - steps[k, 0]), axis=-1) < APART
        alone = jnp.where(near, jnp.inf, alone)
        return (lowest.at[k, rows].set(jnp.inf), alone), k

    apart = jnp.arange(STARTS) >= STARTS // 3
    _, picked = lax.scan(take, (lowest, lowest), apart)
    starts = points[picked]
    z, u, axes = jax.vmap(lambda z: _descend(surface, model, z))(starts)

    def measure(mode: tuple[Array, Array, Array]) -> Array:
        return _lengths(surface, model, *mode)

    lengths = lax.map(measure, (z, u, axes))
    return Modes(z, axes * lengths[:, :, None, :], -u + jnp.sum(jnp.log(lengths), axis=-1))


def _grid(axis: Array, number: Array, dim: int) -> Array:
    """The points of the square grid on an axis, by number: (..., dim)."""
    n = len(axis)
    return jnp.stack([axis[number // n ** (dim - 1 - k) % n] for k in range(dim)], axis=-1)


def _axes(surface: Surface, model: Model, text: Any) -> list[Array]:
    """The coordinates along each axis of each grid, in order.

    In three dimensions the model's numbers have a grid of their own: together with the other
    coordinates they would make too many points.
    """
    dim, most = surface.dim, LANDMARKS[surface.dim]
    if dim == 3:
        bounded = sum(not isinstance(t, IdentityTransform) for t in surface.transforms)
        most //= 1 + bounded
    around = np.outer([-1, 1], 10.0 ** np.arange(-8, 2)).ravel() if dim == 1 else np.zeros(0)
    marks = landmarks(surface, model, text, most)
    near = (marks[:, None] + np.append(around, 0.0)).ravel()
    plain = jnp.asarray(np.sinh(GRID[dim]))
    return [_once(a) for a in ((plain, near) if dim == 3 else (jnp.append(plain, near),))]


def _once(axis: Array) -> Array:
    """The coordinates in order, each once, with others far out in place of those seen twice."""
    axis = jnp.sort(axis)
    # A point seen twice would look like the end of a plateau.
    twice = jnp.concatenate([jnp.zeros(1, bool), axis[1:] == axis[:-1]])
    beyond = np.sinh(REACH) * (1 + np.arange(1, len(axis) + 1) / len(axis))
    return jnp.sort(jnp.where(twice, beyond, axis))


def _scanned(surface: Surface, model: Model, axis: Array, text: Any) -> tuple[Array, Array]:
    """The points of a grid, and U at its local minima, inf elsewhere: (points, problems)."""
    lowest = _basins(_look(surface, model, axis, width_of(text)), len(axis), surface.dim)
    return _grid(axis, jnp.arange(len(lowest), dtype=np.int32), surface.dim), lowest


def _look(surface: Surface, model: Model, axis: Array, width: int) -> Array:
    """U on the square grid of an axis, inf where it is not held: (points, problems)."""
    points = jnp.arange(len(axis) ** surface.dim, dtype=np.int32)

    def one(number: Array) -> Array:
        z = _grid(axis, number, surface.dim)
        u, held = surface(model, jnp.broadcast_to(z, (surface.count, surface.dim)))
        # NaN and -inf are what overflow leaves far out.
        return jnp.where(held & (u > -jnp.inf), u, jnp.inf)

    return in_passes(one, points, width)


def _basins(u: Array, n: int, dim: int) -> Array:
    """U where no neighbour on the grid is lower, once in each plateau; inf elsewhere."""
    square = u.reshape(*(n,) * dim, -1)
    padded = jnp.pad(square, [(1, 1)] * dim + [(0, 0)], constant_values=jnp.inf)
    lowest, middle = jnp.isfinite(square), (1,) * dim
    for step in np.ndindex(*(3,) * dim):
        if step != middle:
            there = padded[tuple(slice(k, k + n) for k in step)]
            lowest &= square < there if step < middle else square <= there
    return jnp.where(lowest, square, jnp.inf).reshape(u.shape)


def _descend(surface: Surface, model: Model, z: Array) -> tuple[Array, Array, Array]:
    """A mode, U there and its axes, by damped Newton steps that are taken where they lower U."""

    def total(z: Array) -> tuple[Array, Array]:
        u = surface(model, z)[0]
        return jnp.sum(u), u

    def bend(z: Array, along: Array) -> tuple:
        return jax.jvp(jax.value_and_grad(total, has_aux=True), (z,), (along,))

    units = jnp.broadcast_to(jnp.eye(surface.dim)[:, None, :], (surface.dim, *z.shape))
    bends = jax.vmap(bend, in_axes=(None, 0), out_axes=(None, 0))

    def step(_: Array, state: tuple) -> tuple:
        (z, u, slope, sizes, axes), damping = state
        scale = jnp.max(jnp.abs(sizes), axis=1) + jnp.max(jnp.abs(slope), axis=1)
        along = jnp.einsum("pij,pi->pj", axes, slope)
        along = along / (jnp.abs(sizes) + (damping * scale)[:, None] + np.finfo(float).tiny)
        new = z - jnp.einsum("pij,pj->pi", axes, along)
        ((_, risen), slope), (_, columns) = bends(new, units)
        curvature = jnp.moveaxis(columns, 0, -1)
        known = jnp.all(jnp.isfinite(curvature), axis=(1, 2), keepdims=True)
        there = (new, risen, slope, *_eigh(jnp.where(known, curvature, 0.0)))
        better = risen < u
        damping = jnp.where(better, damping / 8, jnp.minimum(damping * 4, 1e8))
        moved = [
            jnp.where(better.reshape(-1, *(1,) * (a.ndim - 1)), a, b)
            for a, b in zip(there, state[0], strict=True)
        ]
        return tuple(moved), damping

    # With no slope yet, the first step stays where it is and measures U there.
    damping, none = jnp.full(surface.count, 1e-2), jnp.zeros_like(z)
    here = (z, jnp.full(surface.count, jnp.inf), none, none, jnp.moveaxis(units, 0, -1))
    z, u, _, _, axes = lax.fori_loop(0, NEWTON_STEPS, step, (here, damping))[0]
    return z, u, axes


def _determinant(matrix: Array) -> Array:
    """Of matrices up to 3 by 3, which need no decomposition, and so compile faster."""
    if matrix.shape[-1] == 1:
        return matrix[..., 0, 0]
    if matrix.shape[-1] == 3:
        return jnp.sum(matrix[..., 0, :] * _cofactors(matrix)[..., 0, :], axis=-1)
    return matrix[..., 0, 0] * matrix[..., 1, 1] - matrix[..., 0, 1] * matrix[..., 1, 0]


def _cofactors(matrix: Array) -> Array:
    """Of matrices 3 by 3: each row is the cross product of the two others."""
    a, b, c = (matrix[..., k, :] for k in range(3))
    return jnp.stack([jnp.cross(b, c), jnp.cross(c, a), jnp.cross(a, b)], axis=-2)


def _inverse(matrix: Array) -> Array:
    if matrix.shape[-1] == 1:
        return 1 / matrix
    if matrix.shape[-1] == 3:
        return jnp.swapaxes(_cofactors(matrix), -1, -2) / _determinant(matrix)[..., None, None]
    (a, b), (c, d) = ([matrix[..., i, j] for j in range(2)] for i in range(2))
    adjugate = jnp.stack([jnp.stack([d, -b], axis=-1), jnp.stack([-c, a], axis=-1)], axis=-2)
    return adjugate / _determinant(matrix)[..., None, None]


def _eigh(curvature: Array) -> tuple[Array, Array]:
    """Eigenvalues and eigenvectors; those of one dimension need no decomposition."""
    if curvature.shape[-1] == 1:
        return curvature[..., 0], jnp.ones_like(curvature)
    return jnp.linalg.eigh(curvature)


def _lengths(surface: Surface, model: Model, z: Array, u: Array, axes: Array) -> Array:
    """For each axis of a mode, the first of many lengths at which U has risen on both sides."""
    lengths = jnp.exp2(jnp.arange(-60.0, 60.0))
    rays = jnp.moveaxis(axes, -1, 0) * jnp.stack([lengths, -lengths])[:, :, None, None, None]
    risen = jax.vmap(lambda z: surface(model, z)[0])(z + rays.reshape(-1, *z.shape)) - u > 0.5
    risen = jnp.all(risen.reshape(*rays.shape[:3], -1), axis=0)
    found = jnp.where(jnp.any(risen, axis=0), lengths[first(risen)], 1.0)
    return jnp.moveaxis(found, 0, -1)
