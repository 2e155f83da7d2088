"""Where the mass of a density in one or two unconstrained coordinates lies.

Modes are looked for on a grid that spans 34 powers of ten about 0, and about the numbers that the
model itself holds: locations, scales, data, constants in the text of its functions. The lowest
local minima there are followed downwards by damped Newton steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.extend import core as jex
from numpyro.distributions.transforms import IdentityTransform

from energydsl._types import is_traced
from energydsl.language.model import Model
from energydsl.normalizer.cubature import REACH, Marks, first, first_largest, in_passes
from energydsl.normalizer.integrand import Surface

_FAR = np.linspace(6, REACH, 18)

GRID = {
    1: np.linspace(-REACH, REACH, 4097),
    2: np.concatenate([-_FAR[::-1], np.linspace(-5.9, 5.9, 119), _FAR]),
}
"""Points along each axis, before the sinh, by dimension."""

STARTS = 24
"""Local minima of the grid that are followed: a third the lowest, the others apart."""

APART = 1.0
"""How far apart those lie, in arcsinh(z): many low minima are those of one narrow ridge."""

NEWTON_STEPS = 60
"""Damped Newton steps from each of them."""

LANDMARKS = {1: 48, 2: 32}
"""Numbers of the model that are looked at, by dimension."""

SCANNED = {1: 4097 + 21 * 96, 2: (155 + 64) ** 2}
"""About how many points are looked at, by dimension."""

SMALL = 64
"""Arrays of the model with more numbers than this hold no locations."""

DENSER = 0.5
"""Scale of the sinh map, in widths of the mode."""

NEGLIGIBLE = -40.0
"""Log of a mass, relative to all, that no digit of the integral sees."""

UNRESOLVED = 1e-12
"""The least width of a mode, relative to its distance from 0."""

CHUNK = 2**16
"""Factor energies held at once."""


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
    """Local minima of U: (modes, problems, ...).

    Attributes:
        place: in z.
        matrix: the columns are the half axes along which U rises by 1/2.
        mass: log of about what lies there.
    """

    place: Array
    matrix: Array
    mass: Array


def search(surface: Surface, model: Model) -> tuple[Chart, Marks]:
    """Coordinates about the highest mode of each problem, and where in them all its modes are."""
    modes = _modes(surface, model)
    best = first_largest(modes.mass)
    rows = jnp.arange(surface.count)
    chart = Chart(modes.place[best, rows], DENSER * modes.matrix[best, rows])
    inverse = _inverse(chart.matrix)
    middle = jnp.einsum("pij,mpj->mpi", inverse, modes.place - chart.centre)
    # Half the width of a mode along each axis of the chart, the other axis held.
    shape = _inverse(jnp.einsum("pij,mpjk->mpik", inverse, modes.matrix))
    half = 1 / jnp.sqrt(jnp.sum(shape**2, axis=-2))
    counts = modes.mass > surface.together(jnp.max(modes.mass, axis=0)) + NEGLIGIBLE
    known = counts[..., None] & jnp.isfinite(middle) & jnp.isfinite(half)
    known = jnp.all(known, axis=-1, keepdims=True)
    middle, half = jnp.where(known, middle, 0.0), jnp.where(known, half, 0.0)

    def mapped(times: float) -> Array:
        return jnp.clip(jnp.arcsinh(middle + times * half), -REACH, REACH)

    widths = jnp.maximum((mapped(1.0) - mapped(-1.0)) / 2, 1e-12)
    # No cell resolves a mode that is narrower than the numbers about it are apart.
    lengths = jnp.sqrt(jnp.sum(modes.matrix**2, axis=-2))
    lost = jnp.any(lengths < UNRESOLVED * jnp.max(jnp.abs(modes.place), -1, keepdims=True), -1)
    widths = jnp.where(lost[..., None], 0.0, widths)
    return chart, Marks(mapped(0.0), jnp.where(known, widths, jnp.inf))


def _modes(surface: Surface, model: Model) -> Modes:
    axis = _axis(surface, model)
    u = _look(surface, model, axis)
    lowest = _basins(u, len(axis), surface.dim)
    numbers = jnp.arange(len(lowest), dtype=np.int32)[:, None]
    steps = jnp.arcsinh(_grid(axis, numbers, surface.dim))
    rows = jnp.arange(surface.count)

    def take(left: tuple[Array, Array], apart: Array) -> tuple[tuple[Array, Array], Array]:
        lowest, alone = left
        k = first_largest(-jnp.where(apart, alone, lowest))
        near = jnp.max(jnp.abs(steps - steps[k, 0]), axis=-1) < APART
        alone = jnp.where(near, jnp.inf, alone)
        return (lowest.at[k, rows].set(jnp.inf), alone), k

    apart = jnp.arange(STARTS) >= STARTS // 3
    _, picked = lax.scan(take, (lowest, lowest), apart)
    return jax.vmap(lambda z: _descend(surface, model, z))(_grid(axis, picked, surface.dim))


def _grid(axis: Array, number: Array, dim: int) -> Array:
    """The points of the square grid on an axis, by number: (..., dim)."""
    n = len(axis)
    return jnp.stack([axis[number // n ** (dim - 1 - k) % n] for k in range(dim)], axis=-1)


def _axis(surface: Surface, model: Model) -> Array:
    """Where to look along each axis, in order."""
    if surface.dim == 1:
        around = np.outer([-1, 1], 10.0 ** np.arange(-8, 2)).ravel()
        plain = np.sinh(GRID[1])
    else:
        around = np.zeros(0)
        plain = np.sinh(GRID[2])
    marks = landmarks(surface, model)
    near = marks[:, None] + np.append(around, 0.0)
    axis = jnp.sort(jnp.concatenate([jnp.asarray(plain), near.ravel()]))
    # A point seen twice would look like the end of a plateau.
    twice = jnp.concatenate([jnp.zeros(1, bool), axis[1:] == axis[:-1]])
    beyond = np.sinh(REACH) * (1 + np.arange(1, len(axis) + 1) / len(axis))
    return jnp.sort(jnp.where(twice, beyond, axis))


def landmarks(surface: Surface, model: Model) -> Array:
    """Numbers that the model holds, and what the domains' bijections take to them."""
    arrays, rest = eqx.partition(model, eqx.is_array)
    leaves = [a for a in jax.tree.leaves(arrays) if jnp.issubdtype(a.dtype, jnp.floating)]
    at = jnp.zeros((surface.count, surface.dim))
    text = jax.make_jaxpr(lambda a, z: surface(eqx.combine(a, rest), z)[0])(arrays, at)
    written = sorted({x for x in _literals(text) if np.isfinite(x)})
    numbers = [lax.stop_gradient(a).ravel() for a in leaves if a.size <= SMALL]
    numbers = jnp.concatenate([*numbers, jnp.asarray([*written, 0.0])])[: LANDMARKS[surface.dim]]
    bijections = [t for t in surface.transforms if not isinstance(t, IdentityTransform)]
    numbers = jnp.concatenate([numbers, *(t.inv(numbers) for t in bijections)])
    return jnp.where(jnp.isfinite(numbers), numbers, 0.0)


def _literals(text: Any) -> Iterator[float]:
    """The numbers in the text of a program, those of the functions that it calls among them."""
    if _is_closed(text):
        yield from (float(x) for c in text.consts if _concrete(c) for x in np.asarray(c).ravel())
        text = text.jaxpr
    if not isinstance(text, jex.Jaxpr):
        return
    for eqn in text.eqns:
        for x in eqn.invars:
            if isinstance(x, jex.Literal) and np.ndim(x.val) == 0:
                yield float(x.val)
        for inner in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda p: isinstance(p, jex.Jaxpr) or _is_closed(p)
        ):
            yield from _literals(inner)


def _is_closed(text: Any) -> bool:
    """Whether this is a program together with its constants."""
    return isinstance(getattr(text, "jaxpr", None), jex.Jaxpr) and hasattr(text, "consts")


def _concrete(value: Any) -> bool:
    """Whether these are a few numbers that are known while tracing."""
    return (
        not is_traced(value)
        and np.size(value) <= SMALL
        and np.issubdtype(np.asarray(value).dtype, np.floating)
    )


def _look(surface: Surface, model: Model, axis: Array) -> Array:
    """U on the square grid of an axis, inf where it is not held: (points, problems)."""
    points = jnp.arange(len(axis) ** surface.dim, dtype=np.int32)

    def one(number: Array) -> Array:
        z = _grid(axis, number, surface.dim)
        u, held = surface(model, jnp.broadcast_to(z, (surface.count, surface.dim)))
        # NaN and -inf are what overflow leaves far out.
        return jnp.where(held & (u > -jnp.inf), u, jnp.inf)

    return in_passes(one, points, width_of(surface))


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


def _descend(surface: Surface, model: Model, z: Array) -> Modes:
    """The mode, by damped Newton steps that are taken where they lower U, and its widths."""

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
    lengths = _lengths(surface, model, z, u, axes)
    return Modes(z, axes * lengths[:, None, :], -u + jnp.sum(jnp.log(lengths), axis=-1))


def _determinant(matrix: Array) -> Array:
    """Of matrices 1 by 1 or 2 by 2, which need no decomposition, and so compile faster."""
    if matrix.shape[-1] == 1:
        return matrix[..., 0, 0]
    return matrix[..., 0, 0] * matrix[..., 1, 1] - matrix[..., 0, 1] * matrix[..., 1, 0]


def _inverse(matrix: Array) -> Array:
    if matrix.shape[-1] == 1:
        return 1 / matrix
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


def width_of(surface: Surface) -> int:
    """Points to take at once."""
    return int(2 ** np.clip(np.log2(CHUNK / surface.size) // 1, 0, 20))
