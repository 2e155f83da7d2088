"""Quantities: named functions of a configuration, known by what they compute.

A function written anew in every call (a lambda in a loop) is a new object each time; its trace is
not. Compiled loops take the trace, so that they are compiled once for each thing to compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
from jax import Array
from jax.core import eval_jaxpr
from jax.extend import core as jex

from energydsl._types import Configuration, Quantity


class Program:
    """A jaxpr, equal to another of the same text."""

    def __init__(self, jaxpr: jex.Jaxpr, outputs: Any) -> None:
        self.jaxpr = jaxpr
        self.outputs = outputs
        self.text = f"{jaxpr} {outputs}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Program) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __call__(self, constants: list[Array], *arguments: Any) -> Any:
        values = eval_jaxpr(self.jaxpr, constants, *jax.tree.leaves(arguments))
        return jax.tree.unflatten(self.outputs, values)


class Quantities(eqx.Module):
    """Traced functions of one configuration; arrays that they close over are arguments."""

    constants: list[Array]
    program: Program = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)

    @staticmethod
    def of(keep: Mapping[str, Quantity], x: Any) -> Quantities:
        """Trace functions at a configuration's shapes.

        Raises:
            ValueError: a function asks for a variable that the configuration does not have.
            TypeError: a function returns something other than one array.
        """

        def all_of_them(x: Configuration) -> dict[str, Any]:
            return {name: function(x) for name, function in keep.items()}

        try:
            closed, shapes = jax.make_jaxpr(all_of_them, return_shape=True)(x)
        except KeyError as error:
            raise ValueError(
                f"A function of keep= asks for {error}; there are {list(x)}."
            ) from None
        for name, shape in shapes.items():
            if not hasattr(shape, "shape"):
                raise TypeError(
                    f"keep[{name!r}] returned {type(shape).__name__}; expected one array."
                )
        outputs = jax.tree.structure(shapes)
        return Quantities(closed.consts, Program(closed.jaxpr, outputs), tuple(sorted(keep)))

    def __call__(self, x: Configuration) -> dict[str, Array]:
        return self.program(self.constants, x)
