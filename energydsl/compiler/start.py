"""Initial configurations of chains, which must have finite energy."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array

from energydsl._types import Configuration
from energydsl.compiler.ebm import EBM

REDRAWS, SWEEPS = 8, 32
"""How often a start of infinite energy is redrawn, and the Gibbs sweeps that may follow."""


def starts(ebm: EBM, count: int, *, key: Array) -> Configuration:
    """Random configurations of finite energy, with the chains on the first axis.

    A start of infinite energy is redrawn. If that does not help, as in hard-core models, where
    nearly every random state is forbidden, Gibbs sweeps move it to an allowed state.

    Raises:
        ValueError: no configuration of finite energy was found for some chain.
    """
    xs, bad = _drawn(ebm, jr.split(key, count))
    for k in range(REDRAWS):
        if not bad.any():
            return xs
        xs, bad = _kept(xs, bad, *_drawn(ebm, jr.split(jr.fold_in(key, k), count)))
    for k in range(SWEEPS):
        if not bad.any() or ebm.sweep is None:
            break
        xs, bad = _kept(xs, bad, *_swept(ebm, xs, jr.fold_in(key, REDRAWS + k)), at_once=True)
    check_starts(ebm, xs)
    return xs


def check_starts(ebm: EBM, xs: Configuration) -> None:
    """Raise ValueError if a chain would begin in a configuration of infinite energy."""
    bad = np.flatnonzero(_forbidden(ebm, xs))
    if len(bad):
        raise ValueError(
            f"{len(bad)} of the chains, number {bad[0]} first, would begin at an infinite energy, "
            "which most kernels never leave. Give a configuration that the model allows: start=..."
        )


def _kept(
    xs: Configuration, bad: Array, new: Configuration, lost: Array, *, at_once: bool = False
) -> tuple[Configuration, Array]:
    """The old configurations, replaced where they are forbidden and the new ones are not.

    With `at_once` they are replaced even by forbidden ones: a sweep may need several steps.
    """
    taken = bad if at_once else bad & ~lost

    def choose(old: Array, new: Array) -> Array:
        return jnp.where(taken.reshape(-1, *(1,) * (old.ndim - 1)), new, old)

    return jax.tree.map(choose, xs, new), bad & lost


@eqx.filter_jit
def _forbidden(ebm: EBM, xs: Configuration) -> Array:
    return jnp.isposinf(jax.vmap(ebm.energy)(xs))


@eqx.filter_jit
def _drawn(ebm: EBM, keys: Array) -> tuple[Configuration, Array]:
    xs = jax.vmap(lambda k: ebm.start(key=k))(keys)
    return xs, jnp.isposinf(jax.vmap(ebm.energy)(xs))


@eqx.filter_jit
def _swept(ebm: EBM, xs: Configuration, key: Array) -> tuple[Configuration, Array]:
    sweep: Any = ebm.sweep
    tables = sweep.load(ebm.structure, ebm.model)
    state = sweep.sweep(ebm.structure, tables, sweep.pack(xs), key=key)
    xs = sweep.unpack(state)
    return xs, jnp.isposinf(jax.vmap(ebm.energy)(xs))
