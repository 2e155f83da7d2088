"""Restoration by the exact mode: beside linear algebra in NumPy, and against least squares."""

import numpy as np
import pytest

import energydsl as ed
from models_zoo import deblurring as zoo
from tests.zoo.words import check_words


def dense(side, seen, noise, step):
    """The precision of the posterior, written out."""
    index, prior = np.arange(side * side).reshape(side, side), np.zeros((side * side,) * 2)
    for a in np.ndindex(side, side):
        for b in ((a[0] + 1, a[1]), (a[0], a[1] + 1)):
            if max(b) < side:
                d = np.zeros(side * side)
                d[index[a]], d[index[b]] = 1, -1
                prior += np.outer(d, d) / step**2
    return prior + seen.T @ seen / noise**2, prior


@pytest.mark.parametrize("name", ["blurred", "missing"])
def test_the_mode_and_the_evidence_are_those_of_linear_algebra(name):
    side, noise, rng = 5, 0.1, np.random.default_rng(0)
    seen = zoo.blur(side) if name == "blurred" else zoo.selection(side, rng, share=0.6)
    y = rng.normal(size=seen.shape[0])
    evidence = []
    for step in (0.2, 0.5):
        ebm = ed.compile(zoo.declare(side, seen, y, noise, step))
        precision, prior = dense(side, seen.toarray(), noise, step)
        mean = np.linalg.solve(precision, seen.T @ y / noise**2)
        np.testing.assert_allclose(ed.map_configuration(ebm).configuration["x"], mean, atol=2e-4)
        # The prior is flat along the mean grey level alone: n - 1 directions have a width.
        energy = (y - seen @ mean) @ y / (2 * noise**2)
        widths = np.linalg.eigvalsh(prior)[1:]
        log_z = -energy - np.linalg.slogdet(precision)[1] / 2 + np.log(widths).sum() / 2
        evidence.append((zoo.evidence(ebm, side, step), log_z))
    (one, exact_one), (two, exact_two) = evidence
    assert one - two == pytest.approx(exact_one - exact_two, rel=1e-4, abs=1e-3)


def test_a_blur_keeps_the_mean_grey_level_and_a_selection_the_pixels():
    blur = zoo.blur(7)
    np.testing.assert_allclose(blur.sum(axis=1), 1.0)
    assert blur.nnz < 7**2 * 5**2 + 1
    chosen = zoo.selection(6, np.random.default_rng(0))
    assert (chosen.sum(axis=1) == 1).all() and (chosen.sum(axis=0) <= 1).all()


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
def test_the_prior_gains_on_least_squares(tmp_path):
    numbers = zoo.main(out=tmp_path, side=32)
    check_words(zoo, numbers)
    for case in numbers.values():
        assert case["psnr"] > case["psnr_least_squares"] + 10
        assert case["psnr"] > case["psnr_seen"]
        assert case["proof"] == "proven" and case["step"] in zoo.STEPS[1:-1]
    assert (tmp_path / "restored.png").stat().st_size > 10_000
