"""Sums whose like terms are merged into batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple, TypeGuard

import numpy as np

from energydsl.language.expression import (
    Data,
    Elementwise,
    Expression,
    Number,
    Sum,
    fold,
    post_order,
)
from energydsl.language.merge.batch import Part, lifted
from energydsl.language.merge.columns import Columns
from energydsl.language.merge.forms import Forms

FEW = 16
"""The fewest like terms that are merged. Fewer are printed as they were written, and the shifts of
a lattice energy remain shifts."""

MAX_ELEMENTS = 2**24
"""The most elements that a batch may have; merging larger terms would gain nothing."""


def merge_like_terms(root: Expression) -> Expression:
    """The same energy, in which the like terms of every long sum are one batch.

    Takes time linear in the number of nodes. Terms with nodes of an unknown kind are not merged.
    """
    nodes = list(post_order(root))
    if sum(map(_is_link, nodes)) < FEW - 1:
        return root
    return _Merger(nodes).result()


class _Addend(NamedTuple):
    node: Expression
    negative: bool


class _Merger:
    """One pass over the nodes of a tree, children first."""

    def __init__(self, nodes: list[Expression]) -> None:
        self._nodes = nodes
        self._forms = Forms(nodes)
        self._new: dict[int, Expression] = {}

    def result(self) -> Expression:
        inner = self._inner_links()
        for node in self._nodes:
            children = tuple(self._new[id(c)] for c in node.children)
            same = all(a is b for a, b in zip(children, node.children, strict=True))
            new = node if same else dataclasses.replace(node, children=children)
            if _is_link(node) and id(node) not in inner:
                new = self._merged(node, new, inner)
            self._new[id(node)] = new
            self._forms.follow(node, new)
        return self._new[id(self._nodes[-1])]

    def _inner_links(self) -> set[int]:
        """The additions that are used only as an operand of one other addition."""
        links = [n for n in self._nodes if _is_link(n)]
        below = {id(c) for n in links for c in n.children if _is_link(c)}
        return {number for number in below if self._forms.uses[number] == 1}

    def _merged(self, link: Expression, plain: Expression, inner: set[int]) -> Expression:
        """A sum with like addends merged, or `plain` where there are none."""
        groups: dict[int, list[_Addend]] = {}
        for addend in self._addends(link, inner):
            groups.setdefault(self._forms.of(addend.node), []).append(addend)
        if max(map(len, groups.values())) < FEW:
            return plain
        merged = [m for group in groups.values() for m in self._batch(group)]
        (first, negative), *rest = merged
        total = -first if negative else first
        for node, negative in rest:
            total = total - node if negative else total + node
        return total

    def _addends(self, link: Expression, inner: set[int]) -> Iterable[_Addend]:
        """The addends of a chain of additions, in order."""
        stack = [(link, False)]
        while stack:
            node, negative = stack.pop()
            if _is_link(node) and (node is link or id(node) in inner):
                for place in reversed(range(len(node.children))):
                    stack.append((node.children[place], negative != _is_minus(node, place)))
            else:
                yield _Addend(self._new[id(node)], negative)

    def _batch(self, group: list[_Addend]) -> list[_Addend]:
        """Like addends as one addend, if they are many and the batch is not too large."""
        if len(group) < FEW:
            return group
        columns = Columns(self._forms)
        top = columns.of(tuple(a.node for a in group))
        widths = (c.nodes[0].size for c in post_order(top) if not c.common)
        if len(group) * max(widths, default=0) > MAX_ELEMENTS:
            return group
        part: Part = fold(top, lifted)
        signs = np.where([a.negative for a in group], -1.0, 1.0)
        if not part.along:
            return [_Addend(Number.of(float(signs.sum())) * part.expression, False)]
        batch = part.expression
        if len(set(signs)) == 1:
            return [_Addend(Sum.of(batch, (0,)), group[0].negative)]
        signs = signs.reshape(-1, *(1,) * (batch.ndim - 1))
        return [_Addend(Sum.of(Data.of(signs) * batch, (0,)), False)]


def _is_link(node: Expression) -> TypeGuard[Elementwise]:
    return isinstance(node, Elementwise) and node.operation in ("add", "subtract", "negative")


def _is_minus(node: Elementwise, place: int) -> bool:
    """Whether a child of an addition enters it with a minus sign."""
    return node.operation == "negative" or (node.operation == "subtract" and place == 1)
