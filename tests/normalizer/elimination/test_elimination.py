"""Elimination against NumPy's sums over all states, transfer matrices and Kaufman's torus."""

import itertools
import re

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.special import logsumexp

import energydsl as ed
from energydsl.analysis import structure as structures
from energydsl.analysis import tables
from energydsl.normalizer import Budget, log_partition_of
from energydsl.normalizer.elimination import search, steps
from energydsl.normalizer.elimination.slices import SlicedSum
from energydsl.normalizer.evaluate import draw, marginals_of, mode_of, prepare
from tests.normalizer.rules import applies, chosen, plans, reason, rule, value
from tests.oracles import ising as oracle
from tests.oracles.enumerate import chisquare_pvalue

FALSE_ALARM = 1e-6
FEW_BYTES = 1500
DRAWS = 4000
LEVELS = {"b": [0, 1], "c": [0, 1, 2], "n": [-1, 0, 1, 2]}
SIZES = {"b": 4, "c": (2, 2), "n": 3}
SITES = [(name, k) for name in SIZES for k in range(int(np.prod(SIZES[name])))]
PLACE = {site: at for at, site in enumerate(SITES)}


def variables():
    return {
        "b": ed.binary("b", 4),
        "c": ed.categorical("c", (2, 2), levels=3),
        "n": ed.integer("n", 3, low=-1, high=2),
    }


class Random:
    """A random model of tables, and its law by NumPy from the tables' own numbers."""

    def __init__(self, seed, zeros=0.0, scale=1.0, held=(), memory=2**31):
        rng = np.random.default_rng(seed)
        views, terms = variables(), []
        axes = [len(LEVELS[name]) for name, _ in SITES]
        self.logs = np.zeros(axes)
        for size in rng.choice([1, 2, 2, 2, 3], 13):
            scope = [SITES[k] for k in rng.choice(len(SITES), size, replace=False)]
            table = scale * rng.normal(size=[len(LEVELS[name]) for name, _ in scope])
            table = np.float32(np.where(rng.random(table.shape) < zeros, -np.inf, table))
            sites = [views[name].reshape(-1)[k] for name, k in scope]
            terms.append(ed.Table(log_potential=table)(*sites))
            # Axes of the table in the order of all sites, and broadcast to the others.
            order = np.argsort([PLACE[site] for site in scope])
            shape = [axes[at] if SITES[at] in scope else 1 for at in range(len(SITES))]
            self.logs = self.logs + np.transpose(table, order).reshape(shape).astype(float)
        self.held = {site: int(rng.integers(len(LEVELS[site[0]]))) for site in held}
        for site, level in self.held.items():
            keep = np.arange(axes[PLACE[site]]) == level
            ones = [-1 if at == PLACE[site] else 1 for at in range(len(SITES))]
            self.logs = np.where(keep.reshape(ones), self.logs, -np.inf)
        evidence = {
            views[n].reshape(-1)[k]: LEVELS[n][level] for (n, k), level in self.held.items()
        }
        model = ed.Model(sum(terms[1:], terms[0]) + 0.0 * sum(v.sum() for v in views.values()))
        self.ebm = ed.compile(model.condition(evidence) if evidence else model)
        budget = Budget(memory=memory)
        self.plan = plans(self.ebm, "elimination", budget)

    @property
    def log_z(self):
        return logsumexp(self.logs)

    def probs(self, site):
        others = tuple(at for at in range(len(SITES)) if at != PLACE[site])
        return np.exp(logsumexp(self.logs, axis=others) - self.log_z)


HELD = (("c", 1), ("n", 0), ("b", 3))
LAWS = {
    "plain": lambda: Random(0),
    "clamped": lambda: Random(1, held=HELD),
    "forbidden states": lambda: Random(2, zeros=0.2),
    "forbidden states, clamped": lambda: Random(13, zeros=0.15, held=HELD[:1]),
    "far apart": lambda: Random(4, scale=400.0),
    "sliced, clamped, forbidden states": lambda: Random(
        13, zeros=0.15, held=HELD[:1], memory=FEW_BYTES
    ),
    "sliced, wide": lambda: Random(9, memory=FEW_BYTES),
    "wide": lambda: Random(6, held=HELD[1:]),
    "wide, forbidden states": lambda: Random(7, zeros=0.15),
}


SELDOM = "clamped", "forbidden states", "wide, forbidden states", "sliced, wide"
"""Laws that the others are like; the slow tests have them."""


@pytest.fixture(
    params=[pytest.param(n, marks=[pytest.mark.slow] * (n in SELDOM)) for n in LAWS],
    scope="module",
)
def law(request):
    with pytest.MonkeyPatch.context() as patch:
        if "wide" in request.param:
            patch.setattr(steps, "WIDE", 6)
        if "sliced" in request.param:
            patch.setattr(search, "WIDE", 6)
        found = LAWS[request.param]()
    every = [plan.sums for plan in found.plan.plans]
    sums = next((own for own in every if isinstance(own, SlicedSum)), every[-1])
    assert isinstance(sums, SlicedSum) == ("sliced" in request.param)
    passes = sums.inner.passes if isinstance(sums, SlicedSum) else sums.passes
    wide = [body.layout is not None for loop in passes.loops for body in loop]
    assert any(wide) == ("wide" in request.param) and not all(wide)
    assert np.isfinite(found.log_z)
    return found


def test_log_z(law):
    found = float(log_partition_of(law.ebm.model, law.plan, np.dtype(np.float64)))
    assert found == pytest.approx(law.log_z, rel=1e-12, abs=1e-12)


def test_marginals_of_sites(law):
    found = marginals_of(law.ebm.model, law.plan)
    for name, k in SITES:
        expected = 0.0 if (name, k) in law.held else law.probs((name, k))
        np.testing.assert_allclose(found[name][k], expected, atol=1e-12)


def test_a_mode_has_the_highest_probability(law):
    found = law.ebm.model.complete(mode_of(law.ebm.model, law.plan))
    state = [int(np.ravel(found[name])[k]) - LEVELS[name][0] for name, k in SITES]
    assert law.logs[tuple(state)] == pytest.approx(law.logs.max(), rel=1e-6)


def test_draws_are_independent_and_exact(law):
    prepared = prepare(law.ebm.model, law.plan)
    keys = jr.split(jr.key(3), DRAWS)
    drawn = jax.vmap(lambda k: draw(law.ebm.model, law.plan, prepared, key=k))(keys)
    whole = jax.vmap(law.ebm.model.complete)(drawn)
    columns = [np.ravel(np.asarray(whole[n])[(slice(None), *np.unravel_index(k, SIZES[n]))])
               - LEVELS[n][0] for n, k in SITES]  # fmt: skip
    assert np.isfinite(law.logs[tuple(columns)]).all(), "a forbidden state was drawn"
    # Every pair of sites: 55 tests share the false alarm.
    probs = np.exp(law.logs - law.log_z)
    for i, j in itertools.combinations(range(len(SITES)), 2):
        pair = probs.sum(axis=tuple(k for k in range(len(SITES)) if k not in (i, j)))
        counts = np.zeros(pair.shape)
        np.add.at(counts, (columns[i], columns[j]), 1)
        if pair.max() < 1 - 100 / DRAWS:  # else too few draws are elsewhere
            pvalue = chisquare_pvalue(counts.ravel(), pair.ravel(), DRAWS)
            assert pvalue > FALSE_ALARM / 55, (SITES[i], SITES[j])


@pytest.mark.parametrize(
    "least",
    [pytest.param(steps.WIDE, id="narrow", marks=pytest.mark.slow), pytest.param(1, id="wide")],
)
def test_the_gradient_is_that_of_enumeration_and_so_is_the_hessian(least, monkeypatch):
    monkeypatch.setattr(steps, "WIDE", least)
    rng = np.random.default_rng(5)
    pairs, table = rng.normal(size=4).astype("f"), rng.normal(size=(3, 3)).astype("f")

    def compiled(pairs, table):
        c = ed.categorical("c", 5, levels=3)
        energy = (pairs * (c[1:] == c[:-1])).sum() + ed.Table(table)(c[0], c[4])
        return ed.compile(ed.Model(energy))

    ebm = compiled(pairs, table)
    by = {name: plans(ebm, name) for name in ("elimination", "enumeration")}

    def log_z(name):
        def function(pairs, table):
            return log_partition_of(compiled(pairs, table).model, by[name], np.dtype(np.float32))

        return function

    slopes = [jax.grad(log_z(name), (0, 1))(pairs, table) for name in by]
    for a, b in zip(*slopes, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    bends = [jax.hessian(log_z(name))(pairs, table) for name in by]
    np.testing.assert_allclose(*bends, atol=1e-6)


@pytest.mark.parametrize("least", [steps.WIDE, 1], ids=["narrow", "wide"])
def test_equal_components_share_tables_over_sites_in_any_order(least, monkeypatch):
    monkeypatch.setattr(steps, "WIDE", least)
    rng = np.random.default_rng(11)
    tables = [np.float32(rng.normal(size=s)) for s in ((3, 2, 4), (4, 3, 2), (2, 4, 3), (2, 3, 4))]

    def log_z(tables, name):
        c, b, n = (
            ed.categorical("c", 2, levels=3),
            ed.binary("b", 2),
            ed.integer("n", 2, low=0, high=3),
        )
        views = (c, b, n), (n, c, b), (b, n, c), (b, c, n)
        terms = [ed.Table(energy=t)(*v).sum() for t, v in zip(tables, views, strict=True)]
        ebm = ed.compile(ed.Model(sum(terms[1:], terms[0])))
        return log_partition_of(ebm.model, plans(ebm, name), np.dtype(np.float32))

    found, slopes = jax.value_and_grad(log_z)(tables, "elimination")
    expected, others = jax.value_and_grad(log_z)(tables, "enumeration")
    assert float(found) == pytest.approx(float(expected), rel=1e-6)
    for slope, other in zip(slopes, others, strict=True):
        np.testing.assert_allclose(slope, other, atol=1e-6)


def test_a_state_that_cannot_be_is_minus_infinity_and_has_no_slope():
    never = np.array([[-np.inf, -np.inf], [0.0, 0.0]])
    b = ed.binary("b", 3)
    ebm = ed.compile(ed.Model(ed.Table(log_potential=never)(b[:-1], b[1:]).sum()
                              + ed.Table(log_potential=never[::-1])(b[0], b[2])))  # fmt: skip
    assert value(ebm, "elimination") == -np.inf
    assert value(ebm, "enumeration") == -np.inf
    np.testing.assert_array_equal(marginals_of(ebm.model, plans(ebm, "elimination"))["b"], 0.0)


def test_a_clamped_real_site_beside_finite_ones():
    x, s = ed.real("x", 7), ed.spin("s", 7)
    field = np.linspace(-1, 1.5, 7)
    model = ed.Model(0.5 * (x**2).sum() - (x * s).sum() - 0.3 * (s[1:] * s[:-1]).sum())
    ebm = ed.compile(model.condition(x=field))
    spins = np.array(list(itertools.product([-1, 1], repeat=7)))
    logs = spins @ field + 0.3 * (spins[:, 1:] * spins[:, :-1]).sum(1) - 0.5 * (field**2).sum()
    assert value(ebm, "elimination") == pytest.approx(logsumexp(logs), rel=1e-6)


def test_tables_are_computed_in_chunks(monkeypatch):
    monkeypatch.setattr(tables, "CHUNK", 100)
    rng = np.random.default_rng(2)
    weights = np.float32(rng.normal(size=19))

    def log_z(weights, name):
        b = ed.binary("b", 20)
        ebm = ed.compile(ed.Model((weights * b[1:] * b[:-1]).sum()))
        return log_partition_of(ebm.model, plans(ebm, name), np.dtype(np.float32))

    found, slope = jax.value_and_grad(log_z)(weights, "elimination")
    row = np.zeros(2)
    for w in weights.astype(float):
        row = logsumexp(row[:, None] - w * np.outer([0, 1], [0, 1]), axis=0)
    assert float(found) == pytest.approx(logsumexp(row), rel=1e-6)
    monkeypatch.undo()
    whole = jax.grad(log_z)(weights, "elimination")
    np.testing.assert_allclose(slope, whole, atol=1e-6)


# Long models, whose log Z is known otherwise.


def test_a_chain_of_unequal_levels_is_a_product_of_matrices():
    rng = np.random.default_rng(8)
    count = 41
    labels, bits = ed.categorical("c", count, levels=3), ed.binary("b", count)
    within, between = rng.normal(size=(count, 3, 2)), rng.normal(size=(count - 1, 2, 3))
    ebm = ed.compile(ed.Model(ed.Table(within)(labels, bits).sum()
                              + ed.Table(between)(bits[:-1], labels[1:]).sum()))  # fmt: skip
    row = -np.float32(within[0]).astype(float)
    for k in range(1, count):
        step = -np.float32(between[k - 1]).astype(float)
        left = logsumexp(logsumexp(row, axis=0)[:, None] + step, axis=0)
        row = left[:, None] - np.float32(within[k]).astype(float)
    assert chosen(ebm) == {"elimination"}
    assert float(ed.log_partition(ebm)) == pytest.approx(logsumexp(row), rel=1e-12)


@pytest.mark.parametrize(("rows", "columns"), [(3, 5), (5, 7), (6, 6)])
def test_a_torus_is_kaufmans(rows, columns):
    s = ed.spin("s", (rows, columns))
    energy = -0.41 * (s * ed.roll(s, 1, 0)).sum() - 0.41 * (s * ed.roll(s, 1, 1)).sum()
    ebm = ed.compile(ed.Model(energy))
    expected = oracle.kaufman(rows, columns, float(np.float32(0.41))).log_z
    assert value(ebm, "elimination") == pytest.approx(expected, rel=1e-8)


def test_a_hub_with_many_neighbours():
    rng = np.random.default_rng(9)
    c, b = ed.categorical("c", levels=3), ed.binary("b", 29)
    table = np.float32(rng.normal(size=(29, 3, 2)))
    ebm = ed.compile(ed.Model(sum((ed.Table(t)(c, b[k]) for k, t in enumerate(table)), 0.0 * c)))
    expected = logsumexp(logsumexp(-table.astype(float), axis=2).sum(axis=0))
    assert value(ebm, "elimination") == pytest.approx(expected, rel=1e-12)


def test_a_site_that_is_twice_in_one_factor():
    c = ed.categorical("c", 3, levels=3)
    table = np.float32(np.random.default_rng(4).normal(size=(3, 3, 3)))
    ebm = ed.compile(
        ed.Model(ed.Table(table)(c[1], c[0], c[1]) + ed.Table(table)(c[2], c[2], c[0]))
    )
    t = -table.astype(float)
    whole = np.einsum("bab->ab", t)[:, :, None] + np.einsum("cca->ac", t)[:, None, :]
    assert value(ebm, "elimination") == pytest.approx(logsumexp(whole), rel=1e-12)


def test_programs_do_not_grow_with_the_length():
    loops = []
    for count in (50, 400):
        s = ed.spin("s", (3, count))
        field = np.linspace(-1, 1, 3 * count).reshape(3, count)
        energy = -0.3 * (s[1:] * s[:-1]).sum() - 0.4 * (s[:, 1:] * s[:, :-1]).sum()
        (plan,) = plans(ed.compile(ed.Model(energy + (field * s).sum())), "elimination").plans
        loops.append(len(plan.sums.passes.loops))
    assert loops[1] <= loops[0] + 1


def test_new_numbers_are_answered_by_the_same_program():
    b = ed.binary("b", 18)
    ebm = ed.compile(ed.Model((ed.parameter("w", jnp.ones(17)) * b[1:] * b[:-1]).sum()))
    weights = np.random.default_rng(3).normal(size=(3, 17)).astype("f")
    one = jax.jit(lambda w: ed.log_partition(ebm.replace(w=w)))
    found = [float(one(w)) for w in weights]
    assert one._cache_size() == 1
    for w, z in zip(weights, found, strict=True):
        row = np.zeros(2)
        for k in range(17):
            row = logsumexp(row[:, None] - w[k] * np.outer([0, 1], [0, 1]), axis=0)
        assert z == pytest.approx(logsumexp(row), rel=1e-6)


# What it refuses.


def test_more_than_the_budget_is_refused_with_the_width():
    s = ed.spin("s", (12, 12))
    energy = (s[1:] * s[:-1]).sum() + (s[:, 1:] * s[:, :-1]).sum() + 0.1 * s.sum()
    ebm = ed.compile(ed.Model(energy), budget=9)
    said = rule("elimination").offer(ebm.structure).refusal(0, "log_partition", Budget(9))
    assert "joint states of the widest clique; budget 2^9" in said
    assert re.search(r"\(of s\[\d+, \d+\], (s\[\d+, \d+\], ){4}s\[\d+, \d+\] and \d+ more\)", said)
    with pytest.raises(ed.IntractableError, match="widest clique"):
        ed.log_partition(ebm)
    assert applies(ed.compile(ed.Model(energy)), "elimination")


def test_memory_over_the_budget_is_refused_before_it_is_taken():
    s = ed.spin("s", (12, 12))
    energy = (s[1:] * s[:-1]).sum() + (s[:, 1:] * s[:, :-1]).sum()
    ebm = ed.compile(ed.Model(energy), memory=1000)
    assert "of memory; budget 1 kB" in str(ebm.normalizer)


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (lambda: ed.Model((ed.spin("s", 3) * ed.real("x", 3)).sum()), "no finite list"),
        (lambda: ed.Model(ed.tanh(ed.spin("s", 30).sum())), "more than 2^24 joint states"),
        (lambda: square(31), "cells; the widest clique has 2^"),
        (lambda: square(160), "no narrow band"),
        (lambda: square(70), "clique of over 2^64"),
    ],
)
def test_the_reason_of_a_refusal(model, why):
    assert why in reason(ed.compile(model()), "elimination")


def test_a_factor_whose_pairs_are_not_listed_is_refused(monkeypatch):
    monkeypatch.setattr(structures, "MAX_PAIRS", 100)
    ebm = ed.compile(ed.Model(ed.tanh(ed.spin("s", 17).sum())))
    assert "too many sites" in reason(ebm, "elimination")


def square(side):
    s = ed.spin("s", (side, side))
    return ed.Model((s[1:] * s[:-1]).sum() + (s[:, 1:] * s[:, :-1]).sum())
