"""Evenness is proven or not shown: nothing passes for even that is not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from energydsl.analysis.parity import is_even

SPIN = jax.ShapeDtypeStruct((), np.float32)
NUMBER = np.arange(4.0)


def even(text, count=2):
    names = {"jax": jax, "jnp": jnp, "NUMBER": NUMBER}
    function = eval(f"lambda u, v, w: {text}", names)
    return is_even(function, [SPIN, SPIN, SPIN], count)


@pytest.mark.parametrize(
    "text",
    [
        "w * u * v",
        "-(u * v) + 3.0",
        "u**2 + v**4",
        "(u - v)**2 * jnp.exp(w)",
        "jnp.abs(u + 2 * v)",
        "jnp.cos(u - v) * w",
        "jnp.where(u == v, w, 0.0)",
        "jnp.where(u != v, u, v) * u",
        "jnp.stack([u, v]) @ jnp.ones((2, 2)) @ jnp.stack([u, v])",
        "u / v + jnp.tanh(u) * jnp.sin(v)",
        "u**3 * v + w**3",
        "jax.nn.relu(u * v)",
        "jax.jit(lambda a, b: a * b)(u, v)",
        "(u.astype(int) * v.astype(int)).astype(float)",
        "w + 1.0",
    ],
)
def test_what_is_even_is_shown(text):
    assert even(text)


@pytest.mark.parametrize(
    "text",
    [
        "u",
        "w * u",
        "u * v + u",
        "u * v * u",
        "(u + v + 1)**2",
        "jnp.abs(u + 1.0)",
        "jnp.exp(u)",
        "jnp.where(u > v, w, 0.0)",
        "jnp.where(u == v, u, v)",
        "jnp.where(u == 1.0, w, 0.0)",
        "jnp.asarray(NUMBER)[(u + v).astype(int)]",
        "jnp.stack([u, w]) @ jnp.stack([u, v])",
        "jnp.maximum(u, v)",
        "jax.nn.relu(u) * v",
        "u**2 * v",
        "1.0 / u",
        "(u > 0).astype(float) * (v > 0).astype(float)",
    ],
)
def test_what_is_not_even_is_not_shown(text):
    assert not even(text)


def test_only_the_first_arguments_change_their_signs():
    assert even("u * w", count=0) and not even("u * v", count=1) and even("u * v * w * v", count=0)
