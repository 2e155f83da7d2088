"""Spanning trees of a graph: a cover of all edges, and the tree of the largest weight."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree

COVERS = 2
"""How often the trees could cover all edges, if no edge were in two trees of one cover."""


class Tree(NamedTuple):
    """A spanning tree with a root; of a graph of several parts, a tree of each."""

    edges: np.ndarray
    """The numbers of its edges."""
    parent: np.ndarray
    """The parent of each site; its own number for a root."""
    depth: np.ndarray
    """(site,)"""
    up: np.ndarray
    """The edge from each site to its parent; -1 for a root."""


class Forest(NamedTuple):
    """Several trees as one forest, with a node for each site of each tree."""

    contains: np.ndarray
    """Whether a tree has an edge, as 1 and 0, (tree, edge)."""
    depths: list[np.ndarray]
    """The nodes at each depth; the first are roots."""
    parent: np.ndarray
    """The parent of each node; its own number for a root."""
    up: np.ndarray
    """The edge from each node to its parent; -1 for a root."""
    first: np.ndarray
    """Whether the parent is the first end of that edge."""

    @staticmethod
    def of(edges: np.ndarray, trees: list[Tree]) -> Forest:
        """The forest of some trees of the graph with these edges, (edge, 2)."""
        contains = np.zeros((len(trees), len(edges)))
        for number, tree in enumerate(trees):
            contains[number, tree.edges] = 1.0
        parent, depth, up = (np.stack([tree[k] for tree in trees]) for k in (1, 2, 3))
        first = np.zeros(up.shape, bool)
        first[up >= 0] = edges[up[up >= 0], 0] == parent[up >= 0]
        nodes = parent + parent.shape[1] * np.arange(len(trees))[:, None]
        layers = [np.flatnonzero(depth == d) for d in range(depth.max() + 1)]
        return Forest(contains, layers, nodes.ravel(), up.ravel(), first.ravel())


def covering(count: int, edges: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Trees that together have all edges: again and again one of the edges that were used least."""
    if not len(edges):
        return [np.zeros(0, int)]
    used = np.zeros(len(edges))
    trees: list[np.ndarray] = []
    while True:
        tree = heaviest(count, edges, -(used + 0.9 * rng.random(len(edges))))
        used[tree] += 1
        trees.append(tree)
        enough = COVERS * len(edges) / len(tree)
        if used.all() and (len(trees) >= enough or len(tree) == len(edges)):
            return trees


def heaviest(count: int, edges: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The edges of the spanning tree for which the sum of their weights is largest."""
    shape = (count, count)
    number = coo_array((1 + np.arange(len(edges)), edges.T), shape=shape).tocsr()
    # SciPy takes a cost of 0 for no edge.
    cost = 1 + weights.max(initial=0.0) - weights
    rows, columns = minimum_spanning_tree(coo_array((cost, edges.T), shape=shape).tocsr()).nonzero()
    return np.asarray(number[rows, columns]).ravel() - 1


def rooted(count: int, edges: np.ndarray, tree: np.ndarray) -> Tree:
    """The tree of these edges, with a root in each part of the graph."""
    # A node beyond the others is joined to one node of each part, so that one search visits all.
    own = edges[tree]
    joined = coo_array((np.ones(len(own)), own.T), shape=(count, count))
    roots = np.unique(connected_components(joined, directed=False)[1], return_index=True)[1]
    ends = np.concatenate([own, np.stack([roots, np.full(len(roots), count)], axis=1)])
    number = np.concatenate([tree, np.full(len(roots), -1)])
    whole = coo_array((np.ones(len(ends)), ends.T), shape=(count + 1, count + 1)).tocsr()
    order, before = breadth_first_order(whole, count, directed=False)
    depth = np.zeros(count + 1, int)
    for node in order[1:].tolist():
        depth[node] = depth[before[node]] + 1
    below = ends.T[1] == before[ends.T[0]]
    child = np.where(below, ends.T[0], ends.T[1])
    up = np.full(count, -1)
    up[child] = number
    parent = np.where(up < 0, np.arange(count), before[:count])
    return Tree(tree, parent, depth[:count] - 1, up)
