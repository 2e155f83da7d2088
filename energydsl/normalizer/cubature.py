"""Adaptive integration of many log integrands at once, over boxes of one or two dimensions.

Each problem has a box of its own, which is bisected where the error of its cells is largest. The
cells are found without derivatives; the integral over cells that are known is a plain sum, which
JAX differentiates as often as wanted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

NODES = np.array(
    [1.0, 0.942882415695480, np.sqrt(2 / 3), 0.641853342345781, np.sqrt(1 / 5), 0.236383199662150]
)
ENDS = [0.0158271919734802, 0.0942738402188500, 0.155071987336585, 0.188821573960182]
MIDDLE = [0.199773405226859, 0.224926465333340, 0.242611071901408]
FINE = np.array(ENDS + MIDDLE)
ROUGH = np.array([77.0, 0.0, 432.0, 0.0, 625.0, 0.0, 672.0]) / 1470
"""Rules of 13 and 7 points, from the end of an interval to its middle, with a point at each end:
no jump of an integrand lies between the outermost points and the end, unseen.

Source: Gander & Gautschi (2000), BIT 40(1), 84-101.
"""

AXIS = np.concatenate([-NODES, [0.0], NODES[::-1]])
WEIGHTS, ROUGHER = (np.concatenate([half, half[-2::-1]]) for half in (FINE, ROUGH))

POINTS = 13
"""Of a cell, along each axis."""

SPLIT = {1: 8, 2: 16}
"""Cells of a problem that are bisected at once, by dimension."""

COARSE = {1: 16, 2: 6}
"""Equal parts of a box along an axis that no cell may exceed, by dimension."""

RESOLVED = 4.0
"""Cells at a mark are no longer than this many times its width."""


VALLEY = 1.0
"""Nats by which a convex U may fall between two points without that being an error."""


class Box(NamedTuple):
    """Where to integrate, and what must be resolved there.

    Attributes:
        low: (problems, dimensions).
        high: like `low`.
        marks: places at which cells must be small, (marks, problems, dimensions).
        widths: how small, like `marks`.
    """

    low: Array
    high: Array
    marks: Array
    widths: Array


class Cells(NamedTuple):
    """The parts of each problem's box: the first `used` rows, (cells, problems, ...)."""

    low: Array
    high: Array
    value: Array
    """Log of the integral over each cell."""
    error: Array
    """Log of its error."""
    axis: Array
    """Along which to bisect it."""
    used: Array


class _Rule(NamedTuple):
    """Points of [-1, 1]^d, their weights, and for each axis the change to the rougher rule's."""

    points: np.ndarray
    weights: np.ndarray
    changes: np.ndarray


def _rule(dim: int) -> _Rule:
    points = np.stack(np.meshgrid(*[AXIS] * dim, indexing="ij"), axis=-1).reshape(-1, dim)

    def product(factors: list[np.ndarray]) -> np.ndarray:
        weights = np.ones(1)
        for factor in factors:
            weights = np.multiply.outer(weights, factor).ravel()
        return weights

    weights = product([WEIGHTS] * dim)
    mixed = [product([ROUGHER if i == k else WEIGHTS for i in range(dim)]) for k in range(dim)]
    return _Rule(points, weights, np.stack(mixed) - weights)


def refine(
    log_density: Callable[[Array], Array],
    box: Box,
    together: Callable[[Array], Array],
    *,
    aim: float,
    most: int,
    width: int,
) -> Cells:
    """Cells on which the sum of the rule is within `aim`, relative, or as many as allowed.

    Args:
        log_density: log of the integrand of every problem, from (problems, dimensions).
        box: where to integrate.
        together: log of the sum over the problems whose integrals belong together, spread over
            the problems again: what an error is relative to.
        aim: the error at which to stop.
        most: cells that a problem may have.
        width: points at which the integrands are evaluated at once.
    """
    count, dim = box.low.shape
    rule, many = _rule(dim), SPLIT[dim]

    def totals(cells: Cells) -> tuple[Array, Array]:
        value, error = (together(jax.nn.logsumexp(a, axis=0)) for a in (cells.value, cells.error))
        return value, error

    def wanted(cells: Cells) -> Array:
        value, error = totals(cells)
        spread = together(jnp.log(cells.used.astype(value.dtype)))
        rough = cells.error > jnp.log(aim) + value - spread
        return rough & ~(error <= jnp.log(aim) + value) & (cells.used + many <= most)

    def go_on(cells: Cells) -> Array:
        return jnp.any(wanted(cells))

    def bisect(cells: Cells) -> Cells:
        rank = jnp.where(wanted(cells), cells.error, -jnp.inf)
        best, place = lax.top_k(rank.T, many)
        place = place.T
        rows = jnp.arange(count)
        low, high = cells.low[place, rows], cells.high[place, rows]
        across = cells.axis[place, rows][..., None] == jnp.arange(dim)
        middle = (low + high) / 2
        lows = jnp.concatenate([low, jnp.where(across, middle, low)])
        highs = jnp.concatenate([jnp.where(across, middle, high), high])
        split = (best > -jnp.inf).T
        fresh = cells.used + jnp.cumsum(split, axis=0, dtype=np.int32) - 1
        to = jnp.concatenate([place, fresh])
        to = jnp.where(jnp.concatenate([split, split]), to, most)
        found = (lows, highs, *_assess(log_density, rule, box, lows, highs, width))
        put = [a.at[to, rows].set(b, mode="drop") for a, b in zip(cells[:-1], found, strict=True)]
        used = cells.used + jnp.sum(split, axis=0, dtype=np.int32)
        return Cells(*put, used=used)

    nothing = jnp.full((most, count), -jnp.inf)
    start = Cells(
        jnp.zeros((most, count, dim)).at[0].set(box.low),
        jnp.zeros((most, count, dim)).at[0].set(box.high),
        nothing,
        nothing.at[0].set(jnp.inf),
        jnp.zeros((most, count), np.int32),
        jnp.ones(count, np.int32),
    )
    return lax.while_loop(go_on, bisect, start)


def _assess(
    log_density: Callable[[Array], Array],
    rule: _Rule,
    box: Box,
    low: Array,
    high: Array,
    width: int,
) -> tuple[Array, Array, Array]:
    """For each of some cells: log integral, log error (inf where too large), axis to bisect."""
    points = _points(rule, low, high)
    logs = in_passes(log_density, points.reshape(-1, *points.shape[2:]), width)
    logs = logs.reshape(points.shape[:3])
    peak = jnp.max(logs, axis=1)
    peak = jnp.where(jnp.isfinite(peak), peak, 0.0)
    seen = jnp.exp(logs - peak[:, None])
    value = jnp.einsum("q,nqp->np", rule.weights, seen)
    gaps = jnp.abs(jnp.einsum("dq,nqp->npd", rule.changes, seen))
    mean = value / rule.weights.sum()
    rough = jnp.einsum("q,nqp->np", rule.weights, jnp.abs(seen - mean[:, None]))[..., None]
    safe = jnp.where(rough > 0, rough, 1.0)
    error = jnp.sum(rough * jnp.minimum(1.0, (200 * gaps / safe) ** 1.5), axis=-1)
    scale = peak + jnp.sum(jnp.log((high - low) / 2), axis=-1)
    error = jnp.maximum(error, _unseen(rule, logs - peak[:, None]))
    excess = _excess(box, low, high)
    coarse = jnp.any(excess > 1, axis=-1)
    worst = jnp.where(coarse[..., None], excess, gaps)
    axis = (worst[..., -1] > worst[..., 0]).astype(np.int32)
    return (
        scale + jnp.log(value),
        jnp.where(coarse, jnp.inf, scale + jnp.log(error)),
        axis,
    )


def _unseen(rule: _Rule, logs: Array) -> Array:
    """What may lie in valleys of U between the points of cells, by axis added: (cells, problems).

    Args:
        rule: whose points those are.
        logs: of the integrand there, (cells, points, problems).
    """
    dim = rule.points.shape[1]
    u = -logs.reshape(len(logs), *(len(AXIS),) * dim, -1)
    across = np.ones(1) if dim == 1 else WEIGHTS
    total = jnp.zeros(())
    for k in range(dim):
        # To (points, cells, lines, problems).
        along = jnp.moveaxis(u, k + 1, 0).reshape(len(AXIS), len(logs), -1, u.shape[-1])
        deep = least_between(along, AXIS)
        deep = jnp.where(deep < jnp.minimum(along[1:], along[:-1]) - VALLEY, deep, jnp.inf)
        total += jnp.einsum("s,sclp,l->cp", np.diff(AXIS), jnp.exp(-deep), across)
    return total


def least_between(u: Array, at: np.ndarray) -> Array:
    """How low a convex U may fall between neighbours on a line: (points - 1, ...).

    It lies above the lines through the two points on the left, and on the right, of a gap; at an
    end of the line, above the tangent of the parabola through the last three.

    Args:
        u: at the points, which run along the first axis; infinite ones say nothing.
        at: where they are, in order.
    """
    gaps = jnp.asarray(np.diff(at)).reshape(-1, *(1,) * (u.ndim - 1))
    slopes = (u[1:] - u[:-1]) / gaps
    bends = (slopes[1:] - slopes[:-1]) / (gaps[1:] + gaps[:-1])
    first, last = slopes[:1] - bends[:1] * gaps[:1], slopes[-1:] + bends[-1:] * gaps[-1:]
    falling = jnp.concatenate([first, slopes[:-1]])
    rising = jnp.concatenate([slopes[1:], last])
    valley = (falling < 0) & (rising > 0)
    steps = (u[:-1] - u[1:] + rising * gaps) / jnp.where(valley, rising - falling, 1.0)
    lowest = u[:-1] + falling * jnp.clip(steps, 0.0, gaps)
    known = valley & jnp.isfinite(lowest)
    return jnp.where(known, lowest, jnp.minimum(u[:-1], u[1:]))


def _points(rule: _Rule, low: Array, high: Array) -> Array:
    """The rule's points in cells: (cells, points, problems, dimensions)."""
    middle, half = (low + high)[:, None] / 2, (high - low)[:, None] / 2
    return middle + half * rule.points[:, None, :]


def _excess(box: Box, low: Array, high: Array) -> Array:
    """How many times too long cells are, along each axis."""
    side = high - low
    coarse = (box.high - box.low) / COARSE[side.shape[-1]]
    near = (box.marks + box.widths >= low[:, None]) & (box.marks - box.widths <= high[:, None])
    near = jnp.all(near, axis=-1, keepdims=True)
    marked = jnp.where(near, side[:, None] / (RESOLVED * box.widths), 0.0)
    return jnp.maximum(jnp.max(marked, axis=1), side / coarse * (1 - 1e-9))


def in_passes(function: Callable[[Array], Any], points: Array, width: int) -> Any:
    """A function of one point at many, about `width` of them at once."""
    count = len(points)
    passes = -(-count // width)
    each = -(-count // passes)
    rows = jnp.minimum(jnp.arange(passes * each, dtype=np.int32), count - 1)
    found = lax.map(jax.vmap(function), points[rows].reshape(passes, each, *points.shape[1:]))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:count], found)


def over_cells(
    log_density: Callable[[Array], Array], cells: Cells, reference: Array, width: int
) -> Array:
    """The integral of each problem over its cells, divided by exp(reference): (problems,)."""
    most, count, dim = cells.low.shape
    rule = _rule(dim)
    chunk = max(min(width // len(rule.points), most), 1)
    starts = jnp.arange(0, most, chunk, dtype=np.int32)

    def visit(first: Array) -> Array:
        rows = first + jnp.arange(chunk, dtype=np.int32)
        taken = jnp.minimum(rows, most - 1)
        low, high = cells.low[taken], cells.high[taken]
        points = _points(rule, low, high).reshape(-1, count, dim)
        seen = jnp.exp(jax.vmap(log_density)(points) - reference)
        sums = jnp.einsum("q,nqp->np", rule.weights, seen.reshape(chunk, -1, count))
        volume = jnp.prod((high - low) / 2, axis=-1)
        return jnp.sum(jnp.where(rows[:, None] < cells.used, sums * volume, 0.0), axis=0)

    @jax.checkpoint
    def add(total: Array, first: Array) -> tuple[Array, None]:
        any_left = first < jnp.max(cells.used)
        return total + lax.cond(any_left, visit, lambda _: jnp.zeros(count), first), None

    return lax.scan(add, jnp.zeros(count), starts)[0]
