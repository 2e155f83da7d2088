"""The deep Boltzmann machine against a sum over its first hidden layer in NumPy."""

import numpy as np
import pytest

import energydsl as ed
from models_zoo import deep_boltzmann_machine as zoo
from models_zoo._shared import digits
from tests.zoo.words import check_words


def test_the_likelihood_is_that_of_all_hidden_states():
    rng = np.random.default_rng(0)
    test = digits()[1][:5]
    W, V = rng.normal(size=(64, 3)), rng.normal(size=(3, 2))
    b, c, d = (rng.normal(size=n) for n in (64, 3, 2))
    h = (np.arange(8)[:, None] >> np.arange(3)) % 2
    above = h @ c + np.logaddexp(0, d + h @ V).sum(axis=1)
    log_z = np.logaddexp.reduce(above + np.logaddexp(0, b + h @ W.T).sum(axis=1))
    expected = np.logaddexp.reduce(test @ W @ h.T + above, axis=1) + test @ b - log_z
    ebm = ed.compile(zoo.declare(W, V, {"b": b, "c": c, "d": d}))
    np.testing.assert_allclose(ed.log_likelihood(ebm, test).examples, expected, rtol=2e-5)


def test_the_two_copies_of_the_pixels_share_their_weights():
    train, rng = digits()[0], np.random.default_rng(0)
    ebm = zoo.first_layer(train, 4, rng)
    assert ebm.model.parameter_count == 64 * 4 + 64 + 4
    x, h = train[0], np.array([1, 0, 1, 1])
    W, b = np.asarray(ebm.parameters["W"]), np.asarray(ebm.parameters["b"])
    both = ebm.energy({"x": x, "y": train[1], "h": h})
    assert float(both) == pytest.approx(-(x + train[1]) @ (W @ h + b), rel=1e-4)


@pytest.mark.slow
def test_each_stage_of_learning_helps(tmp_path, optimised):
    numbers = zoo.main(out=tmp_path)
    check_words(zoo, numbers)
    # Together -19.32 by chains and -19.29 by mean field, -19.78, -19.84, -19.89 with seed 0.
    assert numbers["together"] > numbers["one_by_one"] + 0.2
    assert numbers["mean_field"] > numbers["one_by_one"] + 0.2
    assert numbers["together"] > max(numbers["without"], numbers["one_layer"]) + 0.2
    assert numbers["one_layer"] > numbers["pixels"] + 4
    assert (tmp_path / "deep_boltzmann_machine.png").stat().st_size > 10_000
