"""Minimum divergence: both gradients beside sums over all states, and a whole run."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import energydsl as ed
from models_zoo import minimum_kl as zoo
from tests.oracles.enumerate import exact_law
from tests.zoo.words import check_words

LEFT, RIGHT = np.triu_indices(4, 1)
RNG = np.random.default_rng(0)
W, B = RNG.normal(size=6), RNG.normal(size=4)
DATA = RNG.integers(0, 2, (40, 4)).astype(np.int8)


def features(x):
    """The statistics of the parameters, in the order of their names."""
    return np.concatenate([x[:, LEFT] * x[:, RIGHT], x], axis=1)


def law():
    return exact_law(lambda x: -features(x) @ np.concatenate([W, B]), [(0, 1)] * 4)


def machine():
    return ed.compile(zoo.declare(4).replace(W=W, b=B))


def test_exact_and_sampled_gradients_are_differences_of_means():
    expected = law().probs @ features(law().states) - features(DATA).mean(axis=0)
    exact = zoo.slope(machine(), ed.MaximumLikelihood(), jnp.asarray(DATA), jr.key(0))
    np.testing.assert_allclose(zoo.flat(exact), expected, atol=1e-6)
    sampled = zoo.slopes(machine(), zoo.DRAWS, DATA, 400, 0)
    # Ten entries beyond 5.5 standard errors: 1e-6 with 400 repeats, whose tails are nearly normal.
    assert np.abs((sampled.mean - expected) / sampled.error).max() < 5.5
    # The errors are those of 50 draws and a batch of 50.
    spread = np.cov(features(law().states).T, aweights=law().probs, ddof=0)
    error = np.sqrt((np.diag(spread) + features(DATA).var(axis=0)) / 50 / 400)
    np.testing.assert_allclose(sampled.error, error, rtol=0.2)  # 1 / sqrt(800) six times


def test_the_divergence_is_that_of_the_frequencies():
    states, counts = np.unique(DATA, axis=0, return_counts=True)
    p = counts / counts.sum()
    q = dict(zip(map(tuple, law().states.astype(int)), law().probs, strict=True))
    expected = sum(a * np.log(a / q[tuple(s)]) for a, s in zip(p, states, strict=True))
    assert zoo.divergence(machine(), DATA) == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
def test_gradients_agree_in_mean_and_lower_the_divergence(tmp_path):
    numbers = zoo.main(out=tmp_path)
    check_words(zoo, numbers)
    assert numbers["entries"] == 78 and numbers["largest_draws"] < 5.6  # false alarm 1e-6
    assert numbers["off_one_step"] > 1.5 * numbers["off_draws"] and numbers["cosine"] > 0.9
    kls = [numbers[f"kl_{name}"] for name in ("exact", "draws", "one_step")]
    assert max(kls) < 0.5 * numbers["kl_start"] and min(kls) == kls[0]
    assert (tmp_path / "minimum_kl.png").stat().st_size > 10_000
