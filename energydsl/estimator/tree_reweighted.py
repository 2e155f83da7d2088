"""The tree-reweighted upper bound."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax.random as jr
import numpy as np
from jax import Array
from scipy.optimize import minimize
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree

from energydsl.compiler.ebm import EBM
from energydsl.estimator.base import AbstractEstimator, check_counts
from energydsl.estimator.finite import Finite, log_sum, merged, tabulated
from energydsl.normalizer.log_z import LogZ

COVERS = 4
"""How often the trees could cover all edges, if no edge were in two trees of one cover."""


class TreeReweighted(AbstractEstimator):
    r"""The tree-reweighted upper bound on log Z, for pairwise models of finite sites.

    Log Z is convex in the log potentials $\theta$. If $\theta = \sum_T \rho_T \theta_T$ for
    spanning trees T with weights $\rho_T$ that sum to 1, then
    $$\log Z(\theta) \le \sum_T \rho_T \log Z(\theta_T),$$
    where each term is computed exactly, by one pass over the tree. Every such division of $\theta$
    gives a bound, so that an early stop makes it worse and never wrong. The trees cover every edge,
    with equal weights; an edge that is in a share $\rho_e$ of them has its log potentials divided
    by $\rho_e$ in each. The potentials of single sites are divided so that the bound is lowest
    (L-BFGS): the bound is then that of tree-reweighted belief propagation for these $\rho_e$.
    It is exact for a tree.

    Args:
        iterations: the most steps of the minimisation.

    Raises:
        TypeError: a free site is not finite, or a factor has more than two free sites.
        ValueError: a count below one, tables that are too large, or Z = 0, which is then proven.

    Source: Wainwright, Jaakkola & Willsky (2005), IEEE Transactions on Information Theory 51,
    2313-2335, equation (18) and theorem 1.
    """

    iterations: int = 200

    def __check_init__(self) -> None:
        check_counts(self, iterations=1)

    def estimate(self, ebm: EBM, *, key: Array) -> LogZ:
        if not ebm.structure.pairwise:
            raise TypeError(
                "TreeReweighted divides a model of sites and pairs into trees; some factor has "
                "more than two free sites. ed.MeanField and ed.Bracket take such factors."
            )
        model = tabulated(ebm, "TreeReweighted")
        rng = np.random.default_rng(np.asarray(jr.key_data(key)))
        best = _minimised(_divided(_pairs(model), rng), self.iterations) + model.constant
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


class _Forest(NamedTuple):
    """All trees as one forest, with a node for each site of each tree."""

    sites: np.ndarray
    """The log potentials of sites, (site, level)."""
    count: int
    """The number of trees."""
    depths: list[np.ndarray]
    """The nodes at each depth; the first are roots."""
    parent: np.ndarray
    """The parent of each node; its own number for a root."""
    pairs: np.ndarray
    """The log potentials of each node and its parent, (node, level of the parent, own level)."""


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


def _divided(model: _Pairs, rng: np.random.Generator) -> _Forest:
    """Spanning trees that cover all edges, each edge in about as many trees as others."""
    count, most = model.sites.shape
    trees = _spanning_trees(count, model.edges, rng)
    share = np.mean([np.isin(np.arange(len(model.edges)), tree) for tree in trees], axis=0)
    parents, depths, tables = [], [], []
    for number, tree in enumerate(trees):
        parent, depth, edge = _rooted(count, model.edges, tree)
        parents.append(parent + number * count)
        depths.append(depth)
        table = np.zeros((count, most, most))
        below = edge >= 0
        divided = model.pairs[edge[below]] / share[edge[below]][:, None, None]
        # The parent's level comes first.
        first = model.edges[edge[below], 0] == parent[below]
        table[below] = np.where(first[:, None, None], divided, divided.swapaxes(1, 2))
        tables.append(table)
    depth = np.concatenate(depths)
    layers = [np.flatnonzero(depth == d) for d in range(depth.max() + 1)]
    return _Forest(model.sites, len(trees), layers, np.concatenate(parents), np.concatenate(tables))


def _spanning_trees(count: int, edges: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """The edges of each tree: again and again a tree of the edges that were used least."""
    if not len(edges):
        return [np.zeros(0, int)]
    used = np.zeros(len(edges))
    number = coo_array((1 + np.arange(len(edges)), edges.T), shape=(count, count)).tocsr()
    trees: list[np.ndarray] = []
    while True:
        cost = 1 + used + 0.9 * rng.random(len(edges))
        chosen = minimum_spanning_tree(coo_array((cost, edges.T), shape=(count, count)).tocsr())
        rows, columns = chosen.nonzero()
        tree = np.asarray(number[rows, columns]).ravel() - 1
        used[tree] += 1
        trees.append(tree)
        enough = COVERS * len(edges) / len(tree)
        if used.all() and (len(trees) >= enough or len(tree) == len(edges)):
            return trees


def _rooted(
    count: int, edges: np.ndarray, tree: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The parent, the depth and the edge to the parent of each node; -1 as the edge of a root."""
    # A node beyond the others is joined to one node of each part, so that one search visits all.
    own = edges[tree]
    joined = coo_array((np.ones(len(own)), own.T), shape=(count, count))
    roots = np.unique(connected_components(joined, directed=False)[1], return_index=True)[1]
    ends = np.concatenate([own, np.stack([roots, np.full(len(roots), count)], axis=1)])
    number = np.concatenate([tree, np.full(len(roots), -1)])
    whole = coo_array((np.ones(len(ends)), ends.T), shape=(count + 1, count + 1)).tocsr()
    order, before = breadth_first_order(whole, count, directed=False)
    depth = np.zeros(count + 1, int)
    for node in order[1:].tolist():
        depth[node] = depth[before[node]] + 1
    below = ends.T[1] == before[ends.T[0]]
    child = np.where(below, ends.T[0], ends.T[1])
    edge = np.full(count, -1)
    edge[child] = number
    parent = np.where(edge < 0, np.arange(count), before[:count])
    return parent, depth[:count] - 1, edge


def _minimised(forest: _Forest, iterations: int) -> float:
    """The lowest bound found."""
    shape = (forest.count, *forest.sites.shape)
    best = np.inf

    def bound(moves: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal best
        moves = moves.reshape(shape)
        potentials = forest.sites + moves - moves.mean(axis=0)
        value, laws = _passes(forest, potentials.reshape(-1, shape[2]))
        best = min(best, value)
        laws = laws.reshape(shape)
        return value, ((laws - laws.mean(axis=0)) / forest.count).ravel()

    start = np.zeros(shape).ravel()
    if not np.isneginf(bound(start)[0]) and forest.count > 1:
        options = {"maxiter": iterations, "maxfun": 2 * iterations, "ftol": 1e-13, "gtol": 1e-9}
        minimize(bound, start, jac=True, method="L-BFGS-B", options=options)
    return float(best)


def _passes(forest: _Forest, potentials: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean of the trees' log Z, and the marginals of each node."""
    total, messages = potentials.copy(), np.zeros_like(potentials)
    for nodes in reversed(forest.depths[1:]):
        messages[nodes] = log_sum(forest.pairs[nodes] + total[nodes, None])
        np.add.at(total, forest.parent[nodes], messages[nodes])
    roots = forest.depths[0]
    log_z = log_sum(total[roots])
    value = float(log_z.sum()) / forest.count
    laws = np.zeros_like(potentials)
    if np.isneginf(value):
        return value, laws
    laws[roots] = np.exp(total[roots] - log_z[:, None])
    for nodes in forest.depths[1:]:
        # Where a message is -inf, so is the parent's law 0.
        above = np.where(np.isneginf(messages[nodes]), 0.0, messages[nodes])
        given = np.exp(forest.pairs[nodes] + total[nodes, None] - above[:, :, None])
        laws[nodes] = np.einsum("np,npl->nl", laws[forest.parent[nodes]], given)
    return value, laws
