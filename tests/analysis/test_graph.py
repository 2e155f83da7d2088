"""Graph algorithms against networkx and brute force."""

import itertools

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energydsl.analysis import graph


def random_graph(nodes, count, seed):
    rng = np.random.default_rng(seed)
    return graph.unique_edges(rng.integers(nodes, size=(count, 2)), nodes)


def edges_of(g):
    numbered = nx.convert_node_labels_to_integers(g)
    pairs = np.array(list(numbered.edges), np.int32).reshape(-1, 2)
    return len(numbered), graph.unique_edges(pairs, len(numbered))


def networkx_of(nodes, edges):
    g = nx.empty_graph(nodes)
    g.add_edges_from(edges.tolist())
    return g


small = (
    st.integers(1, 9)
    .flatmap(
        lambda n: st.tuples(
            st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2), max_size=25)
        )
    )
    .map(lambda p: (p[0], graph.unique_edges(np.array(p[1], np.int64).reshape(-1, 2), p[0])))
)

BIG = [(300, 60, 0), (300, 280, 1), (300, 400, 2), (2000, 1500, 3), (2000, 9000, 4)]


@given(pairs=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=30))
def test_edges_are_sorted_once_and_without_loops(pairs):
    found = graph.unique_edges(np.array(pairs, np.int32).reshape(-1, 2), 7)
    expected = {(min(p), max(p)) for p in pairs if p[0] != p[1]}
    assert [tuple(edge) for edge in found.tolist()] == sorted(expected)


def test_edges_of_many_nodes_do_not_overflow():
    nodes = 2**31 - 1
    pairs = np.array([[nodes - 1, 0], [nodes - 2, nodes - 1], [0, nodes - 1]])
    assert graph.unique_edges(pairs, nodes).tolist() == [[0, nodes - 1], [nodes - 2, nodes - 1]]


@settings(deadline=None)
@given(small=small)
def test_components(small):
    check_components(*small)


@pytest.mark.parametrize("big", BIG, ids=str)
def test_components_of_big_graphs(big):
    check_components(big[0], random_graph(*big))


def check_components(nodes, edges):
    count, labels = graph.components(nodes, edges)
    parts = list(nx.connected_components(networkx_of(nodes, edges)))
    assert count == len(parts) == len(np.unique(labels))
    assert all(len({int(labels[k]) for k in part}) == 1 for part in parts)


@settings(deadline=None)
@given(small=small)
def test_two_colouring_is_found_where_there_is_one(small):
    check_two_colouring(*small)


@pytest.mark.parametrize(
    "g",
    [
        nx.cycle_graph(4),
        nx.cycle_graph(5),
        nx.cycle_graph(2001),
        nx.cycle_graph(2000),
        nx.path_graph(3000),
        nx.complete_graph(4),
        nx.complete_bipartite_graph(3, 5),
        nx.grid_graph((7, 8)),
        nx.grid_graph((4, 6), periodic=True),
        nx.grid_graph((5, 6), periodic=True),
        nx.disjoint_union(nx.cycle_graph(4), nx.cycle_graph(3)),
        nx.disjoint_union_all([nx.path_graph(1), nx.star_graph(4), nx.cycle_graph(6)]),
        nx.random_labeled_tree(500, seed=1),
        nx.empty_graph(3),
        nx.hypercube_graph(5),
    ],
    ids=range(15),
)
def test_two_colouring_of_known_graphs(g):
    check_two_colouring(*edges_of(g))


@pytest.mark.parametrize("big", BIG, ids=str)
def test_two_colouring_of_big_graphs(big):
    nodes, edges = big[0], random_graph(*big)
    check_two_colouring(nodes, edges)
    # The same graph with every edge halved has no odd cycle.
    halved = np.concatenate(
        [
            np.stack([edges[:, 0], nodes + np.arange(len(edges))], axis=1),
            np.stack([edges[:, 1], nodes + np.arange(len(edges))], axis=1),
        ]
    )
    assert graph.two_colouring(nodes + len(edges), halved) is not None
    check_two_colouring(nodes + len(edges), halved)


def check_two_colouring(nodes, edges):
    sides = graph.two_colouring(nodes, edges)
    assert (sides is not None) == nx.is_bipartite(networkx_of(nodes, edges))
    if sides is not None:
        assert set(np.unique(sides)) <= {0, 1}
        assert (sides[edges[:, 0]] != sides[edges[:, 1]]).all()


@settings(deadline=None)
@given(small=small)
def test_colourings_are_proper(small):
    check_colouring(*small)


@pytest.mark.parametrize("big", BIG, ids=str)
def test_colourings_of_big_graphs_are_proper(big):
    check_colouring(big[0], random_graph(*big))


def check_colouring(nodes, edges):
    colours = graph.colouring(nodes, edges)
    assert colours.shape == (nodes,)
    assert (colours[edges[:, 0]] != colours[edges[:, 1]]).all()
    degrees = np.bincount(edges.ravel(), minlength=nodes)
    assert len(np.unique(colours)) <= degrees.max() + 1
    if nx.is_bipartite(networkx_of(nodes, edges)):
        assert len(np.unique(colours)) <= 2


def test_a_complete_graph_has_a_colour_for_each_node():
    assert len(np.unique(graph.colouring(*edges_of(nx.complete_graph(7))))) == 7


PLANAR = {
    "K4": nx.complete_graph(4),
    "lattice": nx.grid_graph((6, 7)),
    "wheel": nx.wheel_graph(9),
    "octahedron": nx.octahedral_graph(),
    "dodecahedron": nx.dodecahedral_graph(),
    "K5 without an edge": nx.from_edgelist(list(nx.complete_graph(5).edges)[1:]),
    "tree": nx.random_labeled_tree(40, seed=2),
    "K5 beside nothing": nx.disjoint_union(nx.complete_graph(4), nx.empty_graph(30)),
}
CROSSED = {
    "K5": nx.complete_graph(5),
    "K33": nx.complete_bipartite_graph(3, 3),
    "Petersen": nx.petersen_graph(),
    "torus": nx.grid_graph((5, 5), periodic=True),
    "cube lattice": nx.grid_graph((3, 3, 3)),
    "K5 among many": nx.disjoint_union(nx.complete_graph(5), nx.path_graph(200)),
    "K33 among many": nx.disjoint_union(nx.grid_graph((5, 5)), nx.complete_bipartite_graph(3, 3)),
}


def subdivided(g, times):
    """Every edge with new nodes on it: planarity stays as it was."""
    result = nx.Graph()
    for k, (a, b) in enumerate(g.edges):
        nx.add_path(result, [("old", a), *((k, t) for t in range(times)), ("old", b)])
    return result


@pytest.mark.parametrize("times", [0, 1, 3])
@pytest.mark.parametrize("name", [*PLANAR, *CROSSED])
def test_planarity(name, times):
    g = PLANAR.get(name) or CROSSED[name]
    assert graph.is_planar(*edges_of(subdivided(g, times) if times else g)) is (name in PLANAR)


@settings(deadline=None)
@given(small=small)
def test_planarity_agrees_with_networkx(small):
    nodes, edges = small
    assert graph.is_planar(nodes, edges) == nx.check_planarity(networkx_of(nodes, edges))[0]


def test_planarity_is_not_claimed_of_what_is_too_large_to_test(monkeypatch):
    monkeypatch.setattr(graph, "PLANARITY_LIMIT", 20)
    assert graph.is_planar(*edges_of(nx.grid_graph((5, 5)))) is None
    assert graph.is_planar(*edges_of(nx.complete_graph(9))) is False


def treewidth(nodes, edges):
    """By dynamic programming over the sets of nodes eliminated first."""
    neighbours = [0] * nodes
    for a, b in edges.tolist():
        neighbours[a] |= 1 << b
        neighbours[b] |= 1 << a

    def degree(done, v):
        """How many nodes outside `done` v meets, through `done` or directly."""
        seen, stack, met = 1 << v, [v], 0
        while stack:
            fresh = neighbours[stack.pop()] & ~seen
            seen |= fresh
            met |= fresh & ~done
            stack += [k for k in range(nodes) if fresh & done & (1 << k)]
        return met.bit_count()

    best = {0: 0}
    for size in range(nodes):
        for chosen in itertools.combinations(range(nodes), size):
            done = sum(1 << k for k in chosen)
            for v in set(range(nodes)) - set(chosen):
                width = max(best[done], degree(done, v))
                after = done | 1 << v
                best[after] = min(best.get(after, nodes), width)
    return best[(1 << nodes) - 1]


def test_the_oracle_knows_treewidths():
    known = [
        (nx.path_graph(6), 1),
        (nx.cycle_graph(6), 2),
        (nx.complete_graph(5), 4),
        (nx.grid_graph((3, 3)), 3),
        (nx.petersen_graph(), 4),
        (nx.complete_bipartite_graph(3, 4), 3),
    ]
    for g, width in known:
        assert treewidth(*edges_of(g)) == width


@settings(deadline=None, max_examples=40)
@given(small=small)
def test_the_width_bound_is_no_less_than_the_treewidth(small):
    nodes, edges = small
    assert graph.width_bound(nodes, edges) >= treewidth(nodes, edges)


@pytest.mark.parametrize(
    ("g", "bound"),
    [
        (nx.empty_graph(5), 0),
        (nx.path_graph(50), 1),
        (nx.random_labeled_tree(300, seed=5), 1),
        (nx.star_graph(40), 1),
        (nx.disjoint_union(nx.star_graph(5), nx.path_graph(7)), 1),
        (nx.cycle_graph(50), 2),
        (nx.complete_graph(8), 7),
        (nx.complete_bipartite_graph(4, 9), 4),
        (nx.complete_bipartite_graph(9, 4), 4),
    ],
    ids=range(9),
)
def test_the_width_bound_of_known_graphs(g, bound):
    assert graph.width_bound(*edges_of(g)) == bound


def test_the_width_bound_of_a_strip_does_not_grow_with_its_length():
    assert graph.width_bound(*edges_of(nx.grid_graph((4, 100)))) <= 8


def test_nodes_are_reached_along_arrows_only():
    arrows = np.array([[0, 1], [1, 2], [4, 3]])
    sources = np.arange(5) == 1
    np.testing.assert_array_equal(graph.reached(5, arrows, sources), [0, 1, 1, 0, 0])
    assert not graph.reached(5, arrows, np.zeros(5, bool)).any()
