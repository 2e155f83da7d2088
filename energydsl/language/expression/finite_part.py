"""Expressions with 0 in place of infinite values, so that they can be multiplied by 0."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax import Array

from energydsl.language.expression.apply import Apply
from energydsl.language.expression.elementwise import Elementwise
from energydsl.language.expression.leaf import View
from energydsl.language.expression.product import MatMul
from energydsl.language.expression.range import Range, range_of
from energydsl.language.expression.reduction import Sum
from energydsl.language.expression.tree import Expression, fold


class Parts(NamedTuple):
    """An expression in two parts."""

    finite: Expression
    """The expression, in which terms have 0 in place of a value that is infinite or NaN."""
    infinite: tuple[Expression, ...]
    """For each such term, 1 where it is infinite or NaN, and 0 elsewhere."""


def parts_of(root: Expression) -> Parts:
    """The finite part of an expression, and where it is infinite.

    Only terms of sites with finitely many levels are divided: the form of a function of real sites
    must stay what it is, and an infinity at single points has no probability there. The division is
    made below sums and products, so that factors do not become larger.
    """
    passed: set[int] = set()
    divided: set[int] = set()

    def rule(node: Expression, *below: _Seen) -> _Seen:
        seen = _range(node, *(b.range for b in below))
        levels = any(b.levels for b in below)
        if isinstance(node, View):
            return _Seen(seen, node.variable.domain.levels is not None, node)
        if seen.finite or not levels:
            return _Seen(seen, levels, node)
        if _passes_on(node, below):
            passed.add(id(node))
            parts = tuple(b.part for b in below)
            return _Seen(seen, levels, dataclasses.replace(node, children=parts))
        divided.add(id(node))
        return _Seen(seen, levels, Apply.of(_FinitePart(), (node,), (0,)))

    finite, infinite, stack, visited = fold(root, rule).part, [], [root], set()
    while stack:
        node = stack.pop()
        if id(node) in visited:
            continue
        visited.add(id(node))
        if id(node) in divided:
            infinite.append(Apply.of(_IsInfinite(), (node,), (0,)))
        elif id(node) in passed:
            stack += node.children
    return Parts(finite, tuple(infinite))


class _Seen(NamedTuple):
    """What is known of a node: its values, whether it has finite sites, and its finite part."""

    range: Range
    levels: bool
    part: Expression


class _FinitePart(eqx.Module):
    """The value where it is finite, and 0 elsewhere."""

    name = "finite_part"

    def energy(self, value: Array) -> Array:
        return jnp.where(jnp.isfinite(value), value, 0.0)


class _IsInfinite(eqx.Module):
    """1 where the value is infinite or NaN, and 0 elsewhere."""

    name = "is_infinite"

    def energy(self, value: Array) -> Array:
        return jnp.where(jnp.isfinite(value), 0.0, 1.0)


def _range(node: Expression, *below: Range) -> Range:
    """What is proven of a node, if functions may be infinite, and parameters alone never are."""
    seen = range_of(node, *below)
    return seen._replace(finite=not isinstance(node, Apply) and (seen.finite or seen.fixed))


def _passes_on(node: Expression, below: tuple[_Seen, ...]) -> bool:
    """Whether a node is finite exactly where all of its children are."""
    match node:
        case Sum() | MatMul() | Elementwise(operation="add" | "subtract" | "negative" | "multiply"):
            return True
        case Elementwise(operation="divide"):
            return below[1].range.fixed
    return False
