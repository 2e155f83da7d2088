"""The RBM against a sum over its hidden states in NumPy, and its goal."""

import arviz as az
import numpy as np
import pytest

import energydsl as ed
from models_zoo import rbm_digits as zoo
from tests.zoo.words import check_words


def test_the_likelihood_is_that_of_all_hidden_states():
    rng = np.random.default_rng(0)
    _, test = zoo.digits()
    weights, pixels, units = rng.normal(size=(64, 5)), rng.normal(size=64), rng.normal(size=5)
    hidden = (np.arange(2**5)[:, None] >> np.arange(5)) % 2
    log_z = np.logaddexp.reduce(
        hidden @ units + np.logaddexp(0, pixels + hidden @ weights.T).sum(axis=1)
    )
    free = test @ pixels + np.logaddexp(0, units + test @ weights).sum(axis=1)
    found = ed.log_likelihood(ed.compile(zoo.declare(weights, pixels, units)), test)
    assert found.kind == "exact"
    assert float(found.value) == pytest.approx((free - log_z).mean(), rel=1e-5)


def test_digits_are_split_once():
    train, test = zoo.digits()
    assert (len(train), len(test)) == (1437, 360)
    assert set(np.unique(train)) == {0, 1}


@pytest.mark.slow
def test_learning_reaches_its_goal(tmp_path):
    numbers = zoo.main(out=tmp_path, peer=False)
    check_words(zoo, numbers, without={"of test digits, scikit-learn"})
    # -18.3 +- 0.1 over other seeds.
    assert numbers["log_likelihood"] > -18.6
    assert numbers["log_likelihood_pixels"] < -25
    with az.from_netcdf(tmp_path / "chains.nc") as tree:
        assert tree["posterior"]["x"].dims == ("chain", "draw", "pixel")
    assert (tmp_path / "digits.png").stat().st_size > 10_000
