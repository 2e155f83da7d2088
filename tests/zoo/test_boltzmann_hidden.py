"""The Boltzmann machine with hidden units against sums over all of its states in NumPy."""

import numpy as np
import pytest

import energydsl as ed
from models_zoo import boltzmann_hidden as zoo
from models_zoo._shared import digits
from models_zoo.boltzmann_digits import middle
from tests.zoo.words import check_words


def bits(count):
    return (np.arange(2**count)[:, None] >> np.arange(count)) % 2


@pytest.mark.slow
def test_the_likelihood_is_that_of_all_states():
    rng = np.random.default_rng(0)
    test = middle(digits()[1])[:5]
    ebm = ed.compile(zoo.declare(hidden=2, bias=rng.normal(size=16)), budget=18)
    L = np.triu(rng.normal(size=(16, 16)), 1) * 0.3
    ebm = ebm.replace(L=L + L.T, J=[[0, 0.7], [0.7, 0]], c=[0.3, -0.2])
    W, L, J, b, c = (np.asarray(ebm.parameters[n], float) for n in "WLJbc")

    def log_sum(x):
        """The log of the sum over hidden states, for each row of x."""
        h = bits(2)
        own = h @ c + np.einsum("ni,ij,nj->n", h, J, h)
        return np.logaddexp.reduce(x @ W @ h.T + own, axis=1) + x @ b + ((x @ L) * x).sum(1)

    expected = log_sum(test) - np.logaddexp.reduce(log_sum(bits(16)))
    found = ed.log_likelihood(ebm, test)
    np.testing.assert_allclose(found.examples, expected, rtol=1e-5)


@pytest.mark.slow
def test_learning_reaches_its_goal(tmp_path, optimised):
    numbers = zoo.main(out=tmp_path)
    check_words(zoo, numbers)
    # -8.68 is the most that couplings of pixels alone reach.
    assert numbers["log_likelihood"] > -8.5
    assert numbers["visible_only"] == pytest.approx(-8.69, abs=0.05)
    assert numbers["before"] < -10.5 and numbers["pixels"] < -10.5
    assert (tmp_path / "boltzmann_hidden.png").stat().st_size > 10_000
