r"""Pairwise models of finite sites as tables of energies, and the cut that minimises some of them.

A site with levels 0, ..., L-1 becomes L-1 nodes of a graph; the site's level is the number of its
nodes on the source's side. An energy whose pairs are submodular,
$$D_{kl} = E(k, l-1) + E(k-1, l) - E(k, l) - E(k-1, l-1) \ge 0,$$
is then a sum of capacities of arcs, because
$$E(x, y) = E(x, L-1) + E(0, y) - E(0, L-1) + \sum_{k \le x,\, l > y} D_{kl}.$$

Source: Kolmogorov & Zabih (2004), IEEE PAMI 26(2), 147-159, for two levels; Ishikawa (2003), IEEE
PAMI 25(10), 1333-1336, and Schlesinger & Flach (2006), TU Dresden TUD-FI06-01, for more.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from energydsl.estimator.finite import ROUNDING, Finite
from energydsl.mode.flow import minimum_cut


class Pairs(NamedTuple):
    """Energies of sites and of pairs; infinity forbids, and stands at levels that a site lacks."""

    levels: np.ndarray
    """The number of levels of each site."""
    sites: np.ndarray
    """(site, level)"""
    edges: np.ndarray
    """Two sites each, the smaller number first; each pair once, (edge, 2)."""
    tables: np.ndarray
    """(edge, level, level)"""

    @staticmethod
    def of(model: Finite) -> Pairs:
        """The energies of a model whose factors have at most two sites."""
        most = int(model.levels.max())
        sites = np.where(np.arange(most) < model.levels[:, None], 0.0, np.inf)
        ends: list[np.ndarray] = [np.zeros((0, 2), int)]
        tables: list[np.ndarray] = [np.zeros((0, most, most))]
        for scopes, cells in model.groups:
            if scopes.shape[1] == 1:
                np.add.at(sites[:, : cells.shape[1]], scopes[:, 0], -cells)
                continue
            blank = np.full((len(cells), most, most), np.inf)
            blank[:, : cells.shape[1], : cells.shape[2]] = -cells
            turned = scopes[:, 0] > scopes[:, 1]
            blank[turned] = blank[turned].swapaxes(1, 2)
            ends.append(np.sort(scopes, axis=1))
            tables.append(blank)
        return Pairs(model.levels, sites, *_merged(np.concatenate(ends), tables))

    def energy(self, states: np.ndarray) -> float:
        """The energy of a level for each site."""
        ends = states[self.edges]
        pairs = self.tables[np.arange(len(ends)), ends[:, 0], ends[:, 1]]
        return float(self.sites[np.arange(len(states)), states].sum() + pairs.sum())

    @property
    def margin(self) -> float:
        """The rounding error of a sum of these energies."""
        sizes = (np.abs(np.where(np.isfinite(a), a, 0.0)) for a in (self.sites, self.tables))
        total = sum(s.max(axis=tuple(range(1, s.ndim)), initial=0.0).sum() for s in sizes)
        return ROUNDING * (1.0 + float(total))

    def reversed(self, turned: np.ndarray) -> Pairs:
        """The same energies with the order of the levels of some sites reversed."""
        if not turned.any():
            return self
        own = np.arange(self.sites.shape[1])
        back = self.levels[:, None] - 1 - own
        order = np.where(turned[:, None] & (back >= 0), back, own)
        first, second = order[self.edges[:, 0]], order[self.edges[:, 1]]
        tables = np.take_along_axis(self.tables, first[:, :, None], axis=1)
        tables = np.take_along_axis(tables, second[:, None, :], axis=2)
        return self._replace(sites=np.take_along_axis(self.sites, order, axis=1), tables=tables)

    @property
    def bends(self) -> np.ndarray:
        r"""$D_{kl}$ of each pair, (edge, k - 1, l - 1); 0 where a site lacks the level k or l.

        Not a number, or infinite, where a pair of levels is forbidden.
        """
        e = self.tables
        with np.errstate(invalid="ignore"):
            bends = e[:, 1:, :-1] + e[:, :-1, 1:] - e[:, 1:, 1:] - e[:, :-1, :-1]
        own = np.arange(1, e.shape[1])
        first, second = (self.levels[self.edges[:, k]] for k in (0, 1))
        real = (own < first[:, None])[:, :, None] & (own < second[:, None])[:, None, :]
        return np.where(real, bends, 0.0)


class Minimum(NamedTuple):
    """The states of a minimum cut."""

    states: np.ndarray
    """The level of each site."""
    excess: float
    """By how much the energy may exceed the minimum."""


def _merged(ends: np.ndarray, tables: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Each pair of sites once, with the sum of its tables."""
    cells = np.concatenate(tables)
    names, owner = np.unique(ends @ [2**31, 1], return_inverse=True)
    if len(names) == len(ends):
        return ends, cells
    summed = np.zeros((len(names), *cells.shape[1:]))
    np.add.at(summed, owner.ravel(), cells)
    return np.stack([names // 2**31, names % 2**31], axis=1), summed


def bare(pairs: Pairs) -> Pairs:
    """The same energies, where a level that no level of a neighbour allows is forbidden by itself.

    Its row in the table of the pair becomes that of another level, which is finite.
    """
    if np.isfinite(pairs.tables).all():
        return pairs
    sites, tables = pairs.sites.copy(), pairs.tables.copy()
    for end in (0, 1):
        other = 2 - end
        lost = np.isinf(tables).all(axis=other)
        rows, levels = np.nonzero(lost & ~lost.all(axis=1, keepdims=True))
        sites[pairs.edges[rows, end], levels] = np.inf
        spare = np.argmin(lost, axis=1)[rows]
        view = tables if end == 0 else tables.swapaxes(1, 2)
        view[rows, levels] = view[rows, spare]
        never = np.flatnonzero(lost.all(axis=1))
        sites[pairs.edges[never, end]] = np.inf
        tables[never] = 0.0
    return pairs._replace(sites=sites, tables=tables)


def gauge(pairs: Pairs) -> np.ndarray | None:
    """The sites whose order of levels must be reversed so that `cut` takes the energies.

    None if there are no such sites: some loop is frustrated, some pair has bends of both signs, or
    a pair of sites of more than two levels forbids states.
    """
    bends, count = _signs(pairs), len(pairs.sites)
    wide = (pairs.levels[pairs.edges] > 2).any(axis=1)
    if np.isinf(bends[wide]).any():
        return None
    up, down = (bends > 0).any(axis=(1, 2)), (bends < 0).any(axis=(1, 2))
    if (up & down).any() or np.isnan(bends).any():
        return None
    if not down.any():
        return np.zeros(count, bool)
    first, second = pairs.edges[up | down].T
    turned = down[up | down]
    # Each site has two nodes: as it is, and reversed.
    ends = [first, second + count * turned], [first + count, second + count * ~turned]
    rows, columns = (np.concatenate([e[k] for e in ends]) for k in (0, 1))
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(2 * count, 2 * count))
    part = connected_components(graph, directed=False)[1]
    own, other = part[:count], part[count:]
    return None if (own == other).any() else own > other


def _signs(pairs: Pairs) -> np.ndarray:
    """The bends, with those that are rounding errors of tables set to 0."""
    bends = pairs.bends
    size = np.abs(np.where(np.isfinite(pairs.tables), pairs.tables, 0.0)).max(
        axis=(1, 2), initial=0.0
    )
    return np.where(np.abs(bends) <= 1e-14 * size[:, None, None], 0.0, bends)


def cut(pairs: Pairs) -> Minimum:
    """The states of lowest energy, for submodular pairs that are `bare`.

    A pair of sites of two levels each may forbid states; other pairs are finite.
    """
    filled, hard = _filled(pairs)
    sites = filled.sites.copy()
    first, second = filled.edges.T
    top = filled.levels[second] - 1
    np.add.at(sites, first, _last(filled.tables, top))
    np.add.at(sites, second, filled.tables[:, 0])
    sites = np.where(np.arange(sites.shape[1]) < filled.levels[:, None], sites, np.inf)
    lowest = sites.min(axis=1)
    if np.isinf(lowest).any():
        return Minimum(np.zeros(len(sites), int), np.inf)
    begin = np.cumsum(filled.levels - 1) - (filled.levels - 1)
    nodes = int((filled.levels - 1).sum())
    arcs, capacities = _chains(sites - lowest[:, None], filled.levels, begin, nodes)
    bends = filled.bends
    rows, k, m = np.nonzero(bends > 0)
    arcs += [np.stack([begin[first[rows]] + k, begin[second[rows]] + m])]
    capacities += [bends[rows, k, m]]
    arcs += [np.stack([begin[hard[:, 0]], begin[hard[:, 1]]])]
    capacities += [np.full(len(hard), np.inf)]
    found = minimum_cut(nodes, np.concatenate(arcs, axis=1), np.concatenate(capacities))
    owner = np.repeat(np.arange(len(sites)), filled.levels - 1)
    return Minimum(np.bincount(owner, found.source, len(sites)).astype(int), found.excess)


def _last(tables: np.ndarray, top: np.ndarray) -> np.ndarray:
    """The column of each table at the last level of its second site."""
    return np.take_along_axis(tables, top[:, None, None], axis=2)[:, :, 0]


def _chains(
    sites: np.ndarray, levels: np.ndarray, begin: np.ndarray, nodes: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """For each site, arcs from the source through its nodes to the sink, and back against them."""
    site, level = np.nonzero(np.arange(sites.shape[1]) < levels[:, None])
    tail = np.where(level == 0, nodes, begin[site] + level - 1)
    head = np.where(level == levels[site] - 1, nodes + 1, begin[site] + level)
    inner = (tail < nodes) & (head < nodes)
    back = np.stack([head[inner], tail[inner]])
    return [np.stack([tail, head]), back], [sites[site, level], np.full(inner.sum(), np.inf)]


def _filled(pairs: Pairs) -> tuple[Pairs, np.ndarray]:
    """The energies with finite tables, and arcs, (arc, 2), that forbid what these had forbidden."""
    if np.isfinite(pairs.tables).all():
        return pairs, np.zeros((0, 2), int)
    tables, edges = pairs.tables.copy(), pairs.edges
    within = np.arange(tables.shape[1])
    first, second = (within < pairs.levels[edges[:, k]][:, None] for k in (0, 1))
    tables[~(first[:, :, None] & second[:, None, :])] = 0.0
    forbidden = np.isinf(tables)
    rows = np.flatnonzero(forbidden.any(axis=(1, 2)))
    sizes = np.abs(np.where(forbidden[rows], 0.0, tables[rows])).sum(axis=(1, 2))
    tables[rows] = np.where(forbidden[rows], sizes[:, None, None], tables[rows])
    # In the state (1, 0) the node of the first site is the source's, and that of the second the
    # sink's: an arc from one to the other is cut.
    row, level, _ = np.nonzero(forbidden)
    hard = np.where((level == 1)[:, None], edges[row], edges[row][:, ::-1])
    return pairs._replace(tables=tables), hard
