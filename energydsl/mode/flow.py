"""Minimum cuts of graphs with real capacities, by SciPy's maximum flow in 32-bit integers.

Each round scales what is left of the capacities to integers, rounds them down, and sends a maximum
flow. What rounding left over is found by the next round, whose unit is about $10^4$ to $10^9$ times
finer, because no arc needs more capacity than the flow that is still missing. The flow of all
rounds is feasible, so that it bounds every cut from below; the cut that the last round found
exceeds it by what is left of the capacities of its arcs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

MOST = 2**30 - 1
"""The largest capacity: what an arc and its reverse leave together must fit into 32 bits."""

ROUNDS = 8
"""The most rounds; two or three are usual."""

EXACT = 1e-14
"""The excess over the flow, relative to all capacities, at which a cut is taken as minimal."""


class Cut(NamedTuple):
    """A cut of a graph."""

    source: np.ndarray
    """Whether each node is on the source's side."""
    excess: float
    """The capacity of the cut is at most this much above that of a minimum cut."""


def minimum_cut(nodes: int, arcs: np.ndarray, capacities: np.ndarray) -> Cut:
    """A minimum cut between the nodes numbered `nodes` (the source) and `nodes + 1` (the sink).

    Args:
        nodes: the number of other nodes.
        arcs: the tail and the head of each arc, (2, arc).
        capacities: (arc,), at least 0; an infinite one is cut only if no finite cut exists.
    """
    finite = np.isfinite(capacities)
    total = float(capacities[finite].sum())
    bounded = np.where(finite, capacities, 2 * total + 1)
    # With an arc of capacity 0 against each arc, flows have the same entries as capacities.
    both = np.concatenate([arcs, arcs[::-1]], axis=1)
    values = np.concatenate([bounded, np.zeros_like(bounded)])
    left = coo_array((values, tuple(both)), shape=(nodes + 2, nodes + 2)).tocsr()
    largest = float(capacities[finite].max(initial=0.0)) or 1.0
    best = Cut(np.zeros(nodes, bool), np.inf)
    for _ in range(ROUNDS):
        unit = largest / MOST
        whole = np.floor(np.minimum(left.data / unit, MOST)).astype(np.int32)
        sent = maximum_flow(_like(left, whole), nodes, nodes + 1).flow.data
        left.data = np.maximum(left.data - sent * unit, 0.0)
        found = _cut(nodes, whole > sent, left)
        best = found if found.excess < best.excess else best
        if best.excess <= EXACT * total:
            break
        largest = min(best.excess, 2 * total + 1)
    return best


def _like(graph: csr_array, values: np.ndarray) -> csr_array:
    """Other values for the arcs of a graph."""
    return csr_array((values, graph.indices, graph.indptr), shape=graph.shape)


def _cut(nodes: int, more: np.ndarray, left: csr_array) -> Cut:
    """The nodes that the source reaches by arcs that take more, and what is left beyond them."""
    open_arcs = _like(left, more.astype(np.int8)).copy()
    open_arcs.eliminate_zeros()
    reached = np.zeros(nodes + 2, bool)
    reached[breadth_first_order(open_arcs, nodes, return_predecessors=False)] = True
    rows = np.repeat(reached, np.diff(left.indptr))
    return Cut(reached[:nodes], float(left.data[rows & ~reached[left.indices]].sum()))
