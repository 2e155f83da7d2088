"""The Gaussian Boltzmann machine against the closed form of its maximum likelihood."""

import numpy as np
import paramax
import pytest
from scipy.stats import multivariate_normal

import energydsl as ed
from models_zoo import gaussian_boltzmann as zoo
from tests.zoo.words import check_words


def test_the_lattice_is_sparse_symmetric_and_positive_definite():
    precision = zoo.lattice_precision(4, np.random.default_rng(0))
    np.testing.assert_array_equal(precision, precision.T)
    assert np.linalg.eigvalsh(precision)[0] > 0
    assert (precision[np.triu_indices(16, 1)] != 0).sum() == 24


def test_log_prob_is_the_normal_law():
    ebm = ed.compile(zoo.declare(3))
    assert np.array_equal(paramax.unwrap(ebm.parameters["A"]), np.eye(3))
    x = np.array([0.3, -1.0, 2.0])
    expected = multivariate_normal(np.zeros(3)).logpdf(x)
    assert float(ebm.log_prob({"x": x})) == pytest.approx(expected, rel=1e-6)


def test_learning_recovers_the_precision(tmp_path):
    numbers = zoo.main(out=tmp_path, side=3)
    check_words(zoo, numbers)
    assert numbers["closed_form_gap"] < 1e-3
    # Of 45 entries one exceeds this by chance 4e-7 of the time; an edge is 9 to 20 errors strong.
    assert numbers["largest_z"] < 6
    assert numbers["edges_found"] == numbers["edges"] == 12
    assert numbers["edges_invented"] == 0
    assert numbers["log_likelihood"] == pytest.approx(numbers["log_likelihood_true"], abs=0.05)
    assert (tmp_path / "precision.png").stat().st_size > 10_000
