"""Textures: correlations beside loops, and a short run."""

import jax
import numpy as np
import pytest

import energydsl as ed
from models_zoo import textures as zoo
from tests.zoo.words import check_words


def test_correlations_are_those_of_a_loop():
    images = np.random.default_rng(0).choice([-1, 1], (2, zoo.SIDE, zoo.SIDE))
    found = zoo.correlations(images)
    for offset in [(0, 0), (1, 0), (3, -5)]:
        moved = np.roll(images, (-offset[0], -offset[1]), axis=(1, 2))
        assert found[offset] == pytest.approx((images * moved).mean(), abs=1e-9)


def test_offsets_are_one_of_each_pair():
    offsets = zoo.candidates()
    every = {tuple(o) for o in offsets} | {tuple(-o) for o in offsets}
    assert len(every) == 2 * len(offsets) == (2 * zoo.REACH + 1) ** 2 - 1


def test_the_energy_s_slopes_are_the_moments():
    """Of the example: sums over all pixels of products at each offset."""
    image = zoo.example("grass")
    offsets = np.array([(0, 1), (2, -3)])
    model = zoo.declare(offsets)
    slopes = jax.grad(lambda p: model.replace(p).energy({"s": image}))(dict(model.parameters))
    expected = zoo.correlations(image)[tuple(offsets.T)] * zoo.SIDE**2
    np.testing.assert_allclose(slopes["theta"], expected, rtol=1e-5)
    assert float(slopes["b"]) == pytest.approx(image.sum(), rel=1e-5)
    assert ed.compile(model).structure.sites == zoo.SIDE**2


@pytest.mark.slow
def test_a_short_run_comes_nearer_to_the_moments(tmp_path):
    numbers = zoo.main(out=tmp_path, offsets=8, steps=60, chains=3)
    check_words(zoo, numbers)
    for name in zoo.SHRINK:
        assert numbers[name]["largest_gap"] < numbers[name]["largest_independent"]
    assert (tmp_path / "textures.png").stat().st_size > 5_000
