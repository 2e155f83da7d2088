"""Eight schools beside NumPyro, and against integrals in SciPy, which share no code with either."""

import arviz as az
import numpy as np
import pytest
from scipy.stats import halfcauchy, norm

import energydsl as ed
from models_zoo import eight_schools as zoo
from models_zoo._shared import estimate
from tests.zoo.words import check_words

FALSE_ALARM_Z = 6
"""Of 22 gaps one exceeds it by chance 1e-6 of the time, error bars known to 10 %."""


def exact_means():
    """Posterior means of mu and tau, the schools' effects integrated out."""
    mu, log_tau = np.linspace(-25, 35, 601), np.linspace(np.log(1e-4), np.log(1e4), 1001)
    tau = np.exp(log_tau)
    log_p = norm.logpdf(mu, 0, 5)[:, None] + halfcauchy.logpdf(tau, scale=5) + log_tau
    for effect, error in zip(zoo.EFFECTS, zoo.ERRORS, strict=True):
        log_p = log_p + norm.logpdf(effect, mu[:, None], np.hypot(tau, error))
    probs = np.exp(log_p - log_p.max())
    probs /= probs.sum()
    return {"mu": float(mu @ probs.sum(axis=1)), "tau": float(probs.sum(axis=0) @ tau)}


def test_the_energy_is_that_of_the_paper():
    rng = np.random.default_rng(0)
    mu, tau, z, y = rng.normal(), 2.5, rng.normal(size=8), 10 * rng.normal(size=8)
    expected = -(
        norm.logpdf(mu, 0, 5)
        + halfcauchy.logpdf(tau, scale=5)
        + norm.logpdf(z).sum()
        + norm.logpdf(y, mu + tau * z, zoo.ERRORS).sum()
    )
    ebm = ed.compile(zoo.declare())
    x = {"mu": mu, "tau": tau, "z": z, "y": y}
    assert float(ebm.energy(x)) == pytest.approx(expected, rel=1e-6)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One short run, and where it was saved."""
    out = tmp_path_factory.mktemp("eight_schools")
    return zoo.main(out=out, warmup=500, draws=1000), out


@pytest.mark.slow
def test_the_posterior_is_numpyros(run):
    numbers, _ = run
    check_words(zoo, numbers)
    assert set(numbers) >= {"mu", "tau", *(f"theta[{school}]" for school in zoo.SCHOOLS)}
    assert numbers["largest_z"] < FALSE_ALARM_Z, numbers


@pytest.mark.slow
def test_the_posterior_is_the_integral(run):
    _, out = run
    with az.from_netcdf(out / "chains.nc") as tree:
        found = {name: estimate(np.asarray(tree["posterior"][name])) for name in ("mu", "tau")}
    for name, exact in exact_means().items():
        assert abs(found[name].z(exact)) < FALSE_ALARM_Z, f"{name}: {found[name]=} {exact=}"


def test_nuts_goes_through_without_trouble(run):
    numbers, _ = run
    check_words(zoo, numbers)
    # None of 4,000 as a rule; a handful at the narrow end, tau near zero, is harmless.
    assert numbers["divergences"] <= 4
    assert all(numbers[name]["rhat"] < 1.02 for name in ("mu", "tau"))


def test_what_is_saved_is_named(run):
    _, out = run
    with az.from_netcdf(out / "chains.nc") as tree:
        z = tree["posterior"]["z"]
        assert z.dims == ("chain", "draw", "school")
        assert z.shape == (4, 1000, 8)
        assert np.asarray(z["school"]).tolist() == zoo.SCHOOLS
        assert tree["sample_stats"]["diverging"].shape == (4, 1000)
    assert (out / "posterior.png").stat().st_size > 10_000
