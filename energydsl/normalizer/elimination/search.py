"""The search for orders of elimination of all components of a structure, and their costs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import cached_property

import numpy as np

from energydsl.analysis.structure import Structure
from energydsl.normalizer.elimination.batches import MAX_CELLS
from energydsl.normalizer.elimination.cut import Cut, cut
from energydsl.normalizer.elimination.layout import MOST_LEVELS
from energydsl.normalizer.elimination.order import Order, find_order
from energydsl.normalizer.elimination.steps import WIDE

TERM = 16.0
"""The operations of a term: its tables are added, and it is compared, shifted, exponentiated and
summed."""

STEP = 1000.0
"""The operations that take as long as a step without terms."""

SETUP = 1e6
"""The operations that could be carried out while the loops of a schedule are compiled. Compiling
takes longer; but log Z is asked for more than once."""

NAMED = 6
"""The most sites of a clique that a message names."""

MAX_TABLE = 24.0
"""log2 of the joint states of a table above which it is not computed."""


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """The finite sites that are to be eliminated, and the tables that join them.

    Arrays have one entry per component of the structure, unless said otherwise.

    Args:
        structure: the structure that the sites belong to.
        sites: True at each of the finite sites.
        edges: the pairs of them that are in a common table, (edge, 2). Those of one component are
            connected.
        largest: log2 of the cells of the largest table.
        cells: the cells of all tables.
        refused: True where the sites are not eliminated, whatever their order.
        reason: returns, for the number of such a component, why.
    """

    structure: Structure
    sites: np.ndarray
    edges: np.ndarray
    largest: np.ndarray
    cells: np.ndarray
    refused: np.ndarray
    reason: Callable[[int], str]


class Search:
    """The orders of elimination of every component, searched for once.

    Components whose edges and levels are equal share an order.
    """

    def __init__(self, network: Network) -> None:
        self.network, self.structure = network, network.structure
        self.count = len(self.structure.component_sizes)

    def members(self, component: int) -> np.ndarray:
        """The sites of a component that are eliminated, in increasing order."""
        sites, starts = self._sites
        return sites[starts[component] : starts[component + 1]]

    @cached_property
    def _sites(self) -> tuple[np.ndarray, np.ndarray]:
        sites = np.flatnonzero(self.network.sites)
        return _by_owner(sites, self.structure.component_of[sites], self.count)

    @cached_property
    def _edges(self) -> tuple[np.ndarray, np.ndarray]:
        edges = self.network.edges
        return _by_owner(edges, self.structure.component_of[edges[:, 0]], self.count)

    @cached_property
    def orders(self) -> list[Order | str | None]:
        """For each component an order of its sites, numbered within it, or why there is none.

        None for the components that the network refuses.
        """
        return [
            _numbered(order, cells)
            for order, cells in zip(self._found, self.network.cells.tolist(), strict=True)
        ]

    @cached_property
    def _found(self) -> list[Order | str | None]:
        """The orders, those whose tables have too many cells to be numbered among them."""
        levels = self.structure.levels
        edges, starts = self._edges
        known: dict[tuple[bytes, bytes], Order | str] = {}
        found: list[Order | str | None] = []
        for k in range(self.count):
            if self.network.refused[k]:
                found.append(None)
                continue
            if self.network.largest[k] > MAX_TABLE:
                found.append(f"a factor has more than 2^{MAX_TABLE:g} joint states")
                continue
            sites = self.members(k)
            own = np.searchsorted(sites, edges[starts[k] : starts[k + 1]])
            key = own.tobytes(), levels[sites].tobytes()
            if key not in known:
                known[key] = find_order(own, levels[sites])
            found.append(known[key])
        return found

    def reason(self, component: int) -> str:
        """Why the sites of a component cannot be eliminated."""
        if self.network.refused[component]:
            return self.network.reason(component)
        return str(self.orders[component])

    @cached_property
    def costs(self) -> np.ndarray:
        """Operations, log2 of the largest clique's states, and bytes, of each component."""
        costs = np.full((3, self.count), np.inf)
        for k, order in enumerate(self.orders):
            if isinstance(order, Order):
                costs[:, k] = self._cost(k, order)
        return costs

    def _cost(self, component: int, order: Order) -> tuple[float, float, float]:
        levels = self.structure.levels[self.members(component)[order.sites]]
        return (
            TERM * order.terms + STEP * len(order.sites),
            float(order.bits.max()),
            memory(_kept(order), 4 * _gathered(order, levels), 0.0),
        )

    def cuts(self, most: float, room: float) -> dict[int, Cut]:
        """For components that take too much memory, the sites without which they fit; see `cut`."""
        found = {}
        for k, order in enumerate(self._found):
            if isinstance(order, Order) and (
                self.bytes(k, order) > room or isinstance(self.orders[k], str)
            ):
                found[k] = self.cut(k, most, room)
        return {k: made for k, made in found.items() if made is not None}

    def cut(self, component: int, most: float, room: float) -> Cut | None:
        """The sites of a component without which it fits into memory by prediction.

        Args:
            component: the number of the component.
            most: log2 of the terms that the widest clique may have, in all slices together.
            room: the bytes that are allowed.
        """
        order, levels = self._found[component], self.structure.levels[self.members(component)]
        # Messages of narrow steps are kept: no site is in most of them.
        if not isinstance(order, Order) or np.exp2(order.bits.max()) < WIDE:
            return None

        def fits(order: Order) -> bool:
            numbered = _numbered(order, self.network.cells[component])
            return isinstance(numbered, Order) and bool(self._cost(component, order)[2] <= room)

        return cut(order, levels, fits, most)

    def bytes(self, component: int, order: Order) -> float:
        """The predicted bytes of an order of a component."""
        return self._cost(component, order)[2]

    def sliced(self, cuts: dict[int, Cut]) -> np.ndarray:
        """The costs of all components, where some are cut."""
        costs = self.costs.copy()
        for k, made in cuts.items():
            operations, _, held = self._cost(k, made.order)
            costs[:, k] = made.count * operations, made.terms, held
        return costs

    def widest(self, component: int) -> str:
        """The sites of the clique with the most joint states."""
        order, members = self._found[component], self.members(component)
        assert isinstance(order, Order)
        step = int(np.argmax(order.bits))
        clique = members[sorted({order.sites[step], *order.separators[step]})]
        return f"of {named(self.structure, clique)}"


def named(structure: Structure, sites: np.ndarray) -> str:
    """The names of the first of some sites, and the number of the others."""
    first = ", ".join(structure.describe(i) for i in sites[:NAMED].tolist())
    return first + (f" and {len(sites) - NAMED:,} more" if len(sites) > NAMED else "")


def memory(cells: float, gathered: float, arguments: float) -> float:
    """Bytes of the numbers that derivatives of log Z take.

    Args:
        cells: the cells of all tables; there are their values and their derivatives.
        gathered: the cells that a batch reads; their places, values, shares and derivatives.
        arguments: the arguments of factors that are computed at once.
    """
    return 8.0 * (2 * cells + 4 * gathered + 1.6 * arguments)


def _kept(order: Order) -> float:
    """The cells of the messages that are kept for log Z alone: those of wide steps are given up."""
    sizes = np.exp2(order.bits - 1)
    return float(
        sizes[2 * sizes < WIDE].sum() + (2 * sizes.max() if 2 * sizes.max() >= WIDE else 0)
    )


def _gathered(order: Order, levels: np.ndarray) -> float:
    """The joint states of the largest clique whose step is not wide, given its site's levels."""
    sizes = np.exp2(order.bits)
    return float(np.where(levels > MOST_LEVELS, sizes, np.minimum(sizes, WIDE)).max())


def _numbered(order: Order | str | None, cells: float) -> Order | str | None:
    """The order, or the reason why its tables, padded, may have too many cells to be numbered."""
    if isinstance(order, Order) and 2 * _kept(order) + cells > MAX_CELLS / 2:
        return (
            f"its tables may have more than 2^{math.log2(MAX_CELLS):g} cells; the widest clique "
            f"has 2^{order.bits.max():.4g} joint states"
        )
    return order


def _by_owner(items: np.ndarray, owner: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The items in the order of their owners, and where those of each owner begin."""
    order = np.argsort(owner, kind="stable")
    return items[order], np.searchsorted(owner[order], np.arange(count + 1))
