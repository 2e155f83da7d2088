"""Pairwise models that one minimum cut solves."""

from __future__ import annotations

import numpy as np

from energydsl._types import Refusal
from energydsl.mode.base import AbstractMethod, Found, Problem
from energydsl.mode.pairs import Minimum, Pairs, bare, cut


class GraphCut(AbstractMethod):
    """The minimum cut of a graph, which is proven to be the mode.

    It needs pairs that are submodular once the order of the levels of some sites is reversed: for
    sites of two levels, couplings without frustration, in any fields.
    """

    name = "graph cut"

    def reason(self, problem: Problem) -> str | None:
        pairs = problem.pairs
        if isinstance(pairs, Refusal):
            return pairs.reason
        if problem.turned is None:
            return (
                "the pairs are not submodular, whatever the order of levels: some loop is "
                "frustrated, or sites of more than two levels have energies such as those of labels"
            )
        return None

    def solve(self, problem: Problem) -> Found:
        pairs, turned = problem.pairs, problem.turned
        assert isinstance(pairs, Pairs) and turned is not None
        found = turned_cut(pairs, turned)
        if np.isinf(pairs.energy(found.states)):
            raise ValueError(
                "Every configuration has infinite energy: there is no most likely one."
            )
        proven = found.excess <= pairs.margin
        return Found(problem.placed(found.states), 0.0 if proven else found.excess, self.name)


def turned_cut(pairs: Pairs, turned: np.ndarray) -> Minimum:
    """The states of lowest energy of pairs that have a gauge."""
    found = cut(bare(pairs).reversed(turned))
    states = np.where(turned, pairs.levels - 1 - found.states, found.states)
    return found._replace(states=states)
