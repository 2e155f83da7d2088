r"""Wide steps: cliques of many joint states, combined as arrays with axes, in one of two ways.

In logarithms, the terms are added, and a message is the log of a sum of exponentials. That is safe
for any tables, but logarithms and exponentials take most of the time. In numbers, the terms are
multiplied, and a message is a sum of products:

$$m(s) = c\, M(s), \qquad M(s) = \sum_x \prod_k \phi_k(x, s), \qquad M(0) = 1,$$

where the scale $\log c$ lies in the cell behind those of M. Numbers serve if no product can leave
the range of float64, which `Spread` proves from the tables before the passes begin.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from energydsl.analysis.joint_states import int32
from energydsl.normalizer.elimination.body import Body
from energydsl.normalizer.elimination.layout import Layout


def read(step: Body, cells: Array, arena: Array) -> tuple[Array, list[Array]]:
    """The sum of the tables with few cells, and the other tables, along the axes of the layout.

    Those in the arena are numbers or logarithms, the others are logarithms.
    """
    few, others = jnp.zeros((1,) * len(step.arranged.sizes)), []
    for n, table in enumerate(step.arranged.inputs):
        if table.few:
            few += table.read(cells, step.base[0, n])
        else:
            others.append(table.read(arena if table.linear else cells, step.base[0, n]))
    return few, others


def added(step: Body, cells: Array, arena: Array) -> list[Array]:
    """The logarithms of a clique's terms, for each level of its site."""
    few, others = read(step, cells, arena)
    return _levels(step.arranged, few, others, operator.add)


def multiplied(step: Body, cells: Array, arena: Array) -> tuple[list[Array], Array]:
    """A clique's terms as numbers, for each level of its site, and the log of their scale.

    The sum over the levels is 1 in the first cell.
    """
    few, others = read(step, cells, arena)
    peak = jnp.max(few)
    few, scale = jnp.exp(few - peak), peak
    tables = [(n, table) for n, table in enumerate(step.arranged.inputs) if not table.few]
    for k, (n, table) in enumerate(tables):
        if table.linear:
            scale += arena[step.base[0, n] + table.cells]
        else:
            peak = jnp.max(others[k])
            others[k], scale = jnp.exp(others[k] - peak), scale + peak
    corners = [a.reshape(-1, a.shape[-1])[0] for a in (few, *others)]
    first = jnp.sum(math.prod(corners, start=jnp.ones(step.arranged.sizes[-1])))
    return _levels(step.arranged, few / first, others, operator.mul), scale + jnp.log(first)


def _levels(layout: Layout, few: Array, others: list[Array], join: Callable) -> list[Array]:
    """The tables joined, level by level: then the last axis, which is short, is no inner loop."""

    def at(table: Array, level: int) -> Array:
        return table[..., level if table.shape[-1] > 1 else 0]

    found = []
    for level in range(layout.sizes[-1]):
        terms = functools.reduce(join, [at(a, level) for a in others], at(few, level))
        found.append(jnp.broadcast_to(terms, layout.sizes[:-1]))
    return found


def log_sum_exp(terms: list[Array]) -> Array:
    """The message of a sum over the site."""
    peak = highest(terms)
    peak = jnp.where(jnp.isfinite(peak), peak, 0.0)
    return jnp.log(sum(jnp.exp(level - peak) for level in terms)) + peak


def highest(terms: list[Array]) -> Array:
    """The message of a maximum over the site."""
    return functools.reduce(jnp.maximum, terms)


def numbers_up(step: Body, cells: Array, arena: Array) -> Array:
    """A message: numbers and behind them the log of their scale; outside the arena, logarithms."""
    terms, scale = multiplied(step, cells, arena)
    message = functools.reduce(operator.add, terms).ravel()
    if step.arranged.linear:
        return jnp.concatenate([message, scale[None]])
    return jnp.log(message) + scale


def probabilities(
    step: Body, cells: Array, arena: Array, above: Array, *, numbers: bool
) -> list[Array]:
    """The probability of each joint state, for each level, from those of the message's states."""
    above = above.reshape(step.arranged.sizes[:-1])
    if numbers:
        terms = multiplied(step, cells, arena)[0]
        share = lax.optimization_barrier(above / sum(terms))
        return [level * share for level in terms]
    terms = added(step, cells, arena)
    message = log_sum_exp(terms)
    # Where the message is -inf, so are its terms, and all have probability 0.
    logs = [jnp.where(message == -jnp.inf, -jnp.inf, level - message) for level in terms]
    return [jnp.where(above == 0, 0.0, jnp.exp(level) * above) for level in logs]


def spread(step: Body, slopes: Array, arena: Array, each: list[Array]) -> tuple[Array, Array]:
    """The slopes in cells and arena, with the probabilities of a clique at those of its tables."""
    few = [level.sum(step.arranged.without_few, keepdims=True) for level in each]
    for n, table in enumerate(step.arranged.inputs):
        begin, own = step.base[0, n], table.summed(few if table.few else each)
        if table.linear:  # Only this step reads it.
            arena = lax.dynamic_update_slice(arena, own, (begin,))
        else:
            old = lax.dynamic_slice(slopes, (begin,), own.shape)
            slopes = lax.dynamic_update_slice(slopes, old + own, (begin,))
    return slopes, arena


def given(step: Body, cells: Array, arena: Array, chosen: Array, *, numbers: bool) -> Array:
    """F at each level of the site, where the other sites were chosen, (1, level)."""
    levels = jnp.arange(step.shape[0])
    total = jnp.zeros(len(levels))
    for n, table in enumerate(step.arranged.inputs):
        strides = np.array(table.strides)
        own = len(strides) - step.others.shape[1]
        place = step.base[0, n] + jnp.sum(int32(strides[own:]) * chosen[step.others[0]])
        values = (arena if table.linear else cells)[place + int(strides[:own].sum()) * levels]
        total += jnp.log(values) if table.linear and numbers else values
    return total[None]
