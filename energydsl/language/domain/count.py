"""Counts: non-negative integers without an upper bound."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array
from numpyro.distributions import constraints

from energydsl.language.domain.base import AbstractDomain, Move
from energydsl.language.domain.finite import MAX_LEVEL

START_MEAN = 3.0
"""The mean of starts, which have a geometric distribution."""

_STAY = START_MEAN / (1 + START_MEAN)


@dataclasses.dataclass(frozen=True)
class Count(AbstractDomain):
    """The counts {0, 1, 2, ...}; values above 2^24, which float32 does not hold, are refused."""

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.int32)

    @property
    def energy_dtype(self) -> np.dtype:
        return jnp.zeros(()).dtype

    @property
    def constraint(self) -> Any:
        return constraints.nonnegative_integer

    @property
    def support(self) -> str:
        return "{0, 1, 2, ...} up to 2^24"

    def outside(self, array: np.ndarray) -> np.ndarray:
        return np.asarray((array < 0) | (array > MAX_LEVEL))

    def start(self, shape: tuple[int, ...], *, key: Array) -> Array:
        # In (0, 1], so that its logarithm is finite.
        uniform = 1.0 - jr.uniform(key, shape)
        return jnp.floor(jnp.log(uniform) / math.log(_STAY)).astype(self.dtype)

    def log_start_density(self, x: Array) -> Array:
        return math.log1p(-_STAY) + x * math.log(_STAY)

    @property
    def move(self) -> Move:
        return _step


def _step(count: Array, *, key: Array) -> tuple[Array, Array]:
    """A step up or down by m, where P(m >= k) = 1/k: most steps are short, some are long."""
    size_key, sign_key = jr.split(key)
    size = jnp.floor(1.0 / (1.0 - jr.uniform(size_key))).astype(count.dtype)
    new = count + jnp.where(jr.bernoulli(sign_key), size, -size)
    inside = (new >= 0) & (new <= MAX_LEVEL)
    return jnp.where(inside, new, count), jnp.where(inside, 0.0, -jnp.inf)
