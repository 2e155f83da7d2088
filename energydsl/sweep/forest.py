"""Finite sites in sets that induce forests, and the order in which a forest's sites are visited."""

from __future__ import annotations

import numpy as np

from energydsl.analysis import graph
from energydsl.analysis.structure import Structure

LINES = 0.75
"""The number of joined pairs for each site from which on lines are used without a search."""

NONE = -1


def finite_sites(structure: Structure) -> np.ndarray:
    """True at the free sites with finitely many levels."""
    return structure.free & (structure.levels > 0)


def is_forest(structure: Structure) -> bool:
    """Whether the interactions of the finite free sites have no cycle."""
    return not structure.crowded and _acyclic(structure.sites, _edges(structure))


def _edges(structure: Structure) -> np.ndarray:
    return structure.edges[finite_sites(structure)[structure.edges].all(axis=1)]


def _acyclic(nodes: int, edges: np.ndarray) -> bool:
    return len(edges) == nodes - graph.components(nodes, edges)[0]


def forest_sets(structure: Structure) -> np.ndarray:
    """The set of each finite free site, -1 at other sites; every set induces a forest.

    A forest is one set. Else lines of consecutive sites that interact, such as the rows of a
    lattice, are coloured such that no two neighbouring lines are in one set. If these join few
    sites, because sites are numbered in no such order, trees are grown site by site.
    """
    chosen, edges = finite_sites(structure), _edges(structure)
    if _acyclic(structure.sites, edges):
        return np.where(chosen, 0, NONE)
    lines = _lines(structure.sites, edges)
    joined = _joined(lines, edges)
    if joined < LINES * chosen.sum():
        grown = _grown(structure.sites, edges)
        lines = grown if _joined(grown, edges) > joined else lines
    # Sets without a finite free site disappear.
    _, compact = np.unique(lines[chosen], return_inverse=True)
    sets = np.full(structure.sites, NONE)
    sets[chosen] = compact
    return sets


def _joined(sets: np.ndarray, edges: np.ndarray) -> int:
    return int((sets[edges[:, 0]] == sets[edges[:, 1]]).sum())


def _lines(nodes: int, edges: np.ndarray) -> np.ndarray:
    """A colouring of the lines of consecutive nodes that are joined and have no other edges."""
    next_to = np.zeros(nodes, bool)
    next_to[edges[edges[:, 1] == edges[:, 0] + 1, 1]] = True
    line = np.cumsum(~next_to)
    chords = edges[(line[edges[:, 0]] == line[edges[:, 1]]) & (edges[:, 1] > edges[:, 0] + 1)]
    # A line that closes to a ring, or has another chord, is cut before the chord's end.
    next_to[chords[:, 1]] = False
    line = np.cumsum(~next_to) - 1
    between = line[edges][line[edges[:, 0]] != line[edges[:, 1]]]
    count = int(line[-1]) + 1
    return graph.colouring(count, graph.unique_edges(between, count))[line]


def _grown(nodes: int, edges: np.ndarray) -> np.ndarray:
    """Each node in turn joins the set in which it has the most neighbours and closes no cycle."""
    matrix = graph.adjacency(nodes, edges)
    starts, neighbours = matrix.indptr.tolist(), matrix.indices.tolist()
    sets, tree = [NONE] * nodes, list(range(nodes))

    def root(node: int) -> int:
        while tree[node] != node:
            tree[node] = tree[tree[node]]
            node = tree[node]
        return node

    for node in range(nodes):
        roots: dict[int, list[int]] = {}
        for other in neighbours[starts[node] : starts[node + 1]]:
            if sets[other] != NONE:
                roots.setdefault(sets[other], []).append(root(other))
        fits = {k: len(r) for k, r in roots.items() if len(set(r)) == len(r)}
        # Without neighbours of its own, any set fits; a new one is begun if all would close cycles.
        empty = next(k for k in range(len(roots) + 1) if k not in roots)
        best = max(fits, key=lambda k: (fits[k], -k), default=empty)
        sets[node] = best
        for end in roots.get(best, ()):
            tree[end] = node
    return np.array(sets)


class Forest:
    """The sites of a forest by their distance from the centre of their tree.

    The roots, at distance 0, are `roots`. The sites at greater distances are the rows of `body`,
    (distance - 1, lane), padded with -1.
    """

    def __init__(self, nodes: int, members: np.ndarray, edges: np.ndarray) -> None:
        self.parent = _parents(nodes, edges)
        depth = _depths(self.parent)
        deep = members[np.argsort(depth[members], kind="stable")]
        rows = np.split(deep, np.cumsum(np.bincount(depth[members]))[:-1])
        self.roots = rows[0]
        self.lane = np.full(nodes, NONE)
        self.lane[self.roots] = np.arange(len(self.roots))
        below = self.parent[np.concatenate([rows[0][:0], *rows[2:]])]
        self.straight = len(np.unique(below)) == len(below)
        """Whether only roots have several children, so that a lane holds a path."""
        for number, row in enumerate(rows[1:]):
            above = self.lane[self.parent[row]]
            order = np.argsort(above, kind="stable")
            inherited = self.straight and number > 0
            self.lane[row[order]] = above[order] if inherited else np.arange(len(row))
        lanes = max((self.lane[row].max() + 1 for row in rows[1:]), default=0)
        self.body = np.full((len(rows) - 1, lanes), NONE)
        for place, row in zip(self.body, rows[1:], strict=True):
            place[self.lane[row]] = row

    @property
    def slots(self) -> np.ndarray:
        """The site of each slot: those of the roots, then those of the body; -1 at padding."""
        return np.concatenate([self.roots, self.body.ravel()])

    def above(self) -> np.ndarray:
        """For each place of the body, the lane of its parent; 0 at padding."""
        return np.where(self.body >= 0, self.lane[self.parent[self.body]], 0)


def _parents(nodes: int, edges: np.ndarray) -> np.ndarray:
    """The parent of each node in a forest rooted at its trees' centres; -1 for roots.

    All leaves are removed at once, again and again, until single nodes are left.
    """
    parent = np.full(nodes, NONE)
    while len(edges):
        leaf = np.bincount(edges.ravel(), minlength=nodes) == 1
        a, b = edges.T
        last, first = leaf[b], leaf[a] & ~leaf[b]
        parent[b[last]], parent[a[first]] = a[last], b[first]
        edges = edges[~(last | first)]
    return parent


def _depths(parent: np.ndarray) -> np.ndarray:
    """The distance of each node from its root, by pointer doubling."""
    hop = np.where(parent < 0, np.arange(len(parent)), parent)
    depth = (parent >= 0).astype(int)
    while True:
        further = depth + depth[hop]
        if (further == depth).all():
            return depth
        depth, hop = further, hop[hop]
