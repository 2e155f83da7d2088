"""Closed forms of exponential families against SciPy's densities, integrals and sums."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
from jax.scipy.special import gammaln

import energydsl as ed
from energydsl.normalizer.evaluate import log_partition_of
from tests.normalizer.rules import applies, chosen, reason

RULE = "exponential family"
FALSE_ALARM = 1e-6
DRAWS = 4000

X, Y, U, V = ed.positive("x"), ed.positive("y"), ed.interval("u", low=0, high=1), ed.real("v")
W, T = ed.interval("w", low=-1.0, high=3.0), ed.interval("t", 2, low=-1.0, high=2.0)
P, N, M, B = ed.simplex("p", 3), ed.count("n"), ed.count("m"), ed.count("b")
G, C = ed.positive("g"), ed.interval("c", low=-np.pi, high=np.pi)
S = ed.positive_definite("s", (2, 2))
A = np.array([[1.5, 0.4], [0.4, 0.9]])
GAMMA, POISSON = ed.LogDensity(dist.Gamma), ed.LogDensity(dist.Poisson)
K = ed.parameter("k", np.float32(2.5))


def log_det(s):
    return jnp.linalg.slogdet(s)[1]


def log_factorial(n):
    return gammaln(n + 1)


def rising(n, r):
    return gammaln(n + 1) - gammaln(n + r)


def all_families():
    """One component of each family, and two of one."""
    return ed.Model(
        (1 - K) * ed.log(X) + 3 * X
        + 4.5 * ed.log(Y) + 2 / Y
        - 0.5 * ed.log(G) + 2 * G + 0.5 / G
        - 0.8 * ed.apply(jnp.cos, C) + 1.7 * ed.apply(jnp.sin, C)
        - 1.5 * ed.log(W + 1) - 0.5 * ed.log(3 - W)
        + np.array([2.0, -0.7]) @ T
        - np.array([0.5, 1.0, 2.0]) @ ed.log(P)
        + ed.apply(log_factorial, N) - 1.3 * N
        + 0.4 * M
        + ed.apply(rising, B, K) + 0.4 * B
        + (S * A).sum() - ed.apply(log_det, S)
    )  # fmt: skip


LAWS = {
    "x": scipy.stats.gamma(2.5, scale=1 / 3),
    "y": scipy.stats.invgamma(3.5, scale=2),
    "g": scipy.stats.geninvgauss(1.5, 2.0, scale=0.5),
    "b": scipy.stats.nbinom(2.5, 1 - np.exp(-0.4)),
    "w": scipy.stats.beta(2.5, 1.5, loc=-1, scale=4),
    "n": scipy.stats.poisson(np.exp(1.3)),
    "m": scipy.stats.geom(1 - np.exp(-0.4), loc=-1),
    "s": scipy.stats.wishart(5, np.linalg.inv(A) / 2),
    "p": scipy.stats.dirichlet([1.5, 2, 3]),
}
ENERGIES = {
    "x": lambda x: -1.5 * np.log(x) + 3 * x,
    "y": lambda y: 4.5 * np.log(y) + 2 / y,
    "g": lambda g: -0.5 * np.log(g) + 2 * g + 0.5 / g,
    "b": lambda b: scipy.special.gammaln(b + 1) - scipy.special.gammaln(b + 2.5) + 0.4 * b,
    "w": lambda w: -1.5 * np.log(w + 1) - 0.5 * np.log(3 - w),
    "n": lambda n: scipy.special.gammaln(n + 1) - 1.3 * n,
    "m": lambda m: 0.4 * m,
    "s": lambda s: np.trace(A @ s) - np.linalg.slogdet(s)[1],
    "p": lambda p: -np.array([0.5, 1, 2]) @ np.log(p),
}
INSIDE = {
    "x": 0.7,
    "y": 0.9,
    "w": 1.2,
    "n": 3,
    "m": 2,
    "b": 4,
    "g": 0.8,
    "p": np.array([0.2, 0.5, 0.3]),
}
INSIDE["s"] = np.array([[1.2, -0.3], [-0.3, 0.8]])
RATES = np.array([2.0, -0.7])


def exact_log_z():
    """-E(x) - log p(x) at any point x, with SciPy's density p; and integrals on the interval."""
    total = 0.0
    for name, law in LAWS.items():
        point = INSIDE[name]
        density = law.logpmf(point) if name in "nmb" else law.logpdf(point)
        total -= ENERGIES[name](point) + density
    for rate in RATES:
        total += np.log(scipy.integrate.quad(lambda t, r=rate: np.exp(-r * t), -1, 2)[0])
    return float(total + np.log(angles(0)))


def angles(power):
    """The integral of c^power exp(-E(c)) over the circle."""

    def density(c):
        return c**power * np.exp(0.8 * np.cos(c) - 1.7 * np.sin(c))

    return scipy.integrate.quad(density, -np.pi, np.pi, epsabs=1e-12)[0]


@pytest.fixture(scope="module")
def ebm():
    return ed.compile(all_families())


def test_log_z_is_that_of_the_densities(ebm):
    assert chosen(ebm) == {RULE}
    assert ebm.normalizer.kind == "exact"
    assert ed.log_partition(ebm) == pytest.approx(exact_log_z(), rel=2e-7)


def test_marginals_are_the_means_and_variances(ebm):
    found = ed.marginals(ebm)
    for name in "xywnmgb":
        assert found[name].mean == pytest.approx(LAWS[name].mean(), rel=1e-6)
        assert found[name].variance == pytest.approx(LAWS[name].var(), rel=1e-6)
    np.testing.assert_allclose(found["p"].mean, LAWS["p"].mean(), rtol=1e-6)
    np.testing.assert_allclose(found["p"].variance, LAWS["p"].var(), rtol=1e-6)
    np.testing.assert_allclose(found["s"].mean, LAWS["s"].mean(), rtol=1e-6)
    np.testing.assert_allclose(found["s"].variance, LAWS["s"].var(), rtol=1e-6)
    mean = angles(1) / angles(0)
    assert found["c"].mean == pytest.approx(mean, rel=1e-6)
    assert found["c"].variance == pytest.approx(angles(2) / angles(0) - mean**2, rel=1e-6)
    for k, rate in enumerate(RATES):
        grid = [
            scipy.integrate.quad(lambda t, p=p, r=rate: t**p * np.exp(-r * t), -1, 2)[0]
            for p in range(3)
        ]
        mean = grid[1] / grid[0]
        assert found["t"].mean[k] == pytest.approx(mean, rel=1e-6)
        assert found["t"].variance[k] == pytest.approx(grid[2] / grid[0] - mean**2, rel=1e-6)


@pytest.mark.slow
def test_draws_have_the_law():
    model = ed.Model(-1.5 * ed.log(W + 1) - 0.5 * ed.log(3 - W) + np.array([2.0, -0.7]) @ T)
    drawn = ed.sample(
        ed.compile(model), ed.ExactDraws(), key=jr.key(5), chains=1, warmup=0, draws=DRAWS,
        progress=False,
    ).draws  # fmt: skip
    assert scipy.stats.kstest(drawn["w"][0], LAWS["w"].cdf).pvalue > FALSE_ALARM
    check_truncated(drawn["t"][0].astype(float))


def check_truncated(samples):
    for k, rate in enumerate(RATES):
        # The law of exp(-r t) is uniform.
        ends = np.exp(-rate * np.array([-1, 2]))
        share = (np.exp(-rate * samples[:, k]) - ends.min()) / np.ptp(ends)
        assert scipy.stats.kstest(share, "uniform").pvalue > FALSE_ALARM


@pytest.mark.slow
def test_draws_of_all_families_have_the_law(ebm):
    drawn = ed.sample(
        ebm, ed.ExactDraws(), key=jr.key(4), chains=1, warmup=0, draws=DRAWS, progress=False
    ).draws
    samples = {name: values[0].astype(float) for name, values in drawn.items()}
    for name in "xywg":
        assert scipy.stats.kstest(samples[name], LAWS[name].cdf).pvalue > FALSE_ALARM
    check_truncated(samples["t"])
    for name in "nmb":
        cells = np.minimum(samples[name].astype(int), 8)
        law = np.append(LAWS[name].pmf(np.arange(8)), LAWS[name].sf(7))
        counts = np.bincount(cells, minlength=9)
        assert scipy.stats.chisquare(counts, DRAWS * law).pvalue > FALSE_ALARM
    alpha = np.array([1.5, 2.0, 3.0])
    for k in range(3):
        own = scipy.stats.beta(alpha[k], alpha.sum() - alpha[k])
        assert scipy.stats.kstest(samples["p"][:, k], own.cdf).pvalue > FALSE_ALARM
    # a'Sa / a'Va is chi-squared with 5 degrees of freedom, for any vector a.
    for a in (np.array([1.0, 0.0]), np.array([1.0, -2.0])):
        form = np.einsum("i,nij,j->n", a, samples["s"], a) / (a @ np.linalg.inv(A) @ a / 2)
        assert scipy.stats.kstest(form, scipy.stats.chi2(5).cdf).pvalue > FALSE_ALARM


def test_the_mode_has_the_highest_density(ebm):
    found = ed.map_configuration(ebm)
    mode = found.configuration
    assert found.proven
    expected = {"x": 0.5, "y": 2 / 4.5, "w": -1 + 4 * 0.75, "n": 3, "m": 0, "b": 3}
    expected |= {"c": np.arctan2(-1.7, 0.8), "g": (0.5 + np.sqrt(4.25)) / 4}
    for name, value in expected.items():
        assert float(mode[name]) == pytest.approx(value, rel=1e-6)
    np.testing.assert_allclose(mode["t"], [-1, 2])
    np.testing.assert_allclose(mode["p"], np.array([0.5, 1, 2]) / 3.5, rtol=1e-6)
    np.testing.assert_allclose(mode["s"], np.linalg.inv(A), rtol=1e-5)


def test_the_gradient_is_the_mean_of_the_statistic():
    ebm = compiled(SERVED["product of two"])
    slope = jax.grad(lambda k: ed.log_partition(ebm.replace(k=k)))(jnp.float32(2.5))
    # Of x^(k - 1) 3^k / Gamma(k) times x exp(-4 x).
    digamma = scipy.special.digamma
    exact = digamma(3.5) - np.log(4) - digamma(2.5) + np.log(3)
    assert slope == pytest.approx(exact, rel=1e-5)


SERVED = {
    "gamma by name and a linear term": lambda: GAMMA(X, 2.0, K) + 3 * X,
    "product of two": lambda: GAMMA(X, 2.0, 1.0) + GAMMA(X, K, 3.0),
    "exponential": lambda: K * X,
    "scaled": lambda: ed.log(2 * X) / 3 + X / K,
    "tempered": lambda: (ed.Model(GAMMA(X, 3.0, 1.0)) / K).expression,
    "inverse as a power": lambda: ed.apply(lambda x: 1 / x + 3 * jnp.log(x), X),
    "a clamped neighbour": lambda: V * X + ed.exp(V) * ed.log(X) / 9,
    "log1p": lambda: ed.apply(lambda u: -jnp.log1p(-u) - jnp.log(u), U),
    "beta by name and more": lambda: ed.LogDensity(dist.Beta)(U, K, 2.0) - ed.log(1 - U),
    "shifted log of an affine interval": lambda: -ed.log(2 * W + 2) - ed.log(9 - 3 * W),
    "uniform": lambda: 0.0 * ed.log(U),
    "poisson by name and more": lambda: POISSON(N, K) + 0.5 * N,
    "geometric by name and more": lambda: ed.LogDensity(dist.GeometricProbs)(N, 0.3) + K * N,
    "dirichlet by name and one more": lambda: (
        ed.LogDensity(dist.Dirichlet)(P, np.ones(3)) - K * ed.log(P[1])
    ),
    "wishart by name and a trace": lambda: (
        ed.LogDensity(dist.Wishart)(S, 4.0, np.eye(2)) + K * (S[0, 0] + S[1, 1])
    ),
}
SERVED |= {
    "both x and 1/x": lambda: X + 1 / X,
    "von mises by name and more": lambda: (
        ed.LogDensity(dist.VonMises)(C, 0.3, K) - 0.5 * ed.apply(jnp.sin, C)
    ),
    "cosines of differences": lambda: ed.apply(
        lambda c, k: jnp.sin(1 - c) - jnp.cos(k - c) + jnp.sin(c + k), C, K
    ),
    "a negative binomial": lambda: ed.apply(rising, N, K) + 0.4 * N,
    "gamma poisson by name and more": lambda: ed.LogDensity(dist.GammaPoisson)(N, K, 1.5) + K * N,
    "negative binomial by its mean and more": lambda: (
        ed.LogDensity(dist.NegativeBinomial2)(N, 2.0, K) + 0.5 * N
    ),
    "negative binomial by logits and more": lambda: (
        ed.LogDensity(dist.NegativeBinomialLogits)(N, K, -0.7) + 0.5 * N
    ),
    "negative binomial by probabilities and more": lambda: (
        ed.LogDensity(dist.NegativeBinomialProbs)(N, K, 0.3) + 0.5 * N
    ),
}
NOT_SERVED = {
    "a square": lambda: X + X**2,
    "a cosine twice as fast": lambda: ed.apply(lambda c: jnp.cos(2 * c), C),
    "a cosine on a part of the circle": lambda: ed.apply(jnp.cos, U),
    "a cosine and a value": lambda: ed.apply(jnp.cos, C) + C,
    "gammas of two shifts": lambda: ed.apply(
        lambda n: rising(n, 2.5) - gammaln(n + 2.5) + gammaln(n + 3.5), N
    ),
    "gammas of two shifts, apart": lambda: (
        ed.apply(rising, N, 2.5)
        - ed.apply(lambda n: gammaln(n + 3.5), N)
        + ed.apply(lambda n: gammaln(n + 0.5), N)
    ),
    "two gammas": lambda: ed.apply(rising, N, K) - ed.apply(lambda n: gammaln(n + 3.5), N),
    "a gamma tempered": lambda: (
        ed.apply(lambda n, k: gammaln(n + 1) - k * gammaln(n + 2.5), N, K) + N
    ),
    "a gamma without a factorial": lambda: ed.apply(lambda n: -gammaln(n + 2.5), N) + N,
    "a squared log": lambda: ed.log(X) ** 2 + X,
    "the log of a shifted value": lambda: ed.log(X + 1) + X,
    "the inverse of a shifted value": lambda: 1 / (X + 1) + X,
    "a product of two statistics": lambda: X * ed.log(X),
    "the log beyond the end": lambda: -ed.log(2 - U),
    "the log to an end that learning moves": lambda: -ed.log(K - U),
    "a value and a log": lambda: U - ed.log(U),
    "poisson twice": lambda: POISSON(N, 2.0) + POISSON(N, 3.0),
    "poisson tempered": lambda: (ed.Model(POISSON(N, 2.0)) / 2).expression,
    "poisson at a temperature to be learnt": lambda: K * ed.apply(log_factorial, N) - N,
    "the factorial of another number": lambda: ed.apply(lambda n: gammaln(n + 2), N),
    "a linear term on a simplex": lambda: P[0] - ed.log(P).sum(),
    "a log of an entry": lambda: (S * A).sum() - ed.log(S[0, 0]),
    "a function by the same name": lambda: (S * A).sum() - ed.apply(fake_slogdet, S),
    "two sites": lambda: X * Y + X + Y,
    "a step": lambda: ed.where(X > 1.0, X, 2 * X),
    "an exponential": lambda: ed.exp(X),
}


@jax.jit
def slogdet(s):
    return jnp.linalg.slogdet(s)[0], 2 * jnp.linalg.slogdet(s)[1]


def fake_slogdet(s):
    return slogdet(s @ s)[1]


def compiled(energy):
    model = ed.Model(energy())
    held = "v" in {v.name for v in model.variables}
    return ed.compile(model.condition(v=0.7) if held else model)


@pytest.mark.parametrize("name", SERVED)
def test_it_is_recognised(name):
    ebm = compiled(SERVED[name])
    assert applies(ebm, RULE)
    assert chosen(ebm) == {RULE}


@pytest.mark.parametrize("name", NOT_SERVED)
def test_it_is_not_fooled(name):
    assert not applies(compiled(NOT_SERVED[name]), RULE)


def test_a_refusal_says_what_is_missing():
    said = {
        "a square": "not shown to be linear in x, log x, 1/x of x",
        "a value and a log": "no family has all of the statistics of u that occur",
        "a gamma tempered": "that of log gamma(n + r) 0 or -1",
        "poisson twice": "the slope of log n! is not shown to be 0 or 1",
        "two sites": "it is not a single positive, interval, simplex",
    }
    for name, words in said.items():
        assert words in reason(compiled(NOT_SERVED[name]), RULE)


def test_a_leaf_that_is_clamped_in_some_rows_only_is_refused():
    x = ed.positive("x", 3)
    chain = ed.Model((x[1:] * x[:-1]).sum() + x.sum()).condition({x[0]: 2.0, x[2]: 3.0})
    assert "in some rows of an array and not in others" in reason(ed.compile(chain), RULE)
    y = ed.positive("y", 3)
    pairs = ed.Model((x * y).sum() + x.sum()).condition({x[:2]: [2.0, 3.0], y[2]: 1.0})
    assert applies(ed.compile(pairs), RULE)


VALUES = {
    "gamma by name and a linear term": 2 * np.log(2.5) - 2 * np.log(5.5),
    "shifted log of an affine interval": np.log(6) + scipy.special.betaln(2, 2) + 3 * np.log(4),
    "beta by name and more": scipy.special.betaln(2.5, 3) - scipy.special.betaln(2.5, 2),
    "dirichlet by name and one more": (
        np.log(2) + scipy.special.gammaln(3.5) - scipy.special.gammaln(5.5)
    ),
}


def log_i0(kappa):
    return np.log(scipy.special.i0e(kappa)) + kappa


VALUES |= {
    "both x and 1/x": np.log(2 * scipy.special.kv(1, 2)),
    "von mises by name and more": (
        log_i0(np.hypot(2.5 * np.cos(0.3), 2.5 * np.sin(0.3) + 0.5)) - log_i0(2.5)
    ),
    "cosines of differences": np.log(2 * np.pi)
    + log_i0(
        np.hypot(-np.sin(1) + np.cos(2.5) - np.sin(2.5), np.cos(1) + np.sin(2.5) - np.cos(2.5))
    ),
    "a negative binomial": scipy.special.gammaln(2.5) - 2.5 * np.log(-np.expm1(-0.4)),
}


def tilted(r, odds, by):
    """Log of the mean of exp(-by n) under a negative binomial law with this mean over r."""
    p = odds / (1 + odds)
    return r * (np.log1p(-p) - np.log1p(-p * np.exp(-by)))


VALUES |= {
    "gamma poisson by name and more": tilted(2.5, 1 / 1.5, 2.5),
    "negative binomial by its mean and more": tilted(2.5, 2 / 2.5, 0.5),
    "negative binomial by logits and more": tilted(2.5, np.exp(-0.7), 0.5),
    "negative binomial by probabilities and more": tilted(2.5, 0.3 / 0.7, 0.5),
}


SLOW_VALUES = {
    "geometric by name and more": np.log(0.3) - np.log1p(-0.7 * np.exp(-2.5)),
    "scaled": scipy.special.gammaln(2 / 3) + 2 / 3 * np.log(2.5) - np.log(2) / 3,
    "wishart by name and a trace": -4 * np.log(6),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_VALUES)
def test_more_values(name):
    assert ed.log_partition(compiled(SERVED[name])) == pytest.approx(SLOW_VALUES[name], rel=1e-6)


@pytest.mark.parametrize("name", VALUES)
def test_the_value_is_that_of_the_product(name):
    assert ed.log_partition(compiled(SERVED[name])) == pytest.approx(VALUES[name], rel=1e-6)


IMPROPER = {
    "falling": (lambda: -0.5 * X, "r > 0"),
    "a pole": (lambda: ed.log(X) + X, "k > 0"),
    "a corner": (lambda: ed.log(P[0]) - ed.log(P[1]), "a_i > 0"),
}
MORE_IMPROPER = {
    "a pole at the upper end": (lambda: 1.5 * ed.log(1 - U), "b > 0"),
    "counts without a rise": (lambda: -0.1 * N, "the energy must rise with n"),
    "a direction": (lambda: S[0, 0] - S[1, 1], "positive definite A"),
}


@pytest.mark.parametrize(
    "name", [*IMPROPER, *(pytest.param(n, marks=pytest.mark.slow) for n in MORE_IMPROPER)]
)
def test_an_integral_that_diverges_is_told(name):
    energy, words = (IMPROPER | MORE_IMPROPER)[name]
    with pytest.raises(ValueError, match="no finite integral") as told:
        ed.log_partition(compiled(energy))
    assert words in str(told.value)


def test_a_density_without_a_highest_point_has_no_mode():
    with pytest.raises(ValueError, match="no highest point inside the domain"):
        ed.map_configuration(compiled(lambda: X - 0.0 * ed.log(X)))


def test_a_mean_that_diverges_is_infinite():
    found = ed.marginals(compiled(lambda: 2.5 * ed.log(Y) + 1 / Y))["y"]
    assert found.mean == pytest.approx(2.0)
    assert found.variance == np.inf


def test_other_numbers_in_the_same_energy_are_another_conclusion():
    ends = [ed.compile(ed.Model(-ed.log(end - U))) for end in (1, 2)]
    assert [applies(ebm, RULE) for ebm in ends] == [True, False]
    assert ends[0].structure == ends[1].structure
    wrong = log_partition_of(ends[1].model, ends[0].normalizer, np.dtype(float))
    assert np.isnan(wrong)


def test_many_counts_are_one_program():
    rng = np.random.default_rng(0)
    rates = rng.uniform(0.5, 4.0, 10_000)
    n = ed.count("n", 10_000)
    ebm = ed.compile(ed.Model(POISSON(n, rates) + 0.3 * n.sum()))
    assert len(ebm.normalizer.plans) == 1
    exact = (rates * (np.exp(-0.3) - 1)).sum()
    assert ed.log_partition(ebm) == pytest.approx(exact, rel=1e-6)


def test_evidence_makes_a_conjugate_posterior():
    """A Gamma rate under Poisson counts: the evidence is negative binomial."""
    counts = np.array([3, 0, 5])
    n = ed.count("n", 3)
    model = ed.Model(GAMMA(X, 2.0, 1.5) + POISSON(n, X))
    ebm = ed.compile(model.condition(n=counts))
    assert chosen(ebm) == {RULE}
    total = counts.sum()
    exact = (
        2 * np.log(1.5)
        + scipy.special.gammaln(2 + total)
        - scipy.special.gammaln(2)
        - (2 + total) * np.log(4.5)
        - scipy.special.gammaln(counts + 1).sum()
    )
    assert ed.log_partition(ebm) == pytest.approx(exact, rel=1e-6)
    posterior = ed.marginals(ebm)["x"]
    assert posterior.mean == pytest.approx((2 + total) / 4.5, rel=1e-6)
