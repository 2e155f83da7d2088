"""Like terms as one batch: the value of each column along a new first axis."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
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
    Origin,
    Parameter,
    Sum,
    Value,
)
from energydsl.language.merge.columns import Column
from energydsl.language.merge.forms import is_array


class Part(NamedTuple):
    """The value of a column: the terms' values along a first axis, or one value for all terms."""

    expression: Expression
    along: bool


def lifted(column: Column, *below: Part) -> Part:
    """The value of a column, from the values of its children."""
    node, count = column.nodes[0], len(column.nodes)
    if column.common:
        return Part(node, False)
    if column.picks:
        return Part(_pick(column, *below), True)
    if isinstance(node, Value):
        return Part(_stack(column.nodes), True)
    shape = (count, *node.shape)
    if isinstance(node, Apply):
        return _apply(column, below)
    if not any(part.along for part in below):
        return Part(node, False)
    match node:
        case Elementwise():
            ranks = [c.ndim for c in node.children]
            children = _aligned(below, ranks, [node.ndim] * len(below))
            return Part(dataclasses.replace(node, children=children, shape=shape), True)
        case Sum():
            axes = tuple(a + 1 for a in node.axes)
            return Part(Sum((below[0].expression,), shape, axes), True)
        case MatMul():
            return Part(_matmul(node, *below), True)
    raise TypeError(f"Terms that contain {type(node).__name__} cannot be merged.")


def _pick(column: Column, base: Part) -> Expression:
    positions = np.stack([numbers for _, numbers in column.picks or ()])
    if base.along:
        size = column.children[0].nodes[0].size
        starts = size * np.arange(len(positions), dtype=positions.dtype)
        positions = positions + starts.reshape(-1, *(1,) * (positions.ndim - 1))
    return Gather((base.expression,), positions.shape, positions)


def _aligned(
    parts: Sequence[Part], ranks: Sequence[int], wanted: Sequence[int]
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


def _matmul(node: MatMul, left: Part, right: Part) -> Expression:
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


def _apply(column: Column, below: Sequence[Part]) -> Part:
    """A batch of calls, one for each term; arrays that the functions own become arguments."""
    calls = [node for node in column.nodes if isinstance(node, Apply)]
    node, count = calls[0], len(calls)
    ranks = [c.ndim for c in node.children]
    events = node.event_ndims or tuple(ranks)
    batch = len(node.batch)
    children = _aligned(below, ranks, [batch + k for k in events])
    function, owned = _shared_function(calls)
    if not owned and not any(part.along for part in below):
        return Part(node, False)
    if owned:
        shared = tuple(_of_one_call(leaf, batch) for leaf in owned)
        children, events = children + shared, events + tuple(leaf.ndim - 1 for leaf in owned)
    shape = (count, *node.shape)
    return Part(Apply(children, shape, function, events, frozen=node.frozen), True)


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
    parts = [eqx.partition(node.function, is_array) for node in nodes]
    paths, form = jax.tree_util.tree_flatten_with_path(parts[0][0])
    if not paths or all(node.function is first.function for node in nodes):
        return first.function, []
    origin = Origin.new(first.kind)
    columns = zip(*(jax.tree.leaves(arrays) for arrays, _ in parts), strict=True)
    owned = [
        _owned_stack(leaves, first.kind + jax.tree_util.keystr(path), origin, first.frozen)
        for (path, _), leaves in zip(paths, columns, strict=True)
    ]
    return _Each(parts[0][1], form, len(first.children)), owned


def _owned_stack(leaves: Sequence[Any], name: str, origin: Origin, frozen: bool) -> Expression:
    stacked = _stacked(leaves)
    if jnp.issubdtype(stacked.dtype, jnp.inexact):
        return Parameter.of(stacked, name, origin, frozen=frozen)
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
