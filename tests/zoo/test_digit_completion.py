"""Conditional likelihoods of half digits against sums over the hidden units in NumPy."""

import numpy as np
import pytest

import energydsl as ed
from models_zoo import digit_completion as zoo
from models_zoo import rbm_digits
from models_zoo._shared import digits
from tests.zoo.words import check_words


def test_hidden_pixels_have_the_probabilities_of_all_hidden_states():
    rng = np.random.default_rng(0)
    W, b, c = 0.5 * rng.normal(size=(64, 3)), rng.normal(size=64), rng.normal(size=3)
    ebm = ed.compile(rbm_digits.declare(W, b, c))
    test, hidden = digits()[1][:2], zoo.HALVES["right"]
    states = (np.arange(8)[:, None] >> np.arange(3)) % 2
    fields = b + states @ W.T
    shown = states @ c + test[:, ~hidden] @ fields[:, ~hidden].T
    free = np.logaddexp(0, fields[:, hidden]).sum(axis=1)
    weights = np.exp(shown + free - np.logaddexp.reduce(shown + free, axis=1)[:, None])
    for image, weight in zip(test, weights, strict=True):
        expected = weight @ (1 / (1 + np.exp(-fields[:, hidden])))
        found = zoo.probabilities(ebm, image, hidden)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    whole = shown + test[:, hidden] @ fields[:, hidden].T
    gained = np.logaddexp.reduce(whole, axis=1) - np.logaddexp.reduce(shown + free, axis=1)
    share = np.full(64, 0.25)
    numbers = zoo.score(ebm, test, hidden, share)
    assert numbers["conditional"] == pytest.approx(gained.mean() / 32, rel=1e-4)
    on = test[:, hidden].mean()
    alone = on * np.log(0.25) + (1 - on) * np.log(0.75)
    assert numbers["independent"] == pytest.approx(alone)
    assert numbers["wrong_independent"] == pytest.approx(on)


@pytest.mark.slow
def test_learning_reaches_its_goal(tmp_path):
    numbers = zoo.main(out=tmp_path, shown=2)
    check_words(zoo, numbers)
    assert numbers["lower"]["conditional"] > -0.3 > -0.4 > numbers["lower"]["independent"]
    assert numbers["right"]["wrong"] < 0.19 < numbers["right"]["wrong_independent"]
    assert (tmp_path / "completions.png").stat().st_size > 10_000
