"""Compiled chunks of learning steps.

The random key and the minibatch of step t depend only on t, so that the size of the chunks and a
resume do not change the result. The update that a step computes is applied at the beginning of the
next step. The parameters in memory are therefore always ones whose loss was found to be finite.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import paramax
from jax import Array, lax

from energydsl._types import Configuration
from energydsl.compiler.ebm import EBM
from energydsl.learning.batches import AbstractReader
from energydsl.learning.moving import Moving, moved
from energydsl.learning.objective.base import AbstractObjective, at_first, mean_loss
from energydsl.learning.optimizer import Update, learning_rate

CAPACITY = 4096
"""The most steps of one chunk: the number of rows of its buffer."""


class Carry(NamedTuple):
    """The state that each step passes to the next."""

    moving: Moving
    """The learnt arrays, at which the last loss was computed."""
    change: Moving
    """The update that the next step adds to them."""
    average: Moving | None
    """The average of the learnt arrays up to these, if one is asked for."""
    optimum: Any
    """The optimizer's state."""
    state: Any
    order: Array
    """The order of the examples in the present epoch."""


class Learner(eqx.Module):
    """What the steps of a run need and do not change."""

    ebm: EBM
    objective: AbstractObjective
    update: Update
    decay: Array | None
    """How much of the average a step keeps; None without an average."""
    key: Array


def averaged(average: Moving, moving: Moving, decay: Array, step: Array | int) -> Moving:
    """The average after this number of steps, given that before, without bias to the start.

    The sum of the arrays of the steps 1 to t with the weights ``decay ** (t - i)``, divided by that
    of the weights; the arrays themselves at step 0, which are given up for those of step 1.
    """
    # Rounding would lose most digits of 1 - decay ** step, which is close to 0.
    weight = jnp.where(step > 0, jnp.expm1(jnp.log(decay)) / jnp.expm1(step * jnp.log(decay)), 1.0)
    return jax.tree.map(lambda a, b: a + weight.astype(a.dtype) * (b - a), average, moving)


@eqx.filter_jit
def begin(ebm: EBM, objective: AbstractObjective, data: Configuration, key: Array) -> Any:
    """The initial state of the objective."""
    return paramax.unwrap(objective).init(*at_first(ebm, data), key=key)


@eqx.filter_jit
def run_chunk(
    learner: Learner, reader: AbstractReader, carry: Carry, numbers: Array
) -> tuple[Carry, dict[str, Array]]:
    """`count` steps, beginning with step `first`, and their scalars in CAPACITY rows."""
    first, count = numbers

    def step(carry: Carry, i: Array) -> tuple[Carry, dict[str, Array]]:
        return _step(learner, reader, carry, first + i, i)

    def body(i: Array, loop: tuple[Carry, dict[str, Array]]) -> Any:
        carry, buffer = loop
        carry, said = step(carry, i)
        return carry, {k: b.at[i].set(said[k]) for k, b in buffer.items()}

    shapes = jax.eval_shape(step, carry, count)[1]
    _check_scalars(learner.objective, shapes)
    buffer = {k: jnp.zeros(CAPACITY, s.dtype) for k, s in shapes.items()}
    return lax.fori_loop(0, count, body, (carry, buffer))


def _step(
    learner: Learner, reader: AbstractReader, carry: Carry, t: Array, i: Array
) -> tuple[Carry, dict[str, Array]]:
    order, seen = reader.batch(carry.order, learner.key, t, i)
    moving = eqx.apply_updates(carry.moving, carry.change)

    def loss(moving: Moving) -> tuple[Array, Any]:
        key = jr.fold_in(jr.fold_in(learner.key, 1), t)
        learning, own = moved(learner.ebm, learner.objective, moving)
        return mean_loss(paramax.unwrap(own), learning, seen, carry.state, key=key)

    (value, (state, info)), slope = jax.value_and_grad(loss, has_aux=True)(moving)
    named = slope.named(learner.ebm), carry.optimum, moving.named(learner.ebm)
    change, optimum = learner.update(*named, value)
    change = moving.with_named(learner.ebm, change)
    average = carry.average
    if average is not None and learner.decay is not None:
        average = averaged(average, moving, learner.decay, t)
    rate = learning_rate(optimum)
    said = {"loss": value, **info}
    said |= {} if rate is None else {"learning_rate": rate}
    return Carry(moving, change, average, optimum, state, order), said


def _check_scalars(objective: AbstractObjective, shapes: dict[str, Any]) -> None:
    wide = {k: s.shape for k, s in shapes.items() if s.shape}
    if wide:
        raise ValueError(
            f"{type(objective).__name__} tells arrays of shapes {wide} at each step; the history "
            "holds scalars: reduce them."
        )
