"""Annealed orders of elimination against sets of leaves and matrices of neighbours."""

import itertools

import networkx
import numpy as np
import pytest

from energydsl.normalizer.elimination import anneal
from energydsl.normalizer.elimination.anneal import annealed
from tests.normalizer.elimination.test_order import connected, eliminated


def around(edges, count):
    graph = networkx.Graph(edges.tolist())
    return [set(graph[i]) for i in range(count)]


@pytest.fixture(params=range(4))
def graph(request):
    """The edges of a graph and the levels of its sites, of which some have only one."""
    rng = np.random.default_rng(request.param)
    count = 20
    return connected(rng, count, 25), rng.integers(1, 5, count)


def sites(mask):
    return {i for i in range(mask.bit_length()) if mask >> i & 1}


def test_cliques_are_cliques_and_have_every_edge(graph):
    edges = graph[0]
    drawn = networkx.Graph(edges.tolist())
    found = [sites(c) for c in anneal._cliques([anneal._mask(a) for a in around(*graph_of(graph))])]
    pairs = [set(map(frozenset, itertools.combinations(sorted(c), 2))) for c in found]
    assert set().union(*pairs) == set(map(frozenset, edges.tolist()))
    assert all(drawn.has_edge(*pair) for each in pairs for pair in each)


def graph_of(graph):
    return graph[0], len(graph[1])


def tree_of(graph, order):
    neighbours = around(*graph_of(graph))
    return anneal._Tree(anneal._cliques([anneal._mask(a) for a in neighbours]), order)


def below(tree, node):
    """The leaves below a node, by going down from it."""
    if node < len(tree.leaves):
        return {node}
    return below(tree, tree.left[node]) | below(tree, tree.right[node])


def assert_sound(tree, held):
    """Every node has one parent, and its open sites are in leaves below it and in others."""
    count = len(tree.leaves)
    assert below(tree, tree.parent.index(-1)) == set(range(count))
    for node, mask in enumerate(held):
        inside = below(tree, node)
        of = [
            set().union(*(sites(tree.leaves[k]) for k in leaves))
            for leaves in (inside, set(range(count)) - inside)
        ]
        assert sites(mask) == of[0] & of[1]
        if node >= count:
            assert {tree.parent[tree.left[node]], tree.parent[tree.right[node]]} == {node}


def test_open_sites_are_inside_and_outside_before_and_after_changes(graph):
    order = np.random.default_rng(7).permutation(20).tolist()
    tree = tree_of(graph, order)
    assert_sound(tree, tree.open())
    anneal._anneal(tree, anneal._weight(np.log2(graph[1]).tolist()), 300)
    assert_sound(tree, tree.open())


def test_the_tree_of_an_order_takes_no_clique_wider_than_the_order_does(graph):
    edges, levels = graph
    order = np.random.default_rng(3).permutation(20).tolist()
    again = tree_of(graph, order).order()
    assert sorted(again) == list(range(20))
    widest = [max(eliminated(edges, levels, o)[1]) for o in (order, again)]
    assert widest[1] <= widest[0]


def test_terms_become_fewer_and_the_same_order_is_found_again():
    rng = np.random.default_rng(0)
    edges, levels = connected(rng, 40, 40), rng.integers(2, 4, 40)
    bits, order = np.log2(levels).tolist(), rng.permutation(40).tolist()
    found = [annealed(around(edges, 40), bits, order, 4000) for _ in range(2)]
    assert found[0] == found[1] and sorted(found[0]) == list(range(40))
    before, after = (np.sum(eliminated(edges, levels, o)[1]) for o in (order, found[0]))
    assert after < before / 1000


@pytest.mark.parametrize("edges", [[(0, 1)], [(0, 1), (1, 2), (0, 2)]])
def test_a_single_clique_has_nothing_to_change(edges):
    count = 1 + max(map(max, edges))
    assert sorted(annealed(around(np.array(edges), count), [1.0] * count, list(range(count)), 9))


def test_a_change_is_never_to_a_clique_far_wider_than_at_the_start(monkeypatch):
    rng = np.random.default_rng(1)
    edges = connected(rng, 30, 40)
    monkeypatch.setattr(anneal, "HOT", 1e9)
    monkeypatch.setattr(anneal, "COLD", 1e9)
    monkeypatch.setattr(anneal, "WORSE", 1.0)
    monkeypatch.setattr(anneal, "BETTER", np.inf)  # The last tree is the one that is kept.
    order = list(range(30))
    tree = anneal._Tree(anneal._cliques([anneal._mask(a) for a in around(edges, 30)]), order)
    held = tree.open()
    weight, seen = anneal._weight([1.0] * 30), []

    def widest(held):
        first = len(tree.leaves)
        nodes = range(first, len(held))
        return max(weight(held[tree.left[x]] | held[tree.right[x]]) for x in nodes)

    most = widest(held) + 1
    anneal._anneal(tree, lambda m: seen.append(weight(m)) or seen[-1], 2000)
    assert max(seen) > most >= widest(tree.open())
