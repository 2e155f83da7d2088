"""AIS against exact log Z."""

import dataclasses
import itertools

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.stats import binom

import energydsl as ed
from energydsl.estimator import annealed
from energydsl.estimator.annealed import Annealed, _rungs
from energydsl.language.domain import Integer

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
    assert covered([glass], 12) >= binom.ppf(1e-5, 12, COVERAGE)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [glass, mixed, wells], ids=lambda k: k.__name__)
def test_intervals_cover_ninety_in_a_hundred(kind):
    assert covered([kind], 100) >= 90


@pytest.mark.slow
def test_constrained_and_clamped_variables():
    p, u, q = ed.positive("p"), ed.interval("u", low=-1.0, high=2.0), ed.simplex("q", (2, 3))
    model = ed.Model(
        ed.LogDensity(dist.Gamma(3.0, 2.0))(p)
        + 0.5 * u**2
        + ed.LogDensity(dist.Dirichlet(jnp.array([2.0, 3.0, 4.0])))(q)
    ).condition({q[0]: np.array([0.2, 0.3, 0.5])})
    ebm = ed.compile(model)
    found = ed.estimate_log_partition(ebm, ed.AIS(chains=64, temperatures=200), key=jr.key(1))
    assert abs(found.value - float(ed.log_partition(ebm))) < 5 * found.standard_error
    assert found.standard_error < 0.1


@pytest.mark.slow
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
    method.estimate(first, key=jr.key(0))
    before = _rungs._cached._cache_size()
    method.estimate(second, key=jr.key(1))
    assert _rungs._cached._cache_size() == before


def test_longer_ladders_do_not_recompile():
    ready = Annealed(ed.compile(glass(np.random.default_rng(0))), None, 4, 0, key=jr.key(0))
    ready.forward(40, 1, key=jr.key(0))
    before = _rungs._cached._cache_size()
    for rungs in (80, 159, 320):
        weights, _ = ready.forward(rungs, 1, key=jr.key(0))
        assert np.isfinite(weights).all() and _rungs._cached._cache_size() == before


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


def gas():
    """A lattice gas in which no two neighbours may both be taken: log Z by enumeration."""
    table = np.array([[0, 0], [0, -np.inf]])
    g = ed.binary("g", (4, 4))
    pair = ed.Table(log_potential=table)
    model = ed.Model(pair(g[1:], g[:-1]).sum() + pair(g[:, 1:], g[:, :-1]).sum() - 0.2 * g.sum())
    states = np.array(list(itertools.product((0, 1), repeat=16))).reshape(-1, 4, 4)
    clash = (states[:, 1:] * states[:, :-1]).sum((1, 2))
    clash += (states[:, :, 1:] * states[:, :, :-1]).sum((1, 2))
    allowed = states[clash == 0].sum((1, 2))
    return model, np.log(np.exp(0.2 * allowed).sum())


def test_hard_zeros_are_annealed_away():
    """Of the base's draws 98 in 100 are forbidden; annealed, nearly every chain counts."""
    model, exact = gas()
    found = ed.estimate_log_partition(ed.compile(model), key=jr.key(0))
    assert abs(found.value - exact) < 5 * found.standard_error
    assert found.standard_error < 0.1 and found.ess > 64


def test_the_weight_of_forbidden_states_is_zero_however_short_the_path():
    """E w = Z holds with one temperature, too, where many chains end in forbidden states."""
    a = ed.binary("a", 2)
    model = ed.Model(ed.Table(log_potential=np.array([[0, 0], [0, -np.inf]]))(a[0], a[1]))
    method = ed.AIS(ed.MetropolisHastings(), chains=20_000, temperatures=1)
    found = ed.estimate_log_partition(ed.compile(model), method, key=jr.key(3))
    assert abs(found.value - np.log(3.0)) < 5 * found.standard_error
    assert found.standard_error < 0.02


def test_infinite_energies_of_functions_have_the_weight_zero():
    """65 temperatures are two windows of 33, the last one beyond the end of the ladder."""
    a = ed.binary("a", 2)
    model = ed.Model(ed.apply(lambda a: jnp.where(a.sum() > 1, jnp.inf, 0.0), a))
    method = ed.AIS(ed.MetropolisHastings(), chains=1024, temperatures=65)
    found = ed.estimate_log_partition(ed.compile(model), method, key=jr.key(0))
    assert abs(found.value - np.log(3.0)) < 5 * found.standard_error
    assert found.standard_error < 0.05


def test_no_estimate_is_said():
    a = ed.binary("a", 2)
    never = ed.apply(lambda a: jnp.where(a.sum() >= 0, jnp.inf, 0.0), a)
    with pytest.raises(
        ValueError, match=r"AIS found no.* of 16 weights, 16 are zero.*temperatures"
    ):
        ed.estimate_log_partition(
            ed.compile(ed.Model(never)),
            ed.AIS(ed.MetropolisHastings(), chains=16, temperatures=4),
            key=jr.key(0),
        )


def test_an_estimate_that_one_chain_carries_warns():
    s = ed.spin("s", 40)
    ebm = ed.compile(ed.Model((np.random.default_rng(0).normal(size=40) * 5.0 * s).sum()))
    with pytest.warns(UserWarning, match="AIS: 8 weights are worth"):
        ed.estimate_log_partition(ebm, ed.AIS(chains=8, temperatures=1), key=jr.key(0))


@dataclasses.dataclass(frozen=True)
class Leaning(Integer):
    """0 .. high, whose starts lean to 0."""

    def start(self, shape, *, key):
        ratio = jnp.log(0.3)
        logits = jnp.arange(self.low, self.high + 1) * ratio
        return self.low + jr.categorical(key, logits, shape=shape).astype(self.dtype)

    def log_start_density(self, x):
        return x * np.log(0.3) - np.log((0.3 ** np.arange(self.low, self.high + 1)).sum())


class Silent(Leaning):
    """The same, without saying how likely its starts are."""

    def log_start_density(self, x):
        return None


def test_the_density_of_starts_enters_the_weights():
    weights = np.array([0.1, -0.4, 0.2])

    def model(domain):
        return ed.Model((weights * ed.variable("n", domain, 3)).sum())

    ebm = ed.compile(model(Leaning(0, 4)))
    exact = np.log(np.exp(-np.outer(weights, np.arange(5))).sum(axis=1)).sum()
    found = ed.estimate_log_partition(ebm, ed.AIS(chains=256, temperatures=50), key=jr.key(0))
    assert abs(found.value - exact) < 5 * found.standard_error
    # Starts taken for uniform would be off by more than ten such errors.
    assert found.standard_error < 0.04
    with pytest.raises(ValueError, match=r"starts of 'n'.*log_start_density"):
        ed.estimate_log_partition(ed.compile(model(Silent(0, 4))), key=jr.key(0))


def test_counts_are_annealed_from_their_starts():
    """Two Poisson counts, tilted: log E exp(n / 10) = lambda (exp(1/10) - 1) each."""
    n = ed.count("n", 2)
    rates = np.array([0.7, 5.0])
    model = ed.Model(ed.LogDensity(dist.Poisson)(n, rates) - 0.1 * n.sum())
    exact = (rates * (np.exp(0.1) - 1)).sum()
    method = ed.AIS(chains=128, temperatures=200)
    found = ed.estimate_log_partition(ed.compile(model), method, key=jr.key(0))
    assert abs(found.value - exact) < 5 * found.standard_error
    assert found.standard_error < 0.1


def test_clamped_sites_are_not_counted():
    s = ed.spin("s", 8)
    model = ed.Model(-0.3 * (s[1:] * s[:-1]).sum()).condition({s[2:5]: np.array([1, -1, 1])})
    # Two open chains hang on a clamped spin each: (2 cosh J)^k, and the clamped bonds cost 2 J.
    exact = 5 * np.log(2 * np.cosh(0.3)) - 0.6
    found = ed.estimate_log_partition(ed.compile(model), ed.AIS(temperatures=50), key=jr.key(0))
    assert abs(found.value - exact) < 5 * found.standard_error
    assert found.standard_error < 0.05


def test_chains_move_at_the_temperature_of_their_rung():
    """One sweep draws an independent spin exactly, so two temperatures already give E w = Z.

    Moved at the temperature before, the mean would be 2 cosh(1.5)^2 in place of 2 cosh 3.
    """
    s = ed.spin("s")
    method = ed.AIS(ed.Gibbs(), chains=20_000, temperatures=2)
    found = ed.estimate_log_partition(ed.compile(ed.Model(-3.0 * s)), method, key=jr.key(0))
    assert abs(found.value - np.log(2 * np.cosh(3.0))) < 5 * found.standard_error
    assert found.standard_error < 0.05


def test_each_window_of_temperatures_has_a_key_of_its_own(monkeypatch):
    seen, run = [], annealed._rungs

    def spy(*arguments, key):
        seen.append(tuple(np.asarray(jr.key_data(key)).tolist()))
        return run(*arguments, key=key)

    monkeypatch.setattr(annealed, "_rungs", spy)
    ebm = ed.compile(ed.Model((0.5 * ed.spin("s", 3)).sum()))
    ed.estimate_log_partition(ebm, ed.Bracket(chains=4, temperatures=130), key=jr.key(0))
    # Four windows there and four back.
    assert len(set(seen)) == len(seen) == 8
