"""Integrals in one or two dimensions, by the trapezoidal rule with its error watched."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from energydsl.arguments import factor_energies
from energydsl.model import Model
from energydsl.normalizer.base import AbstractRule
from energydsl.states import owners, positions
from energydsl.structure import Structure
from energydsl.variable import Variable

TOLERANCE = 1e-9
"""Two successive resolutions agree to this, relative; the finer one, whose error is far smaller
where the integrand is analytic, is the value."""

MAX_BITS = 20
"""log2 of the points of the finest grid."""

MIN_BITS = 13
"""log2 of the points of the coarsest grid, or one more."""

SCANNED = {1: 8193, 2: 321}
"""Points an axis of the grid on which the mode and the extent are looked for, by dimension."""

NEWTON_STEPS = 80
"""Damped Newton steps from the best of those points to the mode."""

RESOLVED = 1e-2
"""Coordinates count as held by float64 where the bijection can be undone to this precision."""

CHUNK = 2**16
"""Factor energies held at once."""

REACH = 40.0
"""How far a grid goes: sinh(REACH) scales from the mode."""

NEGLIGIBLE = -60.0
"""Log of an integrand, relative to its peak, that no digit of the integral sees."""

CUT = -21.5
"""The same where the domain's coordinates end: what lies beyond is below 1e-9 of the whole."""


class Quadrature(AbstractRule):
    r"""$Z_c = \int e^{-U(z)}\,dz$ over one or two unconstrained coordinates, Jacobian in U.

    With $z = m + s \sinh t$ about the mode m the trapezoidal rule in t converges exponentially
    for analytic integrands, tails of any power included. Steps are halved until two resolutions
    agree to 1e-9 relative; where 2^20 points are not enough there is no value. A peak that is
    narrower than the steps of the coarsest grid (2^14 points), besides the highest, is missed.

    Source: Trefethen & Weideman (2014), SIAM Review 56(3), 385-458, section 5; sinh: Takahasi &
    Mori (1974), Publ. RIMS 9, 721-741.
    """

    name: ClassVar[str] = "quadrature"

    def costs(self, structure: Structure, budget: int) -> np.ndarray:
        dims = _dimensions(structure)
        factors = max(sum(f.size for f in structure.factors), 1)
        fits = (dims <= 2) & (budget >= MAX_BITS)
        return np.where(fits, 2.0**MAX_BITS * factors, np.inf)

    def reason(self, structure: Structure, component: int, budget: int) -> str:
        if budget < MAX_BITS:
            return f"a grid may need 2^{MAX_BITS} points; budget 2^{budget}"
        inside = (structure.component_of == component) & (structure.levels > 0)
        if inside.any():
            return f"{structure.describe(int(np.argmax(inside)))} is discrete"
        return f"{int(_dimensions(structure)[component]):,} dimensions; at most 2"

    def bytes(self, structure: Structure, components: np.ndarray) -> float:
        return 8.0 * max(CHUNK, sum(f.size for f in structure.factors) + structure.sites)

    def log_partition(self, structure: Structure, model: Model, components: np.ndarray) -> Array:
        parts = [_integrate(s) for s in _surfaces(structure, model, components)]
        return jnp.sum(jnp.stack([part.value.sum() for part in parts]))

    def trouble(self, structure: Structure, model: Model, components: np.ndarray) -> str | None:
        for surface in _surfaces(structure, model, components):
            found = jax.tree.map(np.asarray, _integrate(surface))
            for c, off, falls in zip(surface.components, found.error, found.falls, strict=True):
                site = structure.describe(int(np.argmax(structure.component_of == c)))
                if not falls:
                    return (
                        f"the density around {site} does not fall off within the numbers that "
                        "float64 holds: exp(-E) may have no finite integral"
                    )
                if not off <= TOLERANCE:
                    return (
                        f"the quadrature over {site} and what it is coupled to did not settle: two "
                        f"grids differ by {off:.1g} relative, more than {TOLERANCE:.0g}. Estimate "
                        "it: ed.estimate_log_partition(ebm, key=key)"
                    )
        return None


def _events(structure: Structure, v: Variable) -> tuple[np.ndarray, int]:
    """The sites of each free event of a variable, and the coordinates one event has."""
    k = v.domain.event_ndim
    event = v.shape[len(v.shape) - k :]
    sites = np.arange(v.size).reshape(-1, int(np.prod(event, dtype=int))) + structure.offset[v.name]
    inverse = v.domain.transform.inverse_shape(event)
    return sites[structure.free[sites[:, 0]]], int(np.prod(inverse, dtype=int))


def _dimensions(structure: Structure) -> np.ndarray:
    """Unconstrained coordinates of each component; infinite where a site is discrete."""
    count = len(structure.component_sizes)
    dims = np.zeros(count)
    for v in structure.variables:
        if v.domain.finite:
            sites = np.arange(v.size) + structure.offset[v.name]
            dims[structure.component_of[sites[structure.free[sites]]]] = np.inf
        else:
            sites, each = _events(structure, v)
            np.add.at(dims, structure.component_of[sites[:, 0]], each)
    return dims


def _surfaces(structure: Structure, model: Model, components: np.ndarray) -> list[_Surface]:
    """Components of like dimension together."""
    dims = _dimensions(structure)[components].astype(int)
    return [_Surface(structure, model, components[dims == d], int(d)) for d in np.unique(dims)]


class _Surface:
    """U(z) of some components at once: z is (components, dimensions)."""

    def __init__(self, structure: Structure, model: Model, components: np.ndarray, dim: int):
        self.structure, self.model, self.components, self.dim = structure, model, components, dim
        owned = [(f, owners(structure, f, components)) for f in structure.factors]
        self.owned = [(f, owner) for f, owner in owned if (owner >= 0).any()]
        self.size = sum(f.size for f, _ in self.owned) + structure.sites
        self.events, used = [], np.zeros(len(components), int)
        position = positions(structure, components)
        for v in structure.variables:
            if v.domain.finite:
                continue
            sites, width = _events(structure, v)
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
            self.events.append((v, sites, owner, columns))

    def frozen(self) -> _Surface:
        """The same, its parameters taken as constants."""
        held = jax.tree.map(
            lambda a: lax.stop_gradient(a) if isinstance(a, Array) else a, self.model
        )
        return _Surface(self.structure, held, self.components, self.dim)

    def __call__(self, z: Array) -> Array:
        values, total = self.model.blank(), jnp.zeros(len(self.components))
        for v, sites, owner, columns in self.events:
            transform, part, x = self._event(v, z, owner, columns)
            jacobian = transform.log_abs_det_jacobian(part, x)
            total -= jax.ops.segment_sum(jacobian, owner, len(self.components))
            flat = values[v.name].ravel().astype(x.dtype)
            values[v.name] = flat.at[sites].set(x.reshape(sites.shape)).reshape(v.shape)
        env = self.model.environment(values)
        for factor, owner in self.owned:
            rows = np.flatnonzero(owner >= 0)
            each = factor_energies(factor, env)[rows]
            total += jax.ops.segment_sum(each, owner[rows], len(self.components))
        return total

    def resolved(self, z: Array) -> Array:
        """Whether float64 holds the values at z apart from those at the domain's ends."""
        good = jnp.ones(len(self.components), bool)
        for v, _, owner, columns in self.events:
            transform, part, x = self._event(v, z, owner, columns)
            back = jnp.abs(transform.inv(x) - part) < RESOLVED * (1 + jnp.abs(part))
            good = good.at[owner].min(jnp.all(back.reshape(len(owner), -1), axis=1))
        return good

    def _event(self, v: Variable, z: Array, owner: np.ndarray, columns: np.ndarray) -> tuple:
        part = z[owner[:, None], columns]
        part = part if v.domain.event_ndim else part[:, 0]
        return v.domain.transform, part, v.domain.transform(part)


class _Chart(NamedTuple):
    """z = centre + matrix sinh(t), for each component."""

    centre: Array
    matrix: Array

    def __call__(self, t: Array) -> tuple[Array, Array]:
        """Z and log |det dz/dt|, for t of shape (components, dimensions)."""
        z = self.centre + jnp.einsum("cij,cj->ci", self.matrix, jnp.sinh(t))
        slope = jnp.linalg.slogdet(self.matrix)[1]
        return z, slope + jnp.sum(jnp.log(jnp.cosh(t)), axis=-1)


class _Integral(NamedTuple):
    """For each component: log Z or NaN, its relative error, whether U rises towards all ends."""

    value: Array
    error: Array
    falls: Array


def _integrate(surface: _Surface) -> _Integral:
    still = surface.frozen()
    chart, low, high, falls = lax.stop_gradient(_extent(still))
    least = 2 ** (MIN_BITS // surface.dim) - 1
    most = 2 ** (MAX_BITS // surface.dim) - 1

    def total(surface: _Surface, n: Array) -> Array:
        return _trapezoid(surface, chart, low, high, n)

    def rough(state: tuple) -> Array:
        n, _, error = state
        return (n < most) & jnp.any(falls & ~(error <= TOLERANCE))

    def refine(state: tuple) -> tuple:
        n, old, _ = state
        # Doubled alone, every other jump would fall between the points as before, unseen.
        n = 2 * n + 1
        new = total(still, n)
        return n, new, jnp.abs(jnp.expm1(new - old))

    n = jnp.asarray(least)
    first = (n, total(still, n), jnp.full(len(surface.components), jnp.inf))
    n, _, error = lax.stop_gradient(lax.while_loop(rough, refine, first))
    value = jnp.where(falls & (error <= TOLERANCE), total(surface, n), jnp.nan)
    return _Integral(value, error, falls)


def _trapezoid(surface: _Surface, chart: _Chart, low: Array, high: Array, n: Array) -> Array:
    """Log of the sum over n midpoints an axis, in passes that stop when the points do."""
    limit = 2**MAX_BITS
    width = int(2 ** np.clip(np.log2(CHUNK / surface.size) // 1, 0, MAX_BITS))
    step = (high - low) / n
    points = n**surface.dim

    def one(i: Array) -> Array:
        k = jnp.stack([i // n**j % n for j in range(surface.dim)])
        z, slope = chart(low + (k + 0.5) * step)
        return jnp.where(i < points, slope - surface(z), -jnp.inf)

    def visit(first: Array) -> Array:
        return jax.nn.logsumexp(jax.vmap(one)(first + jnp.arange(width)), axis=0)

    @jax.checkpoint
    def add(total: Array, first: Array) -> tuple[Array, None]:
        nothing = jnp.full(len(surface.components), -jnp.inf)
        seen = lax.cond(first < points, visit, lambda _: nothing, first)
        return jnp.logaddexp(total, seen), None

    start = jnp.full(len(surface.components), -jnp.inf)
    total, _ = lax.scan(add, start, jnp.arange(limit // width) * width)
    return total + jnp.sum(jnp.log(step), axis=-1)


def _extent(surface: _Surface) -> tuple[_Chart, Array, Array, Array]:
    """A chart around the mode, the ends of the grid in it, and whether U rises towards all ends."""
    count, dim = len(surface.components), surface.dim
    axis = jnp.linspace(-REACH, REACH, SCANNED[dim])
    grid = jnp.stack(jnp.meshgrid(*[axis] * dim, indexing="ij"), axis=-1).reshape(-1, dim)

    def scan(chart: _Chart) -> tuple[Array, Array, Array]:
        """U, log integrand and whether it is held, (points, components)."""

        def one(t: Array) -> tuple[Array, Array, Array]:
            z, slope = chart(jnp.broadcast_to(t, (count, dim)))
            u, held = surface(z), surface.resolved(z)
            # NaN and -inf are what overflow leaves far out.
            u = jnp.where((u > -jnp.inf) & held, u, jnp.inf)
            return u, slope - u, held

        return lax.map(one, grid, batch_size=max(CHUNK // surface.size, 1))

    plain = _Chart(jnp.zeros((count, dim)), jnp.broadcast_to(jnp.eye(dim), (count, dim, dim)))
    centre = plain(grid[_first(-scan(plain)[0])])[0]
    centre = _descend(surface, centre)
    chart = _Chart(centre, _width(surface, centre))

    # Where the mass lies farther out than the mode is wide (other modes), steps widen with it.
    log = scan(chart)[1]
    weight = jax.nn.softmax(log, axis=0)
    spread = jnp.sqrt(jnp.einsum("pc,pd->cd", weight, grid**2))
    chart = chart._replace(matrix=chart.matrix * jnp.maximum(jnp.sinh(spread), 1.0)[:, None, :])

    _, log, held = scan(chart)
    shape = (*(len(axis),) * dim, count)
    low, high, falls = [], [], jnp.ones(count, bool)
    peak = jnp.max(log, axis=0)
    for k in range(dim):
        others = tuple(j for j in range(dim) if j != k)
        ridge = jnp.max(log.reshape(shape), axis=others) - peak
        known = jnp.any(held.reshape(shape), axis=others)
        seen = ridge > NEGLIGIBLE
        low.append(axis[jnp.maximum(_first(seen) - 1, 0)])
        last = len(axis) - 1 - _first(seen[::-1])
        high.append(axis[jnp.minimum(last + 1, len(axis) - 1)])
        ends = _first(known), len(axis) - 1 - _first(known[::-1])
        for end in ends:
            falls &= jnp.take_along_axis(ridge, end[None], axis=0)[0] < CUT
    return chart, jnp.stack(low, axis=-1), jnp.stack(high, axis=-1), falls & jnp.isfinite(peak)


def _derivatives(surface: _Surface) -> Callable[[Array], tuple[Array, Array]]:
    """Gradient and Hessian of each component's U in its own coordinates."""
    slope = jax.grad(lambda z: jnp.sum(surface(z)))

    def both(z: Array) -> tuple[Array, Array]:
        units = jnp.broadcast_to(jnp.eye(surface.dim)[:, None, :], (surface.dim, *z.shape))
        columns = jax.vmap(lambda e: jax.jvp(slope, (z,), (e,))[1])(units)
        return slope(z), jnp.moveaxis(columns, 0, -1)

    return both


def _descend(surface: _Surface, z: Array) -> Array:
    """Damped Newton steps, taken where they lower U."""
    both, eye = _derivatives(surface), jnp.eye(surface.dim)

    def step(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        z, damping = state
        slope, curvature = both(z)
        size = jnp.max(jnp.abs(curvature), axis=(1, 2)) + jnp.max(jnp.abs(slope), axis=1)
        damped = curvature + (damping * size)[:, None, None] * eye
        new = z - jnp.linalg.solve(damped, slope[..., None])[..., 0]
        better = surface(new) < surface(z)
        damping = jnp.where(better, damping / 8, jnp.minimum(damping * 4, 1e8))
        return (jnp.where(better[:, None], new, z), damping), None

    start = (z, jnp.full(len(surface.components), 1e-2))
    return lax.scan(step, start, None, length=NEWTON_STEPS)[0][0]


def _width(surface: _Surface, z: Array) -> Array:
    """A matrix with a column for each principal axis of the mode, as long as U takes to rise."""
    curvature = _derivatives(surface)(z)[1]
    finite = jnp.all(jnp.isfinite(curvature), axis=(1, 2), keepdims=True)
    axes = jnp.linalg.eigh(jnp.where(finite, curvature, 0.0))[1]
    lengths = jnp.exp2(jnp.arange(-60.0, 60.0))
    here = surface(z)

    def length(axis: Array) -> Array:
        """The first at which U has risen by 1/2 on both sides."""
        up, down = (
            jax.vmap(lambda r: surface(z + r * axis) - here > 0.5)(s) for s in (lengths, -lengths)
        )
        risen = up & down
        return jnp.where(jnp.any(risen, axis=0), lengths[_first(risen)], 1.0)

    return jnp.stack(
        [axes[:, :, k] * length(axes[:, :, k])[:, None] for k in range(surface.dim)], axis=-1
    )


def _first(values: Array) -> Array:
    """Where the largest stands on the first axis, or the first True."""
    # An argmax of float64 cannot be lowered where a surrounding program has 64 bits off.
    count = len(values)
    numbers = lax.broadcasted_iota(np.int32, values.shape, 0)
    here = values == jnp.max(values, axis=0)
    return jnp.minimum(jnp.min(jnp.where(here, numbers, count), axis=0), count - 1)
