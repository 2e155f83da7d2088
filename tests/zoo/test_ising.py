"""The Ising model against oracles that share no code with it."""

import arviz as az
import numpy as np
import pytest

import energydsl as ed
from models_zoo import ising as zoo
from tests.oracles import ising as oracle
from tests.zoo.words import check_words

FALSE_ALARM_Z = 5.5
"""Exceeded by chance 4e-8 of the time by a normal, 1e-6 where its error bar is known to 10 %."""


@pytest.mark.parametrize("size", [3, 4, 32, 128])
@pytest.mark.parametrize("temperature", [0.5, 2.2, zoo.CRITICAL, 2.4, 10.0])
def test_the_exact_energy_is_kaufmans(size, temperature):
    exact = oracle.kaufman(size, size, 1 / temperature).energy
    assert zoo.kaufman_energy(size, temperature) == pytest.approx(exact, rel=1e-6)


def test_the_spontaneous_magnetisation_is_yangs():
    temperatures = np.array([0.5, 2.0, 2.26, zoo.CRITICAL, 2.3, 5.0])
    exact = [oracle.yang_magnetisation(1 / t) for t in temperatures]
    np.testing.assert_allclose(zoo.yang_magnetisation(temperatures), exact, atol=1e-9)


def test_the_energy_is_that_of_the_paper():
    s = np.random.default_rng(0).choice([-1, 1], size=(4, 6))
    bonds = sum((s * np.roll(s, 1, axis)).sum() for axis in (0, 1))
    ebm = ed.compile(zoo.declare((4, 6), coupling=0.7, field=0.3))
    assert float(ebm.energy({"s": s})) == pytest.approx(-0.7 * bonds - 0.3 * s.sum(), rel=1e-5)


def test_energies_agree_with_kaufman(tmp_path):
    temperatures = [2.0, zoo.CRITICAL, 3.0]
    numbers = zoo.main(
        out=tmp_path, size=8, temperatures=temperatures, chains=32, draws=500, thin=5
    )
    check_words(zoo, numbers)
    assert [row["temperature"] for row in numbers.values()] == temperatures
    assert all(abs(row["z"]) < FALSE_ALARM_Z for row in numbers.values()), numbers
    magnetisations = [row["magnetisation"] for row in numbers.values()]
    assert 1 > magnetisations[0] > magnetisations[1] > magnetisations[2] > 0
    for name in numbers:
        with az.from_netcdf(tmp_path / f"{name}.nc") as tree:
            assert tree["posterior"]["magnetisation"].shape == (32, 500)
    assert (tmp_path / "transition.png").stat().st_size > 10_000
