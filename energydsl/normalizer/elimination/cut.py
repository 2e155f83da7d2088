r"""Cuts: sites that are held, so that the sum over the others takes less memory.

If the messages between cliques take more memory than is allowed, some sites $c$ are held instead
of eliminated, which takes them out of every clique:

$$\log Z = \log \sum_c \exp \log Z(c).$$

What does not depend on them is computed again in every slice, so those sites are held for which
the terms of all slices are the fewest.

Source: Gray & Kourtis (2021), Quantum 5, 410.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from energydsl.normalizer.elimination.order import Order


class Cut(NamedTuple):
    """The sites that are held, and the order in which the others are eliminated."""

    held: list[int]
    order: Order
    count: int
    """The number of slices: the joint states of the sites that are held."""

    @property
    def terms(self) -> float:
        """Log2 of the terms of the widest clique in all slices together."""
        return math.log2(self.count) + float(self.order.bits.max())


def cut(order: Order, levels: np.ndarray, fits: Callable[[Order], bool], most: float) -> Cut | None:
    """Sites without which the order fits into memory; None if there are none within the budget.

    Args:
        order: an order that does not fit.
        levels: the number of levels of each site.
        fits: whether an order does.
        most: log2 of the terms that the widest clique may have, in all slices together.
    """
    found = Cut([], order, 1)
    while not fits(found.order):
        site = _cheapest(found.order, levels)
        order = _without(found.order, site, levels)
        found = Cut([*found.held, site], order, found.count * int(levels[site]))
        if not order.sites or found.terms > most:
            return None
    return found


def _cheapest(order: Order, levels: np.ndarray) -> int:
    """The site of the widest clique without which all slices together have the fewest terms."""
    terms = np.exp2(order.bits)
    total, own, inside = terms.sum(), {}, defaultdict(float)
    for site, around, count in zip(order.sites, order.separators, terms.tolist(), strict=True):
        own[site] = count
        for i in (site, *around):
            inside[i] += count
    widest = int(np.argmax(order.bits))
    clique = sorted({order.sites[widest], *order.separators[widest]})
    return min(clique, key=lambda i: levels[i] * (total - inside[i]) + inside[i] - own[i])


def _without(order: Order, site: int, levels: np.ndarray) -> Order:
    """The order of the other sites."""
    steps = zip(order.sites, order.separators, order.bits.tolist(), strict=True)
    less = math.log2(levels[site])
    left = [(i, a - {site}, b - less * (site in a)) for i, a, b in steps if i != site]
    return Order([i for i, *_ in left], [a for _, a, _ in left], np.array([b for *_, b in left]))
