"""Experts of three kinds against sums over a grid, which share no code with quadrature."""

import arviz as az
import numpy as np
import pytest
from scipy.special import logsumexp

import energydsl as ed
from models_zoo import product_of_experts as zoo
from tests.zoo.words import check_words

FALSE_ALARM_Z = 6
"""Of 30 means one exceeds it by chance 1e-6 of the time, its error bar known to 10 %."""


@pytest.mark.parametrize(
    "state", [0, *(pytest.param(k, marks=pytest.mark.slow) for k in (1, 2, 3))]
)
def test_log_z_is_that_of_the_grid(state):
    model = zoo.declare()
    _, logs = zoo.log_weights(model)
    cell = 2 * np.log(2 * zoo.REACH / (zoo.POINTS - 1))
    held = ed.compile(model.condition(s=zoo.SPINS[state]))
    # Energies on the grid are float32's.
    assert float(ed.log_partition(held)) == pytest.approx(logsumexp(logs[state]) + cell, abs=1e-5)


def test_gaussian_experts_have_a_closed_form():
    numbers = zoo.gaussian_log_z()
    assert numbers["log_z"] == pytest.approx(numbers["overlap"], rel=1e-7)


@pytest.mark.slow
def test_every_kernel_draws_the_same_law(tmp_path):
    numbers = zoo.main(out=tmp_path, draws=300)
    check_words(zoo, numbers)
    assert numbers["largest_z"] < FALSE_ALARM_Z
    assert set(numbers["joint"]) == {"log Z", *zoo.KERNELS["joint"]}
    assert set(numbers["held"]) == {"log Z", *zoo.KERNELS["held"]}
    with az.from_netcdf(tmp_path / "joint-0.nc") as tree:
        assert set(tree["posterior"].data_vars) == {"x", "s"}
    assert (tmp_path / "densities.png").stat().st_size > 10_000
