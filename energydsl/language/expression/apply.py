"""Calls of functions that the compiler does not analyse."""

from __future__ import annotations

import dataclasses
import functools
import numbers
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import paramax
from jax import Array

from energydsl._identity import form, static_parts
from energydsl._types import is_traced
from energydsl.language.expression.leaf import as_expression
from energydsl.language.expression.operation import ATOM, Text, as_float, broadcast, is_real
from energydsl.language.expression.tree import Environment, Expression, slot_number
from energydsl.language.expression.view import energy_dtype


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Apply(Expression):
    """A function that the compiler does not analyse, called once or once for each event.

    `function` has an ``energy`` method. `event_ndims` is, for each operand, the number of trailing
    axes that one call takes; the axes before them are a batch. None means one call on all axes.
    Learning leaves the function's arrays alone if it is `frozen`.
    """

    function: Any
    event_ndims: tuple[int, ...] | None
    slot: int | None = None
    frozen: bool = dataclasses.field(default=False, kw_only=True)

    @staticmethod
    def of(
        function: Any, operands: Sequence[object], event_ndims: tuple[int, ...] | None = None
    ) -> Apply:
        children = tuple(as_expression(o) for o in operands)
        node = Apply(children, (), function, event_ndims)
        plain = paramax.unwrap(function)
        _check_owned(plain, node.name)
        _check_events(node)
        return dataclasses.replace(node, shape=_result_shape(node, plain))

    @property
    def key(self) -> tuple:
        return (self.slot, self.name, self.event_ndims, self.shape)

    @property
    def kind(self) -> str:
        """The name without the part in brackets: ``Neural`` for ``Neural[MLP]``."""
        return self.name.partition("[")[0]

    @property
    def name(self) -> str:
        """The name of the function in messages."""
        return str(getattr(self.function, "name", type(self.function).__name__))

    @property
    def events(self) -> tuple[int, ...] | None:
        return self.event_ndims

    @property
    def batch(self) -> tuple[int, ...]:
        """The shape of the batch of calls."""
        ndims = self.event_ndims or [c.ndim for c in self.children]
        shapes = [c.shape[: c.ndim - k] for c, k in zip(self.children, ndims, strict=True)]
        return broadcast(*shapes, what=f"The batches of {self.name}'s arguments")

    def one(self, function: Any, *values: Array) -> Array:
        """The value of `function.energy` for one event, in floating point."""
        try:
            value = function.energy(*values)
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            shapes = ", ".join(str(v.shape) for v in values)
            raise kind(
                f"{self.name} could not be computed for arrays of shapes {shapes}: {error} "
                "Expected a function of the arrays of its views, with sizes that fit them."
            ) from error
        if isinstance(value, Array | np.ndarray | numbers.Real) and is_real(jnp.result_type(value)):
            return as_float(jnp.asarray(value))
        what = f"dtype {value.dtype}" if isinstance(value, Array) else type(value).__name__
        raise TypeError(f"{self.name} returned {what}; expected one array of real numbers.")

    def call(self, function: Any, *values: Array) -> Array:
        """The values of `function.energy` for the batch of events."""
        batch, ndims = self.batch, self.event_ndims or [v.ndim for v in values]
        call = functools.partial(self.one, function)
        for _ in batch:
            call = jax.vmap(call)
        events = [v.shape[v.ndim - k :] for v, k in zip(values, ndims, strict=True)]
        return call(*(jnp.broadcast_to(v, batch + e) for v, e in zip(values, events, strict=True)))

    def compute(self, env: Environment, *values: Array) -> Array:
        return self.call(env.slots[slot_number(self.slot)], *values)

    def text(self, *operands: Text) -> Text:
        return f"{self.name}({', '.join(t for t, _ in operands)})", ATOM


MAX_SHAPES = 10_000
"""The number of results whose shapes are cached."""

_SHAPES: dict[Any, tuple[int, ...]] = {}
"""The shapes of results, by the form of the function and its arguments: of thousands of potentials
that differ only in their numbers, one is traced."""


def _result_shape(node: Apply, function: Any) -> tuple[int, ...]:
    """The shape of the function's result, found by tracing it."""
    blank = [jax.ShapeDtypeStruct(c.shape, energy_dtype(c)) for c in node.children]
    leaves = jax.tree.leaves(function)
    arrays = all(isinstance(leaf, Array | np.ndarray) for leaf in leaves)
    # A function that is a leaf is not part of the form, so its result is not cached.
    key = (form(function), *_kinds(leaves), node.event_ndims, *_kinds(blank)) if arrays else None
    if key not in _SHAPES:
        shape = jax.eval_shape(lambda *v: node.call(function, *v), *blank).shape
        if key is None or len(_SHAPES) > MAX_SHAPES:
            return shape
        _SHAPES[key] = shape
    return _SHAPES[key]


def _kinds(arrays: Sequence[Any]) -> tuple:
    return tuple((a.shape, str(a.dtype)) for a in arrays)


def _check_events(node: Apply) -> None:
    """Refuse a wrong number of operands, or operands with fewer axes than one call takes."""
    if node.event_ndims is None:
        return
    shapes = [c.shape for c in node.children]
    if len(shapes) != len(node.event_ndims) or any(
        len(shape) < k for shape, k in zip(shapes, node.event_ndims, strict=True)
    ):
        raise ValueError(
            f"{node.name} got arguments of shapes {shapes}; expected {len(node.event_ndims)}, "
            f"of at least {node.event_ndims} axes."
        )


def _check_owned(function: Any, name: str) -> None:
    """Refuse NaN in a potential's arrays (infinities may be a mask), and arrays as settings."""
    if any(isinstance(part, Array | np.ndarray) for part in static_parts(function)):
        raise TypeError(
            f"{name} holds an array in a static field. JAX compares static fields by ==, which "
            "arrays do not support: leave out static=True (arrays of integers are never learnt), "
            "or hold a tuple."
        )
    for leaf in jax.tree.leaves(function):
        if isinstance(leaf, Expression):
            raise TypeError(
                f"{name} contains the expression {leaf}; a function that the compiler does not "
                "analyse must contain arrays. Pass the expression as an argument beside the views."
            )
        known = isinstance(leaf, Array | np.ndarray) and not is_traced(leaf)
        if known and jnp.issubdtype(leaf.dtype, jnp.floating) and np.isnan(leaf).any():
            raise ValueError(f"A parameter of {name}, of shape {leaf.shape}, has NaN.")
