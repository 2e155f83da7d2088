r"""Roof duality: the lower bound of a pairwise model of two levels, and levels that some mode has.

Each site gets a second node that stands for its opposite. Half of each energy is written with the
nodes of the sites or their opposites so that all pairs are submodular, the other half with the
opposites of these nodes. The minimum over the nodes, in which a site may differ from its opposite's
opposite, is a lower bound; it is that of the linear relaxation on the local polytope. The sites
that agree with their second node have the same level in some mode.

Source: Boros & Hammer (2002), Discrete Applied Mathematics 123, 155-225, section 5; Kolmogorov &
Rother (2007), IEEE PAMI 29(7), 1274-1279.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from energydsl.mode.pairs import Pairs, bare, cut


class Roof(NamedTuple):
    """A lower bound, and levels of some sites."""

    bound: float
    """Infinity if every state is forbidden."""
    states: np.ndarray
    """The level of each site; 0 where it is not known."""
    known: np.ndarray
    """Whether some mode has all these levels together."""

    def improved(self, states: np.ndarray) -> np.ndarray:
        """States of the same or lower energy."""
        return np.where(self.known, self.states, states)


def roof(pairs: Pairs) -> Roof:
    """The bound of a pairwise model whose sites have two levels."""
    doubled = _doubled(bare(pairs))
    found = cut(doubled)
    first, second = found.states.reshape(2, -1)
    known = first != second
    bound = doubled.energy(found.states)
    bound = bound - found.excess if np.isfinite(bound) else np.inf
    return Roof(bound, np.where(known, first, 0), known)


def _doubled(pairs: Pairs) -> Pairs:
    count, edges = len(pairs.sites), pairs.edges
    turned = (pairs.bends < 0).any(axis=(1, 2))
    half = pairs.tables / 2
    one = np.where(turned[:, None, None], half[:, :, ::-1], half)
    ends = edges + np.stack([np.zeros(len(edges), int), count * turned], axis=1)
    opposite = edges + np.stack([np.full(len(edges), count), count * ~turned], axis=1)
    return Pairs(
        np.full(2 * count, 2),
        np.concatenate([pairs.sites, pairs.sites[:, ::-1]]) / 2,
        np.concatenate([ends, opposite]),
        np.concatenate([one, one[:, ::-1, ::-1]]),
    )
