"""Annealing in both directions: unbiased weights, and ends that hold."""

import jax.random as jr
import numpy as np
import pytest
from scipy.stats import binom

import energydsl as ed
from energydsl.estimator.bracket import bracketed, floor
from energydsl.normalizer.log_z import LogZ
from tests.estimator.models import gas, glass, mixed, one_site, potts, slow


@pytest.mark.parametrize("kind", [glass, *map(slow, (mixed, one_site))])
def test_reverse_weights_have_the_expectation_one_over_z(kind):
    """Exact draws, 2 temperatures and 20,000 chains leave little room for a wrong weight."""
    model, exact = kind(np.random.default_rng(0))
    method = ed.ReverseAIS(chains=20_000, temperatures=2)
    found = ed.estimate_log_partition(ed.compile(model), method, key=jr.key(0))
    assert found.doubts == () and found.kind == "estimate"
    assert abs(found.value - exact) < 5 * found.standard_error
    assert found.standard_error < 0.05


@pytest.mark.slow
def test_reverse_estimates_are_from_above_where_states_are_forbidden():
    model, exact = gas(np.random.default_rng(1))
    method = ed.ReverseAIS(chains=512, temperatures=100)
    found = ed.estimate_log_partition(ed.compile(model), method, key=jr.key(0))
    assert found.doubts == ()
    assert -5 * found.standard_error < found.value - exact < 5 * found.standard_error + 0.01
    assert found.standard_error < 0.05


def test_long_chains_are_a_doubt():
    model, exact = potts(np.random.default_rng(2))
    ebm = ed.compile(model, budget=2)
    method = ed.Bracket(temperatures=50, warmup=50)
    found = ed.estimate_log_partition(ebm, method, key=jr.key(0))
    assert "long chains of the kernel" in found.doubts[-1] and found.ess > 64
    assert abs(found.value - exact) < 5 * found.standard_error
    assert found.lower < exact < found.upper
    # In one step the weights are those of the starts, far from the model's before the warmup.
    long, none = (
        ed.ReverseAIS(temperatures=1, warmup=n).estimate(ebm, key=jr.key(1)) for n in (50, 0)
    )
    assert abs(long.value - exact) < 5 * long.standard_error
    assert abs(none.value - exact) > 10 * none.standard_error


@pytest.mark.slow
@pytest.mark.parametrize("kind", [glass, gas, potts, mixed], ids=lambda k: k.__name__)
def test_brackets_of_a_hundred_models_hold_and_reverse_intervals_cover(kind):
    bracket, reverse = (m(chains=64, temperatures=200) for m in (ed.Bracket, ed.ReverseAIS))
    covered = 0
    for seed in range(100):
        model, exact = kind(np.random.default_rng(seed))
        ebm = ed.compile(model)
        found = ed.estimate_log_partition(ebm, bracket, key=jr.key(seed))
        assert found.lower <= exact <= found.upper and found.upper - found.lower < 3, seed
        assert found.kind == "bracket" and found.lower < found.value < found.upper
        found = ed.estimate_log_partition(ebm, reverse, key=jr.key(seed))
        covered += found.lower <= exact <= found.upper
    assert covered >= 90


def test_an_end_is_wrong_as_seldom_as_markov_says():
    """Weights that are 1/q with probability q come closest to Markov's inequality."""
    rng, runs, share = np.random.default_rng(0), 500, 1 / 81
    weights = np.where(rng.random((runs, 1)) < share, 1 / share, 0.0)
    with np.errstate(divide="ignore"):
        wrong = sum(floor(np.log(w)) > 0 for w in weights)
        many = np.where(rng.random((runs, 16)) < 0.72, 1 / 0.72, 0.0)
        wrong_of_many = sum(floor(np.log(w)) > 0 for w in many)
    assert 0 < wrong <= binom.isf(1e-6, runs, 0.025)
    assert 0 < wrong_of_many <= binom.isf(1e-6, runs, 0.025)


def test_ends_by_hand():
    logs = np.log(np.tile([1.0, 3.0], 16))
    assert floor(logs) == pytest.approx(np.log(2.0) + np.log(0.0125) / 16)
    wide = np.array([0.0, 100.0])
    # One mean of both is better than the lower of two.
    assert floor(wide) == pytest.approx(100 - np.log(2) + np.log(0.0125))


def test_doubts_of_a_bracket():
    rng = np.random.default_rng(0)
    tight = rng.normal(size=64) * 0.1
    apart = bracketed(tight, tight - 3.0)
    assert "the forward run gives" in str(apart) and "are apart" in str(apart)
    assert apart.lower < 0 < 3 < apart.upper and apart.value == pytest.approx(1.5, abs=0.1)
    below, above = LogZ.from_log_weights(tight), LogZ.from_log_inverse_weights(tight - 3.0)
    # The error of the mean of two independent numbers.
    error = np.hypot(below.standard_error, above.standard_error) / 2
    assert apart.standard_error == pytest.approx(error)
    crossed = bracketed(tight, tight + 3.0)
    assert crossed.lower > crossed.upper and "exceeds the upper one by" in crossed.doubts[-1]
    assert "are apart" in str(crossed)
    assert bracketed(tight, -tight).doubts == ()
    half = bracketed(np.full(4, -np.inf), tight)
    assert half.lower == -np.inf and half.upper > half.value and half.ess == 0
    assert half.doubts[0].startswith("forward: of 4 weights, 4 are zero")
    assert bracketed(tight, tight[:0]).upper == np.inf
