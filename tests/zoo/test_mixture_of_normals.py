"""The mixture of galaxies: its energy in SciPy, and its labels against their probabilities."""

import arviz as az
import numpy as np
import pytest
from scipy.stats import dirichlet, gamma, norm

import energydsl as ed
from models_zoo import mixture_of_normals as zoo
from tests.zoo.words import check_words

FALSE_ALARM_Z = 6
"""Of some 200 gaps one exceeds it by chance 1e-6 of the time."""


def test_the_energy_is_that_of_the_formula():
    rng = np.random.default_rng(0)
    w, mu, sigma = rng.dirichlet(np.ones(5)), zoo.CENTRES + rng.normal(size=5), rng.gamma(4, size=5)
    k, v = rng.integers(0, 5, 82), zoo.VELOCITIES
    expected = -(
        dirichlet(np.full(5, 2.0)).logpdf(w)
        + norm(zoo.CENTRES, 1).logpdf(mu).sum()
        + gamma(4, scale=1 / 4).logpdf(sigma).sum()
        + np.log(w[k]).sum()
        + norm(mu[k], sigma[k]).logpdf(v).sum()
    )
    x = {"w": w, "mu": mu, "sigma": sigma, "k": k, "v": v}
    assert float(ed.compile(zoo.declare()).energy(x)) == pytest.approx(expected, rel=1e-5)
    assert len(zoo.VELOCITIES) == 82 and (np.diff(zoo.VELOCITIES) > 0).all()


@pytest.mark.slow
def test_labels_and_components(tmp_path):
    numbers = zoo.main(out=tmp_path, warmup=1000, draws=1000)
    check_words(zoo, numbers)
    assert numbers["kernel"] == "NUTS(summed=True)"
    assert numbers["rhat"] < 1.02 and numbers["labels_z"] < FALSE_ALARM_Z
    # Roeder (1990): a cluster near 10, most galaxies near 20 and 23, a few near 33.
    assert [numbers[f"component {i}"]["mean"] for i in (1, 3, 5)] == pytest.approx(
        [9.7, 19.8, 33.0], abs=0.4
    )
    with az.from_netcdf(tmp_path / "chains.nc") as tree:
        assert tree["posterior"]["k"].shape == (4, 1000, 82)
    assert (tmp_path / "galaxies.png").stat().st_size > 10_000
