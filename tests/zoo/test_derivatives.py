"""Derivatives of log Z against moments of an enumerated law, with derivatives by hand."""

import jax.numpy as jnp
import numpy as np

import energydsl as ed
from models_zoo import derivatives as zoo
from tests.oracles.enumerate import exact_law
from tests.zoo.words import check_words

A, B, C = 0.8, 0.4, 0.4


def features(states):
    """The sums of horizontal pairs, of vertical pairs and of spins."""
    s = states.reshape(-1, 3, 3)
    across, down = ((s * np.roll(s, 1, axis)).sum((1, 2)) for axis in (2, 1))
    return across, down, s.sum((1, 2))


def slopes_and_bends(states):
    """The gradient and the Hessian of E in (a, b, c), by hand."""
    across, down, up = features(states)
    steep = 1 / np.cosh(A) ** 2
    slopes = np.stack([-steep * across - C * up, -2 * B * down, -A * up], axis=1)
    bends = np.zeros((len(states), 3, 3))
    bends[:, 0, 0] = 2 * np.tanh(A) * steep * across
    bends[:, 1, 1] = -2 * down
    bends[:, 0, 2] = bends[:, 2, 0] = -up
    return slopes, bends


def law():
    def energy(states):
        across, down, up = features(states)
        return -np.tanh(A) * across - B**2 * down - A * C * up

    return exact_law(energy, [(-1, 1)] * 9)


def test_derivatives_of_log_z_are_moments_of_the_law():
    found = law()
    slopes, bends = slopes_and_bends(found.states)
    mean = found.probs @ slopes
    spread = np.einsum("k,ki,kj->ij", found.probs, slopes - mean, slopes - mean)
    expected = spread - np.einsum("k,kij->ij", found.probs, bends)
    gradient, hessian = zoo.exact(ed.compile(zoo.declare((A, B, C), size=3)))
    np.testing.assert_allclose(gradient, -mean, rtol=1e-5)
    # The terms, up to 20, are in float32.
    np.testing.assert_allclose(hessian, expected, atol=1e-4)
    assert hessian[0, 0] < 0


def test_moments_of_given_draws_are_those_of_numpy():
    ebm = ed.compile(zoo.declare((A, B, C), size=3))
    spins = np.random.default_rng(0).choice([-1, 1], (35, 9))
    slopes, bends = (part.reshape(5, 7, *part.shape[1:]) for part in slopes_and_bends(spins))
    gaps = slopes - slopes.mean((0, 1))
    found = zoo.moments(ebm, jnp.asarray(spins.reshape(5, 7, 3, 3), jnp.int8))
    np.testing.assert_allclose(found.gradient, -slopes.mean(1), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.curvature, bends.mean(1), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.covariance, (gaps[..., None] * gaps[..., None, :]).mean(1),
                               rtol=1e-4, atol=1e-4)  # fmt: skip


def test_sampling_agrees(tmp_path):
    numbers = zoo.main(out=tmp_path, chains=64, draws=100)
    check_words(zoo, numbers)
    assert numbers["d2/dada"]["exact"] < -5
    # Student's t with 63 degrees of freedom; one of nine exceeds it with probability 1e-6 at most.
    assert all(abs(row["z"]) < 6.0 for row in numbers.values()), numbers
    assert (tmp_path / "derivatives.png").stat().st_size > 10_000
