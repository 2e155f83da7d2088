"""Loopy belief propagation: the Bethe value of log Z, and marginals."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from jax import Array
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from energydsl._messages import described
from energydsl.compiler.answers import Marginals
from energydsl.compiler.ebm import EBM
from energydsl.estimator.base import LOOPS, AbstractEstimator, check_settings
from energydsl.estimator.finite import (
    Finite,
    Group,
    absorbed,
    log_sum,
    merged,
    site_marginals,
    tabulated,
)
from energydsl.normalizer.log_z import LogZ


@described
class BeliefPropagation(AbstractEstimator):
    r"""Loopy belief propagation, for finite sites: the Bethe value of log Z, and marginals.

    Each factor f, with the log potential $\theta_f$, sends each of its sites i the message
    $$m_{fi}(x_i) \propto \sum_{x_f \setminus x_i} e^{\theta_f(x_f)} \prod_{j \ne i} n_{jf}(x_j),
    \qquad n_{jf}(x_j) = \prod_{g \ne f} m_{gj}(x_j),$$
    all at once and again, until the messages no longer change. Then
    $$\log Z \approx \sum_f \log \sum_{x_f} e^{\theta_f} \prod_i n_{if}
    + \sum_i (1 - d_i) \log \sum_{x_i} \prod_f m_{fi},$$
    where site i is in $d_i$ factors, and $p(x_i)$ is about $\prod_f m_{fi}(x_i)$, normalised.
    A factor whose sites all belong to another one is joined with it, such as a pair with a triple.
    Both are exact where the factors then form trees, and otherwise neither exact nor bounds: they
    are good where loops are long or couplings weak, and may be far off in a strong spin glass.

    Where there are loops, each new log message is averaged with the old one, which has the weight
    `damping`; without it, messages may oscillate.

    Args:
        damping: the weight of the old messages, at least 0 and below 1.
        tolerance: the change of a message, as probabilities, below which iteration stops.
        iterations: the most iterations. Trees take as many as their longest path has factors,
            even if that is more.

    Raises:
        TypeError: a free site is not finite.
        ValueError: a number out of range, tables that are too large, or Z = 0, which is then
            proven.

    Source: Yedidia, Freeman & Weiss (2005), IEEE Transactions on Information Theory 51, 2282-2312;
    Wainwright & Jordan (2008), Foundations and Trends in Machine Learning 1, 1-305, section 4.1.
    """

    damping: float = 0.5
    tolerance: float = 1e-9
    iterations: int = 1000

    def __check_init__(self) -> None:
        check_settings(self, iterations=1)
        if not 0 <= self.damping < 1:
            raise ValueError(
                f"BeliefPropagation got damping={self.damping!r}; expected a number of at least 0 "
                "and below 1: the weight of the old messages."
            )
        if not 0 < self.tolerance < np.inf:
            raise ValueError(
                f"BeliefPropagation got tolerance={self.tolerance!r}; expected a number above 0."
            )

    def estimate(self, ebm: EBM, *, key: Array) -> LogZ:
        beliefs = self._propagated(ebm)
        doubts = beliefs.doubts
        if beliefs.loops:
            doubts = (LOOPS, *doubts)
        return LogZ(beliefs.bethe, np.inf, -np.inf, np.inf, "Bethe", np.inf, doubts)

    def marginals(self, ebm: EBM) -> Marginals:
        """The normalised products of messages; exact where the factors form trees."""
        beliefs = self._propagated(ebm)
        return site_marginals(ebm, beliefs.laws, "belief propagation", beliefs.doubts)

    def doubled(self) -> BeliefPropagation:
        return dataclasses.replace(self, iterations=2 * self.iterations)

    def _propagated(self, ebm: EBM) -> _Beliefs:
        model = absorbed(merged(tabulated(ebm, "BeliefPropagation")))
        loops = _has_loops(model)
        damping = self.damping if loops else 0.0
        # In a tree, news of each site passes once through it.
        most = self.iterations if loops else max(self.iterations, len(model.levels) + 1)
        messages, change = _start(model), np.inf
        for _ in range(most):
            messages, change = _passed(model, messages, damping)
            if change < self.tolerance:
                break
        if change < self.tolerance:
            return _concluded(model, messages, loops, ())
        doubt = (
            f"messages still change by {change:.2g} in iteration {most:,}: more damping or more "
            "iterations may help"
        )
        return _concluded(model, messages, loops, (doubt,))


Messages = list[list[np.ndarray]]
"""For each group and each place in its scopes, the log messages to the site, (factor, level)."""


class _Beliefs(NamedTuple):
    """What follows from the last messages."""

    bethe: float
    laws: np.ndarray
    """The marginals of the sites, (site, level)."""
    loops: bool
    doubts: tuple[str, ...]


def _has_loops(model: Finite) -> bool:
    """Whether the graph that joins each factor with its sites has a loop."""
    first, rows, columns = len(model.levels), [], []
    for scopes, _ in model.groups:
        rows.append(np.repeat(first + np.arange(len(scopes)), scopes.shape[1]))
        columns.append(scopes.ravel())
        first += len(scopes)
    row, column = (np.concatenate([np.zeros(0, int), *parts]) for parts in (rows, columns))
    graph = coo_array((np.ones(len(row)), (row, column)), shape=(first, first))
    parts = connected_components(graph, directed=False)[0]
    return len(row) > first - parts


def _start(model: Finite) -> Messages:
    """Equal shares for all levels."""
    return [
        [np.full((len(cells), n), -np.log(n)) for n in cells.shape[1:]] for _, cells in model.groups
    ]


def _totals(model: Finite, messages: Messages) -> np.ndarray:
    """The sums of the log messages to each site, (site, level)."""
    known = np.arange(model.levels.max()) < model.levels[:, None]
    totals = np.where(known, 0.0, -np.inf)
    for (scopes, _), group in zip(model.groups, messages, strict=True):
        for sites, message in zip(scopes.T, group, strict=True):
            at: Any = (sites, slice(message.shape[1]))
            np.add.at(totals, at, message)
    return totals


def _passed(model: Finite, messages: Messages, damping: float) -> tuple[Messages, float]:
    """The next messages, and the largest change before damping."""
    totals, change, new = _totals(model, messages), 0.0, []
    for group, old in zip(model.groups, messages, strict=True):
        ins = _ins(totals, group, old)
        new.append([])
        for place, before in enumerate(old):
            after = _share(group.cells, ins, place)
            change = max(change, float(np.abs(np.exp(after) - np.exp(before)).max()))
            both = np.isfinite(after) & np.isfinite(before)
            after[both] = (1 - damping) * after[both] + damping * before[both]
            new[-1].append(after)
    return new, change


def _ins(totals: np.ndarray, group: Group, messages: list[np.ndarray]) -> list[np.ndarray]:
    """The log messages from the sites to the factors of a group."""
    # A level that is impossible by the factor's own message may stay so: its states have no weight.
    own = [np.where(np.isneginf(m), 0.0, m) for m in messages]
    return [totals[s, : m.shape[1]] - m for s, m in zip(group.scopes.T, own, strict=True)]


def _joint(cells: np.ndarray, ins: list[np.ndarray], left_out: int | None = None) -> np.ndarray:
    """The log potentials plus the messages from all sites but one."""
    total = cells
    for place, message in enumerate(ins):
        if place != left_out:
            others = [1] * (cells.ndim - 1)
            others[place] = message.shape[1]
            total = total + message.reshape(len(cells), *others)
    return total


def _share(cells: np.ndarray, ins: list[np.ndarray], place: int) -> np.ndarray:
    """The log messages to the sites at one place, normalised."""
    others = tuple(1 + p for p in range(len(ins)) if p != place)
    sums = log_sum(_joint(cells, ins, place), others)
    return sums - _possible(log_sum(sums))[:, None]


def _concluded(model: Finite, messages: Messages, loops: bool, doubts: tuple[str, ...]) -> _Beliefs:
    totals = _totals(model, messages)
    sites = _possible(log_sum(totals))
    bethe = model.constant + sites.sum()
    for group, own in zip(model.groups, messages, strict=True):
        joint = _joint(group.cells, _ins(totals, group, own))
        factors = _possible(log_sum(joint, tuple(range(1, joint.ndim))))
        bethe += factors.sum() - sites[group.scopes].sum()
    return _Beliefs(float(bethe), np.exp(totals - sites[:, None]), loops, doubts)


def _possible(logs: np.ndarray) -> np.ndarray:
    """The same logs of sums. A message of 0 is a proof, so a sum that is 0 shows that Z is 0."""
    if np.isneginf(logs).any():
        raise ValueError("Every state is forbidden, so that Z = 0 and log Z does not exist.")
    return logs
