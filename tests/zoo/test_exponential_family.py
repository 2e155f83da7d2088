"""The nine families against SciPy's densities, and their moments."""

import numpy as np
import pytest
import scipy.special
import scipy.stats

import energydsl as ed
from models_zoo import exponential_family as zoo
from tests.zoo.words import check_words


def exact_log_z():
    """-E - log p of one point of each family, with SciPy's densities p."""
    a, d = np.array([[1.5, 0.4], [0.4, 0.9]]), np.array([0.2, 0.5, 0.3])
    s = np.array([[1.2, -0.3], [-0.3, 0.8]])
    energies = {
        "normal": (-0.3 + 0.5 * 0.3**2, scipy.stats.norm(1, 1).logpdf(0.3)),
        "poisson": (scipy.special.gammaln(4) - 3.6, scipy.stats.poisson(np.exp(1.2)).logpmf(3)),
        "exponential": (2 * 0.3, scipy.stats.expon(scale=0.5).logpdf(0.3)),
        "gamma": (-1.5 * np.log(0.3) + 0.9, scipy.stats.gamma(2.5, scale=1 / 3).logpdf(0.3)),
        "beta": (-np.log(0.3) - 2 * np.log(0.7), scipy.stats.beta(2, 3).logpdf(0.3)),
        "dirichlet": (-np.log(d) @ [0.5, 1, 2], scipy.stats.dirichlet([1.5, 2, 3]).logpdf(d)),
        "wishart": (
            np.trace(a @ s) - np.linalg.slogdet(s)[1],
            scipy.stats.wishart(5, np.linalg.inv(a) / 2).logpdf(s),
        ),
    }
    bits = np.log1p(np.exp(0.7)) + np.log(1 + np.exp(0.5) + np.exp(-1))
    return bits - sum(energy + density for energy, density in energies.values())


def test_the_compiler_finds_every_closed_form():
    ebm = ed.compile(zoo.declare())
    assert ed.log_partition(ebm) == pytest.approx(exact_log_z(), rel=1e-6)
    assert {p.rule.name for p in ebm.normalizer.plans} == {
        "exponential family", "gaussian", "independent",
    }  # fmt: skip


@pytest.mark.slow
def test_learning_matches_moments(tmp_path):
    numbers = zoo.main(out=tmp_path)
    check_words(zoo, numbers)
    assert numbers["kind"] == "exact"
    assert numbers["log_z"] == pytest.approx(exact_log_z(), rel=1e-6)
    # The means of 4,000 draws; the variance of the most spread statistic is 3.3.
    assert numbers["largest_gap_of_means"] < 6 * np.sqrt(3.4 / 4000)
    assert numbers["largest_gap_after_learning"] < 0.01
    assert len((tmp_path / "moments.csv").read_text().splitlines()) == 20
