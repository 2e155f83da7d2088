"""MBAR: its equations against plain iteration, bridge sampling, its error and its doubts."""

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit, logsumexp
from scipy.stats import norm

from energydsl.estimator.mbar import _chains, _first_guess, _overlaps, _solve, joined
from tests.estimator import ladders


def pooled(tempered):
    """All draws that count, and how many each rung has: infinite ones only at the base."""
    kept = np.isfinite(tempered.gaps)
    kept[0] = True
    return tempered.gaps[kept], tempered.allowed[kept], kept.sum(axis=(1, 2))


def iterated(tempered):
    """Log Z by the equations as published, repeated until nothing changes."""
    gaps, allowed, counts = pooled(tempered)
    with np.errstate(invalid="ignore"):
        reduced = tempered.betas[:, None] * gaps
    reduced[0] = 0.0
    energies = np.zeros(len(counts))
    for _ in range(20_000):
        below = logsumexp(np.log(counts)[:, None] + energies[:, None] - reduced, axis=0)
        new = -logsumexp(-reduced - below, axis=1)
        new -= new[0]
        if np.abs(new - energies).max() < 1e-13:
            break
        energies = new
    weights = np.where(allowed, -reduced[-1] - below, -np.inf)
    # Relative to the base, whose free energy is that of its own sum.
    return logsumexp(weights) - logsumexp(-reduced[0] - below)


@pytest.fixture
def uneven():
    """Rungs with unequal numbers of draws: some infinite, at the base and elsewhere."""
    rng = np.random.default_rng(3)
    drawn, _ = ladders.exponential(rng, [0, 0.2, 0.5, 1.0], chains=10, draws=12)
    drawn.gaps[0][rng.random((10, 12)) < 0.3] = np.inf
    drawn.gaps[1, 4:8] = np.inf
    drawn.gaps[3, :2, 5:] = np.inf
    drawn.allowed[...] = np.isfinite(drawn.gaps) & (rng.random(drawn.gaps.shape) < 0.8)
    return drawn


def test_the_equations_are_solved(uneven):
    assert joined(uneven).value == pytest.approx(iterated(uneven), abs=1e-7)


@pytest.mark.parametrize("off", [5.0, 20.0, 200.0])
def test_the_equations_are_solved_from_afar(off):
    """Steps of Newton's method alone lead away from there."""
    drawn, _ = ladders.normal(np.random.default_rng(0), [0, 0.2, 0.6, 1.0], sd=3.0, draws=20)
    near = _first_guess(drawn)
    far = near + off * np.random.default_rng(1).normal(size=4)
    found, _, solved = _solve(_chains(drawn), drawn.betas, far)
    expected = _solve(_chains(drawn), drawn.betas, near)[0]
    assert solved
    np.testing.assert_allclose(found - found[0], expected - expected[0], atol=1e-6)


def test_two_rungs_are_bridge_sampling():
    drawn, exact = ladders.exponential(np.random.default_rng(0), [0.0, 1.0])
    first, second = drawn.gaps

    def balance(log_z):
        """Bennett's: the mean acceptances of both ways are equal."""
        return expit(-first - log_z).sum() - expit(second + log_z).sum()

    found = joined(drawn)
    assert found.value == pytest.approx(brentq(balance, -10, 10), abs=1e-7)
    assert abs(found.value - exact) < 5 * found.standard_error
    assert found.standard_error < 0.02


def test_the_error_is_that_of_chains_left_out(uneven):
    """One step of Newton's method for each chain, in place of all equations anew."""
    left = np.array([iterated(ladders.without(uneven, c)) for c in range(10)])
    jackknife = np.sqrt(9 / 10 * ((left - left.mean()) ** 2).sum())
    assert joined(uneven).standard_error == pytest.approx(jackknife, rel=0.05)
    drawn, _ = ladders.exponential(np.random.default_rng(0), np.linspace(0, 1, 6), draws=20)
    left = np.array([iterated(ladders.without(drawn, c)) for c in range(40)])
    jackknife = np.sqrt(39 / 40 * ((left - left.mean()) ** 2).sum())
    assert joined(drawn).standard_error == pytest.approx(jackknife, rel=0.01)


def test_chains_that_differ_have_a_wide_error():
    drawn, _ = ladders.normal(np.random.default_rng(0), np.linspace(0, 1, 5), draws=2)
    repeated = ladders.Tempered(
        drawn.betas, np.repeat(drawn.gaps, 50, 2), np.repeat(drawn.allowed, 50, 2), 0.0
    )
    assert joined(repeated).standard_error == pytest.approx(joined(drawn).standard_error)


def test_overlaps_by_hand():
    """Of normals apart by d: the mean of 4 p q over the mixture, by numerical integration."""
    drawn, _ = ladders.normal(np.random.default_rng(0), [0, 0.3, 1], sd=2.0, chains=100, draws=500)
    logs, *_ = _solve(_chains(drawn), drawn.betas, _first_guess(drawn))
    x = np.linspace(-15, 15, 100_001)
    for k, h in enumerate((0.3, 0.7)):
        # In units of the standard deviation 2 the means are apart by 2 h.
        p, q = norm.pdf(x), norm.pdf(x - 2 * h)
        expected = np.trapezoid(2 * p * q / (p + q), x)
        # Draws of a number between 0 and 1: the standard error is below 0.5 / sqrt(100,000).
        assert abs(_overlaps(drawn, logs)[k] - expected) < 0.01
    alike = ladders.Tempered(
        np.array([0.0, 1.0]), np.zeros((2, 3, 4)), np.ones((2, 3, 4), bool), 0.0
    )
    np.testing.assert_allclose(_overlaps(alike, np.zeros(2)), 1.0)


@pytest.mark.parametrize("sd", [8.0, 60.0])
def test_rungs_without_overlap_are_a_doubt(sd):
    """Also where the draws of two rungs are so far apart that the equations hardly tie them."""
    drawn, _ = ladders.normal(np.random.default_rng(0), [0.0, 0.01, 1.0], sd=sd)
    found = joined(drawn)
    assert "the draws at beta = 0.01 and 1 hardly overlap (" in found.doubts[0]
    assert "take more temperatures" in found.doubts[0] and np.isfinite(found.value)


def test_a_long_ladder_of_close_rungs_overlaps():
    drawn, exact = ladders.normal(
        np.random.default_rng(0), np.linspace(0, 1, 49), sd=8.0, chains=20
    )
    found = joined(drawn)
    assert found.doubts == () and abs(found.value - exact) < 5 * found.standard_error
    assert found.standard_error < 0.2
