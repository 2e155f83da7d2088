"""Silhouettes: the field beside its energy in NumPy, its inputs, and the horse that it finds."""

import numpy as np
import pytest

import energydsl as ed
from models_zoo import silhouettes as zoo
from tests.zoo.words import check_words


def test_the_energy_is_that_of_features_and_of_alike_neighbours():
    rng = np.random.default_rng(0)
    noisy, y = rng.normal(size=(4, 5)), 2 * rng.integers(0, 2, (4, 5)) - 1
    w, b, J, K = np.array([0.3, -0.7]), 0.2, 0.5, 1.1
    ebm = ed.compile(zoo.declare((4, 5)).replace(w=w, b=b, J=J, K=K))
    given = zoo.inputs(noisy)
    expected = -(y * (given["x"] @ w + b)).sum()
    mean = given["x"][..., 1]
    for axis in (0, 1):
        alike = np.exp(-np.abs(np.diff(mean, axis=axis)))
        pairs = np.take(y, range(1, y.shape[axis]), axis) * np.take(
            y, range(y.shape[axis] - 1), axis
        )
        expected -= ((J + K * alike) * pairs).sum()
    assert float(ebm.given(given).energy({"y": y})) == pytest.approx(expected, rel=1e-5)  # float32


def test_patches_have_the_inputs_and_labels_of_their_place():
    noisy, truth = zoo.picture(0)
    data = zoo.crops(noisy, truth, 3, 0)
    n = zoo.PATCH
    assert data["x"].shape == (3, n, n, 2) and data["y"].shape == (3, n, n)
    mean = data["x"][..., 1]
    for name, axis in {"down": 1, "across": 2}.items():
        np.testing.assert_allclose(data[name], np.exp(-np.abs(np.diff(mean, axis=axis))))
    gap = data["x"][..., 0] - data["y"]
    assert gap.std() == pytest.approx(zoo.NOISE, rel=0.1)  # 1728 pixels: six standard errors


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
def test_the_field_finds_the_horse_better_than_single_pixels(tmp_path):
    numbers = zoo.main(out=tmp_path)
    check_words(zoo, numbers)
    assert numbers["wrong_field"] < 0.5 * numbers["wrong_single"] < 0.1 * numbers["wrong_noisy"]
    assert numbers["coupling_alike"] > numbers["coupling_unlike"] > 0
    assert (tmp_path / "silhouettes.png").stat().st_size > 10_000
