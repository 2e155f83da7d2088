"""Narrow steps: batches of steps whose cliques have few joint states, each batch one gather."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from energydsl.normalizer.elimination.body import Body
from energydsl.normalizer.elimination.schedule import NEVER

Reduction = Callable[[Array], Array]


def sums(patterns: Array, step: Body, cells: Array) -> Array:
    """F of each step of a batch, (step, level, state of the message)."""
    total = jnp.sum(cells[_where(patterns, step)], axis=1)
    return total.reshape(len(total), *step.shape)


def probabilities(patterns: Array, step: Body, cells: Array, message: Array, above: Array) -> Array:
    """The probability of each joint state, (step, level, state).

    Args:
        patterns: the patterns of the batch's class.
        step: the batch.
        cells: the cells, with every message computed.
        message: the messages of the batch, (step, state).
        above: the probabilities of the messages' states, (step, state).
    """
    message, above = message[:, None], above[:, None]
    # Where the message is -inf, so are its terms, and all have probability 0.
    logs = jnp.where(message == -jnp.inf, -jnp.inf, sums(patterns, step, cells) - message)
    return jnp.where(above == 0, 0.0, jnp.exp(logs) * above)


def spread(patterns: Array, step: Body, slopes: Array, each: Array) -> Array:
    """The slopes with the probabilities of a batch's cliques added to the cells of its tables."""
    where = _where(patterns, step)
    return slopes.at[where].add(jnp.broadcast_to(each.reshape(len(each), 1, -1), where.shape))


def given(patterns: Array, step: Body, cells: Array, chosen: Array) -> Array:
    """F at each level of the batch's sites, where the other sites were chosen, (step, level)."""
    levels, states = step.shape
    state = jnp.sum(chosen[step.others] * step.strides, axis=-1)
    place = jnp.arange(levels) * states + state[:, None]
    pattern = patterns[step.pattern[:, :, None], place[:, None]]
    return jnp.sum(cells[_cells(step.base, pattern)], axis=1)


def log_sum_exp(sums: Array) -> Array:
    """The message of a sum over the site."""
    peak = jnp.max(sums, axis=1, keepdims=True)
    peak = jnp.where(jnp.isfinite(peak), peak, 0.0)
    return jnp.log(jnp.sum(jnp.exp(sums - peak), axis=1)) + peak[:, 0]


def highest(sums: Array) -> Array:
    """The message of a maximum over the site."""
    return jnp.max(sums, axis=1)


def _where(patterns: Array, step: Body) -> Array:
    """The cells that each step of a batch reads, (step, input, state of the clique)."""
    return _cells(step.base, patterns[step.pattern])


def _cells(base: Array, pattern: Array) -> Array:
    return jnp.where(pattern < 0, NEVER, base[..., None] + pattern)
