"""The deep machine with Gaussian units against a sum over its first hidden layer in NumPy."""

import numpy as np
import pytest
from scipy.stats import norm

import energydsl as ed
from models_zoo import deep_grey_digits as zoo
from tests.zoo.words import check_words


def test_the_likelihood_is_that_of_all_hidden_states():
    """Given h, pixels are normal about b + W h, whose constant is |b + W h|^2 / 2 sigma^2."""
    rng = np.random.default_rng(0)
    test = zoo.grey_digits()[1][:5]
    W, V = 0.1 * rng.normal(size=(64, 3)), rng.normal(size=(3, 2))
    b, c, d = (rng.normal(size=n) for n in (64, 3, 2))
    sigma = rng.uniform(0.2, 0.6, 64)
    h = (np.arange(8)[:, None] >> np.arange(3)) % 2
    means = b + h @ W.T
    above = h @ c + np.logaddexp(0, d + h @ V).sum(axis=1)
    weights = above + ((means**2 - b**2) / (2 * sigma**2)).sum(axis=1)
    weights = weights - np.logaddexp.reduce(weights)
    given = norm(means[:, None], sigma).logpdf(test).sum(axis=-1)
    expected = np.logaddexp.reduce(weights[:, None] + given, axis=0)
    ebm = ed.compile(zoo.declare(W, V, {"b": b, "c": c, "d": d, "sigma": sigma}))
    np.testing.assert_allclose(ed.log_likelihood(ebm, test).examples, expected, rtol=5e-5)


@pytest.mark.slow
def test_deep_machines_see_more_than_independent_pixels(tmp_path, optimised):
    numbers = zoo.main(out=tmp_path)
    check_words(zoo, numbers)
    # Together 9.12, one by one 7.17, one layer 9.76, independent 2.07, normal 14.52 with seed 0.
    assert numbers["together"] > numbers["one_by_one"] + 1
    assert min(numbers["together"], numbers["one_layer"]) > numbers["pixels"] + 5
    assert (tmp_path / "deep_grey_digits.png").stat().st_size > 10_000
