"""Swendsen-Wang and Wolff: the clusters, the laws they leave as they are, and what they refuse."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.sparse as sp
import scipy.stats

import energydsl as ed
from energydsl.kernel.choose import cheapest, choose
from energydsl.kernel.clusters import clusters
from tests.kernel.attractive import CASES
from tests.kernel.test_invariance import moved, moved_alone
from tests.oracles.enumerate import chisquare_pvalue, count_states, exact_draws, exact_law
from tests.sweep.cases import pack, unpack

FALSE_ALARM = 1e-6  # chance that a correct kernel fails one of these tests
DRAWS = 40_000
KERNELS = [ed.SwendsenWang(), ed.Wolff()]
KEY = jr.key(0)

S, C = ed.spin("s", 3), ed.categorical("c", (3,), levels=3)
TRIANGLE = S[0] * S[1] + S[1] * S[2] + S[0] * S[2]
EQUAL = (C[0] == C[1]) + (C[1] == C[2])


def left_as_it_is(model, kernel, energy, levels, mover=moved, steps=2, seed=0):
    """The p-value of draws that took some steps from exact ones, and the share that moved."""
    law = exact_law(energy, levels)
    before = exact_draws(law.states, law.probs, DRAWS, seed=1)
    after = mover(ed.compile(model), kernel, pack(model, before), steps=steps, seed=seed)
    after = unpack(model, after)
    pvalue = chisquare_pvalue(count_states(after, law.states), law.probs, DRAWS)
    return pvalue, np.mean(after != before, axis=0)


def laws():
    """Each kernel on each model; where bonds matter and not what is done with them, once."""
    for kernel, case in itertools.product(KERNELS, CASES):
        seldom = kernel == ed.Wolff() and case.name in ("pulled", "opposed", "mixture")
        name = f"{kernel.name}-{case.name}"
        yield pytest.param(kernel, case, id=name, marks=[pytest.mark.slow] * seldom)


@pytest.mark.parametrize(("kernel", "case"), list(laws()))
def test_a_step_leaves_the_law_as_it_is(kernel, case):
    pvalue, share = left_as_it_is(case.model, kernel, case.energy, case.levels)
    assert pvalue > FALSE_ALARM
    free = np.array([len(values) > 1 for values in case.levels])
    assert (share[free] > 0.02).all() and (share[~free] == 0).all()


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_a_step_of_one_chain_is_the_step_of_many(kernel):
    ebm = ed.compile(CASES[3].model)
    xs = jax.vmap(lambda k: ebm.start(key=k))(jr.split(KEY, 3))

    @eqx.filter_jit
    def both(ebm, ensemble, xs, key):
        together = ensemble.advance(ebm, ensemble.load(ebm), xs, key=key)
        one = {n: a[1] for n, a in xs.items()}
        alone, _, info = kernel.step(ebm, one, None, key=jr.split(key, 3)[1])
        return together, (alone, info)

    together, alone = both(ebm, kernel.ensemble(ebm), xs, jr.key(1))
    picked = jax.tree.map(lambda a: a[1], together)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, picked, alone)))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_a_chain_alone_leaves_the_law_as_it_is(kernel, case):
    pvalue, _ = left_as_it_is(case.model, kernel, case.energy, case.levels, mover=moved_alone)
    assert pvalue > FALSE_ALARM


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_values_that_become_frustrated_in_compiled_code_are_drawn_right(kernel):
    """Learning changes values where they cannot be examined."""
    model = ed.Model(ed.parameter("J", 1.0) * TRIANGLE - 0.4 * S[0])

    def energy(x):
        return x[:, 0] * x[:, 1] + x[:, 1] * x[:, 2] + x[:, 0] * x[:, 2] - 0.4 * x[:, 0]

    assert left_as_it_is(model, kernel, energy, [(-1, 1)] * 3)[0] > FALSE_ALARM


def chained(kernel):
    """A step by clusters and one of the reals, whose fields depend on each other's sites."""
    s, y = ed.spin("s", 3), ed.real("y", 2)
    means = np.array([0.7, -1.1])
    model = ed.Model(
        -0.5 * s[0] * s[1] - 0.9 * s[1] * s[2] + ((y - means * s[1:]) ** 2).sum() / 2 + 0.2 * s[0]
    )
    law = exact_law(
        lambda x: -0.5 * x[:, 0] * x[:, 1] - 0.9 * x[:, 1] * x[:, 2] + 0.2 * x[:, 0], [(-1, 1)] * 3
    )
    spins = exact_draws(law.states, law.probs, DRAWS, seed=2)
    reals = means * spins[:, 1:] + np.random.default_rng(3).normal(size=(DRAWS, 2))
    xs = {"s": jnp.asarray(spins, jnp.int8), "y": jnp.asarray(reals, float)}
    return moved(ed.compile(model), ed.Cycle(kernel, ed.Gibbs([y])), xs, steps=2), law, means, xs


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_sites_that_another_kernel_moves_act_as_fields(kernel):
    after, law, means, before = chained(kernel)
    spins = np.asarray(after["s"]).astype(int)
    assert chisquare_pvalue(count_states(spins, law.states), law.probs, DRAWS) > FALSE_ALARM
    residuals = np.asarray(after["y"]) - means * spins[:, 1:]
    for residual in residuals.T:
        assert scipy.stats.kstest(residual, "norm").pvalue > FALSE_ALARM
    assert (spins != np.asarray(before["s"])).mean() > 0.1


def graphs():
    """Paths in several orders, a star, a complete graph, random ones, and one without edges."""
    rng = np.random.default_rng(5)
    line = np.stack([np.arange(99), np.arange(1, 100)], 1)
    yield "path", 100, line
    yield "path in random order", 100, rng.permutation(100)[line]
    yield "zigzag", 100, np.argsort(np.r_[0:100:2, 99:0:-2])[line]
    yield "star", 50, np.stack([np.arange(49), np.full(49, 49)], 1)
    yield "complete", 20, np.stack(np.triu_indices(20, 1), 1)
    yield "random", 200, rng.integers(0, 200, (150, 2))
    yield "none", 3, np.zeros((0, 2), int)


@pytest.mark.parametrize(("sites", "ends"), [pytest.param(*g[1:], id=g[0]) for g in graphs()])
def test_clusters_are_connected_components(sites, ends):
    rng = np.random.default_rng(6)
    bonds = rng.random((3, len(ends))) < np.array([[0.0], [0.7], [1.0]])
    roots = jax.jit(clusters, static_argnums=2)(
        jnp.asarray(ends, jnp.int32), jnp.asarray(bonds), sites
    )
    for own, open_ in zip(np.asarray(roots), bonds, strict=True):
        rows, columns = ends[open_].T
        matrix = sp.coo_array((np.ones(len(rows)), (rows, columns)), (sites, sites))
        count, label = sp.csgraph.connected_components(matrix, directed=False)
        least = np.array([np.flatnonzero(label == k)[0] for k in range(count)])
        assert np.array_equal(own, least[label])


def test_statistics_count_clusters_and_sites():
    s, joined = ed.spin("s", 7), np.ones(7, int)
    aligned = {"s": np.tile(np.where(np.arange(7) < 4, 1, -1), (1, 1))}
    options = {"key": KEY, "chains": 1, "warmup": 0, "draws": 1, "progress": False}
    ebm = ed.compile(ed.Model(-ed.parameter("J", 60.0) * (s[1:] * s[:-1]).sum()))
    found = ed.sample(ebm, ed.SwendsenWang(), start=aligned, **options)
    assert found.stats["clusters"] == 2
    whole = ed.sample(ebm, ed.Wolff(), start={"s": joined}, **options)
    assert whole.stats["cluster_size"] == 7 and whole.stats["acceptance_rate"] == 1
    assert (whole.draws["s"] == -1).all()
    apart = ed.sample(ebm.replace(J=0.0), ed.SwendsenWang(), start=aligned, **options)
    assert apart.stats["clusters"] == 7


def refused():
    """Energies that clusters do not serve, and the words that say why."""
    labels = np.array([[0.0, 1.0, 2.0], [1.0, 0.0, 1.0], [2.0, 1.0, 0.0]])
    never = np.array([[np.inf, 0.0], [0.0, np.inf]])
    yield TRIANGLE, r"couplings are frustrated: that of s\[1\] and s\[2\], which favours unequal"
    yield -S[0] * S[1] * S[2], r"a factor joins 3 sites, s\[0\] and s\[1\] among them; only pairs"
    yield EQUAL * 1.0, r"c\[0\] and c\[1\] have more than two levels and favour unequal ones"
    yield ed.Table(labels)(C[0], C[1]), "pair is not the same at all unequal levels"
    yield ed.Table(never)(S[0], S[1]), r"some levels of s\[0\] and s\[1\] exclude each other"
    yield -1.0 * S[0] * (C[0] == 1), r"s\[0\] and c\[0\] are coupled, but differ in number of leve"


@pytest.mark.parametrize(("energy", "words"), list(refused()))
def test_what_is_no_model_of_clusters_is_refused_before_a_step(energy, words):
    ebm, kernel = ed.compile(ed.Model(energy)), ed.SwendsenWang()
    for own in KERNELS:
        with pytest.raises(ValueError, match=f"{own.name}.*{words}.*ed.Gibbs"):
            ed.sample(ebm, own, key=KEY, progress=False)
    with pytest.raises(ValueError, match=words):
        ed.sample(ebm, ed.Cycle(kernel, ed.Gibbs()), key=KEY, progress=False)
    assert kernel.name in ebm.explain().as_dict()["samplers_refused"]


def test_a_coupling_that_depends_on_other_sites_is_refused():
    y = ed.real("y")
    ebm = ed.compile(ed.Model(-y * S[0] * S[1] + y**2))
    with pytest.raises(ValueError, match=r"coupling of s\[0\] and s\[1\] depends on y, which it"):
        ed.sample(ebm, ed.Cycle(ed.SwendsenWang(), ed.Gibbs()), key=KEY, progress=False)
    with pytest.raises(TypeError, match=r"does not apply: the coupling of .*Use ed.Gibbs\(\)"):
        ed.SwendsenWang().step(ebm, ebm.start(key=KEY), None, key=KEY)


def test_sites_that_are_not_finite_are_named():
    y = ed.real("y")
    ebm = ed.compile(ed.Model(-S[0] * S[1] + y**2))
    with pytest.raises(ValueError, match=r"leaves out 1 free sites, y first: they have no finite"):
        ed.sample(ebm, ed.SwendsenWang(), key=KEY, progress=False)
    # In a cycle of a model without finite sites it has nothing to do.
    reals = ed.compile(ed.Model((y**2).sum()))
    chains = ed.sample(reals, ed.Cycle(ed.Wolff(), ed.Gibbs()), key=KEY, draws=2, progress=False)
    assert chains.draws["y"].shape == (4, 2)


def test_the_values_are_examined_again_when_they_change():
    ebm = ed.compile(ed.Model(ed.parameter("J", -0.3) * TRIANGLE))
    kernel = ed.SwendsenWang()
    assert isinstance(kernel.applies(ebm), str)
    changed = ebm.replace(J=0.3)
    assert "frustrated" in kernel.applies(changed).reason
    with pytest.raises(ValueError, match="frustrated"):
        ed.sample(changed, kernel, key=KEY, progress=False)


@pytest.mark.parametrize("value", [-0.5, np.inf])
def test_potts_models_that_change_in_compiled_code_end_with_an_error(value):
    ebm = ed.compile(ed.Model(-ed.parameter("J", 1.0) * EQUAL))
    kernel = ed.SwendsenWang()

    @eqx.filter_jit
    def step(ebm, scale):
        ebm = ebm.replace(J=scale)
        return kernel.step(ebm, ebm.start(key=KEY), None, key=KEY)[0]

    assert step(ebm, jnp.asarray(0.7))["c"].shape == (3,)
    with pytest.raises(RuntimeError, match=r"no longer those of a Potts model.*positive=True"):
        step(ebm, jnp.asarray(value))


def test_learning_moves_chains_by_clusters():
    s = ed.spin("s", (3, 3))
    bonds = (s[1:] * s[:-1]).sum() + (s[:, 1:] * s[:, :-1]).sum()
    ebm = ed.compile(ed.Model(-ed.parameter("J", 0.1) * bonds))
    objective = ed.ContrastiveDivergence(kernel=ed.SwendsenWang())
    data = np.ones((6, 3, 3), int)
    learnt, history = ed.fit(ebm, objective, data, key=KEY, steps=5, progress=False)
    assert np.isfinite(history["loss"]).all() and learnt.parameters["J"] > 0.1
    glass = ed.compile(ed.Model(ed.parameter("J", 0.3) * TRIANGLE))
    with pytest.raises(ValueError, match="frustrated"):
        ed.fit(glass, objective, np.ones((6, 3), int), key=KEY, steps=1, progress=False)


def test_they_are_named_but_single_sites_stay_the_default():
    ebm = ed.compile(ed.Model(-TRIANGLE))
    said = list(ebm.explain().as_dict()["samplers"])
    assert said.index("Gibbs") < said.index("SwendsenWang") < said.index("Wolff")
    assert str(choose(ebm)[0]) == str(cheapest(ebm)) == "Gibbs()"
