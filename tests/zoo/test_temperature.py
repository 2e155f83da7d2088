"""Temperature against a law enumerated in NumPy."""

import arviz as az
import jax
import numpy as np
import pytest

from models_zoo import temperature as zoo
from tests.oracles.enumerate import exact_law
from tests.zoo.words import check_words


def energy(states):
    s = states.reshape(-1, 3, 3)
    return -(s * np.roll(s, 1, 1) + s * np.roll(s, 1, 2)).sum((1, 2))


def test_thermodynamics_is_that_of_the_enumerated_law():
    law = exact_law(lambda states: energy(states) / 2.5, [(-1, 1)] * 9)
    energies = energy(law.states)
    mean = law.probs @ energies
    variance = law.probs @ (energies - mean) ** 2
    model = zoo.declare(3)
    with jax.enable_x64(True):
        seen = jax.jit(lambda t: zoo.exact(model, 3, t))(2.5)
        seen = {name: float(value) for name, value in seen.items()}
    entropy = -law.probs @ np.log(law.probs)
    expected = {
        "energy": mean,
        "slope": variance / 2.5**2,
        "variance": variance,
        "states": np.exp(entropy),
    }
    assert seen == pytest.approx(expected, rel=1e-9)


def test_both_heat_capacities_agree_and_both_limits_hold(tmp_path):
    numbers = zoo.main(out=tmp_path, size=3, points=12, draws=250)
    check_words(zoo, numbers)
    assert numbers["heat_capacity_gap"] < 1e-9
    # The law tends to its two modes, then to 2^9 equal states up to the term of order (E / T)^2.
    assert numbers["states_cold"] == pytest.approx(2, rel=1e-6)
    assert numbers["states_hot"] == pytest.approx(2**9, rel=0.01)
    for temperature in zoo.SAMPLED:
        # Exceeded by chance 1e-6 of the time, with an error bar known to 10 %.
        assert abs(numbers[f"T={temperature:g}"]["z"]) < 5.5
        with az.from_netcdf(tmp_path / f"T={temperature:g}.nc") as tree:
            assert tree["posterior"]["s"].dims == ("chain", "draw", "row", "column")
    assert (tmp_path / "temperature.png").stat().st_size > 10_000
