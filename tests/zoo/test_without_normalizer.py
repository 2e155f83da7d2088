"""An energy without log Z: its parts against NumPy, and each use of it."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import energydsl as ed
from models_zoo import without_normalizer as zoo
from tests.zoo.words import check_words


def machine(seed=0, scale=0.5):
    rng = np.random.default_rng(seed)
    w, b = rng.normal(size=len(zoo.FIRST)) * scale, rng.normal(size=zoo.PIXELS)
    return w.astype(np.float32), b.astype(np.float32)


def energy(w, b, x):
    matrix = np.zeros((zoo.PIXELS, zoo.PIXELS))
    matrix[zoo.FIRST, zoo.SECOND] = w
    return -np.einsum("...i,ij,...j->...", x, matrix, x) - x @ b


def test_energies_and_ratios_are_those_of_numpy_and_log_z_is_refused():
    w, b = machine()
    x = np.random.default_rng(1).integers(0, 2, (6, zoo.PIXELS))
    ebm = ed.compile(zoo.declare(w, b))
    known = energy(w, b, x)
    # Sums of 2,080 terms in float32, which reach about 100.
    np.testing.assert_allclose(zoo.energies(ebm, x), known, atol=1e-3)
    ratio = float(ebm.log_ratio({"x": jnp.asarray(x[0])}, {"x": jnp.asarray(x[1])}))
    assert ratio == pytest.approx(known[1] - known[0], abs=1e-3)
    light = np.random.default_rng(2).normal(size=x.shape)
    beside = zoo.declare(w, b, light, pictures=len(x))
    total = float(beside.energy({"x": jnp.asarray(x)}))
    assert total == pytest.approx(known.sum() - (light * x).sum(), abs=1e-2)
    assert zoo.refusal(ed.log_partition, ebm) == "refused: enumeration: 2^64 states"
    assert zoo.refusal(ed.map_configuration, ebm) == "refused: enumeration: 2^64 states"


def test_the_area_is_that_of_scikit_learn():
    usual, strange = np.array([0.0, 1.0, 2.0, 2.0]), np.array([1.0, 2.0, 5.0])
    labels, scores = np.repeat([0, 1], (4, 3)), np.concatenate([usual, strange])
    assert zoo.area(usual, strange) == pytest.approx(roc_auc_score(labels, scores))


def test_annealing_finds_the_mode_of_independent_pixels_given_noise():
    _, b = machine()
    noisy = np.random.default_rng(3).integers(0, 2, (2, zoo.PIXELS))
    ebm = ed.compile(zoo.declare(zoo.COUPLINGS, b))
    found = zoo.denoise(ebm, noisy, 0.1, key=jr.key(0))
    # A flip with probability 0.1 has the log odds log 9.
    odds = b + np.log(9) * np.where(noisy, 1, -1)
    clear = np.abs(odds) > 0.05  # the others have both values with nearly equal probability
    np.testing.assert_array_equal(found.mode[clear], (odds > 0)[clear])
    # 1,600 draws, independent here: six standard errors of at most 1/80.
    np.testing.assert_allclose(found.mean, 1 / (1 + np.exp(-odds)), atol=6 / 80)


@pytest.mark.slow
def test_all_works_without_log_z(tmp_path):
    numbers = zoo.main(out=tmp_path, pictures=8, steps=200)
    check_words(zoo, numbers)
    assert numbers["share_preferred_to_noisy"] > 0.98
    assert numbers["completion_largest_gap_to_proven_mode"] < 1e-3
    shares = numbers["denoising"]
    assert max(shares["mode"], shares["posterior_mean"]) < 0.65 * shares["noisy"]
    assert shares["independent"] > 1.2 * shares["posterior_mean"]
    # 0.92, 0.82 and 0.75; independent pixels have 0.82, 0.60 and 0.50.
    for name, least in {"5 % flipped": 0.9, "upside down": 0.78, "two halves": 0.7}.items():
        found = numbers[f"AUC {name}"]
        assert found["energy"] > max(least, found["independent"] + 0.08), name
    assert (tmp_path / "digits.png").stat().st_size > 10_000
