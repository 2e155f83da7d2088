"""Integrals in one or two dimensions, by the trapezoidal rule with its error watched."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from energydsl.analysis.joint_states import state_bits
from energydsl.analysis.structure import Structure
from energydsl.language.model import Model
from energydsl.normalizer.base import AbstractRule
from energydsl.normalizer.integrand import Surface, dimensions, log_sum

AIM = 1e-9
"""Grids grow until the estimated error is below this, relative."""

ACCEPTED = 1e-6
"""The largest error of a value: what float32, in which energies live, resolves of ten nats."""

AGREEING = 5
"""Grids that an error is judged by."""

ROUNDING = 4 * 2.0**-52
"""What float64 loses of an energy of 1, as an error of log Z."""

MAX_BITS = 20
"""log2 of the points of the finest grid times the states of a component, if that leaves enough."""

LEAST_BITS = {1: 13, 2: 15}
"""log2 of the points that the finest grid has at least, by dimension."""

COARSEST = {1: 2000, 2: 500}
"""Points of the first grid at least, unless too few grids would follow it."""

SCANNED = {1: 8193, 2: 321}
"""Points an axis of the grid on which the mode and the extent are looked for, by dimension."""

NEWTON_STEPS = 80
"""Damped Newton steps from the best of those points to the mode."""

CHUNK = 2**16
"""Factor energies held at once."""

DENSER = 0.5
"""Scale of the sinh map, in widths of the mode: what is no larger has its points near the mode."""

REACH = 40.0
"""How far a grid goes: sinh(REACH) scales from the mode."""

NEGLIGIBLE = -40.0
"""Log of an integrand, relative to its peak, that no digit of the integral sees."""


class Quadrature(AbstractRule):
    r"""$Z_c = \int \sum_s e^{-U(z, s)}\,dz$ over one or two unconstrained coordinates.

    U holds the Jacobian; s are the states of the component's finite sites. With
    $z = m + a \sinh t$ about the mode m the trapezoidal rule in t converges exponentially for
    analytic integrands, tails of any power included. Its points in two dimensions are Fibonacci
    lattices, which no kink of U lies along, as it may along the rows of a square one. They grow
    until the error of the finest, judged by how successive ones differ, is below 1e-9 relative;
    where the largest that is allowed leaves more than 1e-6 there is no value. A peak narrower than
    the steps of some 2^13 points, besides the highest, is missed.

    Source: Trefethen & Weideman (2014), SIAM Review 56(3), 385-458, section 5; sinh: Takahasi &
    Mori (1974), Publ. RIMS 9, 721-741; lattices: Sloan & Joe (1994), Lattice Methods for Multiple
    Integration.
    """

    name: ClassVar[str] = "quadrature"

    def costs(self, structure: Structure, budget: int) -> np.ndarray:
        dims, bits = dimensions(structure), state_bits(structure)
        factors = max(sum(f.size for f in structure.factors), 1)
        costs = np.full(len(dims), np.inf)
        for dim, scanned in SCANNED.items():
            grid = _grid_bits(bits, dim)
            points = 3 * (2.0**grid + scanned**dim)
            fits = (dims == dim) & (grid + bits <= budget) & ~structure.uncountable
            costs[fits] = (points * np.exp2(np.minimum(bits, budget)) * factors)[fits]
        return costs

    def reason(self, structure: Structure, component: int, budget: int) -> str:
        if structure.uncountable[component]:
            return "it has sites with neither finitely many levels nor real coordinates"
        dim = int(dimensions(structure)[component])
        bits = state_bits(structure)[[component]]
        if dim not in SCANNED:
            return f"{dim:,} dimensions; at most 2" if dim else "no real site"
        grid = int(_grid_bits(bits, dim)[0])
        states = f" times 2^{int(bits[0])} states" if bits[0] else ""
        return f"a grid may need 2^{grid} points{states}; budget 2^{budget}"

    def bytes(self, structure: Structure, components: np.ndarray) -> float:
        states = 2.0 ** state_bits(structure)[components].max()
        size = sum(f.size for f in structure.factors) + structure.sites
        scanned = sum(SCANNED[d] ** d for d in dimensions(structure)[components].tolist())
        return 8.0 * (max(CHUNK, size * states) + 2 * scanned)

    def log_partition(self, structure: Structure, model: Model, components: np.ndarray) -> Array:
        found = _integrals(structure, model, tuple(components.tolist()))
        return jnp.sum(jnp.stack([part.value.sum() for part in found]))

    def error(self, structure: Structure, model: Model, components: np.ndarray) -> float:
        found = _integrals(structure, model, tuple(components.tolist()))
        return float(sum(part.error.sum() for part in found))

    def trouble(self, structure: Structure, model: Model, components: np.ndarray) -> str | None:
        found = _integrals(structure, model, tuple(components.tolist()))
        for group, part in zip(_groups(structure, components), found, strict=True):
            for c, off, falls in zip(group, part.error, part.falls, strict=True):
                site = structure.describe(int(np.argmax(structure.component_of == c)))
                if not falls:
                    return (
                        f"the density around {site} does not fall off within the numbers that "
                        "float64 holds: exp(-E) may have no finite integral"
                    )
                if not off <= ACCEPTED:
                    return (
                        f"the quadrature over {site} and what it is coupled to did not settle: the "
                        f"error of its largest grid is about {off:.1g} relative, more than "
                        f"{ACCEPTED:.0g}. Estimate it: ed.estimate_log_partition(ebm, key=key)"
                    )
        return None


def _grid_bits(bits: np.ndarray, dim: int) -> np.ndarray:
    """log2 of the points that the finest grid of a component with so many states may have."""
    return np.clip(MAX_BITS - bits, LEAST_BITS[dim], MAX_BITS)


def _groups(structure: Structure, components: np.ndarray) -> list[np.ndarray]:
    """Components of like dimension and like number of states together."""
    like = np.stack([dimensions(structure), state_bits(structure)], axis=1)[components]
    kinds, number = np.unique(like, axis=0, return_inverse=True)
    return [components[number.ravel() == k] for k in range(len(kinds))]


@eqx.filter_jit
def _integrals(structure: Structure, model: Model, components: tuple[int, ...]) -> list[_Integral]:
    groups = _groups(structure, np.asarray(components))
    return [_integrate(Surface(structure, group), model) for group in groups]


def _ladder(surface: Surface) -> np.ndarray:
    """The numbers of points of the grids that some components may have, with their generators."""
    most = 2 ** _grid_bits(np.array([surface.bits]), surface.dim)[0]
    if surface.dim == 1:
        # Sizes without a common law: no jump falls between the points of all alike, unseen.
        sizes = np.array([int(most / 1.7**k) for k in range(40)])[::-1]
        generators = np.ones_like(sizes)
    else:
        numbers = [1, 1]
        while numbers[-1] + numbers[-2] <= most:
            numbers.append(numbers[-1] + numbers[-2])
        sizes, generators = np.array([numbers[1:], numbers[:-1]])
    first = min(len(sizes) - AGREEING, int(np.searchsorted(sizes, COARSEST[surface.dim])))
    return np.stack([sizes, generators])[:, first:]


class _Chart(NamedTuple):
    """z = centre + matrix sinh(t), for each component."""

    centre: Array
    matrix: Array

    def __call__(self, t: Array) -> tuple[Array, Array]:
        """Z and log |det dz/dt|, for t of shape (components, dimensions)."""
        z = self.centre + jnp.einsum("cij,cj->ci", self.matrix, jnp.sinh(t))
        slope = jnp.linalg.slogdet(self.matrix)[1]
        return z, slope + jnp.sum(jnp.log(jnp.cosh(t)), axis=-1)


class _Box(NamedTuple):
    """Where to integrate, in a chart; and how much of each component lies beyond, relative."""

    chart: _Chart
    low: Array
    high: Array
    beyond: Array


class _Grid(NamedTuple):
    """A lattice of points in a box, and what their sum is."""

    box: _Box
    size: Array
    generator: Array
    value: Array


class _Integral(NamedTuple):
    """For each component: log Z or NaN, its error, whether U rises towards all ends."""

    value: Array
    error: Array
    falls: Array


def _integrate(surface: Surface, model: Model) -> _Integral:
    still = jax.tree.map(lambda a: lax.stop_gradient(a) if isinstance(a, Array) else a, model)
    box, ladder = _box(surface, still), _ladder(surface)
    falls = box.beyond < ACCEPTED

    def grid(k: Array, value: Array) -> _Grid:
        return _Grid(box, jnp.asarray(ladder[0])[k], jnp.asarray(ladder[1])[k], value)

    def rough(state: tuple) -> Array:
        k, *_, error = state
        return (k + 1 < ladder.shape[1]) & jnp.any(falls & ~(error <= AIM))

    def refine(state: tuple) -> tuple:
        k, old, gaps, _ = state
        new = _trapezoid(surface, still, grid(k + 1, old))
        gap = jnp.where(k < 0, jnp.inf, jnp.abs(jnp.expm1(new - old)))
        gaps = jnp.concatenate([gaps[1:], gap[None]])
        return k + 1, new, gaps, _error(gaps) + ROUNDING * (1 + jnp.abs(new))

    unknown = jnp.full((AGREEING - 1, surface.count), jnp.inf)
    start = (jnp.asarray(-1), -unknown[0], unknown, unknown[0])
    k, value, _, error = lax.while_loop(rough, refine, start)
    value = _differentiable(model, grid(jnp.maximum(k, 0), value), surface)
    known = falls & (error + box.beyond <= ACCEPTED)
    return _Integral(jnp.where(known, value, jnp.nan), error + box.beyond, falls)


def _error(gaps: Array) -> Array:
    r"""The error of the last of five grids, from the differences d between each and the next.

    $\frac12 \max_j d_{4-j}\,\rho^j$: half the last difference, as the finer of two grids has the
    lesser part in it; if that is no accident. So it counts for no less than what the ones before
    it leave when they shrink at the rate $\rho$, the slowest seen but at most 1/2. It is never
    believed to shrink further: the kinks of an integrand show only once its smooth part has
    converged.
    """
    before = jnp.where(jnp.isfinite(gaps[:-1]) & (gaps[:-1] > 0), gaps[:-1], gaps[1:])
    rates = jnp.where(before > 0, gaps[1:] / before, 0.0)
    slowest = jnp.minimum(jnp.max(rates, axis=0), 0.5)
    powers = slowest ** jnp.arange(len(gaps) - 1.0, -1.0, -1.0)[:, None]
    return jnp.max(gaps * powers, axis=0) / 2


@eqx.filter_custom_jvp
def _differentiable(model: Model, grid: _Grid, surface: Surface) -> Array:
    """The value found, whose derivative is that of the sum over the grid."""
    return grid.value


@_differentiable.def_jvp
def _differentiable_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    model, grid, surface = primals
    slope = eqx.filter_jvp(lambda m: _trapezoid(surface, m, grid), (model,), (tangents[0],))[1]
    return _differentiable(*primals), slope


def _trapezoid(surface: Surface, model: Model, grid: _Grid) -> Array:
    """Log of the sum over a grid, in passes that stop when the points do."""
    most, width = int(_ladder(surface)[0, -1]), _width(surface)
    box, sides = grid.box, grid.box.high - grid.box.low

    def one(i: Array) -> Array:
        k = jnp.stack([i, i * grid.generator % grid.size])[: surface.dim]
        z, slope = box.chart(box.low + (k + 0.5) / grid.size * sides)
        return jnp.where(i < grid.size, slope - surface(model, z)[0], -jnp.inf)

    def visit(first: Array) -> Array:
        return log_sum(jax.vmap(one)(first + jnp.arange(width)))

    nothing = jnp.full(surface.count, -jnp.inf)

    @jax.checkpoint
    def add(total: Array, first: Array) -> tuple[Array, None]:
        seen = lax.cond(first < grid.size, visit, lambda _: nothing, first)
        return jnp.logaddexp(total, seen), None

    total = lax.scan(add, nothing, jnp.arange(0, most, width))[0]
    return total + jnp.sum(jnp.log(sides), axis=-1) - jnp.log(grid.size)


def _box(surface: Surface, model: Model) -> _Box:
    """A chart around the mode, and the ends of the grid in it."""
    count, dim = surface.count, surface.dim
    axis = jnp.linspace(-REACH, REACH, SCANNED[dim])
    grid = jnp.stack(jnp.meshgrid(*[axis] * dim, indexing="ij"), axis=-1).reshape(-1, dim)

    def look(chart: _Chart) -> tuple[Array, Array, Array]:
        """U, the log integrand and whether it is held, (points, components)."""

        def one(t: Array) -> tuple[Array, Array, Array]:
            z, slope = chart(jnp.broadcast_to(t, (count, dim)))
            u, held = surface(model, z)
            # NaN and -inf are what overflow leaves far out.
            u = jnp.where((u > -jnp.inf) & held, u, jnp.inf)
            return u, slope - u, held

        width = min(_width(surface), len(grid))
        padded = jnp.pad(grid, ((0, -len(grid) % width), (0, 0)))
        seen = lax.map(jax.vmap(one), padded.reshape(-1, width, dim))
        return jax.tree.map(lambda a: a.reshape(-1, count)[: len(grid)], seen)

    def centred(chart: _Chart, u: Array, log: Array) -> _Chart:
        return _mode(surface, model, chart(grid[_first(-u)])[0])

    def widened(chart: _Chart, u: Array, log: Array) -> _Chart:
        # Where the mass lies farther out than the mode is wide (other modes), steps widen with it.
        weight = jax.nn.softmax(log, axis=0)
        spread = jnp.sqrt(jnp.einsum("pc,pd->cd", weight, grid**2))
        return chart._replace(matrix=chart.matrix * jnp.maximum(jnp.sinh(spread), 1.0)[:, None, :])

    def stage(k: Array, state: tuple) -> tuple:
        chart = state[0]
        u, log, held = look(chart)
        return lax.switch(k, [centred, widened, lambda c, *_: c], chart, u, log), log, held

    plain = _Chart(jnp.zeros((count, dim)), jnp.broadcast_to(jnp.eye(dim), (count, dim, dim)))
    none = jnp.zeros((len(grid), count))
    chart, log, held = lax.fori_loop(0, 3, stage, (plain, none, none > 0))
    shape = (len(axis),) * dim
    return _ends(chart, axis, log.reshape(*shape, count), held.reshape(*shape, count))


def _ends(chart: _Chart, axis: Array, log: Array, held: Array) -> _Box:
    """Where the integrand has become negligible along each axis, or is held no further."""
    low, high, last = [], [], len(axis) - 1
    peak = jnp.max(log, axis=tuple(range(log.ndim - 1)))
    beyond = jnp.where(jnp.isfinite(peak), 0.0, jnp.inf)
    for k in range(log.ndim - 1):
        others = tuple(j for j in range(log.ndim - 1) if j != k)
        ridge = jnp.max(log, axis=others) - peak
        known, seen = jnp.any(held, axis=others), ridge > NEGLIGIBLE
        low.append(axis[jnp.maximum(_first(seen) - 1, 0)])
        high.append(axis[jnp.minimum(last - _first(seen[::-1]) + 1, last)])
        for end in (_first(known), last - _first(known[::-1])):
            beyond += jnp.exp(jnp.take_along_axis(ridge, end[None], axis=0)[0])
    return _Box(chart, jnp.stack(low, axis=-1), jnp.stack(high, axis=-1), beyond)


def _mode(surface: Surface, model: Model, z: Array) -> _Chart:
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
        along = jnp.einsum("cij,ci->cj", axes, slope)
        along = along / (jnp.abs(sizes) + (damping * scale)[:, None] + np.finfo(float).tiny)
        new = z - jnp.einsum("cij,cj->ci", axes, along)
        ((_, risen), slope), (_, columns) = bends(new, units)
        curvature = jnp.moveaxis(columns, 0, -1)
        known = jnp.all(jnp.isfinite(curvature), axis=(1, 2), keepdims=True)
        there = (new, risen, slope, *jnp.linalg.eigh(jnp.where(known, curvature, 0.0)))
        better = risen < u
        damping = jnp.where(better, damping / 8, jnp.minimum(damping * 4, 1e8))
        moved = [
            jnp.where(better.reshape(-1, *(1,) * (a.ndim - 1)), a, b)
            for a, b in zip(there, state[0], strict=True)
        ]
        return tuple(moved), damping

    # The first step goes nowhere: it only looks.
    damping, none = jnp.full(surface.count, 1e-2), jnp.zeros_like(z)
    here = (z, jnp.full(surface.count, jnp.inf), none, none, jnp.moveaxis(units, 0, -1))
    z, u, _, _, axes = lax.fori_loop(0, NEWTON_STEPS, step, (here, damping))[0]
    return _Chart(z, axes * DENSER * _lengths(surface, model, z, u, axes)[:, None, :])


def _lengths(surface: Surface, model: Model, z: Array, u: Array, axes: Array) -> Array:
    """For each axis of a mode, the first of many lengths at which U has risen on both sides."""
    lengths = jnp.exp2(jnp.arange(-60.0, 60.0))
    rays = jnp.moveaxis(axes, -1, 0) * jnp.stack([lengths, -lengths])[:, :, None, None, None]
    risen = jax.vmap(lambda z: surface(model, z)[0])(z + rays.reshape(-1, *z.shape)) - u > 0.5
    risen = jnp.all(risen.reshape(*rays.shape[:3], -1), axis=0)
    found = jnp.where(jnp.any(risen, axis=0), lengths[_first(risen)], 1.0)
    return jnp.moveaxis(found, 0, -1)


def _width(surface: Surface) -> int:
    """Points to take at once."""
    return int(2 ** np.clip(np.log2(CHUNK / surface.size) // 1, 0, MAX_BITS))


def _first(values: Array) -> Array:
    """Where the largest stands on the first axis, or the first True."""
    # An argmax of float64 cannot be lowered where a surrounding program has 64 bits off.
    count = len(values)
    numbers = lax.broadcasted_iota(np.int32, values.shape, 0)
    here = values == jnp.max(values, axis=0)
    return jnp.minimum(jnp.min(jnp.where(here, numbers, count), axis=0), count - 1)
