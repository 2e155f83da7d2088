"""Weights combined, by hand."""

import numpy as np
import pytest

import energydsl as ed


def test_weights_combine():
    logs = np.log(np.array([1.0, 2.0, 3.0])) + 1000.0
    found = ed.LogZ.from_log_weights(logs)
    assert found.value == pytest.approx(1000 + np.log(2.0))
    assert found.ess == pytest.approx(36 / 14)
    nothing = ed.LogZ.from_log_weights(np.full(3, -np.inf))
    assert nothing.value == -np.inf and nothing.upper == np.inf and nothing.ess == 0


def test_inverse_weights_combine():
    logs = np.log(np.array([1.0, 2.0, 3.0]))
    plain, inverse = ed.LogZ.from_log_weights(logs), ed.LogZ.from_log_inverse_weights(logs)
    assert inverse.value == -plain.value and inverse.standard_error == plain.standard_error
    assert (inverse.lower, inverse.upper) == (-plain.upper, -plain.lower)


def test_an_estimate_says_why_it_cannot_be_trusted():
    few = ed.LogZ.from_log_weights(np.array([5.0, *np.zeros(99)]))
    assert few.ess < 10 and "Doubtful: 100 weights are worth 2.8 independent ones" in str(few)
    good = ed.LogZ.from_log_weights(np.linspace(0, 1, 100))
    assert good.doubts == () and "Doubtful" not in str(good)
    assert "of 1 weights, 0 are zero" in str(ed.LogZ.from_log_weights(np.zeros(1)))


def test_proven_bounds_say_what_they_are():
    below = ed.LogZ.proven(1.0, np.inf, "mean field")
    assert str(below) == "log Z >= 1 (mean field, proven)"
    assert below.value == 1.0 and np.isnan(below.standard_error)
    above = ed.LogZ.proven(-np.inf, 2.0, "tree-reweighted")
    assert str(above) == "log Z <= 2 (tree-reweighted, proven)"
    both = ed.LogZ.proven(1.0, 2.0, "bounds")
    assert str(both) == "log Z from 1 to 2 (proven bounds)" and both.value == 1.5
    assert both.sharpened(ed.LogZ.proven(1.2, 3.0, "bounds")).lower == 1.2
    assert both.sharpened(below) == both
    crossed = ed.LogZ.proven(2.0, 1.0, "bounds")
    assert crossed.doubts == ("the lower bound exceeds the upper one by 1",)
