"""The leaves of a tree: views of variables, numbers, data and parameters."""

from __future__ import annotations

import dataclasses
import numbers
import uuid
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import paramax
import scipy.sparse as sp
from jax import Array

from energydsl._messages import brief
from energydsl._types import is_traced, unmasked
from energydsl.language.expression.operation import ATOM, Text, is_real, number_text
from energydsl.language.expression.tree import Environment, Expression, fold, slot_number
from energydsl.language.variable import Variable


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class View(Expression):
    """A view of a whole variable: the leaf that declarations return."""

    variable: Variable

    @staticmethod
    def of(variable: Variable) -> View:
        return View((), variable.shape, variable)

    @property
    def key(self) -> tuple:
        return (str(self.variable),)

    def compute(self, env: Environment, *values: Array) -> Array:
        return env.variables[self.variable.name].astype(self.variable.domain.energy_dtype)

    def text(self, *operands: Text) -> Text:
        return self.variable.name, ATOM


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Value(Expression):
    """A leaf that is not a variable. In a model's own tree its value is in a slot of the model."""

    value: Any
    slot: int | None = None

    @property
    def key(self) -> tuple:
        return (type(self).__name__, self.slot, self.shape)

    def compute(self, env: Environment, *values: Array) -> Array:
        return env.slots[slot_number(self.slot)]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Number(Value):
    """A Python or NumPy number in the energy: a constant."""

    @staticmethod
    def of(value: Any) -> Number:
        _check_finite(np.asarray(value), "A number of the energy")
        return Number((), (), value)

    def text(self, *operands: Text) -> Text:
        return _value_text(self)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Data(Value):
    """An array in the energy, which learning does not change."""

    @staticmethod
    def of(value: Any) -> Data:
        if not is_traced(value):
            what = f"The energy's array of shape {jnp.shape(value)}"
            _check_finite(np.asarray(unmasked(value, what)), what)
        return Data((), tuple(jnp.shape(value)), value)

    def text(self, *operands: Text) -> Text:
        return _value_text(self)


@dataclasses.dataclass(frozen=True)
class Origin:
    """The declaration or potential that created a parameter, to distinguish equal names."""

    mark: str
    owner: str | None = None
    """The kind of the potential that owns the parameter; None for a declared parameter."""

    @staticmethod
    def new(owner: str | None = None) -> Origin:
        return Origin(uuid.uuid4().hex, owner)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Parameter(Value):
    """A named array that learning updates, unless it is `frozen`.

    `value` is an array, or a paramax wrapper that constrains one.
    """

    name: str = dataclasses.field(kw_only=True)
    origin: Origin = dataclasses.field(kw_only=True)
    frozen: bool = dataclasses.field(default=False, kw_only=True)

    @property
    def declared(self) -> bool:
        """Whether it was declared by `energydsl.parameter`; otherwise a potential owns it."""
        return self.origin.owner is None

    @staticmethod
    def of(value: Any, name: str, origin: Origin, *, frozen: bool = False) -> Parameter:
        shape = tuple(jnp.shape(paramax.unwrap(value)))
        return Parameter((), shape, value, name=name, origin=origin, frozen=frozen)

    def text(self, *operands: Text) -> Text:
        return self.name, ATOM


def declared(name: str, init: Any) -> Parameter:
    """A declared parameter, from a number, an array, or a paramax wrapper of an array."""
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(
            f"ed.parameter got the name {name!r}; expected a Python identifier, which is its "
            "keyword in ebm.replace."
        )
    if isinstance(init, Expression):
        raise TypeError(
            f"Parameter {name!r} got the expression {init} as its initial value; expected a "
            "number, an array or a paramax wrapper."
        )
    value = init if isinstance(init, paramax.AbstractUnwrappable) else _floating(name, init)
    plain = paramax.unwrap(value)
    if not isinstance(plain, Array | np.ndarray):
        raise TypeError(
            f"Parameter {name!r} got a wrapper of {type(plain).__name__}; expected a wrapper of "
            "an array. An object with several arrays is a potential: ed.Neural(network)."
        )
    if not is_traced(plain):
        _check_finite(np.asarray(plain), f"Parameter {name!r} of shape {plain.shape}")
    return Parameter.of(value, name, Origin.new())


def owned(value: Any, field: str, origin: Origin, *, infinite: bool = False) -> Any:
    """A parameter for an array that a potential owns; any other value unchanged."""
    frozen = isinstance(value, paramax.NonTrainable)
    held = value.tree if frozen else value
    wrapped = isinstance(held, paramax.AbstractUnwrappable)
    if not wrapped and not isinstance(held, Array | np.ndarray):
        return held if frozen else value
    plain = paramax.unwrap(held)
    if not jnp.issubdtype(plain.dtype, jnp.inexact):
        return held
    name = f"{origin.owner}.{field}" if field else str(origin.owner)
    if not is_traced(plain):
        _check_finite(np.asarray(plain), f"{name} of shape {plain.shape}", infinite)
    return Parameter.of(held, name, origin, frozen=frozen)


def as_expression(value: object) -> Expression:
    """The value as an expression: expressions unchanged, numbers and arrays as leaves."""
    if isinstance(value, Expression):
        return value
    if isinstance(value, numbers.Number | np.generic):
        return Number.of(value)
    if isinstance(value, np.ndarray | jax.Array):
        return Data.of(value)
    if isinstance(value, paramax.NonTrainable):
        raise TypeError(
            "An energy got ed.fixed(array). Arrays in an energy are data, which learning does not "
            "change: write the array itself."
        )
    if isinstance(value, paramax.AbstractUnwrappable):
        raise TypeError(
            f"An energy got paramax's {type(value).__name__}; expected a constraint to be given "
            'with its parameter: W = ed.parameter("W", wrapper).'
        )
    raise TypeError(
        f"An energy got {brief(value)}; expected a view, an array or a number.{_instead(value)}"
    )


def _instead(value: object) -> str:
    """What to write for a value that is no part of an energy."""
    if isinstance(value, list | tuple):
        return " Write np.array(...) for a list of numbers; terms in a list are added by sum(...)."
    if sp.issparse(value):
        return " A sparse matrix S stands in products with vectors: S @ x, or x @ S @ y."
    if callable(getattr(value, "__array__", None)):
        return " Write np.asarray(...) for a table or a tensor of another library."
    if callable(value):
        return " Any function of JAX is a factor: ed.apply(function, x)."
    return " (To add it to a model, make it a model first: ed.Model(expression).)"


def substituted(root: Expression, replaced: Mapping[str, Expression]) -> Expression:
    """The expression with these expressions in place of variables, by name."""

    def rule(node: Expression, *children: Expression) -> Expression:
        if isinstance(node, View):
            return replaced.get(node.variable.name, node)
        return dataclasses.replace(node, children=children) if children else node

    return fold(root, rule)


def _value_text(leaf: Value) -> Text:
    """The text of a number, or an array's shape."""
    if leaf.shape or leaf.value is None or is_traced(leaf.value):
        return "f32" + str(list(leaf.shape)).replace(" ", ""), ATOM
    return number_text(np.asarray(leaf.value).item())


def _floating(name: str, init: Any) -> Array:
    what = f"Parameter {name!r}"
    try:
        array = init if isinstance(init, Array) else np.asarray(unmasked(init, what))
    except ValueError as error:
        raise ValueError(f"{what} got {brief(init)}, which is no array: {error}") from None
    if not is_real(array.dtype):
        raise TypeError(f"Parameter {name!r} has dtype {array.dtype}; expected real numbers.")
    array = jnp.asarray(array)
    dtype = array.dtype if jnp.issubdtype(array.dtype, jnp.inexact) else jnp.zeros(()).dtype
    return jnp.asarray(array, dtype)


def _check_finite(array: np.ndarray, what: str, infinite: bool = False) -> None:
    if not is_real(array.dtype):
        raise TypeError(f"{what} has dtype {array.dtype}; expected real numbers.")
    with np.errstate(over="ignore"):
        # A number too large for float32 would be infinite in the energy.
        array = array.astype(jax.dtypes.canonicalize_dtype(array.dtype))
    bad = np.isnan(array) if infinite else ~np.isfinite(array)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        where = f"{array[first]} at {first}" if first else str(array)
        raise ValueError(
            f"{what} has {where}; expected finite numbers. (For forbidden configurations, Table "
            "takes -inf as log_potential.)"
        )
