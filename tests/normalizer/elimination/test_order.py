"""Orders of elimination against matrices of neighbours, and the time that a search may take."""

import itertools

import numpy as np
import pytest

from energydsl.normalizer.elimination import order as orders
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


def test_other_ties_are_not_tried_where_sums_are_out_of_reach(monkeypatch):
    tried, greedy = [], orders._greedy
    monkeypatch.setattr(orders, "_greedy", lambda *a: tried.append(a[2]) or greedy(*a))
    assert isinstance(find_order(grid(44, 44), np.full(44 * 44, 2)), str)
    assert tried == [orders._Weight, orders._Fill]
    tried.clear()
    # 7 million terms: one more order for each million.
    assert find_order(grid(16, 16), np.full(256, 2)).terms < 8e6
    assert tried == [orders._Weight] + [orders._Fill] * 8
