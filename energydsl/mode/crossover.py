"""The best state that can be put together from parts of several others.

The sites at which two states differ fall into connected clusters. No factor has sites of two
clusters, so that each cluster takes the levels of that state which have the lower energy there: the
result is the best of two to the number of clusters states.

Source: Houdayer (2001), European Physical Journal B 22, 479-484, for the clusters; Tinós, Whitley &
Chicano (2015), FOGA XIII, 137-149, for the choice.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from energydsl.estimator.finite import Finite


def crossed(model: Finite, states: list[np.ndarray]) -> np.ndarray:
    """A state of at most the lowest energy of the given ones."""
    best = min(states, key=model.energy)
    while True:
        last = best
        for other in states:
            best = _better(model, best, other)
        if (best == last).all():
            return best


def _better(model: Finite, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """One state with the clusters of the other whose energies are lower."""
    differs = one != other
    cluster, count = _clusters(model, differs)
    gain = np.zeros(count)
    # A cluster of which both states are forbidden, by different factors, gains nan: it stays.
    with np.errstate(invalid="ignore"):
        for scopes, cells in model.groups:
            rows = np.arange(len(cells))
            own = cells[(rows, *other[scopes].T)] - cells[(rows, *one[scopes].T)]
            moved = differs[scopes].any(axis=1)
            gained = np.where(np.isnan(own), 0.0, own)[moved]
            gain += np.bincount(cluster[_first(scopes, differs)[moved]], gained, count)
    return np.where(differs & (gain > 0)[cluster], other, one)


def _clusters(model: Finite, differs: np.ndarray) -> tuple[np.ndarray, int]:
    """The number of the cluster of each site, and how many there are; other sites are alone."""
    rows, columns = [np.zeros(0, int)], [np.zeros(0, int)]
    for scopes, _ in model.groups:
        first = _first(scopes, differs)
        for sites in scopes.T:
            rows.append(first[differs[sites]])
            columns.append(sites[differs[sites]])
    row, column = np.concatenate(rows), np.concatenate(columns)
    graph = coo_array((np.ones(len(row)), (row, column)), shape=(len(differs),) * 2)
    count, cluster = connected_components(graph, directed=False)
    return cluster, count


def _first(scopes: np.ndarray, differs: np.ndarray) -> np.ndarray:
    """The first site of each factor at which the states differ, if there is one."""
    return scopes[np.arange(len(scopes)), differs[scopes].argmax(axis=1)]
