"""Hamiltonian Monte Carlo."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import energydsl as ed
from tests.kernel.test_tuning import narrow


def test_the_length_of_a_trajectory_varies_around_the_one_asked_for():
    ebm = ed.compile(ed.Model(0.5 * (ed.real("x", 3) ** 2).sum()))
    kernel = ed.HMC(step_size=0.1, trajectory=2.0)
    chains = ed.sample(ebm, kernel, key=jr.key(0), warmup=0, draws=200, progress=False)
    steps = chains.stats["n_steps"]
    # The number is rounded up: lengths from 1 to 3 take 11 to 30 steps of 0.1.
    assert steps.min() == 11 and steps.max() == 30
    assert steps.mean() == pytest.approx(20.5, abs=1.0)
    fixed = ed.sample(
        ebm, ed.HMC(step_size=0.1, steps=7), key=jr.key(0), warmup=0, draws=5, progress=False
    )
    assert (fixed.stats["n_steps"] == 7).all()
    np.testing.assert_allclose(fixed.stats["step_size"], 0.1, rtol=1e-6)


def test_a_tiny_step_shortens_the_trajectory_rather_than_hang():
    ebm = ed.compile(ed.Model(0.5 * ed.real("x") ** 2))
    chains = ed.sample(
        ebm, ed.HMC(step_size=1e-9), key=jr.key(0), warmup=0, draws=2, chains=1, progress=False
    )
    assert (chains.stats["n_steps"] <= 1025).all()


def test_draws_of_a_normal_are_nearly_independent():
    """With an adapted mass matrix, a quarter of a period forgets where a trajectory began."""
    x = ed.real("x", 5)
    scale = np.array([0.01, 0.1, 1.0, 10.0, 100.0])
    ebm = ed.compile(ed.Model(0.5 * ((x / scale) ** 2).sum()))
    chains = ed.sample(ebm, ed.HMC(), key=jr.key(1), warmup=500, draws=1000, progress=False)
    draws = chains.draws["x"] / scale
    lagged = (draws[:, 1:] * draws[:, :-1]).mean(axis=(0, 1)) / (draws**2).mean(axis=(0, 1))
    assert (np.abs(lagged) < 0.3).all()
    np.testing.assert_allclose((draws**2).mean(axis=(0, 1)), 1.0, atol=0.25)
    assert chains.stats["acceptance_rate"].mean() > 0.7


def test_it_reports_the_energies_of_trajectories_to_arviz():
    chains = ed.sample(narrow(2), ed.HMC(), key=jr.key(0), warmup=50, draws=4, progress=False)
    assert "energy" in ed.to_arviz(chains)["sample_stats"]
    assert jnp.isfinite(chains.stats["hamiltonian"]).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps=0; expected a whole number of at least 1"),
        ({"steps": 2.5}, "steps=2.5"),
        ({"trajectory": 0.0}, "trajectory=0.0; expected a length above 0"),
        ({"step_size": -1.0}, "step_size=-1.0; expected a number above 0"),
        ({"target": 1.5}, "target=1.5; expected a rate between 0 and 1"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=f"HMC got {message}"):
        ed.HMC(**settings)
