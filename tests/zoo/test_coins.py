"""Coins: the energy of the labels, the fit of the grey levels, and the segments that are found."""

import numpy as np
import pytest

import energydsl as ed
from models_zoo import coins as zoo
from tests.zoo.words import check_words


def test_the_energy_is_that_of_the_docstring():
    rng = np.random.default_rng(0)
    grey, labels = rng.random((3, 4)), rng.integers(3, size=(3, 4))
    means, deviations = np.array([0.1, 0.4, 0.8]), np.array([0.1, 0.2, 0.15])
    ebm = ed.compile(zoo.declare(zoo.energies(grey, means, deviations), coupling=0.7))
    m, s = means[labels], deviations[labels]
    expected = ((grey - m) ** 2 / (2 * s**2) + np.log(s)).sum()
    expected += 0.7 * ((labels[1:] != labels[:-1]).sum() + (labels[:, 1:] != labels[:, :-1]).sum())
    assert float(ebm.energy({"c": labels})) == pytest.approx(expected, rel=1e-5)


def test_the_mixture_is_found():
    rng = np.random.default_rng(0)
    grey = np.concatenate([rng.normal(0.2, 0.05, 4000), rng.normal(0.7, 0.1, 6000)])
    means, deviations = zoo.mixture(grey, 2)
    # Six standard errors of the means, and of the deviations.
    np.testing.assert_allclose(means, [0.2, 0.7], atol=6 * 0.1 / np.sqrt(4000))
    np.testing.assert_allclose(deviations, [0.05, 0.1], atol=6 * 0.1 / np.sqrt(2 * 4000))


def test_overlap_and_pieces():
    one, other = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    one[0, :3], other[0, 1:], one[3, 3] = True, True, True
    assert zoo.overlap(one, other) == pytest.approx(2 / 5)
    assert zoo.pieces(one) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
def test_the_model_is_nearer_to_the_watershed_than_single_pixels(tmp_path):
    numbers = zoo.main(out=tmp_path)
    check_words(zoo, numbers)
    assert numbers["overlap"] > numbers["overlap_alone"] + 0.01
    assert numbers["pieces"] < numbers["pieces_alone"] / 4
    assert numbers["energy"] < numbers["energy_alone"]
    assert 0 <= numbers["gap_share"] < 0.02 and numbers["method"] == "alpha-expansion"
    assert (tmp_path / "segments.png").stat().st_size > 10_000
