"""The Boltzmann machine of digits: its objectives agree where the likelihood is exact."""

import numpy as np
import pytest

import energydsl as ed
from models_zoo import boltzmann_digits as zoo
from models_zoo._shared import digits
from tests.zoo.words import check_words


def test_it_begins_at_independent_pixels():
    train, test = (zoo.middle(images) for images in digits())
    ebm = zoo.begin(train)
    assert ebm.model.parameter_count == 16 * 15 // 2 + 16
    share = (train.sum(axis=0) + 1) / (len(train) + 2)
    expected = np.where(test, np.log(share), np.log(1 - share)).sum(axis=1).mean()
    assert zoo.independent(train, test) == pytest.approx(expected)
    found = -np.mean([float(ebm.energy({"x": x})) for x in test[:20]])
    log_odds = test[:20] @ (np.log(share) - np.log(1 - share))
    assert found == pytest.approx(log_odds.mean(), rel=1e-4)


def test_the_middle_of_a_digit():
    image = np.arange(64).reshape(1, 64)
    assert zoo.middle(image)[0, [0, 3, 15]].tolist() == [18, 21, 45]


@pytest.mark.slow
def test_learning_reaches_its_goal(tmp_path, optimised):
    numbers = zoo.main(out=tmp_path)
    check_words(zoo, numbers)
    # The likelihood has one maximum; the sampled one is near it, and no objective is far above it
    # on data that it has not seen.
    assert numbers["exact"] == pytest.approx(-8.69, abs=0.02)
    assert numbers["pseudo"] == pytest.approx(numbers["exact"], abs=0.03)
    assert numbers["divergence"] == pytest.approx(numbers["exact"], abs=0.06)
    assert numbers["conditional_gap"] < 1e-5
    assert max(numbers["pseudo_64"], numbers["divergence_64"]) > -18.6
    assert numbers["pixels_64"] < -25 and numbers["pixels"] < -10.8
    assert (tmp_path / "boltzmann_digits.png").stat().st_size > 10_000


def test_the_weights_are_symmetric():
    with pytest.raises(ValueError, match="'W' is symmetric"):
        ed.compile(zoo.declare(np.triu(np.ones((3, 3)), 1)))
