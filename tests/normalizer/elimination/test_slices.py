"""Slices where memory is short: what is held, and what is said; test_elimination has their laws."""

import jax
import numpy as np
import pytest

import energydsl as ed
from energydsl.normalizer.elimination import order as orders
from energydsl.normalizer.elimination.cut import cut
from energydsl.normalizer.elimination.slices import SlicedSum, reading
from tests.normalizer.elimination.test_order import connected, eliminated, grid


def of(order):
    return lambda found: found.bits.max() <= order.bits.max() - 2


@pytest.mark.parametrize("seed", range(3))
def test_slices_have_the_terms_of_the_graph_without_what_is_held(seed):
    rng = np.random.default_rng(seed)
    edges, levels = connected(rng, 30, 25), rng.integers(2, 4, 30)
    found = orders.find_order(edges, levels)
    made = cut(found, levels, of(found), 40.0)
    assert made.order.bits.max() <= found.bits.max() - 2
    assert made.count == np.prod(levels[made.held])
    assert sorted([*made.order.sites, *made.held]) == list(range(30))
    # With one level, what is held is in every clique and takes nothing there.
    alone = np.where(np.isin(np.arange(30), made.held), 1, levels)
    states = eliminated(edges, alone, [*made.order.sites, *made.held])[1]
    bound = np.exp2(made.order.bits)
    assert (np.array(states[: len(bound)]) <= bound * (1 + 1e-12)).all()


def test_the_first_site_that_is_held_leaves_the_fewest_terms():
    edges, levels = grid(6, 7), np.random.default_rng(0).integers(2, 5, 42)
    found = orders.find_order(edges, levels)
    made = cut(found, levels, lambda order: order.bits.max() < found.bits.max(), 40.0)
    clique = {found.sites[np.argmax(found.bits)], *found.separators[np.argmax(found.bits)]}

    def terms(site):
        left = [i for i in found.sites if i != site]
        alone = np.where(np.arange(42) == site, 1, levels)
        states = eliminated(edges, alone, [*left, site])[1]
        return levels[site] * sum(states[:-1])

    assert terms(made.held[0]) == min(map(terms, clique))


def test_slices_over_the_budget_are_no_cut():
    edges, levels = grid(6, 7), np.full(42, 2)
    found = orders.find_order(edges, levels)
    made = cut(found, levels, of(found), 40.0)
    needed = np.log2(made.count) + made.order.bits.max()
    assert cut(found, levels, of(found), needed - 1e-6) is None
    assert cut(found, levels, of(found), needed + 1e-6).held == made.held


def test_tables_that_share_cells_are_read_where_their_own_site_is_held():
    cells, levels = np.arange(100, 106).reshape(2, 3), [2, 3, 2, 3]
    read = reading([(0, 1), (2, 3), (0, 3), (2, 1)], np.full(4, 100), levels, [1, 2], 50)
    starts, at, strides = read.starts - 50, read.at, read.strides
    for level in range(3):
        for other in range(2):
            now = at + level * strides[0] + other * strides[1]
            own = [now[k : k + n] for k, n in zip(starts, (2, 3, 6, 1), strict=True)]
            np.testing.assert_array_equal(own[0], cells[:, level])
            np.testing.assert_array_equal(own[1], cells[other])
            np.testing.assert_array_equal(own[2], cells.ravel())
            np.testing.assert_array_equal(own[3], cells[other, level])


SHARE = 0.54
"""What of the memory that is needed without slices is allowed."""


def dense(tail):
    """Thirteen spins that all interact, and a chain that begins at one of them."""
    rng = np.random.default_rng(0)
    pairs = [(i, j) for j in range(13) for i in range(j)]
    edges = np.array([*pairs, *((i - 1, i) for i in range(13, 13 + tail))])
    s = ed.spin("s", 13 + tail)
    field = ed.parameter("field", rng.normal(size=13 + tail))
    weights = (0.3 * rng.normal(size=len(edges))).astype(np.float32)
    return ed.Model(-(weights * s[edges[:, 0]] * s[edges[:, 1]]).sum() - (field * s).sum())


def test_what_does_not_fit_is_summed_in_slices_and_explain_says_so():
    model = dense(tail=30)
    whole = ed.compile(model)
    needed = whole.normalizer.bytes
    ebm = ed.compile(model, memory=int(SHARE * needed))
    plan = ebm.normalizer.plans[0]
    assert plan.rule.name == "elimination" and plan.bytes <= SHARE * needed
    assert isinstance(plan.sums, SlicedSum) and plan.sums.count >= 4
    said = f"elimination in {plan.sums.count} slices, one for each joint state of s["
    assert said in str(ebm.explain())
    assert float(ed.log_partition(ebm)) == pytest.approx(float(ed.log_partition(whole)), rel=1e-6)
    means = ed.marginals(whole)["s"].mean
    found = jax.grad(lambda m: ed.log_partition(ebm.replace(field=m)))(model.parameters["field"])
    np.testing.assert_allclose(found, means, atol=1e-5)


def test_slices_are_refused_where_they_do_not_help():
    model = dense(tail=30)
    needed = ed.compile(model).normalizer.bytes
    said = str(ed.compile(model, memory=int(SHARE * needed)).normalizer)
    assert "exact by elimination" in said
    assert "of memory; budget" in str(ed.compile(model, memory=50_000).normalizer)


@pytest.mark.parametrize("share", [0.9, 0.6, 0.3, 0.1])
def test_less_memory_takes_more_slices_and_never_too_many_bytes(share):
    rng = np.random.default_rng(0)
    i, j = np.triu_indices(15, 1)
    d = ed.spin("d", 15)
    model = ed.Model((rng.normal(size=len(i)) * d[i] * d[j]).sum() + 0.1 * d.sum())
    needed = ed.compile(model).normalizer.bytes
    ebm = ed.compile(model, memory=int(share * needed), budget=18)
    assert ebm.normalizer.bytes <= share * needed, ebm.normalizer
