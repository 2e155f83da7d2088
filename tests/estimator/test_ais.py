"""AIS against exact log Z."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.stats import binom

import energydsl as ed
from energydsl.estimator.ais import _anneal

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


def covered(kinds, count):
    """How many intervals hold the exact value, of `count` models of each kind."""
    hits = 0
    for kind in kinds:
        for seed in range(count):
            ebm = ed.compile(kind(np.random.default_rng(seed)))
            found = ed.estimate_log_partition(
                ebm, ed.AIS(chains=64, temperatures=200), key=jr.key(seed)
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
    found = ed.estimate_log_partition(ebm, key=jr.key(1))
    assert abs(found.value - float(ed.log_partition(ebm))) < 5 * found.standard_error
    assert found.standard_error < 0.1


def test_any_kernel_serves():
    s, r = ed.spin("s", 3), ed.real("r", 2)
    ebm = ed.compile(ed.Model((r**2).sum() / 2 - (s.sum() * r).sum() / 2))
    exact = float(ed.log_partition(ebm))
    for kernel in (ed.MetropolisHastings(), ed.Cycle(ed.Gibbs(), ed.Langevin())):
        method = ed.AIS(kernel, chains=64, temperatures=200)
        found = ed.estimate_log_partition(ebm, method, key=jr.key(2))
        assert abs(found.value - exact) < 5 * found.standard_error


def test_new_parameters_do_not_recompile():
    rng = np.random.default_rng(0)
    first, second = (ed.compile(mixed(rng)) for _ in range(2))
    method = ed.AIS(chains=16, temperatures=20)
    ed.estimate_log_partition(first, method, key=jr.key(0))
    before = _anneal._cached._cache_size()
    ed.estimate_log_partition(second, method, key=jr.key(1))
    assert _anneal._cached._cache_size() == before


def test_mistakes_are_said(untyped):
    ebm = ed.compile(glass(np.random.default_rng(0)))
    with pytest.raises(TypeError, match=r"method 'smc'.*ed\.AIS\(\)"):
        ed.estimate_log_partition(ebm, "smc", key=jr.key(0))
    with pytest.raises(TypeError, match=r"got Model; compile it first"):
        ed.estimate_log_partition(ebm.model, key=jr.key(0))
    with pytest.raises(ValueError, match="chains=1; expected a whole number of at least 2"):
        ed.AIS(chains=1)
    with pytest.raises(ValueError, match="temperatures=0"):
        ed.AIS(temperatures=0)
    with pytest.raises(ValueError, match=r"Langevin.* leaves out 8 free sites, s\[0\] first"):
        both = ed.compile(mixed(np.random.default_rng(0)))
        ed.estimate_log_partition(both, ed.AIS(ed.Langevin()), key=jr.key(0))
