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
