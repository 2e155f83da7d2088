"""Coupling from the past: its draws are exact, and what has none is refused or said."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import energydsl as ed
from energydsl.kernel.choose import cheapest
from tests.kernel.attractive import TWO_LEVELS
from tests.kernel.test_clusters import TRIANGLE, S, chained
from tests.oracles.enumerate import chisquare_pvalue, count_states, exact_law
from tests.sweep.cases import pack, unpack

FALSE_ALARM = 1e-6  # chance that correct draws fail one of these tests
DRAWS = 20_000
KEY = jr.key(0)
KERNEL = ed.CouplingFromThePast()


def drawn(ebm, start, key, draws=DRAWS):
    """One step from the same configuration, by many keys."""

    @eqx.filter_jit
    def run(ebm, ensemble, key):
        xs = {n: jnp.broadcast_to(a, (draws, *a.shape[1:])) for n, a in start.items()}
        return ensemble.advance(ebm, ensemble.load(ebm), xs, key=key)

    return run(ebm, KERNEL.ensemble(ebm), key)


@pytest.mark.parametrize("case", TWO_LEVELS, ids=lambda c: c.name)
def test_draws_are_exact(case):
    """Each chain alone: it must not begin earlier because another one has not met yet."""
    ebm, law = ed.compile(case.model), exact_law(case.energy, case.levels)
    start = {n: a[0] for n, a in pack(case.model, law.states[:1]).items()}

    @eqx.filter_jit
    def run(ebm, start, keys):
        return jax.vmap(lambda key: KERNEL.step(ebm, start, None, key=key)[0])(keys)

    found = run(ebm, start, jr.split(jr.key(1), DRAWS))
    counts = count_states(unpack(case.model, found), law.states)
    assert chisquare_pvalue(counts, law.probs, DRAWS) > FALSE_ALARM


def test_early_meetings_are_not_draws():
    """Why a run ends where chains do not meet: those that meet soon are of another law."""
    case = TWO_LEVELS[0]
    law = exact_law(case.energy, case.levels)
    found, info = drawn(ed.compile(case.model), pack(case.model, law.states[:1]), jr.key(1))
    early = np.asarray(info["sweeps"]) <= 1
    counts = count_states(unpack(case.model, found)[early], law.states)
    assert 1000 < early.sum() < DRAWS
    assert chisquare_pvalue(counts, law.probs, early.sum()) < FALSE_ALARM


def test_a_start_and_other_chains_do_not_matter():
    ebm = ed.compile(TWO_LEVELS[2].model)
    starts = jax.vmap(lambda k: ebm.start(key=k))(jr.split(KEY, 4))

    @eqx.filter_jit
    def both(ebm, ensemble, xs, key):
        one = {n: a[0] for n, a in xs.items()}
        together = ensemble.advance(ebm, ensemble.load(ebm), xs, key=key)
        return together, KERNEL.step(ebm, one, None, key=jr.split(key, 4)[2])[::2]

    together, alone = both(ebm, KERNEL.ensemble(ebm), starts, jr.key(3))
    picked = jax.tree.map(lambda a: a[2], together)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, picked, alone)))


def test_it_draws_the_spins_of_a_mixed_model_given_the_reals():
    after, law, means, _ = chained(KERNEL)
    spins = np.asarray(after["s"]).astype(int)
    pvalue = chisquare_pvalue(count_states(spins, law.states), law.probs, len(spins))
    assert pvalue > FALSE_ALARM
    residuals = np.asarray(after["y"]) - means * spins[:, 1:]
    assert abs(residuals.mean()) < 6 / np.sqrt(residuals.size)


def test_chains_that_do_not_meet_end_the_run():
    s = ed.spin("s", (4, 4))
    bonds = (s[1:] * s[:-1]).sum() + (s[:, 1:] * s[:, :-1]).sum()
    ebm = ed.compile(ed.Model(-0.7 * bonds))
    with pytest.raises(RuntimeError, match=r"did not meet within 3 sweeps.*sweeps=12.*Do not try"):
        ed.sample(ebm, ed.CouplingFromThePast(sweeps=3), key=KEY, draws=1, progress=False)


def test_sites_without_couplings_meet_in_one_sweep():
    ebm = ed.compile(ed.Model(-0.3 * ed.spin("s", 5).sum()))
    kernel = ed.CouplingFromThePast(sweeps=1)
    chains = ed.sample(ebm, kernel, key=KEY, warmup=0, draws=3, progress=False)
    assert (chains.stats["sweeps"] == 1).all()


def test_a_run_of_it_is_exact_from_its_first_draw():
    ebm = ed.compile(ed.Model(-0.3 * TRIANGLE))
    chains = ed.sample(ebm, KERNEL, key=KEY, warmup=0, draws=4, chains=2, progress=False)
    assert chains.stats["sweeps"].shape == (2, 4) and KERNEL.independent
    said = ebm.explain().as_dict()["samplers"]["CouplingFromThePast"]
    assert said.startswith("its draws are independent and exact")
    assert str(cheapest(ebm)) == "Gibbs()"


@pytest.mark.parametrize(
    ("energy", "words"),
    [
        (TRIANGLE, r"needs an attractive model: its couplings are frustrated.*ed.ExactDraws\(\)"),
        (-S[0] * S[1] * S[2], "a factor joins 3 sites"),
        (ed.categorical("c", levels=3) * 1.0, "c has more than two levels"),
    ],
)
def test_what_is_not_attractive_is_refused_before_a_step(energy, words):
    ebm = ed.compile(ed.Model(energy))
    with pytest.raises(ValueError, match=words):
        ed.sample(ebm, KERNEL, key=KEY, progress=False)
    assert "CouplingFromThePast" in ebm.explain().as_dict()["samplers_refused"]


def test_the_values_are_examined_again_when_they_change():
    ebm = ed.compile(ed.Model(ed.parameter("J", -0.3) * TRIANGLE))

    @eqx.filter_jit
    def step(ebm, value):
        ebm = ebm.replace(J=value)
        return KERNEL.step(ebm, ebm.start(key=KEY), None, key=KEY)[0]

    assert step(ebm, jnp.asarray(-0.2))["s"].shape == (3,)
    with pytest.raises(
        RuntimeError, match=r"no longer those of an attractive model.*positive=True"
    ):
        step(ebm, jnp.asarray(0.2))
    with pytest.raises(ValueError, match="needs an attractive model"):
        ed.sample(ebm.replace(J=0.2), KERNEL, key=KEY, progress=False)
    with pytest.raises(TypeError, match=r"does not apply: c has more than two levels"):
        KERNEL.ensemble(ed.compile(ed.Model(ed.categorical("c", levels=3) * 1.0)))


@pytest.mark.parametrize("sweeps", [0, 2.5, "many"])
def test_a_limit_is_a_whole_number(sweeps):
    with pytest.raises(ValueError, match=r"got sweeps=.*expected a whole number of at least 1"):
        ed.CouplingFromThePast(sweeps=sweeps)
