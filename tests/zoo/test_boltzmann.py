"""The Boltzmann machine against a law enumerated in NumPy."""

import arviz as az
import numpy as np
import pytest

import energydsl as ed
from models_zoo import boltzmann as zoo
from tests.oracles.enumerate import exact_law
from tests.zoo.words import check_words

FALSE_ALARM = 1e-6  # chance that a correct sampler fails


def test_weights_are_symmetric_and_have_no_diagonal():
    weights = zoo.random_weights(6, 0.5, seed=1)
    np.testing.assert_array_equal(weights, weights.T)
    assert not weights.diagonal().any()


def test_log_z_is_that_of_the_enumerated_law():
    weights = zoo.random_weights(6, 1.0, seed=1)
    law = exact_law(lambda x: -np.einsum("ni,ij,nj->n", x, weights, x), [(0, 1)] * 6)
    log_z = ed.log_partition(ed.compile(zoo.declare(weights)))
    assert float(log_z) == pytest.approx(law.log_z, rel=1e-6)


def test_the_p_value_tells_a_wrong_law():
    rng = np.random.default_rng(0)
    right, wrong = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.13, 0.17, 0.3, 0.4])
    seen = rng.multinomial(10_000, right)
    assert zoo.p_value(seen, right) > FALSE_ALARM
    assert zoo.p_value(seen, wrong) < FALSE_ALARM


def test_draws_follow_the_law(tmp_path):
    numbers = zoo.main(out=tmp_path, units=5, scale=1.0, draws=500)
    check_words(zoo, numbers)
    assert numbers["p_value"] > FALSE_ALARM
    assert numbers["conditional_gap"] < 1e-5
    with az.from_netcdf(tmp_path / "chains.nc") as tree:
        assert tree["posterior"]["x"].dims == ("chain", "draw", "unit")
    assert (tmp_path / "states.png").stat().st_size > 10_000
