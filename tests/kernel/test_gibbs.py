"""Gibbs: user blocks, and what it says of sites that it cannot draw."""

import jax
import numpy as np
import pytest

import energydsl as ed
from tests.oracles.enumerate import chisquare_pvalue, count_states, exact_draws, exact_law
from tests.sweep.cases import CASES, pack, unpack

FALSE_ALARM = 1e-6  # chance that a correct kernel fails
KEY = jax.random.key(0)


def chain(n=4):
    s = ed.spin("s", n)
    return s, ed.Model(-0.5 * (s[1:] * s[:-1]).sum())


def run(ebm, kernel, **options):
    options = {"key": KEY, "chains": 2, "warmup": 1, "draws": 3, "progress": False} | options
    return ed.sample(ebm, kernel, **options)


def test_blocks_of_the_user_leave_the_law_invariant():
    case = next(c for c in CASES if c.name == "open lattice")
    (s,) = (ed.variable(v.name, v.domain, v.shape) for v in case.model.variables)
    blocks = [s[0, ::2], (s[0, 1], s[1, ::2]), s[1, 1]]
    kernel, ebm = ed.Gibbs(blocks), ed.compile(case.model)
    law, n = exact_law(case.energy, case.levels), 50_000
    before = pack(case.model, exact_draws(law.states, law.probs, n, seed=3))
    keys = jax.random.split(KEY, n)
    after = jax.jit(jax.vmap(lambda x, k: kernel.step(ebm, x, None, key=k)[0]))(before, keys)
    counts = count_states(unpack(case.model, after), law.states)
    assert chisquare_pvalue(counts, law.probs, n) > FALSE_ALARM


def test_one_step_of_one_chain_is_the_sweep_of_many():
    _, model = chain()
    ebm, kernel = ed.compile(model), ed.Gibbs()
    x = ebm.start(key=KEY)
    one, state, info = kernel.step(ebm, x, kernel.init(ebm, x, key=KEY, warmup=0), key=KEY)
    ensemble = kernel.ensemble(ebm)
    batch = {"s": x["s"][None]}
    carry, _ = ensemble.advance(
        ebm, ensemble.load(ebm), ensemble.start(ebm, batch, key=KEY, warmup=0), key=KEY
    )
    assert np.array_equal(one["s"], ensemble.configurations(ebm, carry)["s"][0])
    assert state is None and info == {}


def test_coupled_sites_in_one_block_are_named():
    s, model = chain()
    with pytest.raises(ValueError, match=r"Block 1 contains s\[1\] and s\[2\], which interact"):
        run(ed.compile(model), ed.Gibbs([s[0], s[1:3], s[3]]))


def test_a_site_left_out_is_named():
    s, model = chain()
    with pytest.raises(ValueError, match=r"leave out 2 free sites of .*, s\[1\] first"):
        run(ed.compile(model), ed.Gibbs([s[::2]]))


def test_a_site_in_two_blocks_is_named():
    s, model = chain()
    with pytest.raises(ValueError, match=r"s\[2\] is in two blocks"):
        run(ed.compile(model), ed.Gibbs([s[::2], s[1::2], s[2]]))


def test_a_block_of_another_model():
    _, model = chain()
    other = ed.spin("t", 4)
    with pytest.raises(ValueError, match=r"Block 0 contains t.*not in the model"):
        run(ed.compile(model), ed.Gibbs([other]))


def test_a_block_that_is_no_view():
    s, model = chain()
    with pytest.raises(TypeError, match="Expected a variable or a view"):
        run(ed.compile(model), ed.Gibbs([2 * s]))


def test_a_factor_over_everything_takes_one_site_a_block(monkeypatch):
    monkeypatch.setattr("energydsl.analysis.structure.MAX_PAIRS", 2)
    x = ed.binary("x", 4)
    ebm = ed.compile(ed.Model(ed.apply(lambda x: x.prod(), x)))
    assert ebm.structure.crowded
    with pytest.raises(ValueError, match="each block must be a single site"):
        run(ebm, ed.Gibbs([x[:2], x[2:]]))
    run(ebm, ed.Gibbs())


def test_clamped_sites_need_no_block():
    s, model = chain()
    ebm = ed.compile(model.condition({s[0]: 1}))
    chains = run(ebm, ed.Gibbs([s[1::2], s[2]]))
    assert (chains.draws["s"][..., 0] == 1).all()


@pytest.mark.parametrize(
    "energy, reason",
    [
        (lambda: (ed.real("y", 2) ** 4).sum(), "'y'.*not shown to be quadratic"),
        (lambda: (ed.positive("y", 2) ** 3).sum(), "'y'.*not shown to be linear"),
        (lambda: -ed.log(ed.simplex("y", 3)).sum(), "'y'.*simplex site"),
    ],
)
def test_real_sites_without_a_gaussian_conditional_are_refused(energy, reason):
    ebm = ed.compile(ed.Model(energy()))
    assert ebm.sweep is None
    with pytest.raises(ValueError, match=rf"leaves out . free sites, y.*{reason}"):
        run(ebm, ed.Gibbs())


def test_a_mixed_model_is_refused_for_the_sites_that_gibbs_cannot_draw():
    y, s = ed.real("y", 2), ed.spin("s", 2)
    ebm = ed.compile(ed.Model((y**4).sum() + (s * y).sum()))
    assert ebm.sweep.drawn == ("s",)
    with pytest.raises(ValueError, match=r"leaves out 2 free sites, y\[0\] first"):
        run(ebm, ed.Gibbs())
    with pytest.raises(ValueError, match="no block contains them"):
        run(ebm, ed.Gibbs([s]))
    with pytest.raises(TypeError, match=r"'y'.*leave it out of the blocks"):
        run(ebm, ed.Gibbs([s, y]))
