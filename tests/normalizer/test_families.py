"""Draws of each family from its slopes alone, against SciPy's distributions."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats

from energydsl.analysis.statistics import INVERSE, LOG, LOG_DET, LOG_FACTORIAL, LOG_HIGH, VALUE
from energydsl.normalizer import families

FALSE_ALARM = 1e-6
DRAWS = 4000
ALPHA = np.array([1.5, 2.0, 3.0])
RATE = np.array([[1.5, 0.4], [0.4, 0.9]])

REAL = {
    "gamma": (families.GammaFamily(), {LOG: -1.5, VALUE: 3.0}, scipy.stats.gamma(2.5, scale=1 / 3)),
    "inverse gamma": (
        families.InverseGammaFamily(),
        {LOG: 4.5, INVERSE: 2.0},
        scipy.stats.invgamma(3.5, scale=2),
    ),
    "beta": (
        families.BetaFamily(-1.0, 3.0),
        {LOG: -1.5, LOG_HIGH: 0.5},
        scipy.stats.beta(2.5, 0.5, loc=-1, scale=4),
    ),
    "falling": (
        families.TruncatedFamily(-1.0, 2.0),
        {VALUE: 2.0},
        scipy.stats.truncexpon(b=6, loc=-1, scale=0.5),
    ),
    "nearly uniform": (
        families.TruncatedFamily(-1.0, 2.0),
        {VALUE: 1e-4},
        scipy.stats.uniform(-1, 3),
    ),
}
COUNTS = {
    "poisson": (
        families.PoissonFamily(),
        {VALUE: -1.3, LOG_FACTORIAL: 1.0},
        scipy.stats.poisson(np.exp(1.3)),
    ),
    "geometric": (
        families.GeometricFamily(),
        {VALUE: 0.4, LOG_FACTORIAL: 0.0},
        scipy.stats.geom(1 - np.exp(-0.4), loc=-1),
    ),
}


def drawn(family, eta):
    """Independent draws: one for each of many events with the same slopes."""
    each = {
        name: jnp.broadcast_to(jnp.asarray(s, float), (DRAWS, *np.shape(s)))
        for name, s in eta.items()
    }
    return np.asarray(family.draw(each, key=jr.key(0)), float)


@pytest.mark.parametrize("name", REAL)
def test_real_draws_have_the_law(name):
    family, eta, law = REAL[name]
    assert scipy.stats.kstest(drawn(family, eta), law.cdf).pvalue > FALSE_ALARM


def test_a_rising_density_is_the_mirror_of_a_falling_one():
    rising = drawn(families.TruncatedFamily(-2.0, 1.0), {VALUE: -2.0})
    law = scipy.stats.truncexpon(b=6, loc=-1, scale=0.5)
    assert scipy.stats.kstest(-rising, law.cdf).pvalue > FALSE_ALARM


@pytest.mark.parametrize("name", COUNTS)
def test_counts_have_the_law(name):
    family, eta, law = COUNTS[name]
    cells = np.minimum(drawn(family, eta).astype(int), 8)
    expected = DRAWS * np.append(law.pmf(np.arange(8)), law.sf(7))
    seen = np.bincount(cells, minlength=9)
    assert scipy.stats.chisquare(seen, expected).pvalue > FALSE_ALARM


def test_each_share_of_a_simplex_has_a_beta_law():
    shares = drawn(families.DirichletFamily(), {LOG: 1 - ALPHA})
    for k, a in enumerate(ALPHA):
        law = scipy.stats.beta(a, ALPHA.sum() - a)
        assert scipy.stats.kstest(shares[:, k], law.cdf).pvalue > FALSE_ALARM


def test_forms_of_matrices_are_chi_squared():
    # |X|^1 exp(-tr AX) is Wishart with 5 degrees of freedom and the scale inverse(A) / 2.
    x = drawn(families.WishartFamily(), {VALUE: RATE, LOG_DET: -1.0})
    scale = np.linalg.inv(RATE) / 2
    for a in (np.array([1.0, 0.0]), np.array([1.0, -2.0])):
        form = np.einsum("i,nij,j->n", a, x, a) / (a @ scale @ a)
        assert scipy.stats.kstest(form, scipy.stats.chi2(5).cdf).pvalue > FALSE_ALARM


BOUNDARIES = {
    "gamma, k = 0": (families.GammaFamily(), {LOG: 1.0, VALUE: 1.0}, {LOG: -1e-3}),
    "gamma, r = 0": (families.GammaFamily(), {LOG: 0.0, VALUE: 0.0}, {VALUE: 1e-3}),
    "inverse gamma, k = 0": (
        families.InverseGammaFamily(), {LOG: 1.0, INVERSE: 1.0}, {LOG: 1e-3},
    ),
    "inverse gamma, r = 0": (
        families.InverseGammaFamily(), {LOG: 2.0, INVERSE: 0.0}, {INVERSE: 1e-3},
    ),
    "beta, a = 0": (
        families.BetaFamily(0.0, 1.0), {LOG: 1.0, LOG_HIGH: 0.0}, {LOG: -1e-3},
    ),
    "beta, b = 0": (
        families.BetaFamily(0.0, 1.0), {LOG: 0.0, LOG_HIGH: 1.0}, {LOG_HIGH: -1e-3},
    ),
    "Dirichlet, a = 0": (
        families.DirichletFamily(), {LOG: np.array([0.0, 1.0])}, {LOG: np.array([0.0, -1e-3])},
    ),
    "geometric, r = 0": (
        families.GeometricFamily(), {VALUE: 0.0, LOG_FACTORIAL: 0.0}, {VALUE: 1e-3},
    ),
    "Wishart, n = (d - 1) / 2": (
        families.WishartFamily(), {VALUE: RATE, LOG_DET: 1.0}, {LOG_DET: -1e-3},
    ),
    "Wishart, singular A": (
        families.WishartFamily(), {VALUE: np.ones((2, 2)), LOG_DET: 0.0}, {VALUE: np.eye(2) / 1e3},
    ),
}  # fmt: skip
"""Slopes at which the integral just diverges, and what makes it finite when it is added."""


@pytest.mark.parametrize("name", BOUNDARIES)
def test_the_integral_diverges_at_the_boundary_and_not_inside(name):
    family, eta, inwards = BOUNDARIES[name]
    at = {key: jnp.asarray(slope, float)[None] for key, slope in eta.items()}
    inside = {key: slope + jnp.asarray(inwards.get(key, 0.0), float) for key, slope in at.items()}
    assert not family.proper(at).any()
    assert family.proper(inside).all()
