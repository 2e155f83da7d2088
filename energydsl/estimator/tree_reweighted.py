"""The tree-reweighted upper bound."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax.random as jr
import numpy as np
from jax import Array
from scipy.optimize import OptimizeResult, minimize
from scipy.special import logsumexp, softmax, xlogy

from energydsl._messages import described
from energydsl.compiler.ebm import EBM
from energydsl.estimator.base import AbstractEstimator, check_settings
from energydsl.estimator.finite import Finite, log_sum, merged, tabulated
from energydsl.estimator.spanning_trees import Forest, covering, heaviest, rooted
from energydsl.normalizer.log_z import LogZ

STEPS = 10
"""Steps of the minimisation after which another tree is looked for."""

GAIN = 1e-6
"""The least slope of the bound, in nats, towards a tree that is added."""

SPREAD = 1e-6
"""The share of the weight that all trees have evenly, so that no edge is left without weight."""


@described
class TreeReweighted(AbstractEstimator):
    r"""The tree-reweighted upper bound on log Z, for pairwise models of finite sites.

    Log Z is convex in the log potentials $\theta$. If $\theta = \sum_T w_T \theta_T$ for
    spanning trees T with weights $w_T$ that sum to 1, then
    $$\log Z(\theta) \le \sum_T w_T \log Z(\theta_T),$$
    where each term is computed exactly, by one pass over the tree. Every such division of $\theta$
    gives a bound, so that an early stop makes it worse and never wrong. An edge that is in a share
    $\rho_e = \sum_{T \ni e} w_T$ of the trees has its log potentials divided by $\rho_e$ in each.
    The division of the potentials of single sites and the weights of the trees are chosen together
    so that the bound is lowest (L-BFGS). Along the way, trees are added: with the mutual
    information $I_e$ that the present trees give the sites of an edge, the bound falls fastest
    towards the tree with the largest $\sum_e I_e$. The bound is then that of tree-reweighted
    belief propagation for the best $\rho_e$ of all. It is exact for a tree.

    Args:
        iterations: the most steps of the minimisation.

    Raises:
        TypeError: a free site is not finite, or a factor has more than two free sites.
        ValueError: a count below one, tables that are too large, or Z = 0, which is then proven.

    Source: Wainwright, Jaakkola & Willsky (2005), IEEE Transactions on Information Theory 51,
    2313-2335, equation (18), theorem 1, and section V-C for the weights.
    """

    iterations: int = 200

    def __check_init__(self) -> None:
        check_settings(self, iterations=1)

    def estimate(self, ebm: EBM, *, key: Array) -> LogZ:
        if not ebm.structure.pairwise:
            raise TypeError(
                "TreeReweighted divides a model of sites and pairs into trees; some factor has "
                "more than two free sites. ed.MeanField and ed.Bracket take such factors."
            )
        model = tabulated(ebm, "TreeReweighted")
        rng = np.random.default_rng(np.asarray(jr.key_data(key)))
        best = _lowest(_pairs(model), self.iterations, rng) + model.constant
        if np.isneginf(best):
            raise ValueError("Every state is forbidden, so that Z = 0 and log Z does not exist.")
        return LogZ.proven(-np.inf, best + model.margin, "tree-reweighted")

    def doubled(self) -> TreeReweighted:
        return dataclasses.replace(self, iterations=2 * self.iterations)


class _Pairs(NamedTuple):
    """Log potentials of sites and of pairs; levels that a site lacks have -inf."""

    sites: np.ndarray
    """(site, level)"""
    edges: np.ndarray
    """(edge, 2)"""
    pairs: np.ndarray
    """(edge, level, level)"""


class _Division(NamedTuple):
    r"""A division of the log potentials among trees.

    In each tree T the log potential of a site s with neighbours t in the graph is
    $\theta_s + \sum_t \rho_{st} m_{ts}$, and that of an edge is
    $\theta_{st} / \rho_{st} - m_{ts}(x_s) - m_{st}(x_t)$. Each message then has the sum
    $\sum_T w_T (\rho_{st} - [st \in T])\, m_{ts} = 0$, so that any messages divide $\theta$.
    """

    heights: np.ndarray
    """The weights of the trees are about proportional to the exponentials of these, (tree,)."""
    messages: np.ndarray
    """(edge, end, level)"""

    @property
    def weights(self) -> np.ndarray:
        return (1 - SPREAD) * softmax(self.heights) + SPREAD / len(self.heights)

    def widened(self) -> _Division:
        """The same with one more tree, which gets the mean weight."""
        height = logsumexp(self.heights) - np.log(len(self.heights))
        return self._replace(heights=np.append(self.heights, height))

    def flat(self) -> np.ndarray:
        return np.concatenate([self.heights, self.messages.ravel()])

    def at(self, flat: np.ndarray) -> _Division:
        """A division of the same shape, with the numbers of `flat`."""
        count = len(self.heights)
        return _Division(flat[:count], flat[count:].reshape(self.messages.shape))


class _Bound(NamedTuple):
    """An upper bound, its slopes, and what it says about the edges."""

    value: float
    slopes: _Division
    share: np.ndarray
    """The weight of the trees that have an edge, (edge,)."""
    laws: np.ndarray
    """The mean law of the sites of each edge, over these trees, (edge, level, level)."""

    @property
    def information(self) -> np.ndarray:
        """The mutual information of the sites of each edge."""
        apart = self.laws.sum(axis=2, keepdims=True) * self.laws.sum(axis=1, keepdims=True)
        ratio = np.where(self.laws > 0, self.laws, 1.0) / np.where(self.laws > 0, apart, 1.0)
        return xlogy(self.laws, ratio).sum(axis=(1, 2))


def _pairs(model: Finite) -> _Pairs:
    """The tables of sites and pairs, each pair once."""
    most = int(model.levels.max())
    known = np.arange(most) < model.levels[:, None]
    sites = np.where(known, 0.0, -np.inf)
    ends = [np.zeros((0, 2), int)]
    tables: list[np.ndarray] = [np.zeros((0, most, most))]
    for scopes, cells in merged(model).groups:
        if scopes.shape[1] == 1:
            sites[scopes[:, 0], : cells.shape[1]] += cells
            continue
        blank = np.zeros((len(cells), most, most))
        blank[:, : cells.shape[1], : cells.shape[2]] = cells
        ends.append(scopes)
        tables.append(blank)
    return _Pairs(sites, np.concatenate(ends), np.concatenate(tables))


def _lowest(model: _Pairs, steps: int, rng: np.random.Generator) -> float:
    """The lowest bound found in so many steps, with a tree added every few of them."""
    count, edges = len(model.sites), model.edges
    trees = [rooted(count, edges, tree) for tree in covering(count, edges, rng)]
    forest = Forest.of(edges, trees)
    division = _Division(np.zeros(len(trees)), np.zeros((len(edges), 2, model.sites.shape[1])))
    best = _bound(model, forest, division).value
    # One tree that covers all edges is the model itself.
    while steps > 0 and len(trees) > 1 and not np.isneginf(best):
        found = _minimised(model, forest, division, min(STEPS, steps))
        best, division = min(best, found.fun), division.at(found.x)
        steps -= max(found.nit, 1)
        last = _bound(model, forest, division)
        tree = heaviest(count, edges, last.information)
        if last.information[tree].sum() - last.share @ last.information > GAIN:
            trees.append(rooted(count, edges, tree))
            forest = Forest.of(edges, trees)
            division = division.widened()
        elif found.success:
            break
    return float(best)


def _minimised(model: _Pairs, forest: Forest, division: _Division, steps: int) -> OptimizeResult:
    """The division after some steps of L-BFGS."""

    def bound(flat: np.ndarray) -> tuple[float, np.ndarray]:
        found = _bound(model, forest, division.at(flat))
        return found.value, found.slopes.flat()

    options = {"maxiter": steps, "maxfun": 2 * steps, "ftol": 1e-13, "gtol": 1e-9}
    return minimize(bound, division.flat(), jac=True, method="L-BFGS-B", options=options)


def _bound(model: _Pairs, forest: Forest, division: _Division) -> _Bound:
    """The weighted mean of the trees' log Z, and its slopes."""
    messages, weights = division.messages, division.weights
    share = weights @ forest.contains
    sites = model.sites.copy()
    np.add.at(sites, model.edges, share[:, None, None] * messages)
    pairs = model.pairs / share[:, None, None] - messages[:, 0, :, None] - messages[:, 1, None]
    log_zs, laws, joint = _passes(forest, weights, sites, pairs)
    value = float(weights @ log_zs)
    if np.isneginf(value):
        return _Bound(value, division.at(np.zeros(division.flat().size)), share, joint)
    ends = laws[model.edges]
    own = np.stack([joint.sum(axis=2), joint.sum(axis=1)], axis=1)
    inner = (np.where(joint > 0, model.pairs, 0.0) * joint).sum(axis=(1, 2)) / share**2
    by_weight = log_zs + forest.contains @ ((ends * messages).sum(axis=(1, 2)) - inner)
    soft = softmax(division.heights)
    by_height = (1 - SPREAD) * soft * (by_weight - soft @ by_weight)
    slopes = _Division(by_height, share[:, None, None] * ends - own)
    return _Bound(value, slopes, share, joint / share[:, None, None])


def _passes(
    forest: Forest, weights: np.ndarray, sites: np.ndarray, pairs: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log Z of each tree, and weighted sums of the trees' laws of sites and of their edges.

    Args:
        forest: the trees.
        weights: (tree,).
        sites: the log potentials of sites, the same in all trees, (site, level).
        pairs: those of edges, (edge, level, level).
    """
    owner = np.repeat(np.arange(len(weights)), len(sites))
    below = forest.up >= 0
    first, up = forest.first[below, None, None], forest.up[below]
    # The parent's level comes first.
    tables = np.zeros((len(owner), *pairs.shape[1:]))
    tables[below] = np.where(first, pairs[up], pairs[up].swapaxes(1, 2))
    total = np.tile(sites, (len(weights), 1))
    messages = np.zeros_like(total)
    for nodes in reversed(forest.depths[1:]):
        messages[nodes] = log_sum(tables[nodes] + total[nodes, None])
        np.add.at(total, forest.parent[nodes], messages[nodes])
    roots = forest.depths[0]
    log_z = log_sum(total[roots])
    log_zs = np.bincount(owner[roots], log_z, len(weights))
    laws, joint = np.zeros_like(total), np.zeros_like(pairs)
    if np.isneginf(log_z).any():
        return log_zs, sites, joint
    laws[roots] = np.exp(total[roots] - log_z[:, None])
    # Where a message is -inf, so is the parent's law 0.
    above = np.where(np.isneginf(messages), 0.0, messages)[below, :, None]
    given = np.zeros_like(tables)
    given[below] = np.exp(tables[below] + total[below, None] - above)
    for nodes in forest.depths[1:]:
        given[nodes] *= laws[forest.parent[nodes], :, None]
        laws[nodes] = given[nodes].sum(axis=1)
    parts = np.where(first, given[below], given[below].swapaxes(1, 2))
    np.add.at(joint, up, parts * weights[owner[below], None, None])
    mean = np.tensordot(weights, laws.reshape(len(weights), *sites.shape), 1)
    return log_zs, mean, joint
