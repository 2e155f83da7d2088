"""Simulated annealing: the schedule, the law after it, and the lowest configuration seen."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats

import energydsl as ed
from energydsl.run import lowest
from tests.oracles.enumerate import chisquare_pvalue, count_states, exact_draws, exact_law
from tests.sweep.cases import CASES, pack, unpack

FALSE_ALARM = 1e-6  # chance that a correct kernel fails one of these tests
CHAINS = 40_000
RNG = np.random.default_rng(2)


def after_warmup(ebm, kernel, xs, steps=3):
    """Chains that are placed at `xs` when warmup, of one step, is over."""
    ensemble = kernel.ensemble(ebm)

    @eqx.filter_jit
    def run(ebm, ensemble, xs, key):
        carry = ensemble.start(ebm, xs, key=key, warmup=1)
        tables = ensemble.load(ebm)
        carry, _ = ensemble.advance(ebm, tables, carry, key=key)
        carry = ensemble.place(ebm, carry, xs)
        for k in range(steps):
            carry, info = ensemble.advance(ebm, tables, carry, key=jr.fold_in(key, k))
        return ensemble.configurations(ebm, carry), ensemble.energies(ebm, carry), info

    return run(ebm, ensemble, xs, jr.key(0))


@pytest.mark.parametrize("final", [1.0, 2.5])
@pytest.mark.parametrize(
    "inner", [ed.Gibbs(), pytest.param(ed.MetropolisHastings(), marks=pytest.mark.slow)], ids=str
)
def test_after_warmup_the_law_is_that_of_the_final_temperature(inner, final):
    case = next(c for c in CASES if c.name == "irregular graph")
    law = exact_law(lambda s: case.energy(s) / final, case.levels)
    before = exact_draws(law.states, law.probs, CHAINS, seed=1)
    kernel = ed.SimulatedAnnealing(inner, hottest=7.0, final=final)
    xs, energies, info = after_warmup(ed.compile(case.model), kernel, pack(case.model, before))
    after = unpack(case.model, xs)
    assert chisquare_pvalue(count_states(after, law.states), law.probs, CHAINS) > FALSE_ALARM
    np.testing.assert_allclose(energies, case.energy(after), rtol=1e-4, atol=1e-4)
    assert (after != before).any(axis=1).mean() > 0.2
    assert (info["temperature"] == final).all() and len(info["temperature"]) == CHAINS


def test_on_a_positive_site_the_jacobian_is_not_tempered():
    """E / T of t^1.5 exp(-2 t) is a gamma density, too."""
    t, final = ed.positive("t"), 3.0
    law = scipy.stats.gamma(1.5 / final + 1, scale=final / 2.0)
    xs = {"t": jnp.asarray(law.rvs(CHAINS, random_state=np.random.default_rng(0)), float)}
    kernel = ed.SimulatedAnnealing(ed.Langevin(step_size=0.2), hottest=5.0, final=final)
    after, energies, _ = after_warmup(ed.compile(ed.Model(2.0 * t - 1.5 * ed.log(t))), kernel, xs)
    values = np.asarray(after["t"])
    assert scipy.stats.kstest(values, law.cdf).pvalue > FALSE_ALARM
    np.testing.assert_allclose(energies, 2 * values - 1.5 * np.log(values), rtol=1e-3, atol=1e-3)


def test_the_temperature_falls_geometrically_during_warmup_and_then_stays():
    s = ed.spin("s", 3)
    ebm = ed.compile(ed.Model(-(s[1:] * s[:-1]).sum()))
    kernel = ed.SimulatedAnnealing(ed.Gibbs(), hottest=8.0, final=0.5)
    ensemble = kernel.ensemble(ebm)
    carry = ensemble.start(ebm, {"s": jnp.ones((2, 3), jnp.int8)}, key=jr.key(0), warmup=4)
    seen = []
    for k in range(6):
        tables = ensemble.load(ebm)
        carry, info = ensemble.advance(ebm, tables, carry, key=jr.key(k))
        seen.append(info["temperature"].tolist())
    np.testing.assert_allclose(seen, np.outer([8, 4, 2, 1, 0.5, 0.5], [1, 1]), rtol=1e-6)
    run = ed.sample(ebm, kernel, key=jr.key(0), warmup=4, draws=3, progress=False)
    assert (run.stats["temperature"] == 0.5).all()


@pytest.fixture(scope="module")
def glass():
    """A glass of 3 x 5 spins, of which one is clamped, and its least energy."""
    s = ed.spin("s", (3, 5))
    down, across, field = RNG.normal(size=(2, 5)), RNG.normal(size=(3, 4)), RNG.normal(size=(3, 5))
    pairs = (down * s[1:] * s[:-1]).sum() + (across * s[:, 1:] * s[:, :-1]).sum()
    ebm = ed.compile(ed.Model(pairs + 0.2 * (field * s).sum()).condition({s[1, 2]: -1}))
    return ebm, ed.map_configuration(ebm)


@pytest.mark.parametrize(
    "kernel",
    [ed.SimulatedAnnealing(ed.Gibbs(), hottest=5.0, final=0.1),
     ed.ReplicaExchange(ed.Gibbs(), (1.0, 2.0, 4.0))],
    ids=str,
)  # fmt: skip
def test_the_lowest_configuration_seen(glass, kernel, monkeypatch):
    ebm, mode = glass
    x, energy = ed.lowest_seen(ebm, kernel, key=jr.key(0), steps=60, chains=16)
    least = float(ebm.energy(mode.configuration))
    assert energy == pytest.approx(least, rel=1e-5) == float(ebm.energy(x))
    assert x["s"][1, 2] == -1
    monkeypatch.setattr(lowest, "CHUNK", 7)
    again, _ = ed.lowest_seen(ebm, kernel, key=jr.key(0), steps=60, chains=16)
    np.testing.assert_array_equal(again["s"], x["s"])


def test_the_lowest_configuration_is_kept_where_chains_leave_it():
    """At a high temperature the last configuration is hardly ever the best."""
    s = ed.spin("s", 12)
    ebm = ed.compile(ed.Model(-0.3 * s.sum()))
    x, energy = ed.lowest_seen(ebm, ed.Gibbs(), key=jr.key(1), steps=400, chains=8)
    assert energy == pytest.approx(-3.6) and (x["s"] == 1).all()


def test_annealing_settles_in_lower_energies_than_quenching(glass):
    ebm, mode = glass
    options = {"key": jr.key(5), "chains": 200, "draws": 1, "progress": False, "warmup": 100}
    slow = ed.SimulatedAnnealing(ed.Gibbs(), hottest=5.0, final=0.05)
    least = float(ebm.energy(mode.configuration))
    annealed = ed.sample(ebm, slow, **options).stats["energy"]
    cold = ed.SimulatedAnnealing(ed.Gibbs(), hottest=0.0501, final=0.05)
    quenched = ed.sample(ebm, cold, **options).stats["energy"]
    assert (annealed < least + 1e-3).mean() > (quenched < least + 1e-3).mean() + 0.1


def test_annealed_runs_resume_bit_for_bit(glass, tmp_path):
    kernel = ed.SimulatedAnnealing(ed.MetropolisHastings(), hottest=3.0)
    options = {"key": jr.key(0), "chains": 2, "warmup": 9, "progress": False}
    whole = ed.sample(glass[0], kernel, draws=8, **options)
    ed.sample(glass[0], kernel, draws=3, checkpoint=tmp_path, **options)
    again = ed.sample(glass[0], kernel, draws=8, checkpoint=tmp_path, **options)
    np.testing.assert_array_equal(again.draws["s"], whole.draws["s"])
    assert str(kernel) == "SimulatedAnnealing(MetropolisHastings(), from 3 to 1)"


def test_new_parameters_are_seen():
    s, coupling = ed.spin("s", 3), ed.parameter("J", 0.5)
    ebm = ed.compile(ed.Model(-coupling * (s[1:] * s[:-1]).sum()))
    ensemble = ed.SimulatedAnnealing(ed.Gibbs(), hottest=2.0).ensemble(ebm)
    carry = ensemble.start(ebm, {"s": jnp.ones((2, 3), jnp.int8)}, key=jr.key(1), warmup=1)
    refreshed = ensemble.refresh(ebm.replace(J=2.0), carry)
    assert refreshed.energies.tolist() == [-4.0, -4.0]


SA, GIBBS = ed.SimulatedAnnealing, ed.Gibbs()
S = ed.spin("s", 2)
PAIR = ed.compile(ed.Model(-(S[0] * S[1])))
CAUCHY = ed.compile(ed.Model(2.0 * ed.log(1 + ed.real("y") ** 2)))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: SA(GIBBS, hottest=0.5), ValueError, "hottest=0.5 and final=1; .*that falls"),
        (lambda: SA(GIBBS, hottest=2, final=0), ValueError, "final=0; expected a finite number"),
        (lambda: SA(GIBBS, hottest="hot"), ValueError, "hottest='hot'; expected a finite"),
        (lambda: SA(GIBBS), TypeError, "missing .*'hottest'"),
        (lambda: SA("Gibbs", hottest=2), TypeError, "got 'Gibbs'; expected a kernel"),
        (lambda: SA(ed.ExactDraws(), hottest=2), ValueError, "draws are independent"),
        (
            lambda: ed.sample(PAIR, SA(GIBBS, hottest=2), key=jr.key(0), warmup=0, progress=False),
            ValueError,
            "during warmup, and there is none. Give warmup=",
        ),
        (
            lambda: ed.sample(CAUCHY, SA(ed.Langevin(), hottest=9), key=jr.key(0), progress=False),
            ValueError,
            "temperature 9, .*no finite integral.*Choose a lower temperature",
        ),
        (
            lambda: ed.sample(CAUCHY, SA(GIBBS, hottest=2), key=jr.key(0), progress=False),
            ValueError,
            "leaves out 1 free sites",
        ),
        (lambda: ed.lowest_seen(PAIR, "SA", key=jr.key(0)), TypeError, "kernel 'SA'; expected"),
        (lambda: ed.lowest_seen(PAIR, GIBBS, key=jr.key(0), steps=0), ValueError, "steps=0; exp"),
        (lambda: ed.lowest_seen(PAIR, GIBBS, key=jr.key(0), chains=1.5), ValueError, "chains=1.5"),
        (lambda: ed.lowest_seen(S, GIBBS, key=jr.key(0)), TypeError, "lowest_seen got"),
        (lambda: ed.lowest_seen(CAUCHY, GIBBS, key=jr.key(0)), ValueError, "leaves out 1 free"),
    ],
)  # fmt: skip
def test_mistakes_are_answered(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_the_search_does_not_depend_on_chunks(monkeypatch):
    """Of many spins, so that other random numbers would find another configuration."""
    s = ed.spin("s", 60)
    ebm = ed.compile(ed.Model(-0.1 * s.sum()))
    options = {"key": jr.key(2), "steps": 200, "chains": 2}
    whole, _ = ed.lowest_seen(ebm, ed.Gibbs(), **options)
    monkeypatch.setattr(lowest, "CHUNK", 7)
    parts, _ = ed.lowest_seen(ebm, ed.Gibbs(), **options)
    np.testing.assert_array_equal(parts["s"], whole["s"])
