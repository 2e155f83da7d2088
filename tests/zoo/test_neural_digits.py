"""A neural energy of digits: its data, and whether the whole run is stable."""

import numpy as np
import pytest

import energydsl as ed
from models_zoo import neural_digits as zoo
from tests.zoo.words import check_words


def test_the_digits_are_grey_and_scaled():
    train, test = zoo.grey_digits(0)
    assert train.shape == (1437, 64) and test.shape == (360, 64)
    assert -1.6 < train.min() < -1 and 1 < train.max() < 1.6
    ebm = ed.compile(zoo.declare(width=3))
    ed.ContrastiveDivergence(kernel=zoo.KERNEL, start=ed.Buffer(200)).check(ebm, {"x": train})


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
def test_the_run_is_stable_and_draws_are_as_the_digits(tmp_path):
    numbers = zoo.main(out=tmp_path)
    check_words(zoo, numbers)
    assert (tmp_path / "digits.png").exists()
    assert numbers["largest_loss"] < 60
    _, test = zoo.grey_digits(0)
    # Better than uniform or normal pixels by far: half of the pixels' own deviation.
    assert numbers["mean_error"] < 0.5 * np.sqrt((test.mean(0) ** 2).mean())
    assert numbers["deviation_error"] < 0.5 * np.sqrt((test.std(0) ** 2).mean())
