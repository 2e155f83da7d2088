"""Random words and uniform numbers, generated inside the loops that use them.

`jax.random.bits` runs the rounds of its generator as a loop, which XLA cannot fuse with what uses
the words. Here the rounds are written out, for the same words at a fraction of the time.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import jax.random as jr
from jax import Array, lax

ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)
"""By how many bits the rounds rotate, in two alternating groups of four."""

PARITY = 0x1BD11BDA
"""The constant of the key schedule."""

MOST = 2**31
"""The most words whose numbers 32 bits count with certainty."""


def words(key: Array, shape: tuple[int, ...]) -> Array:
    """Random 32-bit words: those of ``jax.random.bits(key, shape, "uint32")``.

    Word i is the exclusive or of the two halves of Threefry-2x32, with 20 rounds, of the counter i.

    Source: Salmon, Moraes, Dror & Shaw (2011), Parallel random numbers: as easy as 1, 2, 3, SC11,
    section 4.1.
    """
    count = math.prod(shape)
    if not _is_threefry(key) or count > MOST:
        return jr.bits(key, shape, "uint32")
    first, second = jr.key_data(key)
    number = lax.iota(jnp.uint32, count).reshape(shape)
    high, low = threefry(first, second, jnp.zeros_like(number), number)
    return high ^ low


def word_pair(key: Array, number: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Two arrays of random words, other ones for each number: the halves of Threefry-2x32.

    The counter of word i has the words (`number`, i).
    """
    count = math.prod(shape)
    if not _is_threefry(key) or count > MOST:
        first, second = jr.bits(jr.fold_in(key, number), (2, *shape), "uint32")
        return first, second
    first, second = jr.key_data(key)
    low = lax.iota(jnp.uint32, count).reshape(shape)
    return threefry(first, second, jnp.full_like(low, number), low)


def threefry(first: Array, second: Array, high: Array, low: Array) -> tuple[Array, Array]:
    """Threefry-2x32 with 20 rounds: a key of two words, and a counter of two arrays of words."""
    keys = first, second, first ^ second ^ jnp.uint32(PARITY)
    high, low = high + keys[0], low + keys[1]
    for group in range(5):
        for turn in ROTATIONS[group % 2]:
            high = high + low
            low = high ^ ((low << turn) | (low >> (32 - turn)))
        high = high + keys[(group + 1) % 3]
        low = low + keys[(group + 2) % 3] + jnp.uint32(group + 1)
    return high, low


def uniform(key: Array, shape: tuple[int, ...]) -> Array:
    """Draws that are uniform on [0, 1), in JAX's default float: those of `jax.random.uniform`."""
    if jnp.zeros(()).dtype != jnp.float32:
        return jr.uniform(key, shape)
    mantissa = (words(key, shape) >> 9) | jnp.uint32(0x3F800000)
    return lax.bitcast_convert_type(mantissa, jnp.float32) - 1.0


def open_uniform(key: Array, shape: tuple[int, ...]) -> Array:
    """Draws that are uniform on the open interval (0, 1), in JAX's default float."""
    if jnp.zeros(()).dtype == jnp.float32:
        return inside(words(key, shape))
    return inside(jr.bits(key, shape, "uint64"))


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


def _is_threefry(key: Array) -> bool:
    """Whether the words of this key are those of Threefry, each from a counter of its own."""
    return jax.config.jax_threefry_partitionable and jr.key_impl(key) == "threefry2x32"
