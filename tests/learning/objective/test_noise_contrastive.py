"""Noise-contrastive estimation beside its formula, quadrature and enumeration."""

from functools import cache

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
import scipy.stats
from scipy.special import expit, logsumexp

import energydsl as ed
from energydsl.learning.moving import moving_of
from energydsl.learning.noise import DistributionNoise, FittedNoise, ModelNoise
from tests.learning.objective.losses import loss_of, slope

FALSE_ALARM = 1e-6  # chance that a correct objective fails one of these tests
KEY = jr.key(0)


@cache
def quartic():
    """E = a x**4 + b x**2: log Z by quadrature."""
    x = ed.real("x")
    return ed.compile(ed.Model(ed.parameter("a", 0.3) * x**4 + ed.parameter("b", 0.4) * x**2))


def numbers(count=40, seed=0):
    return np.random.default_rng(seed).normal(0, 0.8, count).astype(np.float32)


@pytest.mark.parametrize("ratio", [1, 3])
def test_the_loss_and_its_gradient_are_those_of_logistic_regression(ratio):
    data, noise = numbers(), dist.Normal(0.2, 1.5)
    objective = ed.NoiseContrastive(noise, ratio=ratio, log_z=0.7)
    value, slopes = slope(quartic(), objective, {"x": data})
    draws = np.asarray(DistributionNoise({"x": noise}).draws(quartic(), 40 * ratio, key=KEY)["x"])

    def odds(x):
        log_p = -0.3 * x**4 - 0.4 * x**2 - 0.7
        return log_p - scipy.stats.norm.logpdf(x, 0.2, 1.5) - np.log(ratio)

    up, down = odds(data.astype(float)), odds(draws.astype(float))
    loss = np.logaddexp(0, -up).mean() + ratio * np.logaddexp(0, down).mean()
    assert value == pytest.approx(loss, rel=1e-5)

    def mean(power):
        return (expit(-up) * data**power).mean() - ratio * (expit(down) * draws**power).mean()

    np.testing.assert_allclose(slopes, [mean(4), mean(2), mean(0)], rtol=1e-4, atol=1e-6)


def test_noise_that_equals_the_model_cannot_be_told_from_it():
    """G is 0 everywhere: the loss is (1 + r) log(1 + r) - r log r for all data and draws."""
    y = ed.real("y", 3)
    precision = np.array([[2.0, 0.8, 0.0], [0.8, 1.5, -0.4], [0.0, -0.4, 1.0]])
    ebm = ed.compile(ed.Model(0.5 * (y @ ed.parameter("A", precision) @ y)))
    data = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    log_z = 1.5 * np.log(2 * np.pi) - np.linalg.slogdet(precision)[1] / 2
    ratio = 4
    expected = (1 + ratio) * np.log(1 + ratio) - ratio * np.log(ratio)
    value, _ = slope(ebm, ed.NoiseContrastive(ebm, ratio=ratio, log_z=log_z), {"y": data})
    assert value == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_at_the_truth_the_mean_gradient_is_zero():
    """Fresh data and fresh noise for each of 300 gradients of an RBM with 4 x 2 units."""
    rng = np.random.default_rng(0)
    x, h = ed.binary("x", 4), ed.binary("h", 2, latent=True)
    W, b = ed.parameter("W", rng.normal(size=(4, 2))), ed.parameter("b", rng.normal(size=4))
    ebm = ed.compile(ed.Model(-(x @ W @ h) - b @ x))
    objective = ed.NoiseContrastive(dist.Bernoulli(0.4), ratio=2, log_z=ed.log_partition(ebm))
    draws = ed.sample(
        ebm, ed.ExactDraws(), key=jr.key(1), chains=300, warmup=0, draws=50, progress=False
    )
    moving = moving_of(ebm, objective)

    @jax.jit
    def gradient(x, key):
        slopes = jax.grad(loss_of(ebm, objective, {"x": x}, key))(moving)
        return jnp.concatenate([g.ravel() for g in jax.tree.leaves(slopes)])

    each = np.asarray(jax.vmap(gradient)(draws.draws["x"], jr.split(KEY, 300)), float)
    n, d = each.shape
    # Hotelling's test that all 13 means are 0.
    statistic = n * each.mean(0) @ np.linalg.solve(np.cov(each.T), each.mean(0))
    assert d == 13
    assert scipy.stats.f.sf(statistic * (n - d) / (d * (n - 1)), d, n - d) > FALSE_ALARM


def deviation(a, b, noise_scale, ratio, count):
    """The standard deviation of c - log Z, by the estimator's asymptotic covariance.

    Gutmann & Hyvarinen (2012), theorem 3; integrals are sums on a grid.
    """
    x = np.linspace(-6, 6, 4001)
    p = np.exp(-a * x**4 - b * x**2)
    p /= p.sum()
    q = scipy.stats.norm.pdf(x, scale=noise_scale)
    q /= q.sum()
    g = np.stack([-(x**4), -(x**2), -np.ones_like(x)])
    weight = p * ratio * q / (p + ratio * q)
    information, mean = (g * weight) @ g.T, g @ weight
    inverse = np.linalg.inv(information)
    cov = inverse - (1 + 1 / ratio) * np.outer(inverse @ mean, inverse @ mean)
    along = -(g @ p)  # of c - log Z in a, b and c
    return np.sqrt(along @ cov @ along / count)


@pytest.mark.slow
def test_the_learnt_log_z_is_that_of_quadrature():
    """Within 5.5 standard deviations, a false alarm of 4e-8; noise is drawn anew at each step."""
    count, ratio = 2000, 5
    draws = np.random.default_rng(0).normal(0, 1 / np.sqrt(0.8), 40_000)
    keep = np.random.default_rng(1).random(40_000) < np.exp(-0.3 * draws**4)
    data = draws[keep][:count].astype(np.float32)  # E = 0.3 x**4 + 0.4 x**2, by rejection
    learnt, history = ed.fit(
        quartic(), ed.NoiseContrastive(dist.Normal(0, 1), ratio=ratio), data, key=KEY, steps=200,
        optimizer=optax.adam(optax.linear_schedule(0.03, 0.0, 200)), progress=False,
    )  # fmt: skip
    a, b = (float(learnt.parameters[n]) for n in "ab")
    found = float(history.objective.log_z)
    allowed = 5.5 * deviation(a, b, 1.0, ratio, count)
    assert allowed < 0.15
    assert abs(found - float(ed.log_partition(learnt))) < allowed
    assert history["log_z"][-1] == pytest.approx(found, abs=1e-3)
    said = ed.log_likelihood(learnt, data, log_z=ed.LogZ.learnt(history.objective.log_z))
    assert said.kind == "learnt" and "learnt, error unknown" in str(said)
    assert said.value == pytest.approx(ed.log_likelihood(learnt, data).value, abs=allowed)
    assert "about" in str(ed.LogZ.learnt(1.5)) and ed.LogZ.learnt(1.5).upper == np.inf


def test_draws_of_fitted_noise_have_its_density():
    """Over each kind of domain, with a clamped site: Z is the mean of exp(-E) / p, by a t-test."""
    p, u, s = ed.positive("p", 2), ed.interval("u", low=-1.0, high=3.0), ed.simplex("s", 3)
    t, c, y = ed.spin("t", 2), ed.categorical("c", levels=4), ed.real("y", 2)
    rng = np.random.default_rng(0)
    table = rng.normal(size=4)
    energy = 1.5 * p.sum() - 2 * ed.log(p).sum() - ed.log((u + 1) / 4) - ed.log((3 - u) / 4)
    energy -= np.array([1.5, 2.0, 3.0]) @ ed.log(s)
    energy += (y**2).sum() + 0.6 * y[0] * y[1] - 0.5 * t.sum() + ed.Table(table)(c)
    ebm = ed.compile(ed.Model(energy).condition({p[1]: 0.6, t[0]: 1}))
    levels = np.exp(-table) / np.exp(-table).sum()
    data = {
        "p": rng.gamma(3, 1 / 1.5, (300, 2)),
        "u": 4 * rng.beta(2, 2, 300) - 1,
        "s": rng.dirichlet([2.5, 3, 4], 300),
        "t": rng.choice([-1, 1], size=(300, 2), p=[0.3, 0.7]).astype(np.int8),
        "c": rng.choice(4, size=300, p=levels).astype(np.int8),
        "y": rng.multivariate_normal([0, 0], np.linalg.inv([[2, 0.6], [0.6, 2]]), 300),
    }
    data = {n: jnp.asarray(a) for n, a in data.items()}
    log_z = float(ed.log_partition(ebm))

    @jax.jit
    def log_weights(data):
        noise = FittedNoise.to(ebm, data)
        draws = noise.draws(ebm, 4000, key=KEY)
        return -jax.vmap(lambda v: ebm.energy(v) + noise.log_prob(ebm, v))(draws)

    weights = np.exp(np.asarray(log_weights(data), float) - log_z)
    assert scipy.stats.ttest_1samp(weights, 1.0).pvalue > FALSE_ALARM
    # The test notices a factor of 1.2: 5 standard errors.
    assert 5 * weights.std() / np.sqrt(4000) < 0.2


def test_log_z_begins_at_an_estimate():
    """The mean of 1,000 weights, whose spread is below 1: within 5.5 standard errors."""
    data = {"x": jnp.asarray(numbers(200))}
    begun = ed.NoiseContrastive().begin(quartic(), data, key=KEY)
    x = np.linspace(-5, 5, 2001)
    log_z = np.log(np.exp(-0.3 * x**4 - 0.4 * x**2).sum() * 0.005)
    assert float(begun.log_z) == pytest.approx(log_z, abs=0.17)
    kept = ed.NoiseContrastive(log_z=2.0).begin(quartic(), data, key=KEY)
    assert float(kept.log_z) == 2.0


def test_fitted_noise_has_the_moments_of_the_data():
    y = ed.real("y", 2)
    ebm = ed.compile(ed.Model((y**2).sum() / 2))
    data = np.random.default_rng(0).multivariate_normal([1, -2], [[2, 0.9], [0.9, 1]], 500)
    noise = FittedNoise.to(ebm, {"y": jnp.asarray(data)})
    own = 2 / 502
    cov = np.cov(data.T, bias=True)
    cov = (1 - own) * cov + own * np.diag(np.diag(cov))
    expected = scipy.stats.multivariate_normal(data.mean(0), cov).logpdf(data[:5])
    found = [float(noise.log_prob(ebm, {"y": jnp.asarray(row)})) for row in data[:5]]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_model_as_noise_sums_its_latents_out():
    rng = np.random.default_rng(0)
    x, h = ed.binary("x", 3), ed.binary("h", 2, latent=True)
    w = rng.normal(size=(3, 2))
    noise = ed.compile(ed.Model(-(x @ w @ h)))
    ebm = ed.compile(ed.Model(-(ed.parameter("b", np.zeros(3)) @ x)))
    states = np.array(np.meshgrid(*[[0, 1]] * 3, indexing="ij")).reshape(3, -1).T
    free = np.logaddexp(0, states @ w).sum(1)
    as_noise = ModelNoise(noise, jnp.asarray(ed.log_partition(noise)))
    found = [float(as_noise.log_prob(ebm, {"x": jnp.asarray(v, jnp.int8)})) for v in states]
    np.testing.assert_allclose(found, free - logsumexp(free), atol=1e-5)
    draws = as_noise.draws(ebm, 4000, key=KEY)
    assert list(draws) == ["x"]
    seen = np.bincount(np.asarray(draws["x"]) @ [4, 2, 1], minlength=8)
    expected = 4000 * np.exp(found) / np.exp(found).sum()
    assert scipy.stats.chisquare(seen, expected).pvalue > FALSE_ALARM


def test_the_density_of_noise_leaves_clamped_sites_out():
    y = ed.real("y", 3)
    ebm = ed.compile(ed.Model((y**2).sum()).condition({y[1]: 0.7}))
    values = np.array([0.2, 5.0, -1.0])
    found = DistributionNoise({"y": dist.Normal(0, 2)}).log_prob(ebm, {"y": jnp.asarray(values)})
    assert float(found) == pytest.approx(scipy.stats.norm.logpdf(values[[0, 2]], 0, 2).sum())


def test_only_log_z_is_learnt_of_the_objective(tmp_path):
    noise = dist.Normal(jnp.asarray(0.1), jnp.asarray(1.2))
    options = {"key": KEY, "batch": 20, "progress": False, "checkpoint": tmp_path}
    _, history = ed.fit(
        quartic(), ed.NoiseContrastive(noise, log_z=2.0), numbers(), steps=3, **options
    )
    assert history["log_z"][0] == 2.0 and history.objective.log_z != 2.0
    np.testing.assert_array_equal(history.objective.noise.loc, noise.loc)
    again, resumed = ed.fit(
        quartic(), ed.NoiseContrastive(noise, log_z=2.0), numbers(), steps=6, **options
    )
    whole, other = ed.fit(
        quartic(), ed.NoiseContrastive(noise, log_z=2.0), numbers(), steps=6, key=KEY, batch=20,
        progress=False,
    )  # fmt: skip
    assert resumed.objective.log_z == other.objective.log_z
    assert again.parameters["a"] == whole.parameters["a"]


def bad_noise():
    wide = ed.compile(ed.Model((ed.real("x", 2) ** 2).sum()))
    cubic = ed.compile(ed.Model(abs(ed.real("x")) + 0.1 * ed.real("x") ** 2))
    yield dist.Normal(jnp.zeros(2), 1), ValueError, r"noise of shape \(2,\) for 'x'; expected one"
    yield dist.Poisson(2.0), ValueError, "Poisson noise for 'x', whose draws lie outside real"
    yield dist.HalfNormal(1.0), ValueError, "log density at example 1 is -inf; expected a positive"
    yield dist.Uniform(-0.1, 0.1), ValueError, "log density at example 0 is -inf"
    yield {"y": dist.Normal(0, 1)}, ValueError, r"noise over \['y'\]; expected.*\['x'\]"
    yield "gauss", TypeError, "got the noise 'gauss' for 'x'; expected a NumPyro distribution"
    yield wide, ValueError, r"noise over x: real\[2\]; expected the variables.*x: real\[\]"
    yield cubic, TypeError, "exact density and exact draws: log Z of the noise is"
    narrow = ed.compile(ed.Model(ed.real("x") ** 4 + ed.spin("h", latent=True)), budget=0)
    yield narrow, TypeError, "exact density and exact draws: log Z of the noise is intractable"


@pytest.mark.parametrize("noise, error, message", list(bad_noise()))
@pytest.mark.usefixtures("untyped")
def test_noise_that_does_not_serve_is_refused(noise, error, message):
    data = np.array([0.5, -0.3, 0.2], np.float32)
    with pytest.raises(error, match=message):
        ed.fit(quartic(), ed.NoiseContrastive(noise), data, key=KEY)


def test_levels_that_noise_does_not_have_are_noticed():
    """A Bernoulli distribution has finite numbers for log_prob outside of 0 and 1."""
    c = ed.categorical("c", levels=3)
    ebm = ed.compile(ed.Model(ed.Table(ed.parameter("t", np.zeros(3)))(c)))
    with pytest.raises(ValueError, match="log density at example 2 is -inf"):
        ed.fit(ebm, ed.NoiseContrastive(dist.Bernoulli(0.4)), np.array([0, 1, 2]), key=KEY)


@pytest.mark.usefixtures("untyped")
def test_other_settings_are_refused():
    with pytest.raises(ValueError, match="ratio=0; expected a whole number of at least 1"):
        ed.NoiseContrastive(ratio=0)
    s = ed.real("s", 3)
    ebm = ed.compile(ed.Model((s**2).sum()))
    data = np.random.default_rng(0).normal(size=(9, 3)) * [1, 0, 1]
    with pytest.raises(ValueError, match="1 of 3 coordinates are the same in all examples"):
        ed.fit(ebm, ed.NoiseContrastive(), data, key=KEY)
    n = ed.count("n")
    ebm = ed.compile(ed.Model(ed.parameter("a", 1.0) * n))
    with pytest.raises(TypeError, match=r"n: count.* is neither. Give its distribution"):
        ed.fit(ebm, ed.NoiseContrastive(), np.arange(4), key=KEY)
    t = ed.real("t", 2)
    held = ed.compile(ed.Model((t**2).sum()).condition({t[0]: 1.0}))
    law = dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2))
    with pytest.raises(ValueError, match="noise for 't' whose events are in part clamped"):
        ed.fit(held, ed.NoiseContrastive(law), data[:, :2], key=KEY)
    with pytest.raises(ValueError, match="a model with clamped sites"):
        ed.fit(held, ed.NoiseContrastive(ed.compile(ed.Model((t**2).sum()))), data[:, :2], key=KEY)
