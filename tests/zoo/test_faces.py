"""Faces: the field beside its energy in NumPy, the data, and what the ratio finds."""

import numpy as np
import pytest

import energydsl as ed
from models_zoo import faces as zoo
from tests.zoo.words import check_words


def test_the_energy_is_that_of_neighbours_and_of_each_pixel():
    rng = np.random.default_rng(0)
    m, d, x = rng.normal(size=(3, 4, 4))
    down, across = rng.normal(size=(3, 4)) ** 2, rng.normal(size=(4, 3)) ** 2
    model = zoo.declare(size=4).replace(m=m, d=d**2, down=down, across=across)
    z = x - m
    expected = 0.5 * (
        (d**2 * z**2).sum()
        + (down * np.diff(z, axis=0) ** 2).sum()
        + (across * np.diff(z, axis=1) ** 2).sum()
    )
    found = zoo.energies(ed.compile(model), np.float32(x[None]))
    np.testing.assert_allclose(found, expected, rtol=1e-5)  # float32


def test_pictures_to_learn_from_to_stop_by_and_to_test_are_different_ones():
    learnt, kept, test, others = zoo.faces(0)
    assert (len(learnt), len(kept), len(test), len(others)) == (50, 20, 30, 100)
    every = np.concatenate([learnt, kept, test]).reshape(100, -1)
    assert len(np.unique(every, axis=0)) == 100
    np.testing.assert_allclose(zoo.patches(5, 0).mean(axis=(1, 2)), 0, atol=1e-6)


def test_the_area_is_the_chance_of_a_higher_score():
    assert zoo.auroc(np.array([1.0, 2.0]), np.array([0.0, 2.0, 3.0])) == pytest.approx(3.5 / 6)


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
def test_the_ratio_finds_faces_and_the_density_alone_does_not(tmp_path):
    numbers = zoo.main(out=tmp_path)
    check_words(zoo, numbers)
    assert numbers["auroc_ratio"] > 0.95 > 0.9 > numbers["auroc_density"]
    assert numbers["auroc_ratio"] > numbers["auroc_mean"] and numbers["upright"] > 0.9
    assert 20 <= numbers["steps_faces"] < 1500
    for name in ("faces.png", "learning.png"):
        assert (tmp_path / name).stat().st_size > 10_000
