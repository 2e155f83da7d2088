"""Uniform numbers that stay inside (0, 1), whatever the random word."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from energydsl.analysis.uniform import inside, open_uniform
from energydsl.kernel.langevin import _normal


@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
def test_no_word_leaves_the_interval_or_gives_an_infinite_normal(double):
    """The words at both ends, and one bit about the middle."""
    with jax.enable_x64(double):
        size = 64 if double else 32
        ends = [0, 1, 2**9 - 1, 2 ** (size - 1) - 1]
        words = np.array(ends + [2**size - 1 - w for w in ends], f"uint{size}")
        u = np.asarray(jax.jit(inside)(jnp.asarray(words)))
        normal = np.asarray(jax.jit(lambda w: _normal(inside(w)))(jnp.asarray(words)))
    assert u.dtype == (np.float64 if double else np.float32)
    assert (u > 0).all() and (u < 1).all()
    assert (u[:4] == 1 - u[4:]).all()  # symmetric to the last bit
    assert np.isfinite(normal).all() and (normal[:4] == -normal[4:]).all()


def test_every_float32_normal_is_finite_and_has_its_mirror_image():
    words = jnp.arange(2**23, dtype=jnp.uint32) << 9
    normal = np.asarray(jax.jit(lambda w: _normal(inside(w)))(words))
    assert np.isfinite(normal).all()
    assert (normal == -normal[::-1]).all()


def test_uniforms_follow_the_key():
    a, b = (np.asarray(open_uniform(jax.random.key(k), (3, 2))) for k in (0, 1))
    assert a.shape == (3, 2) and a.dtype == np.float32
    assert (a == open_uniform(jax.random.key(0), (3, 2))).all() and (a != b).all()
