"""A chain that meets NaN stops alone; and where chains begin."""

import json

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats

import energydsl as ed
from energydsl.run import loop, sampling

FALSE_ALARM = 1e-6
Y, S = ed.real("y"), ed.spin("s")
TRAP = ed.apply(lambda y: jnp.where(y > 3.05, jnp.nan, 0.0), Y)
EBM = ed.compile(ed.Model(0.5 * (Y - 1.0) ** 2, TRAP), budget=0)


class Walk(ed.AbstractKernel):
    """Each step adds 0.1, so that a chain that begins at y meets NaN at a known step."""

    def init(self, ebm, x, *, key, warmup):
        return None

    def step(self, ebm, x, state, *, key):
        return {"y": x["y"] + 0.1}, None, {"twice": 2 * x["y"]}

    def moves(self, ebm):
        return ebm.structure.free

    def reason(self, ebm):
        return ""


def run(begin, **options):
    options = {"key": jr.key(0), "warmup": 0, "draws": 20, "progress": False} | options
    start = {"y": np.asarray(begin, float)}
    return ed.sample(EBM, Walk(), chains=len(begin), start=start, **options)


@pytest.mark.filterwarnings("ignore:sample left out")
@pytest.mark.parametrize("chunk", [1, 3, 1024])
def test_the_others_go_on_and_it_keeps_what_it_had(chunk, monkeypatch):
    """Chains 1 and 3 are lost, in steps 6 and 11, alone or in one chunk."""
    monkeypatch.setattr(sampling, "BUFFER_DRAWS", chunk)
    chains = run([-9.0, 2.5, -8.0, 2.0, -7.0])
    steps = 0.1 * np.arange(1, 21)
    np.testing.assert_allclose(chains.draws["y"], np.add.outer([-9, -8, -7], steps), rtol=1e-4)
    np.testing.assert_allclose(chains.stats["twice"][:, 0], [-18, -16, -14], rtol=1e-5)
    np.testing.assert_allclose(chains.last["y"], [-7, -6, -5], rtol=1e-4)
    assert chains.stopped is None and np.isfinite(chains.stats["energy"]).all()
    first, second = chains.lost
    assert (first.chain, first.step, second.chain, second.step) == (1, 5, 3, 10)
    np.testing.assert_allclose(first.draws["y"], 2.5 + steps[:5], rtol=1e-5)
    np.testing.assert_allclose(second.draws["y"], 2.0 + steps[:10], rtol=1e-5)
    assert [float(lost.last["y"]) for lost in chains.lost] == pytest.approx([3.0, 3.0])
    assert "lost: [1, 3]" in repr(chains)


def test_each_lost_chain_is_told_of():
    with pytest.warns(UserWarning, match="left out a chain: the energy of chain 1 became NaN") as w:
        chains = run([-9.0, 2.5, -8.0])
    assert len(w) == 1 and "in step 6; its 5 draws until then" in str(w[0].message)
    found = {f.name: f for f in ed.diagnose(chains).findings}
    assert found["lost"].level == "error" and "chain 1" in found["lost"].message
    tree = ed.to_arviz(chains)
    assert tree["posterior"]["y"].shape == (2, 20)
    assert json.loads(tree.attrs["energydsl"])["lost"] == [{"chain": 1, "step": 5}]


@pytest.mark.filterwarnings("ignore:sample left out")
def test_thinned_draws_and_warmup():
    """A chain that is lost in warmup has no draws; between two draws, it is found by bisection."""
    chains = run([-9.0, 2.8, 2.5], warmup=4, thin=3, draws=5)
    assert [(lost.chain, lost.step) for lost in chains.lost] == [(1, 2), (2, 5)]
    assert [len(lost.draws["y"]) for lost in chains.lost] == [0, 0]
    assert [float(lost.last["y"]) for lost in chains.lost] == pytest.approx([3.0, 3.0])
    np.testing.assert_allclose(chains.draws["y"], -9 + 0.1 * np.arange(7, 20, 3)[None], rtol=1e-4)
    later = run([-9.0, 2.0], warmup=4, thin=3, draws=5).lost[0]
    assert later.step == 10 and len(later.draws["y"]) == 2


def test_if_all_are_lost_the_run_stops_with_what_all_had():
    with pytest.warns(UserWarning, match="stopped after 10 steps: the energies of all chains") as w:
        chains = run([2.5, 2.0, 2.2])
    assert len(w) == 1 and "that of chain 0 first, in step 6" in chains.stopped
    np.testing.assert_allclose(
        chains.draws["y"], np.add.outer([2.5, 2.0, 2.2], 0.1 * np.arange(1, 6)), rtol=1e-5
    )
    assert chains.stats["energy"].shape == chains.stats["twice"].shape == (3, 5)
    np.testing.assert_allclose(chains.last["y"], [3.0, 3.0, 3.0], rtol=1e-5)
    assert [len(lost.draws["y"]) for lost in chains.lost] == [5, 10, 8]


@pytest.mark.filterwarnings("ignore:sample")
@pytest.mark.parametrize("begin", [[-9.0, 2.5, -8.0], [2.5, 2.0, 2.2]], ids=["one", "all"])
def test_a_resumed_run_knows_which_were_lost(begin, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 0.0)
    run(begin, draws=7, checkpoint=tmp_path)
    resumed, whole = run(begin, checkpoint=tmp_path), run(begin)
    assert resumed.stopped == whole.stopped
    np.testing.assert_array_equal(resumed.draws["y"], whole.draws["y"])
    np.testing.assert_array_equal(resumed.last["y"], whole.last["y"])
    for ours, theirs in zip(resumed.lost, whole.lost, strict=True):
        assert (ours.chain, ours.step) == (theirs.chain, theirs.step)
        np.testing.assert_array_equal(ours.draws["y"], theirs.draws["y"])
        np.testing.assert_array_equal(ours.last["y"], theirs.last["y"])


def test_an_infinite_energy_is_no_nan():
    wall = ed.apply(lambda y: jnp.where(y > -8.5, jnp.inf, 0.0), Y)
    start = {"y": np.array([-9.0])}
    chains = ed.sample(
        ed.compile(ed.Model(0.5 * Y**2, wall), budget=0),
        Walk(),
        key=jr.key(0),
        chains=1,
        warmup=0,
        draws=9,
        start=start,
        progress=False,
    )
    assert not chains.lost and np.isinf(chains.stats["energy"]).any()


PAIR = ed.compile(ed.Model(0.5 * Y**2 - 0.3 * Y * S))
MANY = 4000


def began(start, ebm=PAIR, chains=MANY):
    """Where chains begin, seen by a kernel that moves nothing."""

    class Stays(Walk):
        def step(self, ebm, x, state, *, key):
            return x, None, {}

    options = {"key": jr.key(3), "chains": chains, "warmup": 0, "draws": 1, "progress": False}
    return {n: a[:, 0] for n, a in ed.sample(ebm, Stays(), start=start, **options).draws.items()}


def test_chains_begin_at_draws_of_distributions():
    """Those of one variable; the other begins at random, as without a start."""
    drawn = began({"y": dist.Normal(40.0, 2.0)})
    assert scipy.stats.kstest(drawn["y"], scipy.stats.norm(40, 2).cdf).pvalue > FALSE_ALARM
    assert scipy.stats.binomtest(int((drawn["s"] == 1).sum()), MANY).pvalue > FALSE_ALARM
    u = ed.positive("u", (2, 3))
    ebm = ed.compile(ed.Model(u.sum()))
    rates = np.array([1.0, 5.0, 20.0])
    for law in (dist.Exponential(rates), {"u": dist.Exponential(rates).expand((2, 3))}):
        found = began(law, ebm)["u"]
        assert found.shape == (MANY, 2, 3)
        for k, rate in enumerate(rates):
            exact = scipy.stats.expon(scale=1 / rate).cdf
            assert scipy.stats.kstest(found[:, 1, k], exact).pvalue > FALSE_ALARM


def test_chains_begin_at_exact_draws_of_another_model():
    other = ed.compile(ed.Model(0.5 * (Y - 3.0 * S) ** 2 - 0.8 * S))
    drawn = began(other)
    up = np.exp(0.8) / (2 * np.cosh(0.8))
    assert scipy.stats.binomtest(int((drawn["s"] == 1).sum()), MANY, up).pvalue > FALSE_ALARM
    assert scipy.stats.kstest(drawn["y"] - 3 * drawn["s"], "norm").pvalue > FALSE_ALARM
    assert began(ed.compile(ed.Model(0.5 * (Y - 9.0) ** 2)))["y"].min() > 3


def test_chains_begin_at_a_mode_and_evidence_stands():
    s = ed.spin("s", 4)
    model = ed.Model(-(s[1:] * s[:-1]).sum() - 0.1 * s.sum())
    assert (began(ed.map_configuration(ed.compile(model)), ed.compile(model), 3)["s"] == 1).all()
    held = ed.compile(model.condition({s[2]: -1}))
    found = began(ed.map_configuration(ed.compile(model)), held, 3)["s"]
    assert (found == [1, 1, -1, 1]).all()


@pytest.mark.parametrize(
    ("start", "error", "words"),
    [
        ("mode", TypeError, "start='mode'; expected a dict of arrays or of NumPyro distrib"),
        (dist.Normal(0, 1), ValueError, r"one distribution .*\['y', 's'\]; give one for each"),
        ({"y": dist.Normal(0, 1), "s": np.ones(())}, TypeError, "arrays and of distributions"),
        ({"z": dist.Normal(0, 1)}, ValueError, r"draws \['z'\]; the free variables are"),
        ({"s": dist.Poisson(9.0)}, ValueError, "'s' has a value outside spin"),
        ({"y": dist.Normal(jnp.zeros(3), 1.0)}, ValueError, "shape"),
        (ed.compile(ed.Model(0.5 * (ed.real("z") ** 2))), ValueError, r"draws \['z'\]"),
        (ed.compile(ed.Model(0.1 * Y**4 + Y**2 + ed.real("z") ** 4)), ValueError, "no rule gives"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(start, error, words):
    with pytest.raises(error, match=words):
        began(start, chains=2)
