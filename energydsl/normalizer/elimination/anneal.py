"""Annealing: an order of elimination is made better by small random changes.

The order is held as a binary tree. Its leaves are cliques of the graph, which together have all of
its edges; an inner node joins what its two children leave. A site is eliminated at the lowest node
above all leaves that contain it. The open sites of a node are those that are both in a leaf below
it and in a leaf elsewhere, so that joining the nodes $a$ and $b$ takes as many terms as their open
sites together have joint states. A change replaces $((a, b), c)$ by $((a, c), b)$: it touches two
nodes only, and is accepted if it saves terms, or at random, ever more seldom, if it does not.

Source: Kalachev, Panteleev & Yung (2021), arXiv:2108.05665, section 3.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence

HOT, COLD = 0.4, 0.05
"""The first and the last temperature, in units of log2 of the terms of a change."""

WORSE = 8.0
"""log2 of how many times more terms than the widest clique at the start any clique may take: then
the sum over all cliques, which every change updates, stays exact enough."""

BETTER = 0.999
"""The share of the least terms so far from which a tree is better than the one it comes from."""


def annealed(
    neighbours: Sequence[Iterable[int]], bits: list[float], sites: list[int], moves: int
) -> list[int]:
    """An order with fewer terms than the given one, if one is found.

    Args:
        neighbours: the neighbours of each site of a connected graph.
        bits: log2 of the number of levels of each site.
        sites: the order from which changes begin.
        moves: how many changes are tried.
    """
    tree = _Tree(_cliques([_mask(around) for around in neighbours]), sites)
    _anneal(tree, _weight(bits), moves)
    return tree.order()


class _Tree:
    """A binary tree: the leaves are numbered first. Sets of sites are the bits of integers."""

    def __init__(self, leaves: list[int], sites: list[int]) -> None:
        """The tree that joins, site after site, all that contains it."""
        self.leaves, count = leaves, 2 * len(leaves) - 1
        self.left, self.right, self.parent = ([-1] * count for _ in range(3))
        position = {site: k for k, site in enumerate(sites)}
        waiting: list[list[int]] = [[] for _ in sites]
        live = [*leaves, *[0] * (count - len(leaves))]
        new = len(leaves)

        def wait(node: int) -> None:
            waiting[min(position[i] for i in _members(live[node]))].append(node)

        for leaf in range(len(leaves)):
            wait(leaf)
        for site, nodes in zip(sites, waiting, strict=True):
            nodes.sort(key=lambda k: live[k].bit_count())
            node = nodes[0] if nodes else -1
            for other in nodes[1:]:
                self.join(new, node, other)
                live[new] = live[node] | live[other]
                node, new = new, new + 1
            if nodes:
                live[node] &= ~(1 << site)
                if live[node]:
                    wait(node)

    def join(self, node: int, left: int, right: int) -> None:
        """Make two nodes the children of another."""
        self.left[node], self.right[node] = left, right
        self.parent[left] = self.parent[right] = node

    def downwards(self) -> list[int]:
        """All nodes, each before its children."""
        found = [self.parent.index(-1)]
        for node in found:
            if node >= len(self.leaves):
                found += self.left[node], self.right[node]
        return found

    def open(self) -> list[int]:
        """The sites of each node that are in leaves below it and in others."""
        nodes = self.downwards()
        inside = [*self.leaves, *[0] * (len(nodes) - len(self.leaves))]
        outside = [0] * len(nodes)
        inner = [node for node in nodes if node >= len(self.leaves)]
        for node in reversed(inner):
            inside[node] = inside[self.left[node]] | inside[self.right[node]]
        for node in inner:
            left, right = self.left[node], self.right[node]
            outside[left] = outside[node] | inside[right]
            outside[right] = outside[node] | inside[left]
        return [a & b for a, b in zip(inside, outside, strict=True)]

    def order(self) -> list[int]:
        """The sites in the order in which they are eliminated."""
        held, found = self.open(), []
        for node in reversed(self.downwards()):
            leaf = node < len(self.leaves)
            sites = self.leaves[node] if leaf else held[self.left[node]] | held[self.right[node]]
            found += _members(sites & ~held[node])
        return found


def _anneal(tree: _Tree, weight: Callable[[int], float], moves: int) -> None:
    """Change a tree so that its nodes take fewer terms together."""
    left, right, parent, held = tree.left, tree.right, tree.parent, tree.open()
    first, count = len(tree.leaves), len(tree.leaves) - 1
    bits = [0.0] * first
    bits += [weight(held[left[x]] | held[right[x]]) for x in range(first, first + count)]
    most = max(bits, default=0.0) + WORSE
    terms = least = sum(2.0**b for b in bits[first:])
    best = left[:], right[:], parent[:]
    drawn = random.Random(0).random
    for move in range(moves if count > 1 else 0):
        node = first + int(drawn() * count)
        above = parent[node]
        if above < 0:
            continue
        a, b, c = left[node], right[node], left[above]
        if c == node:
            c = right[above]
        if drawn() < 0.5:
            a, b = b, a
        joined = held[a] | held[c]
        opened = joined & (held[b] | held[above])
        low, high = weight(joined), weight(opened | held[b])
        if low > most or high > most:
            continue
        before, after = 2.0 ** bits[node] + 2.0 ** bits[above], 2.0**low + 2.0**high
        if after > before:
            temperature = HOT * (COLD / HOT) ** (move / moves)
            if drawn() >= math.exp(-math.log2(after / before) / temperature):
                continue
        left[node], right[node], left[above], right[above] = a, c, node, b
        parent[c], parent[b] = node, above
        held[node], bits[node], bits[above] = opened, low, high
        terms += after - before
        if terms < BETTER * least:
            least, best = terms, (left[:], right[:], parent[:])
    tree.left, tree.right, tree.parent = best


def _cliques(masks: list[int]) -> list[int]:
    """Cliques that together have every edge, given the neighbours of each site."""
    missing, found = masks[:], []
    for site in range(len(masks)):
        while missing[site]:
            clique, common = 1 << site, masks[site]
            while common:
                # An edge that no clique has yet comes first.
                new = _lowest(common & missing[site] or common)
                clique |= 1 << new
                common &= masks[new]
            for member in _members(clique):
                missing[member] &= ~clique
            found.append(clique)
    return found


def _weight(bits: list[float]) -> Callable[[int], float]:
    """log2 of the number of joint states of a set of sites."""
    alike = [(b, _mask(i for i, own in enumerate(bits) if own == b)) for b in sorted(set(bits))]
    if len(alike) == 1:
        one = bits[0]
        return lambda sites: one * sites.bit_count()
    return lambda sites: sum([b * (sites & mask).bit_count() for b, mask in alike])


def _mask(sites: Iterable[int]) -> int:
    """A set of sites as the bits of an integer."""
    return sum(1 << i for i in sites)


def _lowest(sites: int) -> int:
    return (sites & -sites).bit_length() - 1


def _members(sites: int) -> Iterator[int]:
    """The sites of a set, in increasing order."""
    while sites:
        yield _lowest(sites)
        sites &= sites - 1
