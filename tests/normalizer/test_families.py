"""Draws of each family from its slopes alone, against SciPy's distributions."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats

from energydsl.analysis.statistics import (
    COS,
    INVERSE,
    LOG,
    LOG_DET,
    LOG_FACTORIAL,
    LOG_GAMMA,
    LOG_HIGH,
    SHIFT,
    SIN,
    VALUE,
)  # fmt: skip
from energydsl.normalizer import bessel_families, families

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
    "generalised inverse gaussian": (
        bessel_families.GeneralisedInverseGaussianFamily(),
        {LOG: 3.5, VALUE: 0.5, INVERSE: 2.0},
        scipy.stats.geninvgauss(-2.5, 2.0, scale=2.0),
    ),
    "almost gamma": (
        bessel_families.GeneralisedInverseGaussianFamily(),
        {LOG: -1.5, VALUE: 3.0, INVERSE: 1e-6},
        scipy.stats.gamma(2.5, scale=1 / 3),
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
    "negative binomial": (
        families.NegativeBinomialFamily(),
        {VALUE: 0.4, LOG_FACTORIAL: 1.0, LOG_GAMMA: -1.0, SHIFT: -1.5},
        scipy.stats.nbinom(1.5, 1 - np.exp(-0.4)),
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


CIRCLE = bessel_families.VonMisesFamily(-1.0)


def angle(kappa, mu):
    return {COS: jnp.asarray([-kappa * np.cos(mu)]), SIN: jnp.asarray([-kappa * np.sin(mu)])}


def test_angles_have_the_law_around_the_mode():
    x = drawn(CIRCLE, {COS: -2.5 * np.cos(5.0), SIN: -2.5 * np.sin(5.0)})
    assert (x >= -1.0).all() and (x <= -1.0 + 2 * np.pi).all()
    around = np.remainder(x - 5.0 + np.pi, 2 * np.pi) - np.pi
    assert scipy.stats.kstest(around, scipy.stats.vonmises(2.5).cdf).pvalue > FALSE_ALARM


@pytest.mark.parametrize("mu", [-0.9, 2.0, 5.2])
@pytest.mark.parametrize("kappa", [0.0, 0.03, 0.3, 3.0, 500.0])
def test_an_angle_as_a_number_has_the_integrals(mu, kappa):
    """The part of the density beyond an end of the interval comes back at the other."""
    around = mu + np.array([-30, -10, -3, 0, 3, 10, 30]) / np.sqrt(max(kappa, 1.0))
    turns = np.concatenate([around, around - 2 * np.pi, around + 2 * np.pi])
    cuts = np.unique(np.clip([*turns, -1.0, 2 * np.pi - 1], -1.0, 2 * np.pi - 1))
    points, weights = np.polynomial.legendre.leggauss(60)
    half = np.diff(cuts)[:, None] / 2
    x = cuts[:-1, None] + half * (1 + points)
    mass = half * weights * np.exp(kappa * (np.cos(x - mu) - 1))
    total = mass.sum()
    mean = (mass * x).sum() / total
    with jax.enable_x64(True):
        eta = angle(kappa, mu)
        found = CIRCLE.log_integral(eta)[0], *(a[0] for a in CIRCLE.moments(eta))
    assert found[0] == pytest.approx(np.log(total) + kappa, rel=1e-12)
    assert found[1] == pytest.approx(mean, rel=1e-10)
    assert found[2] == pytest.approx((mass * (x - mean) ** 2).sum() / total, rel=1e-9)


def test_the_mode_of_an_angle_is_inside_the_interval():
    for mu in (-0.9, 2.0, 5.2):
        assert CIRCLE.mode(angle(3.0, mu))[0] == pytest.approx(mu, rel=1e-6)


@pytest.mark.parametrize("kappa", [0.0, 0.03, 3.0])
def test_the_derivatives_of_an_angle_are_the_moments_of_its_cosine_and_sine(kappa):
    x = np.arange(400) * 2 * np.pi / 400
    mass = np.exp(kappa * np.cos(x - 0.7))
    mass /= mass.sum()
    cosine = (mass * np.cos(x)).sum()
    with jax.enable_x64(True):
        eta = angle(kappa, 0.7)
        first = jax.grad(lambda eta: CIRCLE.log_integral(eta)[0])
        second = jax.grad(lambda eta: first(eta)[COS][0])(eta)
        first = first(eta)
    assert first[COS][0] == pytest.approx(-cosine, abs=1e-12)
    assert first[SIN][0] == pytest.approx(-(mass * np.sin(x)).sum(), abs=1e-12)
    assert second[COS][0] == pytest.approx((mass * np.cos(x) ** 2).sum() - cosine**2, abs=1e-13)


@pytest.mark.parametrize("p", [0.0, 0.3, -2.5, 50.0, 1e3])
@pytest.mark.parametrize("z", [1e-25, 0.01, 1.0, 1e3, 1e6])
def test_bessel_functions_of_the_second_kind(p, z):
    exact = np.log(scipy.special.kve(p, z)) - z
    with jax.enable_x64(True):
        found = bessel_families.log_bessel_k(jnp.float64(p), jnp.float64(z))
        slopes = jax.grad(bessel_families.log_bessel_k, (0, 1))(jnp.float64(p), jnp.float64(z))
    # SciPy's own values overflow for a large index.
    if np.isfinite(exact):
        assert found == pytest.approx(exact, rel=1e-13)
        ratio = scipy.special.kve(p - 1, z) / scipy.special.kve(p, z)
        assert slopes[1] == pytest.approx(-ratio - p / z, rel=1e-10)
    assert np.isfinite([found, *slopes]).all()


def test_the_derivative_of_a_bessel_function_in_its_index():
    def log_k(p):
        return np.log(scipy.special.kv(p, 0.8))

    with jax.enable_x64(True):
        slope = jax.grad(bessel_families.log_bessel_k)
        for p in (0.0, 1.7, -3.0):
            at = jnp.float64(p), jnp.float64(0.8)
            found, bend = slope(*at), jax.grad(slope)(*at)
            assert found == pytest.approx((log_k(p + 1e-5) - log_k(p - 1e-5)) / 2e-5, abs=1e-9)
            exact = (log_k(p + 1e-3) + log_k(p - 1e-3) - 2 * log_k(p)) / 1e-6
            assert bend == pytest.approx(exact, rel=1e-5)


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
    "generalised inverse Gaussian, a = 0": (
        bessel_families.GeneralisedInverseGaussianFamily(),
        {LOG: 2.0, VALUE: 0.0, INVERSE: 1.0}, {VALUE: 1e-3},
    ),
    "generalised inverse Gaussian, b = 0": (
        bessel_families.GeneralisedInverseGaussianFamily(),
        {LOG: 0.0, VALUE: 1.0, INVERSE: 0.0}, {INVERSE: 1e-3},
    ),
    "negative binomial, s = 0": (
        families.NegativeBinomialFamily(),
        {VALUE: 0.0, LOG_FACTORIAL: 1.0, LOG_GAMMA: -1.0, SHIFT: -2.0}, {VALUE: 1e-3},
    ),
    "negative binomial, r = 0": (
        families.NegativeBinomialFamily(),
        {VALUE: 1.0, LOG_FACTORIAL: 1.0, LOG_GAMMA: -1.0, SHIFT: 0.0}, {SHIFT: -1e-3},
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
