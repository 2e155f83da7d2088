"""Factors: the decomposition of an energy into batches of functions of a few sites each.

`factorise` writes an expression as a sum. An elementwise expression becomes a batch with one factor
for each element, whose scope (the sites it depends on) is a row of index arrays. Products are
distributed over sums, so that ``x @ W @ h`` is n x m pairwise factors. An expression that cannot be
decomposed is one factor over all of its sites. The energy of a configuration is computed from the
expression itself; factors are used for the structure and for conditional distributions.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl.language.expression import (
    Apply,
    Elementwise,
    Expression,
    Gather,
    MatMul,
    Rearrange,
    Sum,
    Value,
    View,
    energy_dtype,
    fold,
)
from energydsl.language.expression.operation import as_float
from energydsl.language.expression.tree import slot_number
from energydsl.language.variable import Variable

MAX_FACTORS = 50_000_000
"""The most factors into which a product is distributed; a larger product remains one factor."""

MAX_PARTS = 100_000
"""The most terms of a sum, or arguments of one factor; energies of usual length have far fewer."""

MAX_COMMON = 1_000
"""The most entries of an argument that are stored once for all factors of a batch."""

MAX_BATCHES = 1_000
"""The most batches into which a product is distributed, as each batch is traced separately."""


@dataclasses.dataclass(frozen=True)
class Sites:
    """An argument that is the values of sites, given by their flat numbers in the variable.

    Like every index, `index` has the batch's axes followed by the axes of one factor's argument.
    """

    variable: Variable
    index: np.ndarray


@dataclasses.dataclass(frozen=True)
class Entries:
    """An argument that is entries of the array in a slot, given by their flat numbers."""

    slot: int
    index: np.ndarray


@dataclasses.dataclass(frozen=True)
class Count:
    """An argument that is the number of an entry of a step's result, so that factors differ."""

    index: np.ndarray


@dataclasses.dataclass(frozen=True)
class Whole:
    """An argument that is the whole value of a slot: a potential, shared by the batch."""

    slot: int


Leaf = Sites | Entries | Count | Whole


def common_entry(leaf: Leaf) -> int | None:
    """The single entry of an array that all factors of a batch use; None if they differ."""
    if not isinstance(leaf, Entries) or leaf.index.ndim > 1:
        return None
    first = int(leaf.index.flat[0])
    return first if (leaf.index == first).all() else None


def common_entries(leaf: Leaf) -> Any:
    """The entries of an argument that all factors of a batch use, as a number or nested tuples.

    None if they differ, or are so many that they are no part of a program.
    """
    if isinstance(leaf, Whole | Count) or leaf.index[0].size > MAX_COMMON:
        return None
    same = bool((leaf.index == leaf.index[:1]).all())
    return _as_tuples(leaf.index[0].tolist()) if same else None


def _as_tuples(nested: Any) -> Any:
    return tuple(map(_as_tuples, nested)) if isinstance(nested, list) else nested


@dataclasses.dataclass(frozen=True)
class Term:
    """An array of `shape`, whose elements are sums of ``energy(*leaves)`` over reduced axes."""

    shape: tuple[int, ...]
    reduced: tuple[int, ...]
    leaves: tuple[Leaf, ...]
    energy: Callable[..., Array]
    bare: bool = False
    """Whether it is a view itself, or a function of a view (and others) that is not transformed."""


@dataclasses.dataclass(frozen=True, eq=False)
class Factor:
    """A batch of `size` factors of the same form, each the scalar ``energy(*leaves)``."""

    size: int
    leaves: tuple[Leaf, ...]
    energy: Callable[..., Array]
    bare: bool = False
    """Whether the energy is the value of the function in the first leaf, neither scaled nor
    transformed, whose first argument is exactly the sites of the second leaf."""

    @property
    def sites(self) -> dict[int, Sites]:
        """The leaves that are sites, by position."""
        return {k: leaf for k, leaf in enumerate(self.leaves) if isinstance(leaf, Sites)}

    def only(self, chosen: np.ndarray) -> Factor:
        """The batch of the chosen factors, True where one is chosen."""
        if chosen.all():
            return self
        leaves = tuple(
            leaf if isinstance(leaf, Whole) else dataclasses.replace(leaf, index=leaf.index[chosen])
            for leaf in self.leaves
        )
        return dataclasses.replace(self, size=int(chosen.sum()), leaves=leaves)


def factorise(root: Expression) -> tuple[Factor, ...]:
    """The batches of factors whose sum is a scalar expression; empty batches are omitted."""
    terms = _floats(root, fold(root, _bounded_terms))
    return tuple(_flatten(term) for term in terms if math.prod(term.reduced))


def _bounded_terms(node: Expression, *below: list[Term]) -> list[Term]:
    terms = _terms(node, *below)
    if max(len(terms), len(terms[0].leaves)) > MAX_PARTS:
        raise ValueError(
            f"The energy has more than {MAX_PARTS:,} pieces at {str(node)[:200]}. Write the terms "
            "as array operations, or the part as one factor by ed.apply(function, ...)."
        )
    return terms


def _terms(node: Expression, *below: list[Term]) -> list[Term]:
    if isinstance(node, Elementwise | Sum | MatMul):
        below = tuple(_floats(c, t) for c, t in zip(node.children, below, strict=True))
    match node:
        case View(variable=variable):
            index = np.arange(node.size, dtype=np.int32).reshape(node.shape)
            return [Term(node.shape, (), (Sites(variable, index),), _identity, bare=True)]
        case Value(slot=slot):
            index = np.arange(node.size, dtype=np.int32).reshape(node.shape)
            return [Term(node.shape, (), (Entries(slot_number(slot), index),), _identity)]
        case Rearrange(move=move):
            return [_pick(t, move(_numbers(t.shape))) for t in below[0]]
        case Gather(positions=positions):
            return [_pick(t, positions) for t in below[0]]
        case Sum(axes=axes):
            return [_reduce(t, axes) for t in below[0]]
        case MatMul():
            return _matmul(node, *below)
        case Elementwise():
            return _elementwise(node, *below)
    return [_step(node, [_join(terms) for terms in below])]


def _elementwise(node: Elementwise, *below: list[Term]) -> list[Term]:
    terms = [[_spread(t, node.shape) for t in operand] for operand in below]
    match node.operation:
        case "add":
            return terms[0] + terms[1]
        case "subtract":
            return terms[0] + [_map(t, jnp.negative) for t in terms[1]]
        case "negative":
            return [_map(t, jnp.negative) for t in terms[0]]
        case "multiply" if _distributes(*terms):
            return [_product(a, b, jnp.multiply) for a in terms[0] for b in terms[1]]
        case "divide":
            below_line = _join(terms[1])
            return [_product(t, below_line, jnp.divide) for t in terms[0]]
    whole = [_join(operand) for operand in terms]
    joined, arities = _concatenate(whole)
    energies = [t.energy for t in whole]

    def energy(*values: Any) -> Array:
        parts = _split(values, arities)
        return node.combine(*(e(*p) for e, p in zip(energies, parts, strict=True)))

    return [Term(node.shape, (), joined, energy)]


def _matmul(node: MatMul, left: list[Term], right: list[Term]) -> list[Term]:
    a, b = node.children
    rows, columns = (1,) * (b.ndim - 1), (1,) * (a.ndim - 1)
    full = (*a.shape[:-1], *b.shape[1:], a.shape[-1])

    def place_left(t: Term) -> Term:
        numbers = _numbers(a.shape).reshape(a.shape[:-1] + rows + a.shape[-1:])
        return _pick(t, np.broadcast_to(numbers, full))

    def place_right(t: Term) -> Term:
        numbers = np.moveaxis(_numbers(b.shape), 0, -1)
        return _pick(t, np.broadcast_to(numbers.reshape(columns + numbers.shape), full))

    products = [_product(place_left(s), place_right(t), jnp.multiply) for s in left for t in right]
    return [_reduce(t, (len(full) - 1,)) for t in products]


def _step(node: Expression, operands: list[Term]) -> Term:
    """The factors of a node of an unknown kind, one for each event of its batch.

    If the result for an event is an array, each entry is a factor of all the event's sites.
    """
    ndims = node.events or [len(t.shape) for t in operands]
    pairs = list(zip(operands, ndims, strict=True))
    batch = np.broadcast_shapes(*(t.shape[: len(t.shape) - k] for t, k in pairs))
    spread = [_spread(t, batch + t.shape[len(t.shape) - k :]) for t, k in pairs]
    inner = [_absorb(t, len(batch)) for t in spread]
    leaves, arities = _concatenate(inner)
    energies = [t.energy for t in inner]
    functions: tuple[Leaf, ...] = ()
    if isinstance(node, Apply):
        functions = (Whole(slot_number(node.slot)),)

    def energy(*values: Any) -> Array:
        own, values = values[: len(functions)], values[len(functions) :]
        parts = _split(values, arities)
        return _one(node, own, [e(*p) for e, p in zip(energies, parts, strict=True)])

    entries = node.shape[len(batch) :]
    if not entries:
        bare = bool(functions) and inner[0].bare and isinstance(inner[0].leaves[0], Sites)
        return Term(batch, (), (*functions, *leaves), energy, bare)
    number = Count(np.broadcast_to(_numbers(entries), batch + entries))
    spread_leaves = tuple(_repeat(leaf, batch, entries) for leaf in leaves)

    def entry(k: Array, *values: Any) -> Array:
        return energy(*values).ravel()[k]

    return Term(batch + entries, (), (number, *functions, *spread_leaves), entry)


def _one(node: Expression, functions: Sequence[Any], values: list[Array]) -> Array:
    """The result of a node for one event."""
    if isinstance(node, Apply):
        return node.one(*functions, *values)
    return as_float(node.combine(*values))


def _identity(value: Array) -> Array:
    return value


def _numbers(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(math.prod(shape), dtype=np.int32).reshape(shape)


def _floats(source: Expression, terms: list[Term]) -> list[Term]:
    """Terms in floating point, where they are labels otherwise."""
    if jnp.issubdtype(energy_dtype(source), jnp.inexact):
        return terms
    return [_map(term, as_float) for term in terms]


def _distributes(left: Sequence[Term], right: Sequence[Term]) -> bool:
    """Whether a product of two sums is expanded into the products of their terms."""
    if len(left) * len(right) > MAX_BATCHES:
        return False
    sizes = (math.prod(a.shape + a.reduced + b.reduced) for a in left for b in right)
    return sum(sizes) <= MAX_FACTORS


def _with(term: Term, change: Callable[[np.ndarray], np.ndarray]) -> tuple[Leaf, ...]:
    """The leaves with the same change applied to every index array."""
    return tuple(
        leaf if isinstance(leaf, Whole) else dataclasses.replace(leaf, index=change(leaf.index))
        for leaf in term.leaves
    )


def _map(term: Term, function: Callable[[Array], Array]) -> Term:
    energy = term.energy
    return dataclasses.replace(term, energy=lambda *v: function(energy(*v)), bare=False)


def _pick(term: Term, numbers: np.ndarray) -> Term:
    """The elements at flat positions `numbers`, in the shape of `numbers`."""
    count = len(term.shape)

    def change(index: np.ndarray) -> np.ndarray:
        flat = index.reshape((math.prod(term.shape), *index.shape[count:]))
        return np.asarray(flat[numbers])

    return dataclasses.replace(term, shape=numbers.shape, leaves=_with(term, change))


def _spread(term: Term, shape: tuple[int, ...]) -> Term:
    """The term broadcast to `shape`."""
    if term.shape == shape:
        return term
    count = len(term.shape)
    padded = (1,) * (len(shape) - count) + term.shape

    def change(index: np.ndarray) -> np.ndarray:
        rest = index.shape[count:]
        return np.broadcast_to(index.reshape(padded + rest), shape + rest)

    return dataclasses.replace(term, shape=shape, leaves=_with(term, change))


def _reduce(term: Term, axes: tuple[int, ...]) -> Term:
    """The sum of a term over some axes."""
    kept = [i for i in range(len(term.shape)) if i not in axes]
    order = kept + list(axes)

    def change(index: np.ndarray) -> np.ndarray:
        return index.transpose(order + list(range(len(order), index.ndim)))

    return dataclasses.replace(
        term,
        shape=tuple(term.shape[i] for i in kept),
        reduced=tuple(term.shape[i] for i in axes) + term.reduced,
        leaves=_with(term, change),
    )


def _product(a: Term, b: Term, operation: Callable[[Array, Array], Array]) -> Term:
    """The products of two terms' elements, as a sum over the reduced axes of both."""
    k, ra, rb = len(a.shape), len(a.reduced), len(b.reduced)

    def left(index: np.ndarray) -> np.ndarray:
        rest = index.shape[k + ra :]
        index = index.reshape(a.shape + a.reduced + (1,) * rb + rest)
        return np.broadcast_to(index, a.shape + a.reduced + b.reduced + rest)

    def right(index: np.ndarray) -> np.ndarray:
        rest = index.shape[k + rb :]
        index = index.reshape(b.shape + (1,) * ra + b.reduced + rest)
        return np.broadcast_to(index, b.shape + a.reduced + b.reduced + rest)

    split, first, second = len(a.leaves), a.energy, b.energy
    return Term(
        a.shape,
        a.reduced + b.reduced,
        _with(a, left) + _with(b, right),
        lambda *v: operation(first(*v[:split]), second(*v[split:])),
    )


def _join(terms: list[Term]) -> Term:
    """The sum of terms as one term without reduced axes, as the operand of other functions."""
    closed = [_absorb(t, len(t.shape), total=True) for t in terms]
    if len(closed) == 1:
        return closed[0]
    leaves, arities = _concatenate(closed)
    energies = [t.energy for t in closed]

    def energy(*values: Any) -> Array:
        parts = _split(values, arities)
        first, *others = (e(*p) for e, p in zip(energies, parts, strict=True))
        return sum(others, first)

    return Term(closed[0].shape, (), leaves, energy)


def _absorb(term: Term, keep: int, *, total: bool = False) -> Term:
    """The term with all axes but the first `keep` inside the factor, summed if `total`."""
    moved = term.shape[keep:] + term.reduced
    if not moved:
        return term
    energy = term.energy
    axes = tuple(None if isinstance(leaf, Whole) else 0 for leaf in term.leaves)
    for _ in moved:
        energy = jax.vmap(energy, in_axes=axes)
    closed = (lambda *v: jnp.sum(energy(*v))) if total else energy
    return Term(term.shape[:keep], (), term.leaves, closed, term.bare and not total)


def _repeat(leaf: Leaf, batch: tuple[int, ...], entries: tuple[int, ...]) -> Leaf:
    """The leaf repeated for each entry of the result of each element of the batch."""
    if isinstance(leaf, Whole):
        return leaf
    rest = leaf.index.shape[len(batch) :]
    index = leaf.index.reshape(batch + (1,) * len(entries) + rest)
    return dataclasses.replace(leaf, index=np.broadcast_to(index, batch + entries + rest))


def _concatenate(terms: Sequence[Term]) -> tuple[tuple[Leaf, ...], list[int]]:
    return tuple(leaf for t in terms for leaf in t.leaves), [len(t.leaves) for t in terms]


def _split(values: Sequence[Any], arities: Sequence[int]) -> list[Sequence[Any]]:
    ends = itertools.accumulate(arities, initial=0)
    return [values[a:b] for a, b in itertools.pairwise(ends)]


def _flatten(term: Term) -> Factor:
    """The batch of a term's elements and reduced axes; equal leaves become one."""
    shape = term.shape + term.reduced
    size, kept, slots = math.prod(shape), [], []
    for leaf in term.leaves:
        if not isinstance(leaf, Whole):
            index = leaf.index.reshape((size, *leaf.index.shape[len(shape) :]))
            leaf = dataclasses.replace(leaf, index=index)
        match = [k for k, other in enumerate(kept) if _same(leaf, other)]
        slots.append(match[0] if match else len(kept))
        if not match:
            kept.append(leaf)
    energy = term.energy
    # A view itself has no function as its first leaf, and its sites may occur in other leaves.
    bare = term.bare and isinstance(kept[0], Whole) and slots.count(1) == 1
    return Factor(size, tuple(kept), lambda *v: energy(*(v[s] for s in slots)), bare)


def _same(a: Leaf, b: Leaf) -> bool:
    if type(a) is not type(b) or isinstance(a, Count):
        return False
    if isinstance(a, Whole) or isinstance(b, Whole):
        return a == b
    source = a.variable if isinstance(a, Sites) else a.slot
    other = b.variable if isinstance(b, Sites) else getattr(b, "slot", None)
    return source == other and np.array_equal(a.index, b.index)
