"""The structure of a model without its numbers: the energy's tree with slots for the values."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import paramax
from jax import Array

from energydsl._identity import Content, Known, content, form
from energydsl._types import same_values
from energydsl.language.expression import (
    Apply,
    Data,
    Expression,
    Gather,
    Origin,
    Parameter,
    Value,
    View,
    fold,
    post_order,
)
from energydsl.language.variable import Events, Variable


@dataclasses.dataclass(frozen=True)
class Slot:
    """A description of what a slot holds: a number, data, a parameter or a potential."""

    kind: str
    name: str | None = None
    """The name of a parameter, or of a potential that owns parameters; None for others."""
    frozen: bool = False
    origin: Origin | None = dataclasses.field(default=None, compare=False, repr=False)


class Skeleton(Known):
    """A model without its numbers: the energy's tree, the variables and the clamped sites.

    All sites of inputs are clamped, also while they have no values.

    Its hash is a digest that is computed once, so that jit's cache never reads index arrays, and
    that is the same in every process. Functions (networks, densities, lambdas) enter the digest by
    their content: settings and code.
    """

    def __init__(
        self,
        root: Expression,
        variables: tuple[Variable, ...],
        functions: tuple[Any, ...],
        clamped: Mapping[str, np.ndarray],
        slots: tuple[Slot, ...],
    ) -> None:
        self.root = root
        self.slots = slots
        self.variables = variables
        self.functions = functions
        self.inputs = tuple(v for v in variables if v.given)
        self.clamped = dict(clamped) | {v.name: np.ones(v.shape, bool) for v in self.inputs}
        known = content(functions)
        self._content = Content(self._digest(known.digest), known.opaque)

    @property
    def content(self) -> Content:
        """The content by which skeletons are compared; it lists functions that cannot be read."""
        return self._content

    @property
    def digest(self) -> str:
        """The digest of the tree, the variables, the clamped sites and the functions."""
        return self._content.digest

    def holding(self, clamped: Mapping[str, np.ndarray]) -> Skeleton:
        """The same energy with these sites clamped."""
        return Skeleton(self.root, self.variables, self.functions, clamped, self.slots)

    def freezing(self, places: Collection[int], frozen: bool) -> Skeleton:
        """The same energy with the parameters and potentials of these slots frozen, or not."""

        def rule(node: Expression, *children: Expression) -> Expression:
            node = dataclasses.replace(node, children=children) if children else node
            chosen = isinstance(node, Parameter | Apply) and node.slot in places
            return dataclasses.replace(node, frozen=frozen) if chosen else node

        slots = tuple(
            dataclasses.replace(slot, frozen=frozen) if k in places else slot
            for k, slot in enumerate(self.slots)
        )
        root = fold(self.root, rule)
        return Skeleton(root, self.variables, self.functions, self.clamped, slots)

    def _digest(self, functions: str) -> str:
        seal = hashlib.blake2b(functions.encode(), digest_size=16)
        numbers: dict[int, int] = {}
        for node in post_order(self.root):
            numbers[id(node)] = len(numbers)
            below = [numbers[id(c)] for c in node.children]
            seal.update(repr((type(node).__name__, below, node.shape)).encode())
            for part in node.key:
                seal.update(part if isinstance(part, bytes) else repr(part).encode())
        seal.update(repr([str(v) for v in self.variables]).encode())
        seal.update(repr(self.slots).encode())
        for name in sorted(self.clamped):
            seal.update(name.encode() + np.packbits(self.clamped[name]).tobytes())
        return seal.hexdigest()

    @cached_property
    def free(self) -> tuple[Variable, ...]:
        """The variables with at least one free site: the keys of a configuration."""
        return tuple(v for v in self.variables if not self.mask(v).all())

    def mask(self, variable: Variable) -> np.ndarray:
        """True at the clamped sites of a variable."""
        return self.clamped.get(variable.name, np.zeros(variable.shape, bool))

    def free_events(self, variable: Variable) -> Events:
        """The events of a variable that are not clamped."""
        held = self.mask(variable).reshape(-1, math.prod(variable.event_shape))
        return Events(variable, np.flatnonzero(~held[:, 0]))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Skeleton)
            and other.content == self.content
            and other.variables == self.variables
        )

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Skeleton({self.digest})"


def function_of(value: Any) -> Any:
    """The value of a slot without its arrays, by which functions are compared."""
    return eqx.filter(paramax.unwrap(value), eqx.is_array, inverse=True)


def take_out(
    root: Expression,
) -> tuple[Expression, tuple[Any, ...], tuple[Array, ...], tuple[Slot, ...]]:
    """The tree with slots for its values; the values; the index arrays; the slots' descriptions.

    A value that is used twice has one slot, so that learning keeps both uses equal.

    Raises:
        ValueError: two parameters have the same name, or one parameter has two values.
    """
    slots = _Slots(root)
    indices: list[Array] = []

    def rule(node: Expression, *children: Expression) -> Expression:
        match node:
            case Parameter():
                slot = slots.of_value(node)
                name = slots.records[slot].name
                return dataclasses.replace(node, value=None, slot=slot, name=name)
            case Value():
                return dataclasses.replace(node, value=None, slot=slots.of_value(node))
            case Apply():
                return dataclasses.replace(node, children=children, slot=slots.of_function(node))
            case Gather():
                indices.append(jnp.asarray(node.positions))
                return dataclasses.replace(node, children=children, slot=len(indices) - 1)
            case View():
                return node
        return dataclasses.replace(node, children=children)

    return fold(root, rule), tuple(slots.values), tuple(indices), tuple(slots.records)


class _Slots:
    """The slots of a tree while they are being filled."""

    def __init__(self, root: Expression) -> None:
        self.values: list[Any] = []
        self.records: list[Slot] = []
        self.numbers: dict[Any, int] = {}
        self.declared: dict[str, Parameter] = {}
        self.owners: dict[Origin, str] = {}
        # The names generated for potentials must differ from the names that are declared.
        self.names = {n.name for n in post_order(root) if isinstance(n, Parameter) and n.declared}

    def of_value(self, node: Value) -> int:
        """The slot of a leaf."""
        match node:
            case Parameter(declared=True, name=name):
                _check_same(self.declared.setdefault(name, node), node)
                record = Slot("parameter", name, node.frozen, node.origin)
                return self._slot(("declared", name), node.value, record)
            case Parameter():
                return self._of_owned(node)
            case Data():
                return self._slot(("data", *_identity(node.value)), node.value, Slot("data"))
        # Equal numbers do not share a slot: otherwise structure would depend on their values.
        return self._slot(("number", len(self.values)), node.value, Slot("number"))

    def of_function(self, node: Apply) -> int:
        """The slot of a potential or another function, which has a name if it owns parameters."""
        key = ("function", *_identity(node.function))
        if key in self.numbers:
            found = self.records[self.numbers[key]]
            if found.name is not None and found.frozen != node.frozen:
                raise ValueError(_half_frozen(found.name))
            return self.numbers[key]
        owns = any(map(_is_floating, jax.tree.leaves(paramax.unwrap(node.function))))
        name = self._numbered(node.kind) if owns else None
        return self._slot(key, node.function, Slot("potential", name, node.frozen))

    def _of_owned(self, node: Parameter) -> int:
        key, origin = ("owned", *_identity(node.value)), node.origin
        if key in self.numbers:
            return self.numbers[key]
        if origin not in self.owners:
            self.owners[origin] = self._numbered(str(origin.owner))
        owner, field = self.owners[origin], node.name.partition(".")[2]
        name = f"{owner}.{field}" if field else owner
        return self._slot(key, node.value, Slot("parameter", name, node.frozen, origin))

    def _slot(self, key: tuple, value: Any, record: Slot) -> int:
        """The slot of this key, which is added if it is new."""
        if key not in self.numbers:
            self.numbers[key] = len(self.values)
            self.values.append(_as_arrays(value))
            self.records.append(record)
        return self.numbers[key]

    def _numbered(self, kind: str) -> str:
        """An unused name: the kind, with a number from the second of its kind on."""
        names = itertools.chain([kind], (f"{kind}_{k}" for k in itertools.count(2)))
        name = next(n for n in names if n not in self.names)
        self.names.add(name)
        return name


def _check_same(first: Parameter, other: Parameter) -> None:
    """Refuse two parameters of the same name, and a parameter that differs between two uses."""
    if first.origin != other.origin:
        raise ValueError(
            f"Two parameters are named {first.name!r}, of shapes {first.shape} and {other.shape}. "
            "Rename one, or declare it once and use it twice."
        )
    if first.frozen != other.frozen:
        raise ValueError(_half_frozen(first.name))
    if not _same_tree(first.value, other.value):
        raise ValueError(
            f"Parameter {first.name!r} has two values in the models that are combined; give "
            f"both models one value by model.replace({first.name}=value)."
        )


def _half_frozen(name: str) -> str:
    return (
        f"Parameter {name!r} is fixed in one place and learnt in another; expected it to be the "
        "same in both."
    )


def _same_tree(a: Any, b: Any) -> bool:
    leaves, others = jax.tree.leaves(a), jax.tree.leaves(b)
    return form(a) == form(b) and all(map(same_values, leaves, others))


def _identity(value: Any) -> tuple:
    """A key that is the same for two uses of one array or potential, but not for equal copies."""
    return (form(value), *map(id, jax.tree.leaves(value)))


def _is_floating(leaf: Any) -> bool:
    return isinstance(leaf, Array | np.ndarray) and bool(jnp.issubdtype(leaf.dtype, jnp.inexact))


def put_back(root: Expression, values: tuple[Any, ...]) -> Expression:
    """The tree with these values in place of its slots: an expression as the user wrote it."""

    def rule(node: Expression, *children: Expression) -> Expression:
        match node:
            case Value(slot=int(slot)):
                return dataclasses.replace(node, value=values[slot], slot=None)
            case Apply(slot=int(slot)):
                function = values[slot]
                return dataclasses.replace(node, children=children, function=function, slot=None)
            case Gather():
                return dataclasses.replace(node, children=children, slot=None)
            case View():
                return node
        return dataclasses.replace(node, children=children)

    return fold(root, rule)


def _as_arrays(value: Any) -> Any:
    if isinstance(value, int | float | np.generic):
        return jnp.asarray(float(value))
    return jax.tree.map(_strong, value)


def _strong(leaf: Any) -> Any:
    """An array as a JAX array of strong type, so that all values share one compiled program."""
    if not isinstance(leaf, Array | np.ndarray):
        return leaf
    array = jnp.asarray(leaf)
    return jnp.asarray(array, array.dtype)
