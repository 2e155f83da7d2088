"""Columns: the nodes of like terms at one place of their form."""

from __future__ import annotations

import functools

import numpy as np

from energydsl.language.expression import Expression, Gather, Number, Rearrange, Value, View
from energydsl.language.merge.forms import Forms


class Column:
    """The nodes of like terms at one place of their form."""

    def __init__(self, nodes: tuple[Expression, ...], columns: Columns) -> None:
        self.nodes = nodes
        self._columns = columns

    @functools.cached_property
    def picks(self) -> list[tuple[Expression, np.ndarray]] | None:
        """The array and elements that each node picks; None if the nodes are not picks."""
        if isinstance(self.nodes[0], Rearrange | Gather):
            return [self._columns.forms.pick(node) for node in self.nodes]
        return None

    @functools.cached_property
    def common(self) -> bool:
        """Whether all terms have the same node, or the same value, here."""
        first = self.nodes[0]
        match first:
            case View():
                return True
            case Value() if not isinstance(first, Number):
                values = (node.value for node in self.nodes if isinstance(node, Value))
                return all(value is first.value for value in values)
        return all(node is first for node in self.nodes)

    @property
    def children(self) -> tuple[Column, ...]:
        """The columns below this one."""
        return self._children

    @functools.cached_property
    def _children(self) -> tuple[Column, ...]:
        if self.common:
            return ()
        if self.picks:
            return (self._columns.of(tuple(base for base, _ in self.picks)),)
        return tuple(map(self._columns.of, zip(*(n.children for n in self.nodes), strict=True)))


class Columns:
    """The columns of one group of terms; the same nodes at two places are one column."""

    def __init__(self, forms: Forms) -> None:
        self.forms = forms
        self._made: dict[tuple[int, ...], Column] = {}

    def of(self, nodes: tuple[Expression, ...]) -> Column:
        """The column of these nodes."""
        key = tuple(map(id, nodes))
        if key not in self._made:
            self._made[key] = Column(nodes, self)
        return self._made[key]
