"""Adaptive integration of many log integrands at once, over boxes of one to three dimensions.

Each problem's box is divided into cells, of which those with the largest errors are bisected. The
cells are found without derivatives. Given the cells, the integral is a weighted sum of values of
the integrand, which JAX can differentiate any number of times.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from energydsl.normalizer.quadrature.product import (
    ProductRule,
    compared,
    points_in,
    product_rule,
)

SPLIT = {1: 8, 2: 16, 3: 4}
"""How many cells of a problem are bisected in one step, by dimension."""

REACH = 40.0
"""Every coordinate is integrated from -REACH to REACH."""

LEAST = 2e-12
"""Cells with a shorter side are not bisected.

The place beyond which the integrand is unknown so always lies inside a cell, never exactly between
two, where no cell would account for what is beyond.
"""

NEAR = 6.0
SIDE = {1: 1.25, 2: 2.5, 3: 10.0}
"""The largest side of cells that hold points within NEAR of 0, by dimension."""

RESOLVED = 4.0
"""The largest side of a cell near a mark, as a multiple of the mark's width."""

GRADE = 4.0
"""The largest side of a cell, as a multiple of that of a neighbour which holds some of the mass."""

SPARED = 0.9
"""Fraction of the allowed cells after which only cells that are too long are still bisected."""

SLIGHT = 1e-2
"""A cell is neglected that holds less than this fraction of its share of the aimed error.

It is left out of the sum, and its neighbours may have any size.
"""


class Marks(NamedTuple):
    """Places near which cells must be small, with widths: both (marks, problems, dimensions).

    An infinite width asks for nothing, and a width of 0 for what no cell fulfils.
    """

    place: Array
    width: Array


class Cells(NamedTuple):
    """The cells of each problem, (cells, problems, ...), of which the first `used` rows count."""

    low: Array
    high: Array
    value: Array
    """Log of the integral over each cell."""
    error: Array
    """Log of its error."""
    lean: Array
    """The sum of the error's parts with their signs, divided by the error: from -1 to 1."""
    axis: Array
    """The axis along which the integrand is resolved worst."""
    edge: Array
    """Log of about what lies beyond a cell that has an end of the box, or a point at which the
    integrand is not known; -inf for other cells."""
    limit: Array
    """The longest side along each axis that is allowed: (cells, problems, dimensions)."""
    used: Array


def refine(
    log_density: Callable[[Array], tuple[Array, Array]],
    marks: Marks,
    together: Callable[[Array], Array],
    *,
    aim: float,
    most: int,
    width: int,
) -> Cells:
    """Cells on which the sum of the rule is within `aim`, relative, or as many as allowed.

    Args:
        log_density: log of the integrand of every problem, from (problems, dimensions), and
            whether it is known there: it is -inf where it is not.
        marks: of every problem.
        together: log of the sum over the problems whose integrals belong together, spread over
            the problems again: what an error is relative to.
        aim: the error at which to stop.
        most: cells that a problem may have.
        width: points at which the integrands are evaluated at once.
    """
    count, dim = marks.place.shape[1:]
    rule, many = product_rule(dim), SPLIT[dim]

    def bisect(state: tuple[Cells, Array]) -> tuple[Cells, Array]:
        cells, rank = state
        best, place = lax.top_k(rank.T, many)
        place = place.T
        rows = jnp.arange(count)
        lows, highs = _halves(cells, place)
        split = (best > -jnp.inf).T
        fresh = cells.used + jnp.cumsum(split, axis=0, dtype=np.int32) - 1
        to = jnp.concatenate([place, fresh])
        to = jnp.where(jnp.concatenate([split, split]), to, most)
        found = (lows, highs, *_assess(log_density, rule, lows, highs, width))
        found = (*found, _limits(marks, lows, highs))
        put = [a.at[to, rows].set(b, mode="drop") for a, b in zip(cells[:-1], found, strict=True)]
        cells = Cells(*put, used=cells.used + jnp.sum(split, axis=0, dtype=np.int32))
        value, error = (together(jax.nn.logsumexp(a, axis=0)) for a in (cells.value, cells.error))
        aimed = value + jnp.log(aim)
        share = aimed - together(jnp.log(cells.used.astype(value.dtype)))
        cells = _graded(cells, to, cells.value > share + jnp.log(SLIGHT))
        large = jnp.min(cells.high - cells.low, axis=-1) > LEAST
        rough = large & (cells.error > share) & ~(error <= aimed)
        rough &= cells.used + many <= SPARED * most
        long = large & _too_long(cells) & (cells.used + many <= most)
        return cells, jnp.where(long, jnp.inf, jnp.where(rough, cells.error, -jnp.inf))

    first = jnp.full((most, count), -jnp.inf).at[0].set(jnp.inf)
    state = _whole_box(most, count, dim), first
    return lax.while_loop(lambda state: jnp.any(state[1] > -jnp.inf), bisect, state)[0]


def _whole_box(most: int, count: int, dim: int) -> Cells:
    """One cell for each problem."""
    # Rows not yet used hold nothing and touch nothing.
    nothing = jnp.full((most, count), -jnp.inf)
    nowhere = jnp.full((most, count, dim), jnp.inf)
    return Cells(
        low=nowhere.at[0].set(-REACH),
        high=-nowhere.at[0].set(-REACH),
        value=nothing,
        error=nothing,
        lean=jnp.zeros((most, count)),
        axis=jnp.zeros((most, count), np.int32),
        edge=nothing,
        limit=nowhere.at[0].set(SIDE[dim]),
        used=jnp.ones(count, np.int32),
    )


def _halves(cells: Cells, place: Array) -> tuple[Array, Array]:
    """Low and high ends of both halves of cells in some rows: the first halves, then the others.

    A cell that is too long is cut across the axis where it is so most, another across the axis
    along which the integrand is resolved worst.
    """
    rows = jnp.arange(place.shape[1])
    low, high = cells.low[place, rows], cells.high[place, rows]
    excess = (high - low) / cells.limit[place, rows]
    longest = _largest_axis(excess)
    axis = jnp.where(jnp.any(excess > 1, axis=-1), longest, cells.axis[place, rows])
    across = axis[..., None] == jnp.arange(low.shape[-1])
    middle = (low + high) / 2
    lows = jnp.concatenate([low, jnp.where(across, middle, low)])
    highs = jnp.concatenate([jnp.where(across, middle, high), high])
    return lows, highs


def _too_long(cells: Cells) -> Array:
    return jnp.any(cells.high - cells.low > cells.limit, axis=-1)


def error_of(cells: Cells, whole: Array, over: Callable[[Array], Array]) -> Array:
    r"""The error of all cells that belong together, relative to exp(whole).

    For errors $e_i$ it is the smaller of $\sum |e_i|$ and $|\sum e_i| + 2 \sqrt{\sum e_i^2}$. The
    second is smaller where many errors have both signs as if at random, such as those in the cells
    through which a kink runs.

    Args:
        cells: of every problem.
        whole: log of what each problem's error is relative to, (problems,).
        over: the sum over the problems that belong together.
    """
    each = jnp.where(_too_long(cells), jnp.inf, jnp.exp(cells.error - whole))
    total, signed, squares = (over(jnp.sum(a, axis=0)) for a in (each, each * cells.lean, each**2))
    balanced = jnp.abs(signed) + 2 * jnp.sqrt(squares)
    return jnp.where(jnp.isfinite(total), jnp.minimum(total, balanced), jnp.inf)


def _graded(cells: Cells, new: Array, counts: Array) -> Cells:
    """Cells with limits that follow from new ones: no cell is much larger than its neighbours.

    A narrow ridge that was found in one cell is thereby followed to where it ends, since the cells
    that it enters next are not much larger than those that resolve it.

    Args:
        cells: all of them.
        new: rows of those that are new, (cells, problems); out of range if there are fewer.
        counts: whether a cell holds enough of the mass to limit others, (cells, problems).
    """
    rows = jnp.arange(new.shape[1])
    low, high, known = (
        a.at[new, rows].get(mode="fill", fill_value=fill)
        for a, fill in ((cells.low, jnp.inf), (cells.high, -jnp.inf), (counts, False))
    )
    allowed = jnp.where(counts[..., None], GRADE * (cells.high - cells.low), jnp.inf)

    def visit(limit: Array, cell: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        low, high, known = cell
        touches = jnp.all((cells.low <= high) & (cells.high >= low), axis=-1, keepdims=True)
        given = jnp.where(known[:, None], GRADE * (high - low), jnp.inf)
        limit = jnp.minimum(limit, jnp.where(touches, given, jnp.inf))
        return limit, jnp.min(jnp.where(touches, allowed, jnp.inf), axis=0)

    limit, taken = lax.scan(visit, cells.limit, (low, high, known))
    return cells._replace(limit=limit.at[new, rows].min(taken, mode="drop"))


def _assess(
    log_density: Callable[[Array], tuple[Array, Array]],
    rule: ProductRule,
    low: Array,
    high: Array,
    width: int,
) -> tuple[Array, Array, Array, Array, Array]:
    """For each of some cells: value, error, lean, axis and edge, see `Cells`."""
    points = points_in(rule, low, high)
    logs, known = in_passes(log_density, points.reshape(-1, *points.shape[2:]), width)
    logs, known = (a.reshape(points.shape[:3]) for a in (logs, known))
    peak = jnp.max(logs, axis=1)
    peak = jnp.where(jnp.isfinite(peak), peak, 0.0)
    seen = jnp.exp(logs - peak[:, None])
    value, gaps, error, lean = compared(rule, seen)
    side = high - low
    scale = peak + jnp.sum(jnp.log(side / 2), axis=-1)
    # The mass beyond an end is taken to be that of its density, going on for one unit.
    ends = jnp.any((low <= -REACH) | (high >= REACH), axis=-1) | ~jnp.all(known, axis=1)
    beyond = jnp.max(seen, axis=1) * 2 ** side.shape[-1] / jnp.min(side, axis=-1)
    edge = jnp.where(ends, scale + jnp.log(beyond), -jnp.inf)
    worst = jnp.where(ends[..., None], side, jnp.abs(gaps))
    axis = _largest_axis(worst)
    error = jnp.maximum(scale + jnp.log(error), edge)
    return scale + jnp.log(value), error, jnp.where(ends, 1.0, lean), axis, edge


def _limits(marks: Marks, low: Array, high: Array) -> Array:
    """How long cells may be for where they are, along each axis."""
    ends = (marks.place + marks.width)[:, None], (marks.place - marks.width)[:, None]
    near = jnp.all((ends[0] >= low) & (ends[1] <= high), axis=-1, keepdims=True)
    limit = jnp.min(jnp.where(near, RESOLVED * marks.width[:, None], jnp.inf), axis=0)
    middle = jnp.all((low < NEAR) & (high > -NEAR), axis=-1, keepdims=True)
    return jnp.where(middle, jnp.minimum(limit, SIDE[low.shape[-1]]), limit)


def in_passes(function: Callable[[Array], Any], points: Array, width: int) -> Any:
    """The values of a function of one point at many, about `width` of them at once."""
    count = len(points)
    passes = -(-count // width)
    each = -(-count // passes)
    rows = jnp.minimum(jnp.arange(passes * each, dtype=np.int32), count - 1)
    found = lax.map(jax.vmap(function), points[rows].reshape(passes, each, *points.shape[1:]))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:count], found)


def over_cells(
    log_density: Callable[[Array], Array],
    cells: Cells,
    counts: Array,
    reference: Array,
    width: int,
) -> Array:
    """The integral of each problem over its cells, divided by exp(reference): (problems,).

    Args:
        log_density: log of the integrand of every problem, from (problems, dimensions).
        cells: of every problem.
        counts: whether a cell is to be taken, (cells, problems).
        reference: (problems,).
        width: points at which the integrands are evaluated at once.
    """
    most, count, dim = cells.low.shape
    rule = product_rule(dim)
    chunk = max(min(width // len(rule.points), most), 1)
    starts = jnp.arange(0, most, chunk, dtype=np.int32)
    # This one stands in for cells that are left out: energies may have no finite derivatives there.
    other = first_largest(cells.value)
    columns = jnp.arange(count)

    def visit(first: Array) -> Array:
        rows = first + jnp.arange(chunk, dtype=np.int32)[:, None]
        taken = counts.at[rows, columns].get(mode="fill", fill_value=False)
        place = jnp.where(taken, rows, other)
        low, high = cells.low[place, columns], cells.high[place, columns]
        points = points_in(rule, low, high).reshape(-1, count, dim)
        seen = jnp.exp(jax.vmap(log_density)(points) - reference)
        sums = jnp.einsum("q,nqp->np", rule.weights, seen.reshape(chunk, -1, count))
        volume = jnp.prod((high - low) / 2, axis=-1)
        return jnp.sum(jnp.where(taken, sums * volume, 0.0), axis=0)

    @jax.checkpoint
    def add(total: Array, first: Array) -> tuple[Array, None]:
        any_left = first < jnp.max(cells.used)
        return total + lax.cond(any_left, visit, lambda _: jnp.zeros(count), first), None

    return lax.scan(add, jnp.zeros(count), starts)[0]


def _largest_axis(values: Array) -> Array:
    """Where the largest stands on the last axis."""
    return first_largest(jnp.moveaxis(values, -1, 0))


def first_largest(values: Array) -> Array:
    """Where the largest stands on the first axis."""
    return first(values == jnp.max(values, axis=0))


def first(flags: Array) -> Array:
    """The first True on the first axis; the last place if there is none."""
    # An argmax of float64 cannot be lowered where a surrounding program has 64 bits off.
    count = len(flags)
    numbers = lax.broadcasted_iota(np.int32, flags.shape, 0)
    return jnp.minimum(jnp.min(jnp.where(flags, numbers, count), axis=0), count - 1)
