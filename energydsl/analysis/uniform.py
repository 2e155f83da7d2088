"""Uniform random numbers that are never 0 and never 1: their logarithms are finite."""

from __future__ import annotations

import jax.numpy as jnp
import jax.random as jr
from jax import Array


def open_uniform(key: Array, shape: tuple[int, ...]) -> Array:
    """Uniform on the open interval (0, 1), symmetric about 1/2, in JAX's default float."""
    bits = 8 * jnp.zeros(()).dtype.itemsize
    return inside(jr.bits(key, shape, f"uint{bits}"))


def inside(words: Array) -> Array:
    """The middle of the interval that each word's leading bits stand for.

    With m bits of mantissa these are (k + 1/2) / 2^m for k = 0, ..., 2^m - 1, all of which the
    float holds exactly: from 1 / 2^(m + 1) to 1 - 1 / 2^(m + 1).
    """
    dtype = jnp.zeros(()).dtype
    spare = 8 * words.dtype.itemsize - jnp.finfo(dtype).nmant
    # The leading bits fit a signed integer, which processors convert faster.
    leading = (words >> spare).astype(f"int{8 * words.dtype.itemsize}")
    return (leading.astype(dtype) + 0.5) * 2.0 ** -jnp.finfo(dtype).nmant
