r"""Pairwise models of labels, by moves to one label at a time."""

from __future__ import annotations

import numpy as np

from energydsl._types import Refusal
from energydsl.estimator.finite import Finite
from energydsl.mode.base import AbstractMethod, Found, Problem
from energydsl.mode.diffusion import dual
from energydsl.mode.pairs import Pairs, bare, cut

ROUNDS = 100
"""The most rounds over all labels; a few are usual."""


class Expansion(AbstractMethod):
    r"""Alpha-expansion: a cut decides which sites take the label $\alpha$; the others keep theirs.

    Each such move is the best one, so that the energy falls until no move lowers it. It needs pairs
    with $E(\alpha, \alpha) + E(\beta, \gamma) \le E(\beta, \alpha) + E(\alpha, \gamma)$ for all
    labels: metrics, such as those of Potts models.

    The bound is the higher one of dual decomposition and of the guarantee $E(x) \le \sum_i
    E_i(x^*_i) + 2c \sum_{ij} E_{ij}(x^*)$ for the mode $x^*$, where all terms are counted from
    their lowest values and c is the largest ratio of energies of different labels of one pair.

    Source: Boykov, Veksler & Zabih (2001), IEEE PAMI 23(11), 1222-1239, sections 4 and 6.
    """

    name = "alpha-expansion"

    def reason(self, problem: Problem) -> str | None:
        pairs = problem.pairs
        if isinstance(pairs, Refusal):
            return pairs.reason
        bad = not_metric(pairs)
        if bad is None:
            return None
        sites = np.flatnonzero(problem.structure.free)[pairs.edges[bad]]
        first, second = map(problem.structure.describe, sites.tolist())
        return f"the energies of {first} and {second} are no metric of their levels"

    def solve(self, problem: Problem) -> Found:
        pairs, model = problem.pairs, problem.tables
        assert isinstance(pairs, Pairs) and isinstance(model, Finite)
        start = pairs.sites.argmin(axis=1)
        states = expanded(pairs, start)
        energy = pairs.energy(states)
        lower = dual(model, energy)
        other = expanded(pairs, lower.states)
        if pairs.energy(other) < energy:
            states, energy = other, pairs.energy(other)
        if np.isinf(energy):
            raise ValueError("No configuration of finite energy was found.")
        excess = energy - max(lower.bound, guarantee(pairs, energy))
        proven = excess <= pairs.margin
        return Found(problem.placed(states), 0.0 if proven else excess, self.name)


def not_metric(pairs: Pairs) -> int | None:
    """The number of a pair for which some move is not submodular; None if there is none."""
    tables = pairs.tables
    size = np.abs(np.where(np.isfinite(tables), tables, 0.0)).max(axis=(1, 2), initial=0.0)
    for label in range(tables.shape[1]):
        kept = tables[:, label, label, None, None] + tables
        moved = tables[:, :, label, None] + tables[:, label, None, :]
        bad = (kept > moved + 1e-14 * size[:, None, None]).any(axis=(1, 2))
        if bad.any():
            return int(np.argmax(bad))
    return None


def expanded(pairs: Pairs, states: np.ndarray) -> np.ndarray:
    """States of which no move to one label has a lower energy."""
    best, failed, labels = pairs.energy(states), 0, pairs.sites.shape[1]
    for step in range(ROUNDS * labels):
        label = step % labels
        moved = np.where(cut(_move(pairs, states, label)).states == 1, label, states)
        energy = pairs.energy(moved)
        if energy < best:
            states, best, failed = moved, energy, 0
        else:
            failed += 1
        if failed == labels:
            break
    return states


def _move(pairs: Pairs, states: np.ndarray, label: int) -> Pairs:
    """The energies of keeping (0) and of taking (1) a label, at each site and pair."""
    every, rows = np.arange(len(states)), np.arange(len(pairs.edges))
    sites = np.stack([pairs.sites[every, states], pairs.sites[:, label]], axis=1)
    first, second = states[pairs.edges].T
    taken = np.full(len(rows), label)
    cells = [pairs.tables[rows, a, b] for a in (first, taken) for b in (second, taken)]
    tables = np.stack(cells, axis=1).reshape(-1, 2, 2)
    return bare(Pairs(np.full(len(states), 2), sites, pairs.edges, tables))


def guarantee(pairs: Pairs, energy: float) -> float:
    """The lower bound that alpha-expansion gives for its own energy; minus infinity if none."""
    tables, own = pairs.tables, np.arange(pairs.tables.shape[1])
    first, second = (own < pairs.levels[pairs.edges[:, k], None] for k in (0, 1))
    real = first[:, :, None] & second[:, None, :]
    same = np.eye(tables.shape[1], dtype=bool)
    zero = np.where(real & same, tables, np.inf).min(axis=(1, 2), initial=np.inf)
    over = tables - zero[:, None, None]
    most = np.where(real & ~same, over, 0.0).max(axis=(1, 2), initial=0.0)
    least = np.where(real & ~same, over, np.inf).min(axis=(1, 2), initial=np.inf)
    alike = np.where(real & same, over, 0.0).max(axis=(1, 2), initial=0.0)
    coupled = most > 0
    if not np.isfinite(most).all() or (alike > 0).any() or (least[coupled] <= 0).any():
        return -np.inf
    ratio = float((most[coupled] / least[coupled]).max(initial=1.0))
    base = float(pairs.sites.min(axis=1).sum() + zero.sum())
    return base + (energy - base) / (2 * ratio)
