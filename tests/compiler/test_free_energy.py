"""Latents summed out, against sums by hand."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energydsl as ed


def parameter(rng, *shape, scale=1.0):
    return jnp.asarray(rng.normal(size=shape) * scale, jnp.float32)


def rbm(n=5, m=3):
    rng = np.random.default_rng(4)
    x, h = ed.binary("x", n), ed.binary("h", m, latent=True)
    w, b, c = parameter(rng, n, m), parameter(rng, n), parameter(rng, m)
    return ed.compile(ed.Model(-(x @ w @ h) - b @ x - c @ h)), (w, b, c)


def test_free_energy_of_an_rbm_is_softplus():
    ebm, (w, b, c) = rbm()
    vs = jnp.asarray((np.arange(32)[:, None] >> np.arange(5)) & 1)

    def by_hand(v):
        return -b @ v - jax.nn.softplus(v @ w + c).sum()

    found = jax.jit(jax.vmap(lambda v: ebm.free_energy({"x": v})))(vs)
    assert np.allclose(found, jax.vmap(by_hand)(vs), atol=1e-5)
    slopes = eqx.filter_grad(lambda e: e.free_energy({"x": vs[7]}))(ebm)
    expected = jax.grad(lambda w: -b @ vs[7] - jax.nn.softplus(vs[7] @ w + c).sum())(w)
    assert np.allclose(slopes.model.slots[0], expected, atol=1e-6)


def test_free_energy_of_gaussian_latents():
    x, h = ed.real("x", 2), ed.real("h", 2, latent=True)
    w = parameter(np.random.default_rng(5), 2, 2)
    ebm = ed.compile(ed.Model((x**2).sum() + (h**2).sum() - (x @ w @ h)))
    v = jnp.asarray([0.5, -1.0])
    expected = (v**2).sum() - ((v @ w) ** 2).sum() / 4 - np.log(np.pi)
    assert ebm.free_energy({"x": v}) == pytest.approx(float(expected), abs=1e-5)


def test_free_energy_of_latents_that_interact():
    x, h = ed.spin("x", 3), ed.spin("h", 3, latent=True)
    w = parameter(np.random.default_rng(6), 3, 3)
    ebm = ed.compile(ed.Model(-(x @ w @ h) - h[0] * h[1] - 0.5 * h[1] * h[2] + h[0] * h[2]))
    vs = jnp.asarray([[1, -1, 1], [1, 1, -1]])
    states = jnp.asarray(((np.arange(8)[:, None] >> np.arange(3)) & 1) * 2 - 1)

    def by_hand(v):
        return -jax.nn.logsumexp(-jax.vmap(lambda h: ebm.energy({"x": v, "h": h}))(states))

    found = jax.vmap(lambda v: ebm.free_energy({"x": v}))(vs)
    assert np.allclose(found, jax.vmap(by_hand)(vs), atol=1e-5)
    assert np.allclose(found[0], ebm.free_energy({"x": vs[0]}), atol=1e-6)


def test_free_energy_with_sites_clamped():
    ebm, (w, b, c) = rbm()
    x, h = ed.binary("x", 5), ed.binary("h", 3, latent=True)
    model = ebm.model.condition({x[:2]: np.array([1, 0]), h[0]: 1})
    v = jnp.asarray([0, 1, 1, 0, 1])
    shown = jnp.asarray([1, 0, 1, 0, 1])
    found = ed.compile(model).free_energy({"x": v})
    fields = shown @ w + c
    expected = -b @ shown - fields[0] - jax.nn.softplus(fields[1:]).sum()
    assert found == pytest.approx(float(expected), abs=1e-5)


def test_free_energy_says_what_is_missing():
    s = ed.spin("s", 3)
    with pytest.raises(ValueError, match="no free variable is latent"):
        ed.compile(ed.Model(s.sum())).free_energy({"s": np.ones(3)})
    ebm, _ = rbm()
    with pytest.raises(ValueError, match=r"got \['h', 'x'\]"):
        ebm.free_energy({"x": np.ones(5, int), "h": np.ones(3, int)})
    x, h = ed.spin("x"), ed.real("h", 4, latent=True)
    deep = ed.compile(ed.Model((h**4).sum() + h[0] * h[1] * h[2] * h[3] * x))
    with pytest.raises(ed.IntractableError, match="4 dimensions"):
        deep.free_energy({"x": 1})
