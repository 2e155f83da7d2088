"""Thermodynamic integration: its quadrature, its error, and its doubts."""

import numpy as np
import pytest
from scipy.stats import t as student

import energydsl as ed
from energydsl.estimator.thermodynamic import integrated
from tests.estimator import ladders

COARSE = np.linspace(0, 1, 5)


def trapezium(tempered, correction):
    """Log Z by hand, from means and variances of all draws, on an even or uneven ladder."""
    means, variances = tempered.gaps.mean(axis=(1, 2)), tempered.gaps.var(axis=(1, 2))
    total = 0.0
    for k, h in enumerate(np.diff(tempered.betas)):
        total += h * (means[k] + means[k + 1]) / 2
        total += correction * h**2 * (variances[k + 1] - variances[k]) / 12
    return -total


def test_the_corrected_trapezium():
    """On a ladder where the uncorrected one is off by many errors, and the other sign by more."""
    drawn, exact = ladders.exponential(np.random.default_rng(0), COARSE, chains=100, draws=5000)
    found = integrated(drawn)
    assert found.value == pytest.approx(trapezium(drawn, 1), rel=1e-12)
    # The rule's own error is below h^4 / 720 times the third derivative at 0, 96.
    assert abs(found.value - exact) < 5 * found.standard_error + 96 * 0.25**4 / 720
    assert found.standard_error < 0.003
    for correction in (0, -1):
        assert abs(trapezium(drawn, correction) - exact) > 5 * found.standard_error


def test_steps_of_different_lengths():
    drawn, exact = ladders.exponential(np.random.default_rng(0), [0, 0.1, 0.3, 0.6, 1.0])
    found = integrated(drawn)
    assert found.value == pytest.approx(trapezium(drawn, 1), rel=1e-12)
    assert abs(found.value - exact) < 5 * found.standard_error


def test_the_error_is_that_of_chains_left_out_and_of_the_integral():
    drawn, _ = ladders.exponential(np.random.default_rng(2), COARSE[[0, 1, 2, 4]], chains=12)
    found = integrated(drawn)
    left = np.array([trapezium(ladders.without(drawn, c), 1) for c in range(12)])
    jackknife = np.sqrt(11 / 12 * ((left - left.mean()) ** 2).sum())
    coarse = ladders.Tempered(
        drawn.betas[[0, 2, 3]], drawn.gaps[[0, 2, 3]], drawn.allowed[[0, 2, 3]], 0.0
    )
    change = trapezium(drawn, 1) - trapezium(coarse, 1)
    assert found.standard_error == pytest.approx(np.hypot(jackknife, change / 3), rel=1e-9)
    half = student.ppf(0.975, 11) * found.standard_error
    assert (found.lower, found.upper) == pytest.approx((found.value - half, found.value + half))
    assert found.ess == 12


def test_chains_that_differ_have_a_wide_error():
    """The draws of a chain are alike, so that more of them tell nothing."""
    drawn, _ = ladders.normal(np.random.default_rng(0), COARSE, draws=2)
    repeated = ladders.Tempered(
        drawn.betas, np.repeat(drawn.gaps, 50, 2), np.repeat(drawn.allowed, 50, 2), 0.0
    )
    assert integrated(repeated).standard_error == pytest.approx(integrated(drawn).standard_error)


@pytest.mark.parametrize("rungs", [2, 3, 4])
def test_a_coarse_ladder_is_a_doubt_and_its_interval_holds(rungs):
    """With a rate of 0.1 the mean energy falls from 10 to 1, most of it at once."""
    rng, betas = np.random.default_rng(0), np.linspace(0, 1, rungs + 1)
    drawn, exact = ladders.exponential(rng, betas, rate=0.1)
    found = integrated(drawn)
    assert f"ladder of {rungs} temperatures is too coarse: without every" in found.doubts[0]
    assert found.lower < exact < found.upper


def test_one_temperature_cannot_tell_its_error():
    with pytest.raises(ValueError, match="temperatures=1; expected a whole number of at least 2"):
        ed.ThermodynamicIntegration(temperatures=1)
