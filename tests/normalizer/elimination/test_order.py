"""Orders of elimination against matrices of neighbours, and the time that a search may take."""

import itertools

import networkx
import numpy as np
import pytest

from energydsl.normalizer.elimination import order as orders
from energydsl.normalizer.elimination.anneal import annealed
from energydsl.normalizer.elimination.order import find_order


def connected(rng, count, more):
    """The edges of a random tree and `more` others."""
    edges = {(int(rng.integers(j)), j) for j in range(1, count)}
    while len(edges) < count - 1 + more:
        i, j = sorted(rng.choice(count, 2, replace=False).tolist())
        edges.add((i, j))
    return np.array(sorted(edges))


def grid(rows, columns):
    sites = np.arange(rows * columns).reshape(rows, columns)
    pairs = (sites[1:], sites[:-1]), (sites[:, 1:], sites[:, :-1])
    return np.concatenate([np.stack([a.ravel(), b.ravel()], 1) for a, b in pairs])


def missing(joined, site):
    """The pairs of neighbours of a site that are not neighbours of each other."""
    around = np.flatnonzero(joined[site])
    return sum(not joined[i, j] for i, j in itertools.combinations(around, 2))


def eliminated(edges, levels, order):
    """The neighbours of each site of an order when it is eliminated, and its clique's states."""
    joined = np.zeros((len(levels), len(levels)), bool)
    joined[edges[:, 0], edges[:, 1]] = joined[edges[:, 1], edges[:, 0]] = True
    separators, states = [], []
    for site in order:
        around = np.flatnonzero(joined[site])
        separators.append(set(around))
        states.append(float(levels[site] * np.prod(levels[around])))
        joined[np.ix_(around, around)] = True
        joined[site] = joined[:, site] = False
        np.fill_diagonal(joined, False)
    return separators, states


@pytest.mark.parametrize("seed", range(5))
def test_least_fill_is_taken_at_each_step_and_separators_are_the_neighbours(seed):
    rng = np.random.default_rng(seed)
    count, levels = 17, rng.integers(2, 5, 17)
    edges = connected(rng, count, 14)
    bits = np.log2(levels).tolist()
    found = orders._greedy(orders._neighbours(edges, count), bits, orders._Fill)
    joined = np.zeros((count, count), bool)
    joined[edges[:, 0], edges[:, 1]] = joined[edges[:, 1], edges[:, 0]] = True
    left = set(range(count))
    for step, (site, separator) in enumerate(zip(found.sites, found.separators, strict=True)):
        assert missing(joined, site) == min(missing(joined, i) for i in left)
        around = np.flatnonzero(joined[site])
        assert separator == set(around)
        assert 2 ** found.bits[step] == pytest.approx(levels[site] * np.prod(levels[around]))
        joined[np.ix_(around, around)] = True
        joined[site] = joined[:, site] = False
        np.fill_diagonal(joined, False)
        left.remove(site)
    assert not left


def test_widths_of_known_graphs():
    chain, ring = [(i, i + 1) for i in range(9)], [(i, (i + 1) % 9) for i in range(9)]
    clique = list(itertools.combinations(range(9), 2))
    for edges, width in ((chain, 1), (ring, 2), (clique, 8)):
        edges = np.array(edges)
        found = find_order(edges, np.full(edges.max() + 1, 3))
        assert max(map(len, found.separators)) == width


def test_short_sums_and_those_out_of_reach_are_not_annealed(monkeypatch):
    tried = []
    monkeypatch.setattr(orders, "annealed", lambda *a: tried.append(a[3]) or annealed(*a[:3], 50))
    assert isinstance(find_order(grid(44, 44), np.full(44 * 44, 2)), str)
    tree = np.array([(k // 2, k) for k in range(1, 99)])
    for edges, levels in ((grid(12, 12), 2), (tree, 200)):
        assert isinstance(find_order(edges, np.full(edges.max() + 1, levels)), orders.Order)
    assert tried == []
    # The band of a long grid is narrow: a trial finds nothing with fewer terms.
    assert find_order(grid(16, 16), np.full(256, 2)).bits.max() == 17
    assert tried == [orders.TRIAL]
    tried.clear()
    # 1.6 million terms are worth 8,000 changes.
    assert 1e6 < find_order(grid(13, 15), np.full(195, 2)).terms < 2e6
    assert tried[0] == orders.TRIAL and 5_000 < tried[1] < 10_000


def test_annealed_orders_save_terms_of_an_irregular_graph():
    graph = networkx.random_regular_graph(3, 100, seed=2)
    edges, levels = np.array(sorted(map(sorted, graph.edges))), np.full(100, 2)
    neighbours = orders._neighbours(edges, 100)
    scores = orders._Weight, orders._Fill
    greedy = [orders._greedy(neighbours, [1.0] * 100, score) for score in scores]
    found = find_order(edges, levels)
    assert found.terms < min(order.terms for order in greedy) / 2
    assert found.terms == sum(eliminated(edges, levels, found.sites)[1])


def layered(width, slices):
    """Each site of a slice has three parents in the slice before, which interact."""
    rng, edges = np.random.default_rng(0), set()
    parents = [rng.choice(width, 3, replace=False) for _ in range(width)]
    for at, k in itertools.product(range(1, slices), range(width)):
        family = sorted([*(width * (at - 1) + parents[k]).tolist(), width * at + k])
        edges |= set(itertools.combinations(family, 2))
    return np.array(sorted(edges))


def test_an_order_with_too_large_cliques_is_annealed_before_it_is_refused(monkeypatch):
    edges, count = layered(27, 10), 27 * 10
    neighbours = orders._neighbours(edges, count)
    greedy = [orders._greedy(neighbours, [1.0] * count, s) for s in (orders._Weight, orders._Fill)]
    least = min(found.bits.max() for found in greedy)
    found = find_order(edges, np.full(count, 2))
    assert found.bits.max() <= orders.MAX_BITS < least <= orders.TRIED_BITS
    assert max(eliminated(edges, np.full(count, 2), found.sites)[1]) == 2 ** found.bits.max()
    monkeypatch.setattr(orders, "MAX_BITS", 20.0)
    said = find_order(edges, np.full(count, 2))
    assert f"has one of 2^{found.bits.max():.4g} states; at most 2^20 are" in said


def test_an_order_that_a_trial_does_not_improve_is_not_annealed_for_long(monkeypatch):
    edges, tried = np.array(list(itertools.combinations(range(50), 2))), []
    monkeypatch.setattr(orders, "annealed", lambda n, b, s, moves: tried.append(moves) or s)
    assert "2^50 states; at most 2^40" in find_order(edges, np.full(50, 2))
    assert tried == [orders.TRIAL]
    edges = np.array(list(itertools.combinations(range(70), 2)))
    assert "over 2^64 states" in find_order(edges, np.full(70, 2))
    assert tried == [orders.TRIAL]
