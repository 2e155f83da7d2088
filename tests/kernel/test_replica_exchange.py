"""Replica exchange: the law at each rung, the adaptation of the ladder, the round trips."""

import re
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats
from scipy.integrate import cumulative_trapezoid

import energydsl as ed
from energydsl.kernel.replica_exchange import (
    Replicas,
    _adapted,
    _origins,
    _travelled,
    equalised,
    swap_rates,
)
from energydsl.kernel.tempering import MappedRungs, SweptRungs
from energydsl.run import sampling
from tests.oracles.enumerate import chisquare_pvalue, count_states, exact_draws, exact_law
from tests.sweep.cases import CASES, pack, unpack

SLOW = pytest.mark.slow
FALSE_ALARM = 1e-6  # chance that a correct kernel fails one of these tests
CHAINS = 40_000
LADDER = (1.0, 1.6, 3.5)


class Still(ed.AbstractKernel):
    """It moves nothing, so that only the exchanges move configurations."""

    def init(self, ebm, x, *, key, warmup):
        return None

    def step(self, ebm, x, state, *, key):
        return x, None, {}

    def moves(self, ebm):
        return ebm.structure.free

    def reason(self, ebm):
        return ""


def stepped(ebm, kernel, rungs, steps=2, seed=0):
    """Configurations at all rungs, (rung, chain), a few steps after those given."""
    ensemble = kernel.ensemble(ebm)
    xs = {n: jnp.stack([r[n] for r in rungs]) for n in rungs[0]}

    @eqx.filter_jit
    def run(ebm, ensemble, xs, key):
        carry = ensemble.start(ebm, {n: a[0] for n, a in xs.items()}, key=key, warmup=0)
        carry = ensemble.refresh(ebm, eqx.tree_at(lambda c: c.xs, carry, xs))
        tables = ensemble.load(ebm)
        for k in range(steps):
            carry, info = ensemble.advance(ebm, tables, carry, key=jr.fold_in(key, k))
        return carry, info

    return run(ebm, ensemble, xs, jr.key(seed))


def discrete_case(name):
    case = next(c for c in CASES if c.name == name)
    laws = [exact_law(lambda s, t=t: case.energy(s) / t, case.levels) for t in LADDER]
    draws = [exact_draws(law.states, law.probs, CHAINS, seed=k) for k, law in enumerate(laws)]
    return case, laws, draws


@pytest.mark.parametrize(
    ("name", "kernel", "rungs"),
    [
        ("irregular graph", ed.Gibbs(), SweptRungs),
        pytest.param("irregular graph", ed.MetropolisHastings(), MappedRungs, marks=SLOW),
        pytest.param(
            "Potts chain",
            ed.Cycle(ed.MetropolisHastings(), ed.Gibbs()),
            MappedRungs,
            marks=SLOW,
        ),
        ("integer chain", Still(), MappedRungs),
    ],
    ids=lambda part: str(part)[:20],
)
def test_each_rung_keeps_its_law_on_discrete_sites(name, kernel, rungs):
    """A table with a forbidden entry is among them. The rungs are independent of each other."""
    case, laws, draws = discrete_case(name)
    ebm, outer = ed.compile(case.model), ed.ReplicaExchange(kernel, LADDER)
    assert isinstance(outer.ensemble(ebm).rungs, rungs)
    carry, info = stepped(ebm, outer, [pack(case.model, d) for d in draws])
    after = [unpack(case.model, {n: a[k] for n, a in carry.xs.items()}) for k in range(3)]
    for law, states, energies in zip(laws, after, carry.energies, strict=True):
        assert chisquare_pvalue(count_states(states, law.states), law.probs, CHAINS) > FALSE_ALARM
        np.testing.assert_allclose(energies, case.energy(states), rtol=1e-4, atol=1e-4)
    assert all((a != b).any(axis=1).mean() > 0.1 for a, b in zip(after, draws, strict=True))
    assert 0.05 < np.mean(info["swap_rate"]) < 1
    lowest = [(case.energy(a) < np.median(case.energy(a))).astype(int) for a in after]
    table = scipy.stats.contingency.crosstab(*lowest[:2]).count
    assert scipy.stats.chi2_contingency(table).pvalue > FALSE_ALARM


def tempered_cdf(energy, temperature, low, high):
    grid = np.linspace(low, high, 20_001)
    weights = np.exp(-(energy(grid) - energy(grid).min()) / temperature)
    mass = cumulative_trapezoid(weights, grid, initial=0.0)
    return grid, mass / mass[-1]


def continuous_cases():
    """Kernel, model, energy in NumPy, the ends of the support, and the name of the variable."""
    y, t = ed.real("y"), ed.positive("t")

    def well(y):
        return 1.5 * (y**2 - 1) ** 2 + 0.7 * y

    def gamma(t):  # on a positive site the coordinates' Jacobian is not tempered
        return 2.0 * t - 1.5 * np.log(t)

    wells, positive = ed.Model(well(y)), ed.Model(2.0 * t - 1.5 * ed.log(t))
    normal = ed.Model(0.5 * (y - 1.5) ** 2 * 0.8)
    yield "Langevin", ed.Langevin(step_size=0.05), wells, well, (-4.0, 4.0), "y"
    yield "NUTS", ed.NUTS(step_size=0.3, max_tree_depth=3), wells, well, (-4.0, 4.0), "y"
    yield "positive", ed.Langevin(step_size=0.2), positive, gamma, (1e-9, 40.0), "t"
    yield "walk", ed.MetropolisHastings(), positive, gamma, (1e-9, 40.0), "t"
    yield "Gibbs", ed.Gibbs(), normal, lambda y: 0.4 * (y - 1.5) ** 2, (-14.0, 17.0), "y"


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(c, id=c[0], marks=[pytest.mark.slow] * (c[0] in ("NUTS", "walk")))
        for c in continuous_cases()
    ],
)
def test_each_rung_keeps_its_law_on_continuous_sites(case):
    _, kernel, model, energy, ends, name = case
    rng = np.random.default_rng(0)
    cdfs = [tempered_cdf(energy, t, *ends) for t in LADDER]
    draws = [np.interp(rng.random(CHAINS), mass, grid) for grid, mass in cdfs]
    rungs = [{name: jnp.asarray(d, float)} for d in draws]
    carry, _ = stepped(ed.compile(model), ed.ReplicaExchange(kernel, LADDER), rungs)
    for (grid, mass), before, after, energies in zip(
        cdfs, draws, np.asarray(carry.xs[name]), carry.energies, strict=True
    ):
        law = scipy.stats.kstest(after, lambda v, g=grid, m=mass: np.interp(v, g, m))
        assert law.pvalue > FALSE_ALARM
        np.testing.assert_allclose(energies, energy(after), rtol=1e-3, atol=1e-3)
        assert np.mean(after != before) > 0.2


@pytest.mark.parametrize("temperatures", [(1.0, 1.3), (1.0, 9.0)])
def test_exchanges_alone_have_the_rate_of_metropolis(temperatures):
    """The mean rate is a double sum over the states of both rungs."""
    case = next(c for c in CASES if c.name == "path of 5" or c.name == "Potts chain")
    laws = [exact_law(lambda s, t=t: case.energy(s) / t, case.levels) for t in temperatures]
    draws = [exact_draws(law.states, law.probs, CHAINS, seed=k) for k, law in enumerate(laws)]
    energies = case.energy(laws[0].states)
    ratio = (1 - 1 / temperatures[1]) * (energies[:, None] - energies[None])
    rates = np.exp(np.minimum(ratio, 0.0))
    exact = laws[0].probs @ rates @ laws[1].probs
    deviation = np.sqrt(laws[0].probs @ rates**2 @ laws[1].probs - exact**2) / np.sqrt(CHAINS)
    outer = ed.ReplicaExchange(Still(), temperatures)
    carry, info = stepped(
        ed.compile(case.model), outer, [pack(case.model, d) for d in draws], steps=1
    )
    assert abs(np.mean(info["swap_rate"]) - exact) < 4.9 * deviation
    after = unpack(case.model, {n: a[0] for n, a in carry.xs.items()})
    swapped = (after == draws[1]).all(axis=1)
    stayed = (after == draws[0]).all(axis=1)
    assert (swapped | stayed).all()
    clear = ~(draws[0] == draws[1]).all(axis=1)
    # Where both configurations are equal, an exchange is not seen; its rate there is 1.
    same = (laws[0].probs * laws[1].probs).sum()
    seen, chance = (swapped & clear).mean(), exact - same
    assert abs(seen - chance) < 4.9 * np.sqrt(chance * (1 - chance) / CHAINS)


def test_rates_at_energies_that_are_not_finite():
    betas = jnp.asarray([1.0, 0.5])
    inf, nan = np.inf, np.nan
    energies = jnp.asarray([[inf, 0.0, inf, nan, 2.0], [1.0, inf, inf, 1.0, 0.0]])
    expected = [[1.0, 0.0, 0.0, 0.0, 1.0]]
    np.testing.assert_array_equal(swap_rates(betas, energies), expected)


def test_even_and_odd_pairs_take_turns():
    certain = jnp.ones((4, 2))
    origins = [_origins(certain, p, key=jr.key(0))[:, 0].tolist() for p in (0, 1)]
    assert origins == [[1, 0, 3, 2, 4], [0, 2, 1, 4, 3]]
    assert _origins(0 * certain, 0, key=jr.key(0)).T.tolist() == [[0, 1, 2, 3, 4]] * 2


def test_round_trips_are_counted_from_cold_to_hot_to_cold():
    """Beside replicas that are followed by name, over exchanges at random."""
    rng, rungs, steps = np.random.default_rng(0), 4, 400
    names, seen, trips = np.arange(rungs), {}, 0
    marks, counted = jnp.zeros((rungs, 1), jnp.int8), jnp.zeros(1, int)
    for t in range(steps):
        for pair in range(t % 2, rungs - 1, 2):
            if rng.random() < 0.7:
                order = np.arange(rungs)
                order[[pair, pair + 1]] = pair + 1, pair
                names, marks = names[order], marks[order]
        marks, counted = _travelled(marks, counted)
        if seen.get(names[0]) == "hot":
            trips += 1
        seen[names[0]] = "cold"
        if seen.get(names[-1]) == "cold":
            seen[names[-1]] = "hot"
    assert trips == int(counted[0]) > 10


def test_round_trips_of_a_run_are_those_after_warmup():
    """With equal energies every exchange is accepted: a round trip of R replicas takes 2R steps."""
    s = ed.spin("s", 3)
    ebm = ed.compile(ed.Model(0.0 * (s[1:] * s[:-1]).sum()))
    kernel = ed.ReplicaExchange(ed.Gibbs(), (1.0, 2.0, 3.0, 4.0))
    options = {"key": jr.key(0), "chains": 2, "progress": False}
    trips = ed.sample(ebm, kernel, warmup=20, draws=40, **options).stats["round_trips"]
    # Replicas leave the cold end every second step, and the first is back after eight.
    assert (np.diff(trips, axis=1) >= 0).all() and (trips[:, :7] == 0).all()
    assert (abs(trips[:, -1] - (40 - 8) / 2) <= 1).all()


def test_the_ladder_spreads_rejections_evenly():
    betas = jnp.asarray([1.0, 0.9, 0.5, 0.1])
    np.testing.assert_allclose(equalised(betas, jnp.full(3, 0.3)), betas, rtol=1e-6)
    # All rejections lie between the last two: the other rungs move there, at even steps.
    found = equalised(betas, jnp.asarray([0.0, 0.0, 0.9]))
    np.testing.assert_allclose(found, [1.0, 0.5 - 0.4 * 0.332, 0.5 - 0.4 * 0.666, 0.1], atol=2e-3)


@pytest.mark.parametrize(
    ("steps", "warmup", "due"),
    [(16, 100, True), (8, 100, False), (17, 100, False), (64, 80, False)],
)
def test_each_round_of_adaptation_begins_anew(steps, warmup, due):
    """Rounds end after 16, 32, 64 steps, within three quarters of warmup."""
    betas, rejected = jnp.asarray([1.0, 0.9, 0.1]), jnp.asarray([0.0, 4.0])
    rest = dict.fromkeys(("state", "xs", "energies", "marks", "trips"))
    carry = Replicas(
        **rest, betas=betas, rejected=rejected, counted=jnp.asarray(8), steps=jnp.asarray(steps),
        warmup=jnp.asarray(warmup),
    )  # fmt: skip
    new = _adapted(carry)
    expected = equalised(betas, rejected / 8) if due else betas
    np.testing.assert_allclose(new.betas, expected)
    np.testing.assert_array_equal(new.rejected, 0 * rejected if due else rejected)
    assert int(new.counted) == (0 if due else 8)


@pytest.fixture(scope="module")
def glass():
    """A spin glass on a ladder of 3 x 7 sites, with a field."""
    rng = np.random.default_rng(5)
    s = ed.spin("s", (3, 7))
    down, across = rng.normal(size=(2, 7)), rng.normal(size=(3, 6))
    energy = (down * s[1:] * s[:-1]).sum() + (across * s[:, 1:] * s[:, :-1]).sum()
    return ed.compile(ed.Model(3.0 * energy + 0.2 * s.sum()))


def test_the_ladder_adapts_in_warmup_and_then_stays(glass):
    kernel = ed.ReplicaExchange(ed.Gibbs(), replicas=5, hottest=30.0)
    run = ed.sample(glass, kernel, key=jr.key(1), chains=16, warmup=400, draws=600, progress=False)
    ladder = run.stats["ladder"]
    assert (ladder == ladder[:1, :1]).all()
    assert ladder[0, 0, 0] == 1 and ladder[0, 0, -1] == pytest.approx(30.0)
    assert (np.diff(ladder[0, 0]) > 0).all()
    assert abs(ladder[0, 0] / np.array(kernel.temperatures) - 1).max() > 0.2
    adapted = run.stats["swap_rate"].mean((0, 1))
    fixed = ed.ReplicaExchange(ed.Gibbs(), kernel.temperatures)
    geometric = ed.sample(
        glass, fixed, key=jr.key(1), chains=16, warmup=100, draws=300, progress=False
    ).stats["swap_rate"].mean((0, 1))  # fmt: skip
    assert np.ptp(adapted) < 0.5 * np.ptp(geometric)


def test_modes_far_apart_are_visited_by_their_weights():
    """Two wells at a barrier of 12 k_B T, unequally deep: the exact share of the deeper one."""
    y = ed.real("y")
    ebm = ed.compile(ed.Model(12.0 * (y**2 - 1) ** 2 + 0.5 * y))
    kernel = ed.ReplicaExchange(ed.Langevin(step_size=0.01), replicas=6, hottest=20.0)
    run = ed.sample(
        ebm, kernel, key=jr.key(2), chains=64, warmup=500, draws=2000, progress=False,
        keep={"left": lambda x: x["y"] < 0},
    )  # fmt: skip
    grid, mass = tempered_cdf(lambda v: 12.0 * (v**2 - 1) ** 2 + 0.5 * v, 1.0, -3.0, 3.0)
    shares = run.draws["left"].mean(axis=1)
    error = shares.std(ddof=1) / np.sqrt(len(shares))
    assert abs(shares.mean() - np.interp(0.0, grid, mass)) < 5.5 * error < 0.1
    assert run.stats["round_trips"][:, -1].min() > 10


def run_on(ebm, kernel, **options):
    options = {
        "key": jr.key(0),
        "chains": 2,
        "warmup": 20,
        "draws": 12,
        "progress": False,
    } | options
    return ed.sample(ebm, kernel, **options)


@pytest.mark.parametrize(
    "inner", [ed.Gibbs(), pytest.param(ed.MetropolisHastings(), marks=SLOW)], ids=str
)
def test_runs_resume_bit_for_bit_in_any_chunks(glass, inner, tmp_path, monkeypatch):
    kernel = ed.ReplicaExchange(inner, replicas=3, hottest=4.0)
    whole = run_on(glass, kernel)
    run_on(glass, kernel, draws=5, checkpoint=tmp_path)
    monkeypatch.setattr(sampling, "BUFFER_DRAWS", 3)
    again = run_on(glass, kernel, checkpoint=tmp_path)
    for a, b in ((whole.draws, again.draws), (whole.stats, again.stats)):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
    x = {"s": whole.draws["s"][1, -1]}
    assert float(glass.energy(x)) == pytest.approx(float(whole.stats["energy"][1, -1]), rel=1e-5)


@pytest.mark.slow
def test_in_a_cycle_the_other_kernel_moves_the_cold_replica_alone():
    case, laws, draws = discrete_case("irregular graph")
    ebm = ed.compile(case.model)
    cycle = ed.Cycle(ed.ReplicaExchange(ed.Gibbs(), LADDER), ed.MetropolisHastings())
    rungs = [pack(case.model, d) for d in draws]
    xs = {n: jnp.stack([r[n] for r in rungs]) for n in rungs[0]}

    @eqx.filter_jit
    def run(ebm, ensemble, xs, key):
        carry = ensemble.start(ebm, rungs[0], key=key, warmup=0)
        carry = eqx.tree_at(lambda c: c[0].xs, carry, xs)
        for k in range(2):
            tables = ensemble.load(ebm)
            carry, _ = ensemble.advance(ebm, tables, carry, key=jr.fold_in(key, k))
        return ensemble.configurations(ebm, carry), carry[0].xs

    last, replicas = run(ebm, cycle.ensemble(ebm), xs, jr.key(4))
    hot = [{n: a[k] for n, a in replicas.items()} for k in (1, 2)]
    for law, found in zip(laws, [last, *hot], strict=True):
        counts = count_states(unpack(case.model, found), law.states)
        assert chisquare_pvalue(counts, law.probs, CHAINS) > FALSE_ALARM


@pytest.mark.slow
def test_one_chain_alone_moves_as_the_ensemble_of_one():
    """`step` continues from the given configuration; the other replicas live in the state."""
    case, _, draws = discrete_case("integer chain")
    ebm, kernel = ed.compile(case.model), ed.ReplicaExchange(ed.Gibbs(), LADDER)
    xs = {n: a[:1] for n, a in pack(case.model, draws[0]).items()}
    x = {n: a[0] for n, a in xs.items()}

    @jax.jit
    def alone(x, key):
        state = kernel.init(ebm, x, key=key, warmup=3)
        for k in range(4):
            x, state, info = kernel.step(ebm, x, state, key=jr.fold_in(key, k))
        return x, state, info

    ensemble = kernel.ensemble(ebm)
    carry = ensemble.start(ebm, xs, key=jr.key(3), warmup=3)
    for k in range(4):
        tables = ensemble.load(ebm)
        carry, told = ensemble.advance(ebm, tables, carry, key=jr.fold_in(jr.key(3), k))
    last, state, info = alone(x, jr.key(3))
    np.testing.assert_array_equal(last["n"], ensemble.configurations(ebm, carry)["n"][0])
    np.testing.assert_array_equal(state.xs["n"], carry.xs["n"])
    np.testing.assert_allclose(info["swap_rate"], told["swap_rate"][0], rtol=1e-6)


def test_clamped_sites_stay_at_every_rung():
    s = ed.spin("s", 5)
    model = ed.Model(-0.4 * (s[1:] * s[:-1]).sum()).condition({s[1]: 1, s[3]: -1})
    run = run_on(ed.compile(model), ed.ReplicaExchange(ed.Gibbs(), LADDER))
    assert (run.draws["s"][..., [1, 3]] == [1, -1]).all()
    assert all(len(np.unique(run.draws["s"][..., k])) == 2 for k in (0, 2, 4))


def test_new_parameters_reach_every_rung():
    s, coupling = ed.spin("s", 4), ed.parameter("J", 0.5)
    ebm = ed.compile(ed.Model(-coupling * (s[1:] * s[:-1]).sum()))
    ensemble = ed.ReplicaExchange(ed.Gibbs(), LADDER).ensemble(ebm)
    carry = ensemble.start(ebm, {"s": jnp.ones((2, 4), jnp.int8)}, key=jr.key(1), warmup=0)
    np.testing.assert_allclose(carry.energies, np.full((3, 2), -1.5))
    stronger = ensemble.refresh(ebm.replace(J=2.0), carry)
    np.testing.assert_allclose(stronger.energies, np.full((3, 2), -6.0))
    placed = ensemble.place(ebm, carry, {"s": jnp.asarray([[1, -1, 1, 1]] * 2, jnp.int8)})
    np.testing.assert_allclose(placed.energies, [[0.5, 0.5], [-1.5, -1.5], [-1.5, -1.5]])


@pytest.mark.parametrize(
    ("line", "error", "words"),
    [
        ("RE(Gibbs, (1.0,))", ValueError, r"temperatures=\(1.0,\); expected at least two"),
        ("RE(Gibbs, 2.0)", ValueError, "temperatures=2.0; expected at least two"),
        ("RE(Gibbs, (1.5, 2.0))", ValueError, "increasing ones, of which the first is 1"),
        ("RE(Gibbs, (1.0, 2.0, 2.0))", ValueError, "expected increasing ones"),
        ("RE(Gibbs, (1.0, np.inf))", ValueError, "a temperature=inf; expected a finite number"),
        ("RE(Gibbs, (1.0, 'hot'))", ValueError, "expected a finite number above 0"),
        ("RE(Gibbs)", ValueError, "got no temperatures. Give either all.*hottest=5.0"),
        ("RE(Gibbs, (1.0, 2.0), hottest=3.0)", ValueError, "replicas or hottest, too"),
        ("RE(Gibbs, (1.0, 2.0), replicas=3)", ValueError, "replicas or hottest, too"),
        ("RE(Gibbs, replicas=1, hottest=3.0)", ValueError, "replicas=1; .*nothing to exchange"),
        ("RE(Gibbs, replicas=2.5, hottest=3.0)", ValueError, "replicas=2.5; expected a whole"),
        ("RE(Gibbs, hottest=0.5)", ValueError, "hottest=0.5; expected above 1"),
        ("RE(Gibbs, hottest=-1)", ValueError, "hottest=-1; expected a finite number above 0"),
        ("RE(ed.Gibbs, (1.0, 2.0))", TypeError, r"Gibbs \(the class.*expected a kernel"),
        ("RE(ed.ExactDraws(), (1.0, 2.0))", ValueError, "draws are independent"),
        ("ed.ParallelTempering", AttributeError, "write ed.ReplicaExchange"),
        ("ed.anneal", AttributeError, "write ed.lowest_seen"),
        ("RE(kernels=Gibbs)", TypeError, "ReplicaExchange: .*'kernel'"),
        ("sample(cauchy, RE(ed.Langevin(), (1.0, 5.0)))", ValueError, "temperature 5, .*no finite"),
        ("sample(cauchy, RE(Gibbs, (1.0, 1.5)))", ValueError, "leaves out 1 free sites"),
    ],
)
def test_mistakes_are_answered(line, error, words):
    y = ed.real("y")
    names = {
        "RE": ed.ReplicaExchange, "Gibbs": ed.Gibbs(), "ed": ed, "np": np,
        "cauchy": ed.compile(ed.Model(2.0 * ed.log(1 + y**2))) if "cauchy" in line else None,
        "sample": lambda *a: ed.sample(*a, key=jr.key(0), progress=False),
    }  # fmt: skip
    with pytest.raises(error, match=words):
        eval(line, names)


def test_a_replica_that_is_lost_is_noticed():
    """Only the hottest one reaches the region of NaN; the chain's energy says so."""
    y = ed.real("y")
    trap = ed.apply(lambda y: jnp.where(abs(y) > 9.0, jnp.nan, 0.0), y)
    ebm = ed.compile(ed.Model(0.5 * y**2, trap))
    kernel = ed.ReplicaExchange(ed.Langevin(step_size=0.3, adjusted=False), (1.0, 60.0))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        run = run_on(ebm, kernel, draws=400)
    assert run.stopped and any(re.search("became NaN", str(w.message)) for w in said)
    assert np.isfinite(run.draws["y"]).all()
