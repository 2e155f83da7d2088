"""Merging of like terms: a sum written term by term, in a Python loop, becomes a batch.

The form of a term is the term without positions and numbers: its operations, shapes and functions,
and the variables and parameters that it uses. Terms of one form differ only in some of the nodes of
their trees; the nodes of all terms at one place of the form are a *column*. A column of elements
picked from one array becomes one pick, a column of numbers one array, and a column of arrays a
stack; the operations are applied along a new first axis. A value that several terms share remains
one value and is never copied, so parameters that were tied remain tied.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import paramax
from jax import Array

from energydsl._types import is_traced
from energydsl.language.domain import AbstractDomain
from energydsl.language.expression import (
    Apply,
    Data,
    Elementwise,
    Expression,
    Gather,
    MatMul,
    Number,
    Origin,
    Parameter,
    Rearrange,
    Sum,
    Value,
    View,
    fold,
    post_order,
)

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


class _Part(NamedTuple):
    """The value of a column: the terms' values along a first axis, or one value for all terms."""

    expression: Expression
    along: bool


class _Merger:
    """One pass over the nodes of a tree, children first."""

    def __init__(self, nodes: list[Expression]) -> None:
        self._nodes = nodes
        self._forms = _Forms(nodes)
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
            if node is not link and id(node) not in inner:
                yield _Addend(self._new[id(node)], negative)
                continue
            for place in reversed(range(len(node.children))):
                minus = _is_minus(node, place)
                stack.append((node.children[place], negative != minus))

    def _batch(self, group: list[_Addend]) -> list[_Addend]:
        """Like addends as one addend, if they are many and the batch is not too large."""
        if len(group) < FEW:
            return group
        columns = _Columns(self._forms)
        top = columns.of(tuple(a.node for a in group))
        widths = (c.nodes[0].size for c in post_order(top) if not c.common)
        if len(group) * max(widths, default=0) > MAX_ELEMENTS:
            return group
        part: _Part = fold(top, _lifted)
        signs = np.where([a.negative for a in group], -1.0, 1.0)
        if not part.along:
            return [_Addend(Number.of(float(signs.sum())) * part.expression, False)]
        batch = part.expression
        if len(set(signs)) == 1:
            return [_Addend(Sum.of(batch, (0,)), group[0].negative)]
        signs = signs.reshape(-1, *(1,) * (batch.ndim - 1))
        return [_Addend(Sum.of(Data.of(signs) * batch, (0,)), False)]


class _Forms:
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
        if self.uses[id(node)] > FEW and node.children:
            # A node that many terms share is computed once; copies of it would cost more.
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
        try:
            hash(signature := _signature(function))
        except TypeError:
            return "itself", id(function)
        return signature


class _Column:
    """The nodes of like terms at one place of their form."""

    def __init__(self, nodes: tuple[Expression, ...], columns: _Columns) -> None:
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
                return all(node.value is first.value for node in self.nodes)  # type: ignore[attr-defined]
        return all(node is first for node in self.nodes)

    @property
    def children(self) -> tuple[_Column, ...]:
        """The columns below this one."""
        return self._children

    @functools.cached_property
    def _children(self) -> tuple[_Column, ...]:
        if self.common:
            return ()
        if self.picks:
            return (self._columns.of(tuple(base for base, _ in self.picks)),)
        return tuple(map(self._columns.of, zip(*(n.children for n in self.nodes), strict=True)))


class _Columns:
    """The columns of one group of terms; the same nodes at two places are one column."""

    def __init__(self, forms: _Forms) -> None:
        self.forms = forms
        self._made: dict[tuple[int, ...], _Column] = {}

    def of(self, nodes: tuple[Expression, ...]) -> _Column:
        """The column of these nodes."""
        key = tuple(map(id, nodes))
        if key not in self._made:
            self._made[key] = _Column(nodes, self)
        return self._made[key]


def _lifted(column: _Column, *below: _Part) -> _Part:
    """The value of a column, from the values of its children."""
    node, count = column.nodes[0], len(column.nodes)
    if column.common:
        return _Part(node, False)
    if column.picks:
        return _Part(_pick(column, *below), True)
    if isinstance(node, Value):
        return _Part(_stack(column.nodes), True)
    shape = (count, *node.shape)
    if isinstance(node, Apply):
        return _apply(column, below)
    if not any(part.along for part in below):
        return _Part(node, False)
    match node:
        case Elementwise():
            ranks = [c.ndim for c in node.children]
            children = _aligned(below, ranks, [node.ndim] * len(below))
            return _Part(dataclasses.replace(node, children=children, shape=shape), True)
        case Sum():
            axes = tuple(a + 1 for a in node.axes)
            return _Part(Sum((below[0].expression,), shape, axes), True)
        case MatMul():
            return _Part(_matmul(node, *below), True)
    raise TypeError(f"Terms that contain {type(node).__name__} cannot be merged.")


def _pick(column: _Column, base: _Part) -> Expression:
    positions = np.stack([numbers for _, numbers in column.picks or ()])
    if base.along:
        size = column.children[0].nodes[0].size
        starts = size * np.arange(len(positions), dtype=positions.dtype)
        positions = positions + starts.reshape(-1, *(1,) * (positions.ndim - 1))
    return Gather((base.expression,), positions.shape, positions)


def _aligned(
    parts: Sequence[_Part], ranks: Sequence[int], wanted: Sequence[int]
) -> tuple[Expression, ...]:
    """Operands reshaped so that, apart from the new first axis, they broadcast as before."""
    return tuple(
        part.expression.reshape(
            part.expression.shape[:1] + (1,) * (w - r) + part.expression.shape[1:]
        )
        if part.along and w > r
        else part.expression
        for part, r, w in zip(parts, ranks, wanted, strict=True)
    )


def _matmul(node: MatMul, left: _Part, right: _Part) -> Expression:
    """A matrix product where one side is common; otherwise a sum of products over the terms."""
    (a, b), (rank_a, rank_b) = (left.expression, right.expression), (c.ndim for c in node.children)
    if rank_a == 1 and not right.along:
        return a @ b
    if rank_b == 1 and not left.along:
        return b @ a.T
    # The inner axis is the first of the left operand, and follows the columns of the right one.
    a, b = a.T, b.T
    a = a if left.along else a.reshape(*a.shape, 1)
    b = b if right.along else b.reshape(*b.shape, 1)
    if rank_a == 2:
        b = b.reshape(*b.shape[:-1], 1, b.shape[-1])
    return (a * b).sum(rank_b - 1).T


def _apply(column: _Column, below: Sequence[_Part]) -> _Part:
    """A batch of calls, one for each term; arrays that the functions own become arguments."""
    node, count = column.nodes[0], len(column.nodes)
    assert isinstance(node, Apply)
    ranks = [c.ndim for c in node.children]
    events = node.event_ndims or tuple(ranks)
    batch = len(node.batch)
    children = _aligned(below, ranks, [batch + k for k in events])
    function, owned = _shared_function(column.nodes)  # type: ignore[arg-type]
    if not owned and not any(part.along for part in below):
        return _Part(node, False)
    if owned:
        shared = tuple(_of_one_call(leaf, batch) for leaf in owned)
        children, events = children + shared, events + tuple(leaf.ndim - 1 for leaf in owned)
    return _Part(Apply(children, (count, *node.shape), function, events), True)


class _Each(eqx.Module):
    """A function whose arrays are passed as its last arguments, so that they differ by call."""

    function: Any
    form: Any = eqx.field(static=True)
    takes: int = eqx.field(static=True)
    """The number of arguments before the arrays."""

    @property
    def name(self) -> str:
        return str(getattr(self.function, "name", type(self.function).__name__))

    def energy(self, *values: Array) -> Array:
        arrays = jax.tree.unflatten(self.form, values[self.takes :])
        return eqx.combine(arrays, self.function).energy(*values[: self.takes])

    def normalised(self, domain: AbstractDomain, shape: tuple[int, ...]) -> bool:
        """Whether the function is normalised whatever its arrays.

        See `AbstractPotential.normalised`.
        """
        says = getattr(self.function, "normalised", None)
        return says is not None and says(domain, shape)


def _shared_function(nodes: Sequence[Apply]) -> tuple[Any, list[Expression]]:
    """One function for all terms, and the arrays of the terms' functions, stacked."""
    first = nodes[0]
    parts = [eqx.partition(node.function, _is_array) for node in nodes]
    paths, form = jax.tree_util.tree_flatten_with_path(parts[0][0])
    if not paths or all(node.function is first.function for node in nodes):
        return first.function, []
    origin = Origin.new(first.kind)
    columns = zip(*(jax.tree.leaves(arrays) for arrays, _ in parts), strict=True)
    owned = [
        _owned_stack(leaves, first.kind + jax.tree_util.keystr(path), origin)
        for (path, _), leaves in zip(paths, columns, strict=True)
    ]
    return _Each(parts[0][1], form, len(first.children)), owned


def _owned_stack(leaves: Sequence[Any], name: str, origin: Origin) -> Expression:
    stacked = _stacked(leaves)
    if jnp.issubdtype(stacked.dtype, jnp.inexact):
        return Parameter.of(stacked, name, origin)
    return Data((), stacked.shape, stacked)


def _of_one_call(leaf: Expression, batch: int) -> Expression:
    return leaf.reshape(leaf.shape[:1] + (1,) * batch + leaf.shape[1:]) if batch else leaf


def _stack(nodes: Sequence[Any]) -> Expression:
    """Numbers, data, or like parameters of potentials, stacked along a first axis."""
    stacked, first = _stacked([node.value for node in nodes]), nodes[0]
    if isinstance(first, Parameter):
        return Parameter.of(stacked, first.name, first.origin, frozen=first.frozen)
    return Data((), stacked.shape, stacked)


def _stacked(values: Sequence[Any]) -> Any:
    # NumPy, as one JAX operation on thousands of arrays would take long to compile.
    return jnp.stack(values) if is_traced(*values) else np.stack([np.asarray(v) for v in values])


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, Array | np.ndarray)


def _stacks(value: Any) -> bool:
    """Whether like values may be stacked; a wrapper might treat a stack differently."""
    leaves = jax.tree.leaves(value, is_leaf=_is_wrapper)
    return not any(map(_is_wrapper, leaves))


def _is_wrapper(leaf: Any) -> bool:
    return isinstance(leaf, paramax.AbstractUnwrappable)


def _signature(value: Any) -> Hashable:
    """The form of a value: values of one signature differ only in the content of their arrays."""
    leaves, form = jax.tree.flatten(value)
    return form, tuple(
        (leaf.shape, str(leaf.dtype)) if _is_array(leaf) else (type(leaf), leaf) for leaf in leaves
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


def _is_link(node: Expression) -> bool:
    return isinstance(node, Elementwise) and node.operation in ("add", "subtract", "negative")


def _is_minus(node: Expression, place: int) -> bool:
    """Whether a child of an addition enters it with a minus sign."""
    assert isinstance(node, Elementwise)
    return node.operation == "negative" or (node.operation == "subtract" and place == 1)
