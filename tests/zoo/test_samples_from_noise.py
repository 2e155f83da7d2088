"""Samples from noise: the data, the energy distance, and a short run of each start."""

import numpy as np
import pytest

import energydsl as ed
from models_zoo import samples_from_noise as zoo
from tests.zoo.words import check_words


def test_the_energy_distance_is_that_of_two_points_and_of_equal_laws():
    a, b = np.array([[0.0, 0.0], [3.0, 4.0]]), np.array([[0.0, 0.0], [0.0, 0.0]])
    # 2 * (0 + 5) / 2 - 5 - 0, over pairs of different rows.
    assert zoo.energy_distance(a, b) == pytest.approx(0.0)
    assert zoo.energy_distance(a + 10.0, b) > 10
    draws = np.random.default_rng(0).normal(size=(2, 500, 2))
    assert abs(zoo.energy_distance(*draws)) < 0.05


def test_the_clusters_are_scaled_and_apart():
    train, test = zoo.clusters()
    whole = np.concatenate([train, test])
    np.testing.assert_allclose(whole.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(whole.std(0), 1, atol=1e-5)
    assert len(train) == 512 and len(test) > 150


def test_each_start_suits_the_model():
    ebm = ed.compile(zoo.declare(width=4)).given(s=0.0)
    train, _ = zoo.clusters()
    for objective in zoo.objectives(k=2, chains=8).values():
        objective.check(ebm, {"x": train})


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
def test_each_start_learns_what_it_teaches(tmp_path):
    numbers = zoo.main(out=tmp_path)
    check_words(zoo, numbers)
    assert (tmp_path / "from_noise.png").exists()
    # From noise by k steps: short runs beat CD. As an energy: CD beats short runs.
    assert numbers["noise"]["from_noise"] < numbers["data"]["from_noise"]
    assert numbers["data"]["log_likelihood"] > numbers["noise"]["log_likelihood"] + 1
    assert numbers["ladder"]["from_noise"] < 0.03
