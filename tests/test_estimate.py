import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.stats import binom

import energydsl as ed
from energydsl.estimate import LogZ, _combine, estimate_log_partition, log_likelihood

COVERAGE = 0.93
"""Measured over 300 models; nominal 0.95."""


def parameter(rng, *shape, scale=1.0):
    return jnp.asarray(rng.normal(size=shape) * scale, jnp.float32)


def glass(rng):
    s = ed.spin("s", 8)
    couplings = jnp.asarray(np.triu(rng.normal(size=(8, 8)) * 0.6, 1), jnp.float32)
    return ed.Model(-(s @ couplings @ s) - parameter(rng, 8) @ s)


def mixed(rng):
    s, r = ed.spin("s", 8), ed.real("r", 2)
    return ed.Model((r**2).sum() / 2 - (s @ parameter(rng, 8, 2, scale=0.5) @ r))


def wells(rng):
    r = ed.real("r", 2)
    bowl = parameter(rng, 2) @ r + 0.3 * (r**4).sum()
    return ed.Model(
        bowl - jnp.asarray(rng.uniform(0.1, 2), jnp.float32) * (r**2).sum() + r[0] * r[1]
    )


def covered(kinds, count, **options):
    """How many intervals hold the exact value, of `count` models of each kind."""
    hits = 0
    for kind in kinds:
        for seed in range(count):
            ebm = ed.compile(kind(np.random.default_rng(seed)))
            found = estimate_log_partition(
                ebm, key=jr.key(seed), chains=64, temperatures=200, **options
            )
            hits += found.lower <= float(ed.log_partition(ebm)) <= found.upper
            assert found.kind == "estimate" and 1 <= found.ess <= 64
    return hits


def test_intervals_cover_the_exact_value():
    # A false alarm in a hundred thousand.
    least = binom.ppf(1e-5, 20, COVERAGE)
    assert covered([glass, mixed], 10) >= least


@pytest.mark.slow
@pytest.mark.parametrize("kind", [glass, mixed, wells], ids=lambda k: k.__name__)
def test_intervals_cover_ninety_in_a_hundred(kind):
    assert covered([kind], 100) >= 90


def test_constrained_and_clamped_variables():
    p, u, q = ed.positive("p"), ed.interval("u", low=-1.0, high=2.0), ed.simplex("q", (2, 3))
    model = ed.Model(
        ed.LogDensity(dist.Gamma(3.0, 2.0))(p)
        + 0.5 * u**2
        + ed.LogDensity(dist.Dirichlet(jnp.array([2.0, 3.0, 4.0])))(q)
    ).condition({q[0]: np.array([0.2, 0.3, 0.5])})
    ebm = ed.compile(model)
    found = estimate_log_partition(ebm, key=jr.key(1))
    assert abs(found.value - float(ed.log_partition(ebm))) < 5 * found.standard_error
    assert found.standard_error < 0.1


def test_any_kernel_serves():
    s, r = ed.spin("s", 3), ed.real("r", 2)
    ebm = ed.compile(ed.Model((r**2).sum() / 2 - (s.sum() * r).sum() / 2))
    exact = float(ed.log_partition(ebm))
    for kernel in (ed.MetropolisHastings(), ed.Cycle(ed.Gibbs(), ed.Langevin())):
        found = estimate_log_partition(
            ebm, key=jr.key(2), kernel=kernel, chains=64, temperatures=200
        )
        assert abs(found.value - exact) < 5 * found.standard_error


def test_new_parameters_do_not_recompile():
    from energydsl.estimate import _anneal

    rng = np.random.default_rng(0)
    first, second = (ed.compile(mixed(rng)) for _ in range(2))
    options = {"chains": 16, "temperatures": 20}
    estimate_log_partition(first, key=jr.key(0), **options)
    before = _anneal._cached._cache_size()
    estimate_log_partition(second, key=jr.key(1), **options)
    assert _anneal._cached._cache_size() == before


def test_weights_combine():
    logs = np.log(np.array([1.0, 2.0, 3.0])) + 1000.0
    found = _combine(logs)
    assert found.value == pytest.approx(1000 + np.log(2.0))
    assert found.ess == pytest.approx(36 / 14)
    nothing = _combine(np.full(3, -np.inf))
    assert nothing.value == -np.inf and nothing.upper == np.inf and nothing.ess == 0


def test_mistakes_are_said():
    ebm = ed.compile(glass(np.random.default_rng(0)))
    with pytest.raises(ValueError, match="method='smc'"):
        estimate_log_partition(ebm, "smc", key=jr.key(0))
    with pytest.raises(ValueError, match="chains=1"):
        estimate_log_partition(ebm, key=jr.key(0), chains=1)
    with pytest.raises(ValueError, match="temperatures=0"):
        estimate_log_partition(ebm, key=jr.key(0), temperatures=0)
    with pytest.raises((ValueError, TypeError), match="Langevin"):
        estimate_log_partition(
            ed.compile(mixed(np.random.default_rng(0))), key=jr.key(0), kernel=ed.Langevin()
        )


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
    assert np.allclose(slopes.model.parameters[0], expected, atol=1e-6)


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
    with pytest.raises(ValueError, match="no free variable is one"):
        ed.compile(ed.Model(s.sum())).free_energy({"s": np.ones(3)})
    ebm, _ = rbm()
    with pytest.raises(ValueError, match=r"got \['h', 'x'\]"):
        ebm.free_energy({"x": np.ones(5, int), "h": np.ones(3, int)})
    x, h = ed.spin("x"), ed.real("h", 3, latent=True)
    deep = ed.compile(ed.Model((h**4).sum() + h[0] * h[1] * h[2] * x))
    with pytest.raises(ed.IntractableError, match="3 dimensions"):
        deep.free_energy({"x": 1})


def test_log_likelihood_sums_to_one():
    ebm, _ = rbm()
    data = (np.arange(32)[:, None] >> np.arange(5)) & 1
    found = log_likelihood(ebm, data)
    assert np.exp(found.examples).sum() == pytest.approx(1.0, abs=1e-5)
    assert found.kind == "exact" and found.standard_error == 0
    assert found.value == pytest.approx(found.examples.mean())


def test_an_estimate_stays_one():
    ebm, _ = rbm()
    data = (np.arange(32)[:, None] >> np.arange(5)) & 1
    log_z = estimate_log_partition(ebm, key=jr.key(0))
    found = log_likelihood(ebm, {"x": data}, log_z=log_z)
    assert found.kind == "estimate" and found.standard_error == log_z.standard_error
    assert found.lower < log_likelihood(ebm, data).value < found.upper
    wide = ed.compile(ebm.model, budget=1)
    with pytest.raises(ed.IntractableError, match="Estimate it"):
        log_likelihood(wide, data)
    assert log_likelihood(wide, data, log_z=LogZ.exact(1.0)).kind == "exact"


def test_data_is_checked():
    ebm, _ = rbm()
    with pytest.raises(ValueError, match="at least one"):
        log_likelihood(ebm, np.zeros((0, 5), int))
    with pytest.raises(ValueError, match="shape"):
        log_likelihood(ebm, np.zeros((4, 6), int))
    with pytest.raises(ValueError, match=r"expected \['x'\]"):
        log_likelihood(ebm, {"y": np.zeros((4, 5), int)})
