"""Whole trees drawn at once: the law, the split into forests, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energydsl as ed
from energydsl._types import Refusal
from energydsl.analysis import graph
from energydsl.sweep import TreeSweep
from energydsl.sweep.forest import Forest, forest_sets
from energydsl.sweep.trees import _picked
from tests.oracles.enumerate import chisquare_pvalue, count_states, exact_law
from tests.sweep.cases import CASES, ONE_SWEEP, SPIN, pack, unpack
from tests.sweep.test_invariance import one_sweep, pvalue_after_one_sweep

FALSE_ALARM = 1e-6  # chance that a correct sweep fails one of these tests
DRAWS = 100_000

NAMES = {
    "torus", "triangular lattice", "plaquettes", "two layers", "irregular graph", "network",
    "ring of 9",
}  # fmt: skip
SHOWN = [case for case in CASES + ONE_SWEEP if case.name in NAMES]
"""Factors of two, three and four sites, several domains, cycles, and a forbidden state."""


def trees_of(model):
    ebm = ed.compile(model)
    return ebm, TreeSweep.plan(ebm.structure, None).build()


@pytest.mark.parametrize("case", SHOWN, ids=lambda c: c.name)
def test_trees_leave_the_law_invariant(case):
    ebm, sweep = trees_of(case.model)
    assert pvalue_after_one_sweep(case, sweep, ebm.structure) > FALSE_ALARM


def tree():
    """A tree with branches below its root, over three domains, with a forbidden pair.

    One pair of spins has two bonds of one batch, and another pair has one of a second batch.
    """
    rng = np.random.default_rng(11)
    left, right = np.array([0, 0, 0, 1, 4, 4, 1]), np.array([3, 1, 4, 2, 5, 6, 0])
    weights, field = rng.normal(size=7), rng.normal(size=7)
    one, two = rng.normal(size=(2, 3)), 2 * rng.normal(size=(3, 4))
    one[1, 2] = two[0, 1] = two[2, 3] = np.inf
    s, c = ed.spin("s", 7), ed.categorical("c", levels=3)
    n = ed.integer("n", low=-1, high=2)
    model = ed.Model(
        (weights * s[left] * s[right]).sum()
        + field @ s
        + ed.Table(one)(s[5], c)
        + ed.Table(two)(c, n)
        + 0.9 * ed.apply(lambda a, b: a * b, s[2], s[1])
    )

    def energy(x):
        pairs = (weights * x[:, left] * x[:, right]).sum(1) + x[:, :7] @ field
        pairs = pairs + 0.9 * x[:, 1] * x[:, 2]
        return pairs + one[(x[:, 5] + 1) // 2, x[:, 7]] + two[x[:, 7], x[:, 8] + 1]

    return (s, c), model, energy, [SPIN] * 7 + [(0, 1, 2), (-1, 0, 1, 2)]


def test_a_tree_is_drawn_exactly_from_any_start():
    _, model, energy, levels = tree()
    ebm, sweep = trees_of(model)
    assert len(sweep.sets) == 1 and sweep.sets[0].above is not None
    xs = pack(model, np.tile([1, 1, -1, 1, -1, 1, 1, 2, -1], (DRAWS, 1)))
    after = unpack(model, one_sweep(sweep, ebm.structure, model, xs, jax.random.key(1)))
    law = exact_law(energy, levels)
    assert chisquare_pvalue(count_states(after, law.states), law.probs, DRAWS) > FALSE_ALARM


def test_each_chain_of_trees_has_a_temperature_of_its_own():
    _, model, energy, levels = tree()
    ebm, sweep = trees_of(model)
    betas = np.resize([0.4, 1.0, 2.3], 3 * 20_000)
    xs = jax.vmap(lambda k: ebm.start(key=k))(jax.random.split(jax.random.key(0), 8))
    xs = jax.tree.map(lambda a: jnp.resize(a, (len(betas), *a.shape[1:])), xs)
    tables = sweep.load(ebm.structure, model)
    state = sweep.sweep(
        ebm.structure, tables, sweep.pack(xs), key=jax.random.key(1), betas=jnp.asarray(betas)
    )
    after = unpack(model, sweep.unpack(state))
    for place, beta in enumerate((0.4, 1.0, 2.3)):
        law = exact_law(lambda x, b=beta: b * energy(x), levels)
        counts = count_states(after[place::3], law.states)
        assert chisquare_pvalue(counts, law.probs, 20_000) > FALSE_ALARM


def test_several_trees_with_branches_each_have_their_law():
    """Each site's parent is looked for in its own tree."""
    left, right = np.array([0, 0, 0, 1, 4, 4]), np.array([3, 1, 4, 2, 5, 6])
    left, right = np.r_[left, left + 7], np.r_[right, right + 7]
    weights = np.random.default_rng(12).normal(size=12)
    s = ed.spin("s", 14)
    model = ed.Model((weights * s[left] * s[right]).sum() + 0.8 * s[0] - 1.1 * s[7])
    ebm, sweep = trees_of(model)
    assert sweep.sets[0].roots == 2 and sweep.sets[0].above is not None
    xs = pack(model, np.ones((DRAWS, 14)))
    after = unpack(model, one_sweep(sweep, ebm.structure, model, xs, jax.random.key(5)))
    for k, field in enumerate((0.8, -1.1)):
        own = slice(6 * k, 6 * k + 6)

        def energy(x, own=own, field=field):
            pairs = weights[own] * x[:, left[:6]] * x[:, right[:6]]
            return pairs.sum(1) + field * x[:, 0]

        law = exact_law(energy, [SPIN] * 7)
        counts = count_states(after[:, 7 * k : 7 * k + 7], law.states)
        assert chisquare_pvalue(counts, law.probs, DRAWS) > FALSE_ALARM


def test_where_no_level_is_allowed_a_draw_is_uniform():
    u = (jnp.arange(300)[:, None] + 0.5) / 300
    drawn = _picked(jnp.full((3, 300, 1), jnp.inf), u)
    assert np.bincount(np.asarray(drawn)[:, 0]).tolist() == [100, 100, 100]


def test_clamped_sites_stay_and_the_rest_is_drawn_exactly():
    (s, c), model, energy, levels = tree()
    held = model.condition({s[4]: -1, c: 1})
    ebm, sweep = trees_of(held)
    levels[4], levels[7] = (-1,), (1,)
    law = exact_law(energy, levels)
    xs = pack(held, np.tile([1, 1, -1, 1, -1, 1, 1, 1, 2], (DRAWS, 1)))
    xs = {n: a for n, a in xs.items() if n != "c"}
    after = one_sweep(sweep, ebm.structure, held, xs, jax.random.key(2))
    after = unpack(held, after | {"c": jnp.ones((DRAWS,), jnp.int8)})
    assert chisquare_pvalue(count_states(after, law.states), law.probs, DRAWS) > FALSE_ALARM


def test_couplings_whose_weights_are_beyond_the_range_of_floats():
    """The child prefers one level by e^100, its parent the other by e^200."""
    s = ed.spin("s", 3)
    model = ed.Model(-200.0 * s[0] * s[1] - 50.0 * s[1] + 100.0 * s[0] - 0.2 * s[1] * s[2])
    ebm, sweep = trees_of(model)
    xs = pack(model, np.tile([1, -1, 1], (DRAWS, 1)))
    after = unpack(model, one_sweep(sweep, ebm.structure, model, xs, jax.random.key(3)))
    assert (after[:, :2] == -1).all()
    up = int((after[:, 2] == 1).sum())
    share = 1 / (1 + np.exp(0.4))
    law = np.array([share, 1 - share])
    assert chisquare_pvalue(np.array([up, DRAWS - up]), law, DRAWS) > FALSE_ALARM


def test_finite_sites_beside_real_ones():
    """Labels in a chain, and a real site that couples to two of them: its factor is no constant."""
    s, y = ed.spin("s", 4), ed.real("y")
    model = ed.Model(
        -0.8 * (s[1:] * s[:-1]).sum() + 0.5 * y**2 - 0.7 * y * s[0] * s[1] - 0.4 * y * s[2]
    )
    ebm, sweep = trees_of(model)
    assert sweep.drawn == ("s",) and not all(p.still for p in sweep.sets[0].pairs)

    def energy(x, y):
        chain = -0.8 * (x[:, 1:] * x[:, :-1]).sum(1)
        return chain - 0.7 * y * x[:, 0] * x[:, 1] - 0.4 * y * x[:, 2]

    for y0 in (-1.5, 0.8):
        law = exact_law(lambda x, y0=y0: energy(x, y0), [SPIN] * 4)
        xs = {"s": jnp.ones((DRAWS, 4), jnp.int8), "y": jnp.full(DRAWS, y0)}
        after = one_sweep(sweep, ebm.structure, model, xs, jax.random.key(4))
        assert np.array_equal(after["y"], xs["y"])
        counts = count_states(np.asarray(after["s"]), law.states)
        assert chisquare_pvalue(counts, law.probs, DRAWS) > FALSE_ALARM


@pytest.mark.parametrize("shape", [(5, 7), (3, 4, 5)])
def test_a_lattice_is_split_into_forests(shape):
    s = ed.spin("s", shape)
    pairs = sum(s * ed.roll(s, 1, axis) for axis in range(len(shape)))
    for energy in (pairs.sum(), (s[1:] * s[:-1]).sum() + (s[:, 1:] * s[:, :-1]).sum()):
        ebm = ed.compile(ed.Model(energy))
        sets = forest_sets(ebm.structure)
        assert sets.max() + 1 <= 5
        for k in range(sets.max() + 1):
            assert_forest(ebm.structure, sets == k)


def assert_forest(structure, inside):
    edges = structure.edges[inside[structure.edges].all(axis=1)]
    count, _ = graph.components(structure.sites, edges)
    assert len(edges) == structure.sites - count


def test_an_open_lattice_is_split_into_even_and_odd_rows():
    s = ed.spin("s", (5, 7))
    ebm = ed.compile(ed.Model((s[1:] * s[:-1]).sum() + (s[:, 1:] * s[:, :-1]).sum()))
    sets = forest_sets(ebm.structure).reshape(5, 7)
    assert (sets == np.arange(5)[:, None] % 2).all()


@pytest.mark.parametrize("seed", range(5))
def test_any_graph_is_split_into_forests(seed):
    rng = np.random.default_rng(seed)
    left, right = np.array([rng.choice(30, 2, replace=False) for _ in range(30 + 12 * seed)]).T
    s = ed.spin("s", 30)
    structure = ed.compile(ed.Model((s[left] * s[right]).sum())).structure
    sets = forest_sets(structure)
    assert (sets >= 0).all() and set(sets) == set(range(sets.max() + 1))
    for k in range(sets.max() + 1):
        inside = sets == k
        assert_forest(structure, inside)
        edges = structure.edges[inside[structure.edges].all(axis=1)]
        forest = Forest(30, np.flatnonzero(inside), edges)
        assert sorted(forest.slots[forest.slots >= 0]) == sorted(np.flatnonzero(inside))
        pairs = {tuple(sorted((i, forest.parent[i]))) for i in range(30) if forest.parent[i] >= 0}
        assert pairs == set(map(tuple, edges.tolist()))


def test_a_path_is_rooted_at_its_middle():
    edges = np.array([[i, i + 1] for i in range(8)])
    forest = Forest(9, np.arange(9), edges)
    assert forest.roots.tolist() == [4] and forest.body.shape == (4, 2) and forest.straight


def test_a_forest_in_which_few_sites_follow_each_other_is_one_set():
    s = ed.spin("s", 9)
    star = ed.compile(ed.Model(s[0] * s[1:].sum())).structure
    assert set(forest_sets(star)) == {0}


def test_a_dense_graph_and_too_many_levels_are_refused(monkeypatch):
    x = ed.binary("x", 40)
    dense = ed.compile(ed.Model(-(x @ np.ones((40, 40)) @ x)))
    said = TreeSweep.plan(dense.structure, None)
    assert isinstance(said, Refusal) and "20 sets of trees; at most 16" in said.reason
    with pytest.raises(ValueError, match=r"leaves out 40 free sites, .*20 sets of trees"):
        ed.sample(dense, ed.Gibbs(blocks="trees"), key=jax.random.key(0), progress=False)
    monkeypatch.setattr("energydsl.sweep.tree_sweep.MAX_ENTRIES", 100)
    n = ed.integer("n", 3, low=0, high=9)
    said = TreeSweep.plan(ed.compile(ed.Model((n[1:] * n[:-1]).sum())).structure, None)
    assert isinstance(said, Refusal) and "up to 10 levels at 3 sites" in said.reason


def test_a_factor_over_everything_is_refused(monkeypatch):
    monkeypatch.setattr("energydsl.analysis.structure.MAX_PAIRS", 2)
    x = ed.binary("x", 4)
    ebm = ed.compile(ed.Model(ed.apply(lambda x: x.prod(), x)))
    assert "too many sites" in TreeSweep.plan(ebm.structure, None).reason


def test_real_sites_are_left_to_other_kernels():
    y, s = ed.real("y"), ed.spin("s")
    ebm = ed.compile(ed.Model(y**2 - y * s))
    options = {"key": jax.random.key(0), "progress": False, "warmup": 1, "draws": 2, "chains": 1}
    with pytest.raises(ValueError, match="leaves out 1 free sites, y first: only sites with fin"):
        ed.sample(ebm, ed.Gibbs(blocks="trees"), **options)
    with pytest.raises(ValueError, match="y first: no free site has finitely many levels"):
        ed.sample(ed.compile(ed.Model(y**2)), ed.Gibbs(blocks="trees"), **options)
    with pytest.raises(ValueError, match="blocks='strips'; expected \"trees\""):
        ed.Gibbs(blocks="strips")


def test_chains_of_trees_keep_the_law_whatever_the_chunks(tmp_path):
    """Through `sample`: the same draws from a checkpoint; and one step of one chain."""
    case = CASES[0]
    ebm, kernel = ed.compile(case.model), ed.Gibbs(blocks="trees")
    assert str(kernel) == "Gibbs(blocks='trees')"
    options = {"key": jax.random.key(7), "chains": 2, "warmup": 5, "progress": False}
    whole = ed.sample(ebm, kernel, draws=30, **options)
    ed.sample(ebm, kernel, draws=11, checkpoint=tmp_path, **options)
    resumed = ed.sample(ebm, kernel, draws=30, checkpoint=tmp_path, **options)
    assert np.array_equal(whole.draws["s"], resumed.draws["s"])
    one = {"s": jnp.ones((2, 3), jnp.int8)}
    moved, state, info = kernel.step(ebm, one, None, key=jax.random.key(0))
    assert moved["s"].shape == (2, 3) and state is None and info == {}
