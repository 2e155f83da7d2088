"""Predictive draws and log-likelihoods of observations, beside closed forms."""

import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats as st

import energydsl as ed
from energydsl.reporting.pointwise import log_likelihood, observations

LIMIT = st.norm.isf(0.5e-6)
"""Standard errors beyond which a mean is with probability 1e-6."""


def drawn(model, kernel=None, draws=2000, **options):
    kernel = ed.ExactDraws() if kernel is None else kernel
    return ed.sample(
        ed.compile(model), kernel, key=jr.key(0), chains=2, draws=draws, warmup=0, progress=False,
        **options,
    )  # fmt: skip


def test_new_data_have_the_predictive_law_of_a_conjugate_model():
    """With x ~ N(0, 1) and y_i ~ N(2 x, s_i), a new y_i is normal; its moments are known."""
    s, seen = np.array([0.5, 2.0, 1.0]), np.array([1.0, -0.5, 2.0])
    x, y = ed.real("x"), ed.real("y", 3)
    normal = ed.LogDensity(dist.Normal)
    model = ed.Model(normal(x, 0.0, 1.0) + normal(y, 2 * x, s))
    chains = drawn(model.condition(y=seen))
    found = ed.predictive(chains, key=jr.key(1))["y"]
    assert found.shape == (2, 2000, 3) and found.dtype == np.float32
    precision = 1 + (4 / s**2).sum()
    mean = (2 * seen / s**2).sum() / precision
    sd = np.sqrt(4 / precision + s**2)
    z = (found.reshape(-1, 3).mean(0) - 2 * mean) / (sd / np.sqrt(4000))
    assert np.abs(z).max() < LIMIT
    # Given x, the draws of different sites and of different rows are independent.
    rest = ((found - 2 * chains.draws["x"][..., None]) / s).reshape(-1, 3)
    assert (st.kstest(rest.ravel(), "norm").pvalue) > 1e-6
    assert np.abs(np.corrcoef(rest.T)[np.triu_indices(3, 1)]).max() < LIMIT / np.sqrt(4000)
    assert abs(np.corrcoef(rest[1:, 0], rest[:-1, 0])[0, 1]) < LIMIT / np.sqrt(4000)


def test_undirected_data_are_drawn_by_the_rules_for_log_z():
    """y is a chain of spins given the sign of x, which elimination draws."""
    x, y = ed.spin("x"), ed.spin("y", 4)
    model = ed.Model(-0.7 * x * y[0] - 1.2 * (y[1:] * y[:-1]).sum() - 0.3 * x)
    chains = drawn(model.condition(y=np.array([1, 1, -1, 1])))
    found = ed.predictive(chains, key=jr.key(1))["y"]
    sign = chains.draws["x"]
    assert found.dtype == np.int8 and set(np.unique(found)) == {-1, 1}
    expected = sign.mean() * np.tanh(0.7) * np.tanh(1.2) ** np.arange(4)
    assert np.abs(found.mean((0, 1)) - expected).max() < LIMIT / np.sqrt(4000)


def test_free_sites_of_what_is_predicted_keep_their_draw():
    x = ed.real("x", 3)
    model = ed.Model((x**2).sum() + (x[1:] - x[:-1]) @ (x[1:] - x[:-1]))
    chains = drawn(model.condition({x[0]: 2.0}), draws=50)
    found = ed.predictive(chains, key=jr.key(1))["x"]
    np.testing.assert_array_equal(found[..., 1:], chains.draws["x"][..., 1:])
    assert found[..., 0].std() > 0.1, "the clamped site is drawn anew"


def test_log_likelihoods_are_those_of_scipy():
    """Events of a vector, counts of which some are missing, and what has no density of its own."""
    rate, loc = ed.positive("rate"), ed.real("loc", 2)
    n, v, w = ed.count("n", 4), ed.real("v", (3, 2)), ed.real("w")
    cov = np.array([[1.0, 0.6], [0.6, 2.0]])
    model = ed.Model(
        ed.LogDensity(dist.Gamma)(rate, 2.0, 1.0)
        + ed.LogDensity(dist.Normal)(loc, 0, 1)
        + ed.LogDensity(dist.Poisson)(n, rate)
        + ed.LogDensity(dist.MultivariateNormal)(v, loc, cov)
        + 0.5 * (w - loc[0]) ** 2
    )
    counts, vectors = np.array([3, 0, 7]), np.arange(6.0).reshape(3, 2) / 3
    held = model.condition({n[np.array([0, 1, 3])]: counts}, v=vectors, w=0.2)
    chains = drawn(held, ed.MetropolisHastings(), 7)
    found = log_likelihood(chains, observations(chains.ebm.model))
    assert {name: a.shape for name, a in found.items()} == {"n": (2, 7, 3), "v": (2, 7, 3)}
    rates = chains.draws["rate"].astype(float)[..., None]
    np.testing.assert_allclose(found["n"], st.poisson(rates).logpmf(counts), rtol=2e-5)
    for c, d in np.ndindex(2, 7):
        law = st.multivariate_normal(chains.draws["loc"][c, d].astype(float), cov)
        np.testing.assert_allclose(found["v"][c, d], law.logpdf(vectors), rtol=1e-4, atol=1e-4)


def test_what_cannot_be_predicted_is_said(untyped):
    x, y = ed.real("x"), ed.real("y", 2)
    model = ed.Model(x**2 + ((y - x) ** 2).sum() + (y**4).sum())
    with pytest.raises(ValueError, match="a model that was not conditioned"):
        ed.predictive(drawn(ed.Model(x**2), draws=2), key=jr.key(0))
    kept = drawn(ed.Model(x**2 + (y[0] - x) ** 2).condition(y=[0.0, 0.0]), draws=2,
                 keep={"square": lambda v: v["x"] ** 2})  # fmt: skip
    with pytest.raises(ValueError, match=r"predictive needs draws of \['x'\], but the chains kept"):
        ed.predictive(kept, key=jr.key(0))
    hard = drawn(model.condition(y=[0.1, 0.2]), ed.NUTS(), draws=2)
    with pytest.raises(ed.IntractableError, match=r"predictive needs exact draws of \['y'\] given"):
        ed.predictive(hard, key=jr.key(0))
    with pytest.raises(TypeError, match=r"predictive got .*; expected the chains"):
        ed.predictive({}, key=jr.key(0))
