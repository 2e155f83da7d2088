"""SMC against exact log Z."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import energydsl as ed
from energydsl.estimator import annealing, smc
from energydsl.estimator.annealed import Annealed
from energydsl.estimator.smc import MOST_RUNGS, _Cloud, _longest_step, _passed, _systematic
from tests.estimator.models import gas, glass, mixed, one_site, potts, slow


@pytest.mark.parametrize("kind", [gas, *map(slow, (potts, mixed, one_site))])
def test_smc_agrees_with_enumeration(kind):
    model, exact = kind(np.random.default_rng(0))
    found = ed.estimate_log_partition(ed.compile(model), ed.SMC(), key=jr.key(0))
    assert abs(found.value - exact) < 6 * found.standard_error + 1e-5
    assert found.standard_error < 0.05 and found.kind == "estimate" and found.doubts == ()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [glass, gas, potts, mixed], ids=lambda k: k.__name__)
def test_intervals_cover_ninety_in_a_hundred(kind):
    covered = 0
    for seed in range(100):
        model, exact = kind(np.random.default_rng(seed))
        found = ed.estimate_log_partition(ed.compile(model), ed.SMC(), key=jr.key(seed))
        covered += found.lower <= exact <= found.upper
    assert covered >= 90


def test_particles_that_end_in_forbidden_states_count_nothing(monkeypatch):
    """E Z-hat = Z holds for any penalty along the path, even for one that hardly repels."""
    monkeypatch.setattr(annealing, "PENALTY", 0.5)
    a = ed.binary("a", 2)
    model = ed.Model(ed.Table(log_potential=np.array([[0, 0], [0, -np.inf]]))(a[0], a[1]))
    method = ed.SMC(ed.MetropolisHastings(), particles=16, replicates=2000)
    found = ed.estimate_log_partition(ed.compile(model), method, key=jr.key(0))
    assert abs(found.value - np.log(3.0)) < 5 * found.standard_error
    assert found.standard_error < 0.01


def test_each_window_of_rungs_has_a_key_of_its_own(monkeypatch):
    seen = []

    def spy(*arguments, key):
        seen.append(tuple(np.asarray(jr.key_data(key)).tolist()))
        return _passed(*arguments, key=key)

    monkeypatch.setattr(smc, "_passed", spy)
    model, _ = glass(np.random.default_rng(1), n=3)
    method = ed.SMC(particles=4, replicates=2, conditional=0.999)
    ed.estimate_log_partition(ed.compile(model), method, key=jr.key(0))
    assert len(set(seen)) == len(seen) > 1


POPULATIONS = ed.SMC(particles=5, replicates=2000, conditional=0.3)
"""Small populations on a coarse ladder, which are resampled at nearly every rung."""


@pytest.mark.slow
def test_small_populations_on_a_coarse_ladder_are_unbiased():
    model, exact = glass(np.random.default_rng(1), n=5)
    found = ed.estimate_log_partition(ed.compile(model), POPULATIONS, key=jr.key(0))
    assert abs(found.value - exact) < 5 * found.standard_error
    assert found.standard_error < 0.04


@pytest.mark.slow
def test_another_ladder_for_other_numbers_is_passed_by_the_same_program():
    first, _ = glass(np.random.default_rng(1), n=5)
    ed.estimate_log_partition(ed.compile(first), POPULATIONS, key=jr.key(0))
    before = _passed._cached._cache_size()
    other, exact = glass(np.random.default_rng(2), n=5, scale=1.5)
    found = ed.estimate_log_partition(ed.compile(other), POPULATIONS, key=jr.key(1))
    assert abs(found.value - exact) < 5 * found.standard_error
    assert _passed._cached._cache_size() == before


def test_only_a_population_of_few_effective_particles_is_resampled():
    """One particle with nearly all of the weight, beside a population of equal weights."""
    model, _ = glass(np.random.default_rng(1), n=6)
    ready = Annealed(ed.compile(model), None, 8, 0, key=jr.key(0))
    cloud = _Cloud(
        ready.drawn(key=jr.key(1)), jnp.log(jnp.array([[1e-9, 1.0, 1e-9, 1e-9], [0.25] * 4]))
    )
    after = cloud.moved(ready, jnp.ones(()), 0, jr.key(2))
    xs, before = (
        np.asarray(ready.ensemble.configurations(ready.path.ebm, c.carry)["s"])
        for c in (after, cloud)
    )
    np.testing.assert_array_equal(xs[:4], np.tile(before[1], (4, 1)))
    np.testing.assert_array_equal(xs[4:], before[4:])
    np.testing.assert_allclose(after.log_shares, np.log(0.25), rtol=1e-6)


def test_populations_are_resampled_by_numbers_of_their_own():
    model, _ = glass(np.random.default_rng(1), n=6)
    ready = Annealed(ed.compile(model), None, 8, 0, key=jr.key(0))
    same = ready.placed({"s": jnp.tile(jnp.triu(2 * jnp.ones((4, 6), jnp.int8)) - 1, (2, 1))})
    cloud = _Cloud(same, jnp.log(jnp.array([[0.7, 0.1, 0.1, 0.1]] * 2)))
    found = [
        np.asarray(ready.ensemble.configurations(ready.path.ebm, moved.carry)["s"])
        for moved in (cloud.moved(ready, jnp.ones(()), 0, jr.key(k)) for k in range(12))
    ]
    assert any((x[:4] != found[0][:4]).any() for x in found)
    assert any((x[:4] != x[4:]).any() for x in found)


def test_ancestors_are_as_many_as_their_shares_on_average():
    shares = np.array([0.05, 0.0, 0.45, 0.3, 0.2])
    keys = jr.split(jr.key(0), 4000)
    chosen = np.asarray(jax.vmap(_systematic, (None, 0))(jnp.asarray(shares), keys))
    counts = (chosen[:, :, None] == np.arange(5)).sum(axis=1)
    # Each count is one of the two whole numbers around 5 times the share.
    assert (np.abs(counts - 5 * shares) < 1).all()
    # A standard deviation of at most 1/2, over 4,000 populations.
    np.testing.assert_allclose(counts.mean(axis=0), 5 * shares, atol=5.5 * 0.5 / np.sqrt(4000))


def test_a_step_has_the_wanted_effective_share():
    rng = np.random.default_rng(0)
    weights, gaps = rng.random(50), 3 * rng.normal(size=50)
    weights /= weights.sum()

    def longest(gaps, most):
        logs, share = jnp.log(weights), jnp.asarray(0.8)
        return float(_longest_step(logs, jnp.asarray(gaps), jnp.asarray(most), share))

    ratios = np.exp(-longest(gaps, 1.0) * gaps)
    assert (weights @ ratios) ** 2 / (weights @ ratios**2) == pytest.approx(0.8, abs=1e-4)
    # Energies that are nearly alike are passed in one step, very different ones in short steps.
    assert longest(gaps / 100, 0.7) == pytest.approx(0.7)
    assert longest(1e6 * gaps, 1.0) == pytest.approx(1 / MOST_RUNGS)


def test_mistakes_are_said():
    with pytest.raises(ValueError, match="SMC got particles=1; expected a whole number of at lea"):
        ed.SMC(particles=1)
    with pytest.raises(ValueError, match=r"SMC got conditional=1\.0; expected a share"):
        ed.SMC(conditional=1.0)
