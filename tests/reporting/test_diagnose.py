"""Diagnoses: each thing that can be wrong is found, alone, and nothing where nothing is."""

import dataclasses
import subprocess
import sys
import time
import tracemalloc

import jax
import numpy as np
import pytest

import energydsl as ed
from energydsl.reporting.diagnose import diagnose
from energydsl.run.sampling import Chains

rng = np.random.default_rng(0)
START = rng.bit_generator.state
KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def same_numbers():
    """Whatever other tests drew before."""
    rng.bit_generator.state = START


def spins(shape):
    s = ed.spin("s", shape)
    return ed.Model(-0.2 * s.sum())


def reals(shape):
    x = ed.real("x", shape)
    return ed.Model((x**2).sum())


def chains_of(draws, *, model=None, energy=None, stopped=None):
    """Chains that drew what they are told to, of any model."""
    size = next(iter(draws.values())).shape[:2]
    energy = rng.normal(size=size) if energy is None else energy
    ebm = ed.compile(model or spins(3))
    return Chains(
        draws, {"energy": energy}, {}, ebm, ed.Gibbs(), KEY, 0, 1, seconds=2.0, stopped=stopped
    )


def coins(*shape):
    return rng.choice(np.array([-1, 1], np.int8), shape)


def found(chains):
    return [(f.level, f.name) for f in diagnose(chains).findings]


def message(chains, name):
    (said,) = [f.message for f in diagnose(chains).findings if f.name == name]
    return said


def test_exact_draws_need_no_convergence():
    draws = {"s": np.concatenate([coins(4, 25, 2), np.ones((4, 25, 1), np.int8)], axis=2)}
    few = chains_of(draws)
    exact = dataclasses.replace(few, kernel=ed.ExactDraws())
    assert {name for _, name in found(few)} >= {"frozen", "rhat"} and found(exact) == []
    infinite = dataclasses.replace(exact, stats={"energy": np.full((4, 25), np.inf)})
    assert found(infinite) == [("error", "finite")]


def test_nothing_is_wrong_with_independent_draws():
    diagnosis = diagnose(chains_of({"s": coins(4, 1000, 8, 8)}))
    assert diagnosis.ok and diagnosis.findings == ()
    assert str(diagnosis).endswith("Nothing is wrong.")
    assert repr(diagnosis) == str(diagnosis)
    assert "4 chains x 1,000 draws of Gibbs()" in str(diagnosis)


def test_the_numbers_are_those_of_the_worst_entry():
    numbers = diagnose(chains_of({"s": coins(4, 1000, 8, 8)})).numbers
    assert list(numbers) == ["energy", "s"]
    s = numbers["s"]
    assert s["entries"] == 64 and s["frozen"] == 0
    assert 1 <= s["rhat"] < 1.01 and 3000 < s["ess"] < 4001
    assert s["ess_per_second"] == s["ess"] / 2


def test_the_effective_size_is_that_of_the_worst_site():
    draws = coins(4, 1000, 8)
    draws[:, :, 3] = np.repeat(coins(4, 50), 20, axis=1)
    # 200 blocks of 20 equal draws, beside sites of 4000.
    assert diagnose(chains_of({"s": draws})).numbers["s"]["ess"] < 400


def test_a_gibbs_run_that_mixes_is_fine():
    s = ed.spin("s", (4, 4))
    ebm = ed.compile(ed.Model(-0.2 * ((s[1:] * s[:-1]).sum() + (s[:, 1:] * s[:, :-1]).sum())))
    chains = ed.sample(ebm, ed.Gibbs(), key=KEY, draws=1000, warmup=50, progress=False)
    assert diagnose(chains).ok


def test_constant_alike_in_all_chains_is_not_converged():
    draws = coins(4, 500, 3, 3)
    draws[:, :, 1, 2] = 1
    chains = chains_of({"s": draws})
    assert found(chains) == [("warning", "frozen")]
    assert "equal in all chains: s[1, 2]. This does not show convergence" in message(
        chains, "frozen"
    )
    assert diagnose(chains).numbers["s"]["frozen"] == 1


def test_frozen_where_it_began_is_an_error():
    draws = coins(4, 500, 3, 3)
    draws[:, :, 0] = coins(4, 1, 3)
    draws[:, :, 0, 0] = np.array([[1], [1], [-1], [1]])
    assert found(chains_of({"s": draws}))[0] == ("error", "frozen")
    assert "s[0, 0] and" in message(chains_of({"s": draws}), "frozen")


def test_all_frozen_is_reported_without_an_rhat():
    draws = np.broadcast_to(coins(4, 1, 3, 3), (4, 500, 3, 3))
    diagnosis = diagnose(chains_of({"s": draws}, energy=np.full((4, 500), 7.0)))
    assert [f.name for f in diagnosis.findings].count("frozen") >= 1
    assert np.isnan(diagnosis.numbers["s"]["rhat"]) and np.isnan(diagnosis.numbers["s"]["ess"])


def test_one_frozen_chain_is_named():
    draws = coins(4, 500, 3)
    draws[2] = 1
    chains = chains_of({"s": draws})
    assert found(chains) == [("error", "frozen")]
    assert "Constant in chains [2], but not in the others: s[0]" in message(chains, "frozen")


def test_a_rare_flip_is_no_frozen_chain():
    draws = np.ones((4, 1000, 2), np.int8)
    draws[0, 100, 0] = draws[1, 900, 1] = -1
    assert found(chains_of({"s": draws})) == []


def test_clamped_sites_are_not_frozen():
    s = ed.spin("s", (3, 4))
    model = ed.Model(-0.2 * (s[1:] * s[:-1]).sum()).condition({s[0]: 1})
    chains = ed.sample(
        ed.compile(model), ed.Gibbs(), key=KEY, draws=1000, warmup=10, progress=False
    )
    assert (chains.draws["s"][:, :, 0] == 1).all()
    diagnosis = diagnose(chains)
    assert diagnosis.ok and diagnosis.numbers["s"]["entries"] == 8


def test_a_uniform_law_may_have_a_constant_energy():
    assert diagnose(chains_of({"s": coins(4, 1000, 3)}, energy=np.full((4, 1000), 7.0))).ok


def test_chains_in_different_modes_are_grouped():
    up = rng.random((4, 800, 5, 5)) < np.reshape([0.95, 0.05, 0.95, 0.05], (4, 1, 1, 1))
    chains = chains_of({"s": np.where(up, 1, -1).astype(np.int8)})
    assert found(chains) == [("error", "modes")]
    assert "Chains [0, 2] and [1, 3] are in different modes: s[0, 0]" in message(chains, "modes")


def test_chains_that_drift_are_not_in_modes():
    draws = rng.normal(size=(4, 1000, 3))
    draws[1] += np.linspace(0, 4, 1000)[:, None]
    chains = chains_of({"x": draws}, model=reals(3))
    assert found(chains) == [("error", "rhat")]
    assert "R-hat above 1.1, up to 1." in message(chains, "rhat")


def test_chains_that_nearly_agree_are_a_warning():
    draws = rng.normal(size=(4, 1000, 10))
    draws[0] += 0.5
    assert found(chains_of({"x": draws}, model=reals(10))) == [("warning", "rhat")]


@pytest.mark.parametrize(("shifted", "findings"), [(2, []), (3, [("warning", "rhat")])])
def test_one_entry_in_a_hundred_may_exceed_the_stricter_limit(shifted, findings):
    draws = rng.normal(size=(4, 1000, 200))
    draws[0, :, :shifted] += 0.5
    assert found(chains_of({"x": draws}, model=reals(200))) == findings


def test_too_small_an_ess_says_how_many_draws_would_do():
    # Each half-chain has the same values in another order, so that R-hat has nothing to say.
    half = np.linspace(-1, 1, 30)
    draws = np.stack([np.r_[rng.permutation(half), rng.permutation(half)] for _ in range(4)])
    chains = chains_of({"x": draws[..., None]}, model=reals(1), energy=rng.permuted(draws, axis=1))
    said = [f.message for f in diagnose(chains).findings if f.name == "ess"]
    assert "expected at least 400. Take more draws: about draws=" in said[0]
    least = diagnose(chains).numbers["x"]["ess"]
    assert f"The bulk ESS of x is {least:,.0f}" in said[-1]


def walk(draws, rho):
    """A stationary autoregression, whose E-BFMI is 2 (1 - rho)."""
    noise = rng.normal(size=(4, draws)) * np.sqrt(1 - rho**2)
    energy = np.empty_like(noise)
    energy[:, 0] = rng.normal(size=4)
    for t in range(1, draws):
        energy[:, t] = rho * energy[:, t - 1] + noise[:, t]
    return energy


def test_an_energy_that_hardly_changes_has_a_low_e_bfmi():
    energy, draws = walk(20_000, rho=0.93), rng.normal(size=(4, 20_000, 1))
    chains = chains_of({"x": draws}, model=reals(1), energy=energy)
    assert found(chains) == [("warning", "e_bfmi")]
    assert diagnose(chains).numbers["energy"]["e_bfmi"] == pytest.approx(0.14, abs=0.02)
    discrete = chains_of({"s": coins(4, 20_000, 3)}, energy=energy)
    assert found(discrete) == []


def test_few_draws_one_chain_and_an_early_end_are_said():
    assert found(chains_of({"s": coins(4, 3, 3)})) == [("error", "draws")]
    assert found(chains_of({"s": coins(4, 0, 3)})) == [("error", "draws")]
    assert ("warning", "chains") in found(chains_of({"s": coins(1, 1000, 3)}))
    stopped = chains_of({"s": coins(4, 1000, 3)}, stopped="interrupted after 1000 of 2000 draws")
    assert message(stopped, "stopped") == "The run interrupted after 1000 of 2000 draws."
    assert not diagnose(stopped).ok


def test_values_that_are_not_finite_are_named_and_left_out():
    draws = rng.normal(size=(4, 500, 3))
    draws[1, 7, 2] = np.inf
    chains = chains_of({"x": draws}, model=reals(3))
    assert found(chains) == [("error", "finite")]
    assert "x[2]" in message(chains, "finite")
    assert diagnose(chains).numbers["x"]["rhat"] < 1.01


def test_divergences_and_refusals_are_said():
    chains = chains_of({"s": coins(4, 500, 3)})
    chains.stats["diverging"] = np.arange(2000).reshape(4, 500) < 7
    chains.stats["acceptance_rate"] = np.full((4, 500), 0.02)
    assert found(chains) == [("warning", "diverging"), ("warning", "acceptance")]
    assert message(chains, "diverging").startswith("7 of 2,000 trajectories diverged")
    assert message(chains, "acceptance").startswith("Only 2.0% of proposals were accepted")
    chains.stats["diverging"][:] = False
    chains.stats["acceptance_rate"][:] = 0.2
    assert not found(chains)


def test_an_energy_that_does_not_grow_has_no_law_to_draw_from():
    x = ed.real("x", 3)
    flat = ed.Model(ed.tanh(x).sum())
    chains = chains_of({"x": rng.normal(size=(4, 500, 3))}, model=flat)
    assert found(chains) == [("error", "improper")]
    assert "does not grow far out along x[0]" in message(chains, "improper")


def test_errors_come_first():
    draws = rng.normal(size=(4, 500, 2))
    draws[1, 7, 1] = np.nan
    chains = chains_of({"x": draws}, model=reals(2), stopped="interrupted after 500 of 900 draws")
    assert found(chains) == [("error", "finite"), ("warning", "stopped")]


def test_quantities_may_be_logical_or_complex():
    phase = np.exp(1j * rng.normal(size=(4, 1000)))
    chains = chains_of({"up": coins(4, 1000) > 0, "f": phase})
    diagnosis = diagnose(chains)
    assert diagnosis.ok and diagnosis.numbers["f"]["entries"] == 2


@pytest.fixture(scope="module")
def lattice():
    draws = np.random.default_rng(0).integers(0, 2, (4, 1000, 256, 256), np.int8)
    draws *= 2
    draws -= 1
    return draws


def test_a_large_lattice_takes_seconds_and_little_memory(lattice):
    chains = chains_of({"s": lattice}, model=spins((256, 256)))
    diagnose(chains_of({"s": coins(4, 100, 3)}))  # ArviZ is imported
    tracemalloc.start()
    began = time.process_time()
    diagnosis = diagnose(chains)
    seconds = time.process_time() - began
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert diagnosis.ok, str(diagnosis)
    assert seconds < 15 and peak < 100e6, f"{seconds=:.1f} {peak=:.3g}"


def test_a_few_bad_sites_of_a_large_lattice_are_found(lattice):
    draws = lattice.copy()
    draws[:2, :, 17, 4:6] = np.abs(draws[:2, :, 17, 4:6])
    draws[:, :, 200, 3] = 1
    chains = chains_of({"s": draws}, model=spins((256, 256)))
    assert found(chains) == [("error", "frozen"), ("warning", "frozen")]
    said = [f.message for f in diagnose(chains).findings]
    assert "Constant in chains [0, 1]" in said[0] and "s[17, 4] and 1 more of 65,536" in said[0]
    assert "s[200, 3]." in said[1]


def test_arviz_and_matplotlib_load_when_first_used():
    reporting = "energydsl.reporting"
    modules = f"{reporting}.diagnose, {reporting}.arviz_tree, {reporting}.plot, energydsl.cli"
    code = f"import sys, {modules}\nprint({{'arviz', 'xarray', 'matplotlib'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
