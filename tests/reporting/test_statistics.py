"""Traces: the numbers behind a diagnosis, against NumPy's and ArviZ's own."""

import arviz as az
import numpy as np
import pytest

from energydsl.reporting import statistics as trace
from energydsl.reporting.statistics import Trace

rng = np.random.default_rng(0)
START = rng.bit_generator.state


@pytest.fixture(autouse=True)
def same_numbers():
    """Whatever other tests drew before."""
    rng.bit_generator.state = START


def traced(values):
    values = np.asarray(values)
    return Trace("x", values.shape[2:], np.arange(values.shape[2]), values)


def shifted(*offsets, draws=400, entries=3):
    """One chain an offset, unit normals around it."""
    return rng.normal(size=(len(offsets), draws, entries)) + np.reshape(offsets, (-1, 1, 1))


@pytest.mark.parametrize("block", [1, 300, 2**20])
def test_moments_are_those_of_half_chains_whatever_the_block(monkeypatch, block):
    monkeypatch.setattr(trace, "BLOCK", block)
    values = rng.normal(size=(3, 9, 7))
    halves = np.concatenate([values[:, :4], values[:, 4:8]])
    moments = traced(values).moments
    np.testing.assert_allclose(moments.means, halves.mean(axis=1))
    np.testing.assert_allclose(moments.variances, halves.var(axis=1, ddof=1))
    assert moments.moved.all() and moments.moved.shape == (3, 7)


def test_small_traces_are_ranked_by_arviz():
    values = rng.standard_cauchy(size=(4, 200, 5))
    small = traced(values)
    np.testing.assert_array_equal(small.rhat, az.rhat(values))
    np.testing.assert_array_equal(small.ess, az.ess(values))


def test_large_traces_have_plain_split_rhat_and_the_ess_of_a_subset(monkeypatch):
    monkeypatch.setattr(trace, "RANKED", 1)
    values = shifted(0, 0.2, 0, 0, entries=40)
    large = traced(values)
    np.testing.assert_allclose(large.rhat, az.rhat(values, method="split"), rtol=1e-12)
    assert len(large.ess) == 16
    assert set(large.ess) <= set(az.ess(values))


def test_one_chain_has_an_rhat_between_its_halves():
    steady, drifting = shifted(0), shifted(0) + np.linspace(0, 5, 400)[:, None]
    assert (traced(steady).rhat < 1.05).all()
    assert (traced(drifting).rhat > 1.5).all()


def test_frozen_split_live_and_not_finite_are_told_apart():
    values = np.ones((2, 10, 5))
    values[1, :, 1] = -1
    values[0, 3, 2] = -1
    values[:, :, 3] = rng.normal(size=(2, 10))
    values[1, 4, 4] = np.nan
    x = traced(values)
    assert x.frozen.tolist() == [True, True, False, False, False]
    assert x.split.tolist() == [False, True, False, False, False]
    assert x.finite.tolist() == [True, True, True, True, False]
    assert x.live.tolist() == [2, 3]


def test_constants_that_round_are_still_constant():
    values = np.full((2, 1001, 1), 0.1, np.float32)
    assert traced(values).frozen.all()


@pytest.mark.parametrize(
    ("offsets", "groups"),
    [
        ((0, 0, 0, 0), [[0, 1, 2, 3]]),
        ((0, 9, 0, 9), [[0, 2], [1, 3]]),
        ((0, 9, 18, 0), [[0, 3], [1], [2]]),
        ((0, 1.5, 3, 4.5), [[0, 1, 2, 3]]),  # overlapping neighbours: one ridge, not modes
    ],
)
def test_modes_are_groups_of_chains_two_deviations_apart(offsets, groups):
    x = traced(shifted(*offsets))
    assert x.modes(x.live) == groups


def test_chains_that_drift_are_in_no_mode():
    drift = np.linspace(0, 30, 400)[:, None]
    x = traced(np.concatenate([shifted(0), shifted(0) + drift]))
    assert x.modes(x.live) == [[0, 1]]


def test_entries_are_named_as_their_user_would_index_them():
    x = Trace("s", (3, 4), np.array([1, 6, 11]), rng.normal(size=(2, 9, 3)))
    assert x.describe(np.array([1])) == "s[1, 2]"
    assert x.describe(np.array([1, 2])) == "s[1, 2] and 1 more of 3 entries"
    assert Trace("m", (), np.zeros(1, int), np.ones((2, 9, 1))).describe(np.array([0])) == "m"
