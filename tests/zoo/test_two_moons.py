"""Two moons: the law that drew them against its integral, and a short run of each objective."""

import jax
import numpy as np
import pytest
from scipy.special import logsumexp

import energydsl as ed
from models_zoo import two_moons as zoo
from tests.zoo.words import check_words


def test_the_true_density_is_normalised():
    side = np.linspace(-2.5, 2.5, 101)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    total = np.exp(zoo.true_log_density(grid)).sum() * (side[1] - side[0]) ** 2
    assert total == pytest.approx(1, abs=1e-6)


def test_log_z_is_that_of_a_sum():
    ebm = ed.compile(zoo.declare(seed=3, width=4))
    side = np.linspace(-8, 8, 401, dtype=np.float32)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    log_p = -np.asarray(jax.vmap(ebm.energy)({"x": grid}), float)
    exact = logsumexp(log_p) + 2 * np.log(side[1] - side[0])
    # Energies on the grid are float32's.
    assert float(ed.log_partition(ebm)) == pytest.approx(exact, abs=1e-5)


@pytest.mark.slow
def test_each_objective_learns(tmp_path):
    numbers = zoo.main(out=tmp_path, width=8, steps=400, likelihood_steps=2)
    check_words(zoo, numbers)
    assert set(numbers) == {"truth", *zoo.OBJECTIVES, "likelihood"}
    before = zoo.scored(ed.compile(zoo.declare(0, 8)), zoo.moons(2000, 1))["log_likelihood"]
    for name in zoo.OBJECTIVES:
        assert numbers[name]["log_likelihood"] > before + 0.3
        assert numbers[name]["short_of_truth"] > 0
    assert numbers["likelihood"]["log_likelihood"] > numbers["denoising"]["log_likelihood"]
    assert (tmp_path / "landscapes.png").stat().st_size > 10_000
