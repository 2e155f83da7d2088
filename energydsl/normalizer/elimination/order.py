"""Orders of elimination for one connected component of an interaction graph.

To eliminate a site is to sum over it: its neighbours then interact jointly, so that they become
neighbours of each other. A site and its neighbours at that moment are a clique, and the sum takes
as many terms as the clique has joint states. The order decides how large the cliques become.

Source: Koller & Friedman (2009), Probabilistic Graphical Models, section 9.4.3.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse.csgraph as csgraph

from energydsl.analysis.graph import Edges, adjacency
from energydsl.normalizer.elimination.anneal import annealed

MAX_BITS = 40.0
"""log2 of the joint states of a clique above which no order is taken."""

TRIED_BITS = 64.0
"""The same above which an order is not annealed, either, so that its cliques become smaller."""

PROMISING = 2.0
"""How many times fewer terms a trial must leave of such an order to be annealed for longer."""

MAX_SITES, MAX_TREE = 10_000, 200_000
"""The most sites of a component for which greedy orders are tried: a graph with cycles, a tree."""

FILL_SITES = 3_000
"""The most sites of a component for which the order of least fill is tried."""

TRIAL, MOVES, WORTH = 10_000, 300_000, 200.0
"""The changes by which an order is annealed at first and at most, and the terms that are worth one
of them."""

NARROW = 14.0
"""log2 of the joint states of the widest clique below which an order is not annealed."""

REGULAR = 4.0
"""How many times more terms an order along a band may take and still be preferred: its steps are
alike, so that one compiled loop carries out all of them."""

LONG = 200
"""The number of sites from which an order along a band is preferred so."""

Neighbours = list[set[int]]


class Order(NamedTuple):
    """Sites in the order of their elimination, each with its neighbours at that moment."""

    sites: list[int]
    separators: list[set[int]]
    bits: np.ndarray
    """For each step, log2 of the number of joint states of the site and these neighbours."""

    @property
    def terms(self) -> float:
        """The number of terms of all sums together."""
        return float(np.exp2(self.bits).sum())


def find_order(edges: Edges, levels: np.ndarray) -> Order | str:
    """The best order found, or why there is none.

    Args:
        edges: the edges of a connected graph, whose nodes are numbered from 0.
        levels: the number of levels of each node.
    """
    count, bits = len(levels), np.log2(levels).tolist()
    tree = len(edges) == count - 1
    small = count <= (MAX_TREE if tree else MAX_SITES)
    band = None if tree and small else _band(edges, count)
    wide = band is None or band[1] > MAX_BITS
    if wide and not small:
        return (
            f"{count:,} sites are connected in a graph of no narrow band; orders of elimination "
            f"are searched for at most {MAX_SITES:,} ({MAX_TREE:,} in a tree)"
        )
    neighbours = _neighbours(edges, count)
    along = None if band is None or wide else _follow(neighbours, bits, band[0])
    found = [along]
    if small:
        found.append(_greedy(neighbours, bits, _Weight))
    if not tree and count <= FILL_SITES:
        found.append(_greedy(neighbours, bits, _Fill))
    best = _best(found)
    if best is None:
        return (
            f"each order of elimination that was tried has a clique of over 2^{TRIED_BITS:g} states"
        )
    preferred = along if along and count >= LONG and along.bits.max() <= MAX_BITS else None
    if small and not tree and best.bits.max() >= NARROW:
        best = _improved(neighbours, bits, best, preferred.terms if preferred else math.inf)
    if preferred and preferred.terms <= REGULAR * best.terms:
        best = preferred
    if best.bits.max() > MAX_BITS:
        return (
            "the order of elimination with the smallest cliques that was found has one of "
            f"2^{best.bits.max():.4g} states; at most 2^{MAX_BITS:g} are summed over"
        )
    return best


def _improved(neighbours: Neighbours, bits: list[float], best: Order, least: float) -> Order:
    """The order, annealed; for longer only if a trial leaves fewer than `least` terms."""
    for moves in (TRIAL, int(min(MOVES, best.terms / WORTH))):
        before = best.terms
        found = _follow(neighbours, bits, annealed(neighbours, bits, best.sites, moves))
        best = _best([best, found]) or best
        hopeless = best.bits.max() > MAX_BITS and best.terms * PROMISING > before
        if best.terms >= least or hopeless:
            break
    return best


def _best(orders: list[Order | None]) -> Order | None:
    """The order with the fewest terms."""
    return min((o for o in orders if o is not None), key=lambda o: o.terms, default=None)


def _band(edges: Edges, count: int) -> tuple[list[int], float]:
    """An order in which neighbours are close to each other, and the width of the band.

    Source: reverse Cuthill-McKee, George & Liu (1981), chapter 4.
    """
    order = csgraph.reverse_cuthill_mckee(adjacency(count, edges), symmetric_mode=True)
    position = np.empty(count, np.int64)
    position[order] = np.arange(count)
    return order.tolist(), float(np.abs(position[edges[:, 0]] - position[edges[:, 1]]).max())


def _neighbours(edges: Edges, count: int) -> Neighbours:
    neighbours: Neighbours = [set() for _ in range(count)]
    for i, j in edges.tolist():
        neighbours[i].add(j)
        neighbours[j].add(i)
    return neighbours


def _follow(neighbours: Neighbours, bits: list[float], sites: Iterable[int]) -> Order | None:
    """The given order; None if a clique has too many joint states."""
    graph, order = [set(n) for n in neighbours], Order([], [], np.zeros(0))
    needed = []
    for site in sites:
        needed.append(_weight(graph, bits, site))
        if needed[-1] > TRIED_BITS:
            return None
        order.sites.append(site)
        order.separators.append(_eliminate(graph, site))
    return order._replace(bits=np.array(needed))


def _greedy(neighbours: Neighbours, bits: list[float], score: type[_Weight]) -> Order | None:
    """The order that eliminates a site of lowest score next; of equal ones the earliest scored."""
    graph, order = [set(n) for n in neighbours], Order([], [], np.zeros(0))
    scored = score(graph, bits)
    scores = scored.of(range(len(graph)))
    stamps = itertools.count()
    heap = [(s, next(stamps), i) for i, s in enumerate(scores)]
    heapq.heapify(heap)
    done, needed = [False] * len(scores), []
    while heap:
        value, _, site = heapq.heappop(heap)
        if done[site] or value != scores[site]:
            continue
        needed.append(_weight(graph, bits, site))
        if needed[-1] > TRIED_BITS:
            return None
        done[site] = True
        separator = _eliminate(graph, site)
        order.sites.append(site)
        order.separators.append(separator)
        changed = scored.changed(site, separator)
        for i, new in zip(changed, scored.of(changed), strict=True):
            if new != scores[i]:
                scores[i] = new
                heapq.heappush(heap, (new, next(stamps), i))
    return order._replace(bits=np.array(needed))


class _Weight:
    """Scores sites by the joint states that their elimination would sum over."""

    def __init__(self, graph: Neighbours, bits: list[float]):
        self.graph, self.bits = graph, bits

    def of(self, sites: Sequence[int]) -> list[float]:
        return [_weight(self.graph, self.bits, i) for i in sites]

    def changed(self, site: int, separator: set[int]) -> list[int]:
        """The sites whose score an elimination may have changed, in increasing order."""
        return sorted(separator)


class _Fill(_Weight):
    """Scores sites by their pairs of neighbours that are not neighbours of each other."""

    def __init__(self, graph: Neighbours, bits: list[float]):
        super().__init__(graph, bits)
        # The neighbours of a site as the bits of one integer: two such sets are met at once.
        self.masks = [sum(1 << j for j in around) for around in graph]

    def of(self, sites: Sequence[int]) -> list[float]:
        masks, scores = self.masks, []
        for site in sites:
            around, own = self.graph[site], masks[site]
            met = sum([(own & masks[i]).bit_count() for i in around])
            scores.append((len(around) * (len(around) - 1) - met) / 2)
        return scores

    def changed(self, site: int, separator: set[int]) -> list[int]:
        joined = self.masks[site]
        for i in separator:
            self.masks[i] = (self.masks[i] | joined) & ~(1 << i | 1 << site)
        return sorted(separator.union(*(self.graph[i] for i in separator)))


def _weight(graph: Neighbours, bits: list[float], site: int) -> float:
    """log2 of the number of joint states of a site and its neighbours."""
    return bits[site] + sum(bits[i] for i in graph[site])


def _eliminate(graph: Neighbours, site: int) -> set[int]:
    """Remove a site and join its neighbours, which are returned."""
    around, graph[site] = graph[site], set()
    for i in around:
        graph[i] |= around
        graph[i] -= {i, site}
    return around
