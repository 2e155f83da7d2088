"""A model's form apart from its numbers: the energy's tree with slots where values were."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import paramax
from jax import Array

from energydsl.language.expression import (
    Apply,
    Expression,
    Gather,
    Parameter,
    View,
    fold,
    post_order,
)
from energydsl.language.variable import Variable


class Skeleton:
    """What a model is apart from its numbers: the energy's tree, variables, clamped sites.

    Hashed by a digest taken once, so that jit's cache never reads index arrays. A digest, which
    is the same in every process, knows functions by name only; equality compares them too.
    """

    def __init__(
        self,
        root: Expression,
        variables: tuple[Variable, ...],
        functions: tuple[Any, ...],
        clamped: Mapping[str, np.ndarray],
    ) -> None:
        self.root = root
        self.variables = variables
        self.functions = functions
        self.clamped = dict(clamped)
        self.digest = self._digest()

    def holding(self, clamped: Mapping[str, np.ndarray]) -> Skeleton:
        """The same energy with these sites clamped."""
        return Skeleton(self.root, self.variables, self.functions, clamped)

    def _digest(self) -> str:
        seal = hashlib.blake2b(digest_size=16)
        numbers: dict[int, int] = {}
        for node in post_order(self.root):
            numbers[id(node)] = len(numbers)
            below = [numbers[id(c)] for c in node.children]
            seal.update(repr((type(node).__name__, below, node.shape)).encode())
            for part in node.key:
                seal.update(part if isinstance(part, bytes) else repr(part).encode())
        seal.update(repr([str(v) for v in self.variables]).encode())
        for name in sorted(self.clamped):
            seal.update(name.encode() + np.packbits(self.clamped[name]).tobytes())
        return seal.hexdigest()

    @cached_property
    def free(self) -> tuple[Variable, ...]:
        """Variables with at least one site that is not clamped: the keys of a configuration."""
        return tuple(v for v in self.variables if not self.mask(v).all())

    def mask(self, variable: Variable) -> np.ndarray:
        """True at the clamped sites of a variable."""
        return self.clamped.get(variable.name, np.zeros(variable.shape, bool))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Skeleton)
            and other.digest == self.digest
            and other.variables == self.variables
            and other.functions == self.functions
        )

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Skeleton({self.digest})"


def function_of(parameter: Any) -> Any:
    """What is no array in a parameter: compared, it tells two functions apart."""
    return eqx.filter(paramax.unwrap(parameter), eqx.is_array, inverse=True)


def take_out(
    root: Expression,
) -> tuple[Expression, tuple[Any, ...], tuple[Array, ...]]:
    """The tree with its values replaced by slots, and the values.

    An array used twice is one parameter, so that learning keeps the two uses tied.
    """
    parameters: list[Any] = []
    indices: list[Array] = []
    slots: dict[int, int] = {}

    def slot_of(value: Any) -> int:
        # Python may intern equal numbers: sharing them would let values decide structure.
        shared = not isinstance(value, int | float | np.generic)
        if shared and id(value) in slots:
            return slots[id(value)]
        parameters.append(_as_parameter(value))
        if shared:
            slots[id(value)] = len(parameters) - 1
        return len(parameters) - 1

    def rule(node: Expression, *children: Expression) -> Expression:
        match node:
            case Parameter():
                return dataclasses.replace(node, value=None, slot=slot_of(node.value))
            case Apply():
                slot = slot_of(node.function)
                return dataclasses.replace(node, children=children, slot=slot)
            case Gather():
                indices.append(jnp.asarray(node.positions))
                return dataclasses.replace(node, children=children, slot=len(indices) - 1)
            case View():
                return node
        return dataclasses.replace(node, children=children)

    return fold(root, rule), tuple(parameters), tuple(indices)


def put_back(root: Expression, parameters: tuple[Any, ...]) -> Expression:
    """The tree with these values in their slots: an expression as the user wrote it."""

    def rule(node: Expression, *children: Expression) -> Expression:
        match node:
            case Parameter(slot=int(slot)):
                return dataclasses.replace(node, value=parameters[slot], slot=None)
            case Apply(slot=int(slot)):
                function = parameters[slot]
                return dataclasses.replace(node, children=children, function=function, slot=None)
            case Gather():
                return dataclasses.replace(node, children=children, slot=None)
            case View():
                return node
        return dataclasses.replace(node, children=children)

    return fold(root, rule)


def _as_parameter(value: Any) -> Any:
    if isinstance(value, int | float | np.generic):
        return paramax.NonTrainable(jnp.asarray(float(value)))
    return jax.tree.map(_strong, value)


def _strong(leaf: Any) -> Any:
    """Arrays as JAX's, of a type that their values do not weaken: one program for all of them."""
    if not isinstance(leaf, Array | np.ndarray):
        return leaf
    array = jnp.asarray(leaf)
    return jnp.asarray(array, array.dtype)
