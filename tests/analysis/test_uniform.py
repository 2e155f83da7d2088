"""Uniform numbers that stay inside (0, 1), whatever the random word."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from energydsl.analysis.uniform import inside, open_uniform, threefry, uniform, word_pair, words
from energydsl.kernel.gradient import normal as normal_of


@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
def test_no_word_leaves_the_interval_or_gives_an_infinite_normal(double):
    """The words at both ends, and one bit about the middle."""
    with jax.enable_x64(double):
        size = 64 if double else 32
        ends = [0, 1, 2**9 - 1, 2 ** (size - 1) - 1]
        words = np.array(ends + [2**size - 1 - w for w in ends], f"uint{size}")
        u = np.asarray(jax.jit(inside)(jnp.asarray(words)))
        normal = np.asarray(jax.jit(lambda w: normal_of(inside(w)))(jnp.asarray(words)))
    assert u.dtype == (np.float64 if double else np.float32)
    assert (u > 0).all() and (u < 1).all()
    assert (u[:4] == 1 - u[4:]).all()  # symmetric to the last bit
    assert np.isfinite(normal).all() and (normal[:4] == -normal[4:]).all()


def test_every_float32_normal_is_finite_and_has_its_mirror_image():
    words = jnp.arange(2**23, dtype=jnp.uint32) << 9
    normal = np.asarray(jax.jit(lambda w: normal_of(inside(w)))(words))
    assert np.isfinite(normal).all()
    assert (normal == -normal[::-1]).all()


def test_uniforms_follow_the_key():
    a, b = (np.asarray(open_uniform(jax.random.key(k), (3, 2))) for k in (0, 1))
    assert a.shape == (3, 2) and a.dtype == np.float32
    assert (a == open_uniform(jax.random.key(0), (3, 2))).all() and (a != b).all()


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0x1CB996FC, 0xBB002BE7)),
        ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_gives_the_published_words(counter, key, expected):
    """The known answers that Random123 has for threefry2x32 with 20 rounds."""
    found = threefry(*(jnp.uint32(w) for w in (*key, *counter)))
    assert tuple(map(int, found)) == expected


@pytest.mark.parametrize("shape", [(), (7,), (3, 5), (2, 1000)])
@pytest.mark.parametrize("kind", ["threefry2x32", "rbg"])
def test_words_and_uniforms_are_those_of_jax(shape, kind):
    key = jax.random.key(2**31 + 5, impl=kind)
    assert np.array_equal(words(key, shape), jax.random.bits(key, shape, "uint32"))
    assert np.array_equal(uniform(key, shape), jax.random.uniform(key, shape))
    with jax.enable_x64(True):
        assert np.array_equal(uniform(key, shape), jax.random.uniform(key, shape))
        assert open_uniform(key, shape).dtype == np.float64


def test_words_of_many_keys_are_those_of_each():
    keys = jax.random.split(jax.random.key(3), 4)
    together = jax.vmap(lambda k: words(k, (5,)))(keys)
    assert np.array_equal(together, jnp.stack([words(k, (5,)) for k in keys]))


COUNT = 2**14
FALSE_ALARM = 1e-6  # chance that a perfect generator fails one of these tests


@pytest.mark.parametrize("kind", ["threefry2x32", "rbg"])
def test_bits_of_word_pairs_are_fair_and_independent(kind):
    """Every bit alone, and bits of one place that follow, or belong to the other word or number.

    The sum of n independent signs lies beyond 4.9 sqrt(n) with a chance of 1e-6; there are 5 x 64
    sums, so that the bound is that of 1e-6 / 320, 6.1 sqrt(n).
    """
    key = jax.random.key(11, impl=kind)
    pairs = [jnp.stack(word_pair(key, jnp.uint32(number), (COUNT,))) for number in (0, 1)]
    signs = [
        1 - 2 * ((np.asarray(p)[..., None] >> np.arange(32)) & 1).astype(np.int64) for p in pairs
    ]
    first, second = signs
    for product in (
        first,
        first[:, 1:] * first[:, :-1],  # of sites that follow
        first[:1] * first[1:],  # of the two words of a pair
        first * second,  # of two numbers
        first * np.roll(first, 1, axis=2),  # of neighbouring chains
    ):
        sums = product.sum(axis=1)
        assert np.abs(sums).max() < 6.1 * np.sqrt(product.shape[1])
