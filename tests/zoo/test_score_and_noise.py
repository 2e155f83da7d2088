"""Scores and noise: the known density against sums, and a short run of each objective."""

import numpy as np
import pytest

from models_zoo import score_and_noise as zoo
from tests.zoo.words import check_words


def test_the_true_density_and_its_score():
    side = np.linspace(-4, 4, 161)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    log_p, score = zoo.true_density(grid)
    assert np.exp(log_p).sum() * 0.05**2 == pytest.approx(1, abs=1e-6)
    at, step = grid[5000:5003], 1e-5
    for axis in range(2):
        move = step * np.eye(2)[axis]
        rise = zoo.true_density(at + move)[0] - zoo.true_density(at - move)[0]
        np.testing.assert_allclose(score[5000:5003, axis], rise / (2 * step), rtol=1e-5)


def test_points_have_the_moments_of_the_mixture():
    x = zoo.points(20_000, 0)
    mean = zoo.SHARES @ zoo.MEANS
    # 5.5 standard errors of two means, a false alarm of 8e-8.
    assert (np.abs(x.mean(0) - mean) < 5.5 * x.std(0) / np.sqrt(20_000)).all()


@pytest.mark.slow
def test_each_objective_learns(tmp_path):
    numbers = zoo.main(out=tmp_path, width=8, steps=300)
    check_words(zoo, numbers)
    assert set(numbers) == set(zoo.OBJECTIVES)
    for found in numbers.values():
        assert found["fisher_divergence"] < 3 and found["short_of_truth"] > -0.05
    contrast = numbers["noise contrast"]
    assert abs(contrast["learnt_log_z"] - contrast["log_z"]) < 0.2
    assert (tmp_path / "scores.png").stat().st_size > 10_000
