"""Conditionals of known families: recognised, measured and drawn as SciPy has them."""

import re

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.integrate
import scipy.stats

import energydsl as ed
from energydsl._types import Refusal
from energydsl.analysis import truncated
from energydsl.analysis.conditional import conditional_for
from tests.oracles.enumerate import chisquare_pvalue

FALSE_ALARM = 1e-6  # chance that correct code fails one of these tests
DRAWS = 20_000

P, U, N = ed.positive("p", 3), ed.interval("u", 3, low=-0.5, high=2.0), ed.count("n", 3)
S, Q = ed.spin("s"), ed.positive("q")
RATES = np.array([0.7, 2.0, 5.0])

CASES = {
    "gamma": (
        (np.array([-1.3, 0.0, 0.9]) * ed.log(P) + (1 + Q) * P).sum(),
        "p",
        [scipy.stats.gamma(a, scale=1 / 1.6) for a in (2.3, 1.0, 0.1)],
    ),
    "gamma, a density": (
        ed.LogDensity(dist.Gamma)(P, RATES, 2.0 + Q) + 0.5 * P.sum(),
        "p",
        [scipy.stats.gamma(r, scale=1 / 3.1) for r in RATES],
    ),
    "beta": (
        -((RATES - 1) * ed.log(U + 0.5) + (0.4 + Q) * ed.log(2.0 - U)).sum(),
        "u",
        [scipy.stats.beta(r, 2.0, -0.5, 2.5) for r in RATES],
    ),
    "truncated exponential": (
        ((RATES - 2) * U * (1 + Q)).sum(),
        "u",
        [(lambda x, r=(r - 2) * 1.6: -r * x) for r in RATES],
    ),
    "truncated normal": (
        (RATES * U**2 - Q * U).sum(),
        "u",
        [(lambda x, r=r: -r * x**2 + 0.6 * x) for r in RATES],
    ),
    "concave on an interval": (
        (-RATES * U**2 + Q * U).sum(),
        "u",
        [(lambda x, r=r: r * x**2 - 0.6 * x) for r in RATES],
    ),
    "half-normal": (
        (RATES * (P - Q) ** 2 + P).sum(),
        "p",
        [(lambda x, r=r: -r * (x - 0.6) ** 2 - x) for r in RATES],
    ),
    "poisson": (
        ed.LogDensity(dist.Poisson)(N, RATES) - ((1 + Q) * N).sum(),
        "n",
        [scipy.stats.poisson(r * np.exp(1.6)) for r in RATES],
    ),
}


def cdf_of(law, low, high):
    """The cdf of a SciPy law, or of a log-density by a fine sum."""
    if not callable(law):
        return law.cdf
    grid = np.linspace(low, high, 400_001)
    mass = scipy.integrate.cumulative_simpson(np.exp(law(grid)), x=grid, initial=0)
    return lambda x: np.interp(x, grid, mass / mass[-1])


@pytest.mark.parametrize("name", CASES)
def test_draws_are_of_the_family(name):
    energy, variable, laws = CASES[name]
    ebm = ed.compile(ed.Model(energy + Q))
    start = {v.name: jnp.ones((DRAWS, *v.shape), v.domain.dtype) for v in ebm.structure.variables}
    start["q"] = jnp.full(DRAWS, 0.6)
    only = next(v for v in ebm.structure.variables if v.name == variable)
    kernel = ed.Gibbs([view_of(only)])
    ensemble = kernel.ensemble(ebm)

    @jax.jit
    def swept(xs, key):
        carry = ensemble.start(ebm, xs, key=key, warmup=0)
        carry, _ = ensemble.advance(ebm, ensemble.load(ebm), carry, key=key)
        return ensemble.configurations(ebm, carry)

    after = np.asarray(swept(start, jr.key(1))[variable], float)
    low, high = (0, 8) if variable == "p" else (-0.5, 2.0)
    for k, law in enumerate(laws):
        if variable == "n":
            top = int(law.ppf(0.999))
            seen = np.bincount(np.minimum(after[:, k], top).astype(int), minlength=top + 1)
            probs = np.append(law.pmf(np.arange(top)), law.sf(top - 1))
            assert chisquare_pvalue(seen, probs, DRAWS) > FALSE_ALARM
        else:
            assert scipy.stats.kstest(after[:, k], cdf_of(law, low, high)).pvalue > FALSE_ALARM


def view_of(variable):
    return {"p": P, "u": U, "n": N}[variable.name]


@pytest.mark.parametrize("name", [n for n in CASES if n != "concave on an interval"])
def test_distributions_and_their_means(name):
    """Against sums of exp(-E) of the energy itself on a grid."""
    energy, variable, _ = CASES[name]
    ebm = ed.compile(ed.Model(energy + Q))
    x = {v.name: jnp.ones(v.shape, v.domain.dtype) for v in ebm.structure.variables}
    x["q"] = jnp.asarray(0.6)
    law = ebm.conditional(variable, x)
    grid = {
        "n": np.arange(100.0),
        "p": np.geomspace(1e-20, 80.0, 8001),
        "u": (np.linspace(-0.5, 2.0, 8002)[1:] + np.linspace(-0.5, 2.0, 8002)[:-1]) / 2,
    }[variable]
    weight = np.gradient(grid)
    energies = jax.jit(jax.vmap(lambda value: ebm.energy({**x, variable: value})))
    for k in range(3):
        dtype = x[variable].dtype
        log = -np.asarray(
            energies(jnp.ones((len(grid), 3)).at[:, k].set(grid).astype(dtype)), float
        )
        mass = np.exp(log - log.max()) * weight
        said = np.exp(np.asarray(law.log_prob(jnp.asarray(grid)[:, None]))[:, k]) * weight
        np.testing.assert_allclose(said, mass / mass.sum(), rtol=0.02, atol=1e-5)
        if name != "beta":  # NumPyro has no mean of a density that is moved
            np.testing.assert_allclose(law.mean[k], mass @ grid / mass.sum(), rtol=0.02)


REFUSED = {
    "cube": (
        lambda: (P**3).sum(),
        "linear in single sites .*quadratic .*degree 3.*in x and log x of",
    ),
    "inverse": (lambda: (P + 1 / P).sum(), "not shown to be linear in x and log x"),
    "x log x": (lambda: (P * ed.log(P)).sum(), "not shown to be linear in x and log x"),
    "x and log": (lambda: (U - ed.log(U + 0.5)).sum(), r"linear in log x and log\(high - x\) of"),
    "outside": (lambda: -ed.log(U + 0.6).sum(), r"linear in log x and log\(high - x\) of single"),
    "wave": (lambda: ed.cos(U).sum(), r"linear in log x and log\(high - x\) of single"),
    "geometric": (lambda: N.sum(), "slope of log x! is 0; that of a Poisson count is 1"),
    "two densities": (
        lambda: ed.LogDensity(dist.Poisson)(N, 2.0) + ed.LogDensity(dist.Poisson)(N, 3.0),
        "the slope of log x! is 2; that of a Poisson",
    ),
    "tempered": (
        lambda: ed.parameter("k", 1.0) * ed.LogDensity(dist.Poisson)(N, 2.0),
        "not shown to be linear in x and log x!",
    ),
    "count squared": (lambda: (N**2).sum(), "not shown to be linear in x and log x!"),
    "one without": (
        lambda: ed.LogDensity(dist.Poisson)(N[:2], 2.0) + 0.1 * N[2],
        "slope of log x! is 0",
    ),
    "negative binomial": (
        lambda: ed.LogDensity(dist.NegativeBinomial2)(N, 2.0, 1.5),
        "not shown to be linear in x and log x!",
    ),
}


@pytest.mark.parametrize(("energy", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_is_of_no_family_is_refused(energy, reason):
    structure = ed.compile(ed.Model(energy())).structure
    law = conditional_for(structure, structure.variables[0])
    assert isinstance(law, Refusal)
    assert re.search(reason, law.reason)


@pytest.mark.parametrize(
    ("other", "refused"),
    [([0, 1], True), ([0, 2], True), ([1, 2], False)],
    ids=["everywhere", "in one row", "nowhere"],
)
def test_a_site_that_a_factor_contains_twice_is_read_in_both_places(other, refused):
    """p[0] log p[0] through two views is not linear in p and log p."""
    energy = (P[np.array([0, 1])] * ed.log(P[np.array(other)])).sum() + P.sum()
    structure = ed.compile(ed.Model(energy)).structure
    assert isinstance(conditional_for(structure, structure.variables[0]), Refusal) == refused


def test_replaced_ends_are_noticed():
    """The end at which a logarithm vanishes was read from a number; NaN where it has changed."""
    ebm = ed.compile(ed.Model(-(0.7 * ed.log(U + 0.5)).sum()))
    assert not isinstance(conditional_for(ebm.structure, ebm.structure.variables[0]), Refusal)
    law = conditional_for(ebm.structure, ebm.structure.variables[0])
    right = law.measure(lambda v: -0.7 * jnp.log(v + 0.5))
    np.testing.assert_allclose(right, [-0.7, 0.0], atol=1e-5)
    assert np.isnan(law.measure(lambda v: -0.7 * jnp.log(v + 0.6))).all()


@pytest.mark.parametrize(
    ("slope", "curvature", "low", "high"),
    [
        (0.0, 1.0, 0.0, np.inf),
        (30.0, 1.0, 0.0, np.inf),
        (-30.0, 1.0, 0.0, np.inf),
        (-1e3, 1e-2, 0.0, np.inf),
        (0.3, 1e-12, 0.0, np.inf),
        (2.0, 0.0, 0.0, np.inf),
        (0.0, 1e4, -1.0, 2.0),
        (-12.0, 1.0, -1.0, 2.0),
        (9.0, 4.0, -1.0, 2.0),
        (0.5, 0.3, 1.0, 1.01),
        (0.7, 0.0, -1.0, 2.0),
        (0.0, -3.0, -1.0, 2.0),
        (4.0, -3.0, -1.0, 2.0),
        (-40.0, -1.0, -1.0, 2.0),
        (10.0, -200.0, -1.0, 2.0),
    ],
)
def test_quadratic_energies_on_an_interval(slope, curvature, low, high):
    """Tails, narrow intervals, and energies that are concave."""
    draws = np.asarray(quadratic(slope, curvature, low, high), float)
    assert (draws >= low).all() and (draws <= high).all()

    def log_density(x):
        return -slope * x - curvature * x**2 / 2

    top = high
    if np.isinf(high):
        mode = max(-slope / curvature, 0.0) if curvature > 1e-9 else 0.0
        steep = slope + curvature * mode
        top = mode + 40 * min(1 / np.sqrt(max(curvature, 1e-30)), 1 / max(steep, 1e-30))
        low = max(low, mode - 40 / np.sqrt(max(curvature, 1e-30)))
    grid = np.linspace(low, top, 2_000_001)
    log = log_density(grid)
    mass = scipy.integrate.cumulative_simpson(np.exp(log - log.max()), x=grid, initial=0)
    cdf = np.interp(draws, grid, mass / mass[-1])
    assert scipy.stats.kstest(cdf, "uniform").pvalue > FALSE_ALARM


@jax.jit
def quadratic(slope, curvature, low, high):
    full = jnp.full(DRAWS, 1.0)
    return truncated.draw_quadratic(slope * full, curvature * full, low, high, key=jr.key(3))


def test_an_integral_that_diverges_is_nan():
    assert np.isnan(quadratic(-1.0, 0.0, 0.0, np.inf)).all()
    assert np.isnan(quadratic(1.0, -1.0, 0.0, np.inf)).all()
    assert np.isnan(quadratic(np.nan, 1.0, 0.0, 1.0)).all()


IMPROPER = {
    "exponential": (lambda: (P * S).sum(), {"p": [1.0, 1, 1], "s": -1}, "does not increase"),
    "gamma": (
        lambda: P.sum() + 1.5 * ed.log(P).sum() * S,
        {"p": [1.0, 1, 1], "s": 1},
        "falls towards 0 as fast as the logarithm",
    ),
    "half-normal": (
        lambda: S * (P**2).sum(),
        {"p": [1.0, 1, 1], "s": -1},
        "does not increase with the value",
    ),
    "beta": (
        lambda: S * 2 * ed.log(2.0 - U).sum(),
        {"u": [1.0, 1, 1], "s": 1},
        "falls towards an end as fast as the logarithm",
    ),
    "poisson": (
        lambda: ed.LogDensity(dist.Poisson)(N, 1.0) - 40.0 * N[0],
        {"n": [1, 1, 1]},
        "Poisson distribution is not a number up to 16,777,216",
    ),
}


@pytest.mark.parametrize(("energy", "x", "message"), IMPROPER.values(), ids=IMPROPER)
def test_conditionals_that_do_not_exist_are_said(energy, x, message):
    ebm = ed.compile(ed.Model(energy()))
    with pytest.raises(ValueError, match=message):
        ebm.conditional(next(iter(x)), {n: jnp.asarray(v) for n, v in x.items()})


def integral(log_density, low, high, weight=lambda x: 1.0):
    return scipy.integrate.quad(lambda x: weight(x) * np.exp(log_density(x)), low, high)[0]


def test_integrals_and_means_of_each_family():
    """`log_normalizer` leaves the energy's constant out: the statistics are 0 there."""
    unit = ed.interval("u", low=-0.5, high=2.0)
    laws = {
        "p": (P, [0.7, -0.8], lambda x: -0.7 * x + 0.8 * np.log(x), 0.3 * ed.log(P) + P),
        "u": (
            unit,
            [-0.6, 0.4],
            lambda x: 0.6 * np.log(x + 0.5) - 0.4 * np.log(2 - x),
            0.2 * ed.log(unit + 0.5),
        ),
        "flat": (unit, [0.8], lambda x: -0.8 * x, unit),
        "normal": (unit, [-1.0, 0.9], lambda x: x - 0.45 * x**2, unit**2),
        "tail": (unit, [8.0, 0.9], lambda x: -8 * x - 0.45 * x**2, unit**2),
        "half": (P, [-1.0, 0.9], lambda x: x - 0.45 * x**2, P**2),
    }
    for view, total, log_density, energy in laws.values():
        structure = ed.compile(ed.Model(energy.sum())).structure
        law = conditional_for(structure, structure.variables[0])
        low, high = (0.0, 80.0) if view is P else (-0.5, 2.0)
        measured = jnp.asarray(total, float)[:, None]
        mass = integral(log_density, low, high)
        np.testing.assert_allclose(law.log_normalizer(measured), [np.log(mass)], atol=2e-4)
        mean = integral(log_density, low, high, lambda x: x) / mass
        np.testing.assert_allclose(law.mean(measured), [mean], rtol=1e-3)


def test_slopes_are_measured_to_rounding():
    """Small slopes beside large ones, and far from each other."""
    for energy, view, given in (
        (lambda v: 2e3 * v - 0.8 * jnp.log(v), P, [2e3, -0.8]),
        (lambda v: 0.01 * v + 40.0 * jnp.log(v), P, [0.01, 40.0]),
        (lambda v: 3.0 * jnp.log(v + 0.5) + 1e3 * jnp.log(2.0 - v), U, [3.0, 1e3]),
        (lambda v: 1e3 * jnp.log(v + 0.5) + 3.0 * jnp.log(2.0 - v), U, [1e3, 3.0]),
        (lambda v: 2.5 * v + jax.scipy.special.gammaln(v + 1), N, [2.5]),
    ):
        of = {"p": ed.log(P) + P, "u": ed.log(U + 0.5), "n": ed.LogDensity(dist.Poisson)(N, 1.0)}
        structure = ed.compile(ed.Model(of[view.variable.name].sum())).structure
        law = conditional_for(structure, structure.variables[0])
        np.testing.assert_allclose(law.measure(energy), given, rtol=1e-4)
