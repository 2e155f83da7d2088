"""Likelihoods of data, and what they say of their log Z."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import energydsl as ed


def rbm(n=5, m=3):
    rng = np.random.default_rng(4)
    w, b, c = (jnp.asarray(rng.normal(size=k), jnp.float32) for k in ((n, m), n, m))
    x, h = ed.binary("x", n), ed.binary("h", m, latent=True)
    return ed.compile(ed.Model(-(x @ w @ h) - b @ x - c @ h))


def test_log_likelihood_sums_to_one():
    ebm = rbm()
    data = (np.arange(32)[:, None] >> np.arange(5)) & 1
    found = ed.log_likelihood(ebm, data)
    assert np.exp(found.examples).sum() == pytest.approx(1.0, abs=1e-5)
    assert found.kind == "exact" and found.standard_error == 0
    assert found.value == pytest.approx(found.examples.mean())
    assert str(found) == f"{found.value:.5g} nats per example, mean of 32 (log Z exact)"


def test_an_estimate_stays_one():
    ebm = rbm()
    data = (np.arange(32)[:, None] >> np.arange(5)) & 1
    log_z = ed.estimate_log_partition(ebm, key=jr.key(0))
    found = ed.log_likelihood(ebm, {"x": data}, log_z=log_z)
    assert found.kind == "estimate" and found.standard_error == log_z.standard_error
    assert "(log Z: estimate; 95 % from" in str(found)
    assert found.lower < ed.log_likelihood(ebm, data).value < found.upper
    wide = ed.compile(ebm.model, budget=1)
    with pytest.raises(ed.IntractableError, match="Estimate it"):
        ed.log_likelihood(wide, data)
    assert ed.log_likelihood(wide, data, log_z=ed.LogZ.exact(1.0)).kind == "exact"
    bounds = ed.log_likelihood(wide, data, log_z=ed.LogZ.proven(1.0, 2.0, "bounds"))
    assert "(log Z: bounds; from" in str(bounds) and bounds.upper == pytest.approx(bounds.lower + 1)


def test_the_error_of_a_quadrature_is_handed_on():
    y = ed.real("y")
    ebm = ed.compile(ed.Model(abs(y - 0.3) + 0.1 * y**2))
    found = ed.log_likelihood(ebm, np.zeros(10))
    assert found.kind == "quadrature" and 0 < found.standard_error < 1e-6
    assert found.lower < found.value < found.upper


def test_data_is_checked():
    ebm = rbm()
    with pytest.raises(ValueError, match="at least one"):
        ed.log_likelihood(ebm, np.zeros((0, 5), int))
    with pytest.raises(ValueError, match="shape"):
        ed.log_likelihood(ebm, np.zeros((4, 6), int))
    with pytest.raises(ValueError, match=r"lacks \['x'\] and has the unknown \['y'\]"):
        ed.log_likelihood(ebm, {"y": np.zeros((4, 5), int)})
    nothing = ed.log_likelihood(ebm, np.ma.array(np.zeros((4, 5), int), mask=True))
    np.testing.assert_allclose(nothing.examples, 0, atol=1e-6)
