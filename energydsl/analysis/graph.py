"""Graph algorithms on edge arrays, vectorised so that they scale to millions of nodes.

A graph is a number of nodes and an (m, 2) array of edges, without self-loops or repeated edges.
"""

from __future__ import annotations

import networkx as nx
import numpy as np
import rustworkx as rx
import scipy.sparse as sp
import scipy.sparse.csgraph as csgraph

Edges = np.ndarray

PLANARITY_LIMIT = 200_000
"""The most edges of a graph whose planarity is tested."""


def unique_edges(pairs: np.ndarray, nodes: int) -> Edges:
    """The distinct edges in increasing order, without self-loops."""
    left, right = pairs[:, 0].astype(np.int64), pairs[:, 1].astype(np.int64)
    # Each edge is coded as one number: sorting numbers is much faster than sorting rows.
    codes = np.minimum(left, right) * nodes + np.maximum(left, right)
    codes = np.sort(codes[left != right])
    codes = codes[np.diff(codes, prepend=-1) > 0]
    return np.stack([codes // nodes, codes % nodes], axis=1).astype(np.int32)


def adjacency(nodes: int, edges: Edges) -> sp.csr_array:
    """The symmetric adjacency matrix."""
    rows = np.concatenate([edges[:, 0], edges[:, 1]])
    columns = np.concatenate([edges[:, 1], edges[:, 0]])
    return sp.csr_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(nodes, nodes))


def components(nodes: int, edges: Edges) -> tuple[int, np.ndarray]:
    """The number of connected components, and the component of each node."""
    if not len(edges):
        return nodes, np.arange(nodes, dtype=np.int32)
    return csgraph.connected_components(adjacency(nodes, edges), directed=False)


def on_cycles(nodes: int, arrows: Edges) -> np.ndarray:
    """True at each node on a directed cycle; self-loops and repeated arrows are allowed."""
    circular = np.zeros(nodes, bool)
    if len(arrows):
        tails, heads = arrows.T
        matrix = sp.csr_array((np.ones(len(arrows), np.int8), (tails, heads)), (nodes, nodes))
        count, labels = csgraph.connected_components(matrix, connection="strong")
        circular = np.bincount(labels, minlength=count)[labels] > 1
        circular[tails[tails == heads]] = True
    return circular


def reached(nodes: int, arrows: Edges, sources: np.ndarray) -> np.ndarray:
    """True at each node to which a directed path leads from a source, the sources included."""
    # One extra node has arrows to all sources.
    first = np.flatnonzero(sources)
    tails = np.concatenate([arrows[:, 0], np.full(len(first), nodes)])
    heads = np.concatenate([arrows[:, 1], first])
    matrix = sp.csr_array((np.ones(len(tails), np.int8), (tails, heads)), (nodes + 1, nodes + 1))
    found = np.zeros(nodes + 1, bool)
    found[csgraph.breadth_first_order(matrix, nodes, return_predecessors=False)] = True
    return found[:nodes]


def generations(nodes: int, arrows: Edges) -> int:
    """The number of nodes of the longest directed path in an acyclic graph."""
    directed = rx.PyDiGraph(multigraph=True, node_count_hint=nodes, edge_count_hint=len(arrows))
    directed.add_nodes_from(range(nodes))
    directed.add_edges_from_no_data(list(map(tuple, arrows.tolist())))
    return rx.dag_longest_path_length(directed) + 1


def two_colouring(nodes: int, edges: Edges) -> np.ndarray | None:
    """A colouring by 0 and 1, or None if the graph has an odd cycle."""
    sides = parity(nodes, edges)
    proper = (sides[edges[:, 0]] != sides[edges[:, 1]]).all()
    return sides if proper else None


def parity(nodes: int, edges: Edges) -> np.ndarray:
    """The parity of each node's depth in a spanning forest.

    If the graph is bipartite, this is a two-colouring. Pointer doubling needs log2(depth) passes.
    """
    count, labels = components(nodes, edges)
    _, roots = np.unique(labels, return_index=True)
    # One extra node joined to every component makes the forest a tree.
    stars = np.stack([np.full(count, nodes), roots], axis=1)
    joined = adjacency(nodes + 1, np.concatenate([edges, stars]).astype(np.int32))
    parent = csgraph.breadth_first_order(joined, nodes, directed=False)[1]
    parent[nodes] = nodes
    odd = np.ones(nodes + 1, np.int8)
    odd[nodes] = 0
    while (parent != nodes).any():
        odd ^= odd[parent]
        parent = parent[parent]
    return (1 - odd[:nodes]).astype(np.int32)


def greedy_colouring(nodes: int, edges: Edges) -> np.ndarray:
    """A greedy proper colouring, in order of decreasing degree."""
    colours = rx.graph_greedy_color(_rustworkx(nodes, edges))
    return np.fromiter((colours[i] for i in range(nodes)), np.int32, nodes)


def colouring(nodes: int, edges: Edges) -> np.ndarray:
    """A proper colouring: two colours if the graph is bipartite, greedy otherwise."""
    if not len(edges):
        return np.zeros(nodes, np.int32)
    if len(edges) == nodes * (nodes - 1) // 2:
        return np.arange(nodes, dtype=np.int32)
    sides = two_colouring(nodes, edges)
    return greedy_colouring(nodes, edges) if sides is None else sides


def is_planar(nodes: int, edges: Edges) -> bool | None:
    """Whether the graph is planar; None if it is too large to test."""
    if nodes < 5 or len(edges) < 9:
        return True
    if len(edges) > 3 * nodes - 6:
        return False
    if len(edges) > PLANARITY_LIMIT:
        return None
    return rx.is_planar(_rustworkx(nodes, edges))


def planar_drawing(nodes: int, edges: Edges) -> np.ndarray:
    """Whole-number coordinates, (node, 2), of a drawing with straight edges that do not cross.

    Source: Chrobak & Payne (1995), Information Processing Letters 54(4), 241-246.

    Raises:
        ValueError: the graph is not planar.
    """
    drawn = nx.Graph()
    drawn.add_nodes_from(range(nodes))
    drawn.add_edges_from(edges.tolist())
    planar, embedding = nx.check_planarity(drawn)
    if not planar:
        raise ValueError("planar_drawing got a graph that is not planar; test it by is_planar.")
    places = nx.combinatorial_embedding_to_pos(embedding)
    return np.array([places[i] for i in range(nodes)], np.int64).reshape(-1, 2)


def width_bound(nodes: int, edges: Edges) -> int:
    """An upper bound on the treewidth: the bandwidth after reordering, or a layer's size.

    It is 1 for forests. A graph of two layers has no larger treewidth than the smaller layer has
    nodes, since each node of the other layer can be eliminated first.

    Source: reverse Cuthill-McKee, George & Liu (1981), chapter 4; treewidth <= pathwidth <=
    bandwidth.
    """
    if not len(edges):
        return 0
    if len(edges) == nodes - components(nodes, edges)[0]:
        return 1
    order = csgraph.reverse_cuthill_mckee(adjacency(nodes, edges), symmetric_mode=True)
    position = np.empty(nodes, np.int64)
    position[order] = np.arange(nodes)
    band = int(np.abs(position[edges[:, 0]] - position[edges[:, 1]]).max())
    sides = two_colouring(nodes, edges)
    return band if sides is None else min(band, int(sides.sum()), nodes - int(sides.sum()))


def _rustworkx(nodes: int, edges: Edges) -> rx.PyGraph:
    graph = rx.PyGraph(multigraph=False, node_count_hint=nodes, edge_count_hint=len(edges))
    graph.add_nodes_from(range(nodes))
    graph.add_edges_from_no_data(list(map(tuple, edges.tolist())))
    return graph
