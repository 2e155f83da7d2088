"""The forms of nodes, by which like terms are found."""

from __future__ import annotations

import collections
from collections.abc import Hashable
from typing import Any

import jax
import numpy as np
import paramax
from jax import Array

from energydsl._identity import form
from energydsl.language.expression import (
    Apply,
    Elementwise,
    Expression,
    Gather,
    MatMul,
    Number,
    Parameter,
    Rearrange,
    Sum,
    Value,
    View,
)

MANY = 16
"""A node that more terms than this share is computed once; copies of it would cost more."""


class Forms:
    """The forms of nodes, as numbers that are equal for like nodes."""

    def __init__(self, nodes: list[Expression]) -> None:
        self.uses = collections.Counter(id(c) for n in nodes for c in n.children)
        self._held = _occurrences(nodes)
        self._number: dict[int, int] = {}
        self._known: dict[Hashable, int] = {}
        self._picks: dict[int, tuple[Expression, np.ndarray]] = {}
        self._all: dict[int, np.ndarray] = {}
        # Nodes are identified by their address, so none may be freed while this object is in use.
        self._alive: list[Expression] = []

    def follow(self, old: Expression, new: Expression) -> None:
        """Record that `new` replaces `old`, and so is used as often."""
        if new is not old:
            self.uses[id(new)] = self.uses[id(old)]
            self._alive.append(new)

    def of(self, root: Expression) -> int:
        """The form of a node; forms computed earlier are reused."""
        stack = [root]
        while stack:
            node = stack[-1]
            missing = [c for c in node.children if id(c) not in self._number]
            if missing:
                stack += missing
                continue
            stack.pop()
            if id(node) not in self._number:
                self._alive.append(node)
                self._number[id(node)] = self._known.setdefault(self._form(node), len(self._known))
        return self._number[id(root)]

    def pick(self, node: Expression) -> tuple[Expression, np.ndarray]:
        """The array from which a node picks elements, and the flat numbers of those elements."""
        return self._picks.get(id(node), (node, self._every(node)))

    def _every(self, node: Expression) -> np.ndarray:
        if id(node) not in self._all:
            self._all[id(node)] = np.arange(node.size, dtype=np.int32).reshape(node.shape)
        return self._all[id(node)]

    def _form(self, node: Expression) -> Hashable:
        below = tuple(self._number[id(c)] for c in node.children)
        if isinstance(node, Rearrange | Gather):
            base, numbers = self.pick(node.children[0])
            picked = (
                node.move(numbers)
                if isinstance(node, Rearrange)
                else numbers.ravel()[node.positions]
            )
            self._picks[id(node)] = base, picked
            return "pick", node.shape, self._number[id(base)]
        if self.uses[id(node)] > MANY and node.children:
            return "itself", id(node)
        match node:
            case View(variable=variable):
                return "variable", variable
            case Value():
                return self._of_value(node)
            case Elementwise() | Sum() | MatMul():
                return type(node), node.key, node.shape, below
            case Apply():
                return (
                    "apply",
                    self._of_function(node.function),
                    node.frozen,
                    node.event_ndims,
                    node.shape,
                    below,
                )
        return "itself", id(node)

    def _of_value(self, node: Value) -> Hashable:
        match node:
            case Number():
                return "number"
            case Parameter(declared=True):
                return "declared", node.name, node.origin, id(node.value)
        if self._held[id(node.value)] > 1 or not _stacks(node.value):
            return "itself", id(node.value)
        kind = (node.name, node.origin.owner, node.frozen) if isinstance(node, Parameter) else None
        return type(node), kind, _signature(node.value)

    def _of_function(self, function: Any) -> Hashable:
        if self._held[id(function)] > 1 or not _stacks(function):
            return "itself", id(function)
        signature = _signature(function)
        try:
            hash(signature)
        except TypeError:
            return "itself", id(function)
        return signature


def is_array(leaf: Any) -> bool:
    """Whether a leaf is an array of JAX or NumPy."""
    return isinstance(leaf, Array | np.ndarray)


def _stacks(value: Any) -> bool:
    """Whether like values may be stacked; a wrapper might treat a stack differently."""
    leaves = jax.tree.leaves(value, is_leaf=_is_wrapper)
    return not any(map(_is_wrapper, leaves))


def _is_wrapper(leaf: Any) -> bool:
    return isinstance(leaf, paramax.AbstractUnwrappable)


def _signature(value: Any) -> Hashable:
    """The form of a value: values of one signature differ only in the content of their arrays."""
    leaves = jax.tree.leaves(value)
    return form(value), tuple(
        (leaf.shape, str(leaf.dtype)) if is_array(leaf) else (type(leaf), leaf) for leaf in leaves
    )


def _occurrences(nodes: list[Expression]) -> dict[int, int]:
    """In how many places of the energy each value and function is used; 2 means more than one."""
    places, held = collections.Counter({id(nodes[-1]): 1}), collections.Counter()
    for node in reversed(nodes):
        count = min(places[id(node)], 2)
        for child in node.children:
            places[id(child)] += count
        if isinstance(node, Value):
            held[id(node.value)] += count
        elif isinstance(node, Apply):
            held[id(node.function)] += count
    return held
