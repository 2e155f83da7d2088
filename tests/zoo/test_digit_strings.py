"""Strings of digits: the field beside sums over all readings, and its readings of real images."""

import itertools

import numpy as np
import pytest

import energydsl as ed
from models_zoo import digit_strings as zoo


def test_a_string_has_the_likelihood_of_a_sum_over_all_readings():
    rng = np.random.default_rng(2)
    w, b, a = rng.normal(size=(5, 3)), rng.normal(size=3), rng.normal(size=(3, 3))
    ebm = ed.compile(zoo.declare(w, b, a, length=4))
    x = rng.normal(size=(2, 4, 5))
    labels = np.array([[2, 0, 1, 1], [1, 2, 0, 0]])
    y = np.ma.array(labels, mask=[[0, 0, 0, 0], [0, 0, 1, 1]])
    m = np.array([[1, 1, 1], [1, 0, 0]])
    expected = []
    for images, read, length in zip(x, labels, (4, 2), strict=True):
        own = images[:length] @ w + b
        every = np.array(list(itertools.product(range(3), repeat=length)))

        def score(rows, own=own):
            return np.take_along_axis(own, rows.T, axis=1).sum(axis=0) - a[
                rows[:, :-1], rows[:, 1:]
            ].sum(axis=1)

        expected.append(score(read[None, :length])[0] - np.logaddexp.reduce(score(every)))
    found = ed.log_likelihood(ebm, {"x": x, "m": m, "y": y})
    np.testing.assert_allclose(found.examples, expected, atol=5e-6)


def test_strings_are_of_their_own_images():
    train, test = zoo.data(40, 0), zoo.data(40, 0, held_out=True)
    assert train.x.shape == (40, 10, 64) and not np.array_equal(train.y.data, test.y.data)
    lengths = train.y.count(axis=1)
    assert lengths.min() >= 4 and lengths.max() == 10
    np.testing.assert_array_equal(train.m.sum(axis=1), lengths - 1)
    up = (train.y[:, 1:] == (train.y[:, :-1] + 1) % 10).mean()
    assert 0.7 < up < 0.95


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
def test_the_chain_reads_better_than_single_images(tmp_path):
    numbers = zoo.main(out=tmp_path, strings=200, steps=120)
    # 700 digits: differences of 15 % are more than 6 standard errors of either share.
    assert numbers["digits_right_viterbi"] > numbers["digits_right_single_images"] + 0.1
    assert numbers["strings_right_viterbi"] > 1.5 * numbers["strings_right_single_images"]
    better = numbers["log_likelihood_per_digit_chain"] - numbers["log_likelihood_per_digit_single"]
    assert better > 0.3
    assert (tmp_path / "strings.png").stat().st_size > 10_000
