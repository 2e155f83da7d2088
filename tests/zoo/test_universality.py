"""Energies without their constants against SciPy's densities."""

import numpy as np
import pytest
import scipy.stats

import energydsl as ed
from models_zoo import universality as zoo
from tests.zoo.words import check_words

PEERS = {
    "normal": (scipy.stats.norm(), "gaussian"),
    "bernoulli": (scipy.stats.bernoulli(0.3), "independent"),
    "poisson": (scipy.stats.poisson(3), "exponential family"),
    "exponential": (scipy.stats.expon(scale=0.5), "exponential family"),
    "laplace": (scipy.stats.laplace(), "quadrature"),
    "student": (scipy.stats.t(3), "quadrature"),
    "von_mises": (scipy.stats.vonmises(2), "quadrature"),
    "two_bells": (
        scipy.stats.Mixture([scipy.stats.Normal(mu=-2.0), scipy.stats.Normal(mu=2.0)]),
        "quadrature",
    ),
}


@pytest.mark.parametrize(
    "name",
    [
        name if name in {"normal", "bernoulli", "poisson", "two_bells"}
        else pytest.param(name, marks=pytest.mark.slow)
        for name in PEERS
    ],
)  # fmt: skip
def test_the_density_is_scipys_once_log_z_is_found(name):
    peer, rule = PEERS[name]
    found = zoo.measured(name)
    x = np.array([0.0, 1.0]) if name in {"bernoulli", "poisson"} else np.array([0.25, 1.5])
    known = peer.logpdf(x) if hasattr(peer, "pdf") else peer.logpmf(x)
    # Energies are computed in float32.
    np.testing.assert_allclose(-zoo.energies(name, x) - found["log_z"], known, atol=2e-6)
    assert found["log_z"] == pytest.approx(found["by_scipy"], abs=2e-6)
    assert found["rule"] == rule
    assert found["kind"] == ("quadrature" if rule == "quadrature" else "exact")


def test_one_model_of_all_has_the_sum():
    assert float(ed.log_partition(ed.compile(zoo.declare(("normal", "bernoulli"))))) == (
        pytest.approx(np.log(2 * np.pi) / 2 - np.log(0.7), abs=1e-6)
    )


@pytest.mark.slow
def test_an_energy_without_a_density_is_refused_and_all_is_drawn(tmp_path):
    numbers = zoo.main(out=tmp_path, draws=4)
    check_words(zoo, numbers)
    assert "may have no finite integral" in numbers["improper"]["refused"]
    assert set(numbers) == {*PEERS, "improper"}
    assert (tmp_path / "universality.png").stat().st_size > 10_000
