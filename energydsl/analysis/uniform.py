"""Uniform random numbers that are never 0 or 1, so that log(u) and log(1 - u) are finite."""

from __future__ import annotations

import jax.numpy as jnp
import jax.random as jr
from jax import Array


def open_uniform(key: Array, shape: tuple[int, ...]) -> Array:
    """Draws that are uniform on the open interval (0, 1), in JAX's default float."""
    bits = 8 * jnp.zeros(()).dtype.itemsize
    return inside(jr.bits(key, shape, f"uint{bits}"))


def inside(words: Array) -> Array:
    """Numbers in the open interval (0, 1) from the leading bits of words.

    With m bits of mantissa these are (k + 1/2) / 2^m for k = 0, ..., 2^m - 1. All of them are
    exact floating-point numbers, from 1 / 2^(m + 1) to 1 - 1 / 2^(m + 1), symmetric about 1/2.
    """
    dtype = jnp.zeros(()).dtype
    spare = 8 * words.dtype.itemsize - jnp.finfo(dtype).nmant
    # The leading bits fit a signed integer, which processors convert faster.
    leading = (words >> spare).astype(f"int{8 * words.dtype.itemsize}")
    return (leading.astype(dtype) + 0.5) * 2.0 ** -jnp.finfo(dtype).nmant
