"""Entries of an array selected by the values of variables, as the means of a mixture by labels."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl.language.expression.leaf import as_expression
from energydsl.language.expression.operation import ATOM, Text, as_float, bracket, broadcast
from energydsl.language.expression.rearrange import flat, transpose
from energydsl.language.expression.tree import Expression, makes
from energydsl.language.expression.view import sites_of


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Select(Expression):
    """One entry of the last axes of the first operand, given by the levels of the others."""

    @property
    def events(self) -> tuple[int, ...]:
        chosen = len(self.children) - 1
        return (chosen, *(0,) * chosen)

    @property
    def stays_finite(self) -> bool:
        return True

    def combine(self, *values: Array) -> Array:
        array, levels = as_float(values[0]), [v.astype(jnp.int32) for v in values[1:]]
        sizes = array.shape[array.ndim - len(levels) :]
        entry = jnp.zeros((), jnp.int32)
        for level, size in zip(levels, sizes, strict=True):
            entry = entry * size + level
        rows = array.reshape(*array.shape[: array.ndim - len(levels)], -1)
        batch = jnp.broadcast_shapes(rows.shape[:-1], entry.shape)
        rows = jnp.broadcast_to(rows, (*batch, rows.shape[-1]))
        entry = jnp.broadcast_to(entry, batch)[..., None]
        return jnp.take_along_axis(rows, entry, axis=-1, mode="clip")[..., 0]

    def text(self, *operands: Text) -> Text:
        array, *levels = operands
        chosen = ", ".join(text for text, _ in levels)
        if self.children[0].ndim == len(levels):
            return f"{bracket(array, ATOM)}[{chosen}]", ATOM
        return f"select({array[0]}, {chosen})", ATOM


@makes("select")
def select(operand: Expression, given: tuple) -> Expression:
    """The elements of an expression at an index that contains views of labels.

    Known integers and arrays of integers may stand beside the views, as in ``W[rows, k]``.
    """
    parts = _without_ellipsis(given, operand.ndim)
    chosen = [axis for axis, part in enumerate(parts) if isinstance(part, Expression)]
    known = [axis for axis, part in enumerate(parts) if _is_known(part)]
    first, last = min(chosen + known), max(chosen + known) + 1
    basic = [p for axis, p in enumerate(parts) if not first <= axis < last]
    if len(chosen + known) < last - first or not all(isinstance(p, slice) for p in basic):
        raise TypeError(
            f"An index of {operand!s:.80} has variables apart from each other, or beside a mask or "
            "a new axis; expected variables and known integers side by side, and slices. Apply "
            "the other parts first: A[:, :, 0][k] for A[k, :, 0]."
        )
    for axis in chosen:
        _check_levels(operand, axis, parts[axis])
    rest = tuple(slice(None) if first <= axis < last else part for axis, part in enumerate(parts))
    operand = operand if set(map(str, rest)) == {str(slice(None))} else operand[rest]
    views = [as_expression(parts[axis]) for axis in chosen]
    rows = [np.asarray(parts[axis]) for axis in known]
    shapes = [*(v.shape for v in views), *(r.shape for r in rows)]
    inside = broadcast(*shapes, what="The variables and arrays of an index")
    before, after = operand.shape[:first], operand.shape[last:]
    operand = transpose(operand, *range(first), *known, *range(last, operand.ndim), *chosen)
    if rows:
        operand = operand[(*(slice(None),) * first, *rows)]
    if before or rows:
        own = np.broadcast_shapes(*(r.shape for r in rows))
        own = (1,) * (len(inside) - len(own)) + own
        sizes = operand.shape[operand.ndim - len(chosen) :]
        operand = operand.reshape(*before, *own, *after, *sizes)
    spread = tuple(v.reshape(*v.shape, *(1,) * len(after)) for v in views)
    return Select((operand, *spread), before + inside + after)


def _is_known(part: object) -> bool:
    """Whether a part of an index is an integer, or an array of integers."""
    if part is None or part is Ellipsis or isinstance(part, slice | Expression):
        return False
    return np.issubdtype(np.asarray(part).dtype, np.integer)


def take(a: object, indices: object, axis: int | None = None) -> Expression:
    """The entries of `a` at the levels of a variable, as ``a[indices]``.

    Parameters and views are indexed by a variable: ``mu[k]``. Arrays of NumPy and JAX cannot be:
    ``ed.take(means, k)`` is the mean with label ``k``.

    Args:
        a: an array, a parameter, a view or another expression.
        indices: a view of a variable whose levels count from 0, or an array of integers.
        axis: the axis of `a` to select along; `a` is flattened if not given, as by `numpy.take`.
    """
    a = as_expression(a)
    if axis is None:
        return flat(a)[indices]
    if not -a.ndim <= axis < a.ndim:
        raise ValueError(f"ed.take got axis {axis} for an expression of shape {a.shape}.")
    return a[(*(slice(None),) * (axis % a.ndim), indices)]


def _without_ellipsis(parts: tuple, ndim: int) -> list[Any]:
    """The parts of an index, one for each axis."""
    given = sum(part is not None and part is not Ellipsis for part in parts)
    full: list[Any] = []
    for part in parts:
        full += [slice(None)] * (ndim - given) if part is Ellipsis else [part]
    if given > ndim:
        raise IndexError(f"An index has {given} parts for an expression of {ndim} axes.")
    return full + [slice(None)] * (ndim - len(full))


def _check_levels(operand: Expression, axis: int, index: Expression) -> None:
    """Refuse an index that is not a view of labels, one label for each entry of the axis."""
    size = operand.shape[axis]
    try:
        domain = sites_of(index)[0].domain
    except TypeError:
        domain = None
    if domain is None or domain.levels is None or domain.values[0] < 0:
        given = f"which is {domain}" if domain else "which is computed"
        raise TypeError(
            f"An index of {operand!s:.80} got {index!s:.80}, {given}; expected a view of a "
            "variable with finitely many levels that count from 0, such as "
            f'ed.categorical("k", levels={size}).'
        )
    if domain.values[-1] >= size:
        raise ValueError(
            f"An index of {operand!s:.80} got {index!s:.80}, which is {domain}, for an axis of "
            f"{size} entries; expected an entry for each level up to {domain.values[-1]}."
        )
