"""Quantities: named functions of a configuration, compared by what they compute.

A lambda that is written in a loop is a new object in every iteration, but its trace is the same.
Compiled loops take the trace as their argument, so that equal functions are compiled only once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import equinox as eqx
import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import eval_jaxpr

from energydsl._identity import Content, Known, content
from energydsl._messages import brief
from energydsl._types import Configuration, Quantity
from energydsl.run.moments import Moments


class Program(Known):
    """A traced function without its numerical constants, compared by its equations.

    Nested functions and their constants are part of the equations, so they are compared, too.
    """

    def __init__(self, jaxpr: jex.Jaxpr, outputs: Any) -> None:
        self.jaxpr = jaxpr
        self.outputs = outputs

    @staticmethod
    def trace(function: Callable[..., Any], *arguments: Any) -> tuple[Program, list[Array], Any]:
        """A function's program, its numerical constants, and the shapes of its results.

        Constants are the arrays that the function closes over and the floating-point literals of
        its code, so that a new learning rate, for instance, does not change the program.
        """
        traced, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
        jaxpr, numbers = _take_out_numbers(traced)
        return Program(jaxpr, jax.tree.structure(shapes)), numbers, shapes

    @cached_property
    def content(self) -> Content:
        """The identity of the program: its equations."""
        return content(self.jaxpr, self.outputs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Program) and other.content == self.content

    def __hash__(self) -> int:
        return hash(self.content)

    def __call__(self, numbers: list[Array], *arguments: Any) -> Any:
        values = eval_jaxpr(self.jaxpr, numbers, *jax.tree.leaves(arguments))
        return jax.tree.unflatten(self.outputs, values)


def _take_out_numbers(jaxpr: jex.Jaxpr) -> tuple[jex.Jaxpr, list[Array]]:
    """The equations, with an argument in place of each floating-point literal."""
    numbers = [c if isinstance(c, Array) else jnp.asarray(c) for c in jaxpr.consts]
    variables = []

    def taken(atom: Any) -> Any:
        if not isinstance(atom, jex.Literal):
            return atom
        shape: Any = atom.aval
        number = jnp.asarray(atom.val, shape.dtype)
        if not jnp.issubdtype(number.dtype, jnp.floating):
            return atom
        numbers.append(number)
        variables.append(jex.Var(atom.aval))
        return variables[-1]

    equations = [e.replace(invars=[taken(a) for a in e.invars]) for e in jaxpr.eqns]
    return jaxpr.replace(eqns=equations, constvars=[*jaxpr.constvars, *variables]), numbers


class Quantities(eqx.Module):
    """Traced functions of one configuration, with their numerical constants as arguments."""

    numbers: list[Array]
    program: Program = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)
    running: frozenset[str] = eqx.field(static=True, default=frozenset())
    """The names of those of which only moments are kept."""

    @staticmethod
    def of(keep: Mapping[str, Quantity | Moments], x: Any, argument: str = "keep") -> Quantities:
        """Trace functions of a configuration with the shapes of `x`.

        Args:
            keep: the functions.
            x: a configuration.
            argument: the argument by which the user gave the functions, for messages.

        Raises:
            ValueError: a function uses a variable that the configuration does not have.
            TypeError: a function returns something other than one array.
        """
        functions = _functions(keep, argument)
        running = frozenset(n for n, f in keep.items() if isinstance(f, Moments))

        def all_of_them(x: Configuration) -> dict[str, Any]:
            return {name: function(x) for name, function in functions.items()}

        try:
            program, numbers, shapes = Program.trace(all_of_them, x)
        except KeyError as error:
            raise ValueError(
                f"A function of {argument}= uses {error}; the configuration has {list(x)}."
            ) from None
        except jax.errors.ConcretizationTypeError as error:
            raise TypeError(
                f"A function of {argument}= reads a value by item(), float(), bool() or an if. It "
                "is compiled once for all draws, whose values are not known then: return an array, "
                "and write jnp.where for an if."
            ) from error
        for name, shape in shapes.items():
            if not hasattr(shape, "shape"):
                raise TypeError(
                    f"{argument}[{name!r}] returned {type(shape).__name__}; expected one array."
                )
        return Quantities(numbers, program, tuple(sorted(keep)), running)

    def __call__(self, x: Configuration) -> dict[str, Array]:
        return self.program(self.numbers, x)


def _functions(keep: object, argument: str) -> dict[str, Quantity]:
    """The functions by name; raises TypeError unless it maps names to functions of one argument."""
    example = f'expected functions by name, as in {argument}={{"m": lambda x: x["s"].mean()}}'
    if not isinstance(keep, Mapping):
        raise TypeError(f"Got {argument}={brief(keep)}; {example}.")
    functions = {n: f.function if isinstance(f, Moments) else f for n, f in keep.items()}
    for name, function in functions.items():
        if not isinstance(name, str):
            raise TypeError(f"Got the name {name!r} in {argument}=; {example}.")
        if not callable(function):
            raise TypeError(f"Got {argument}[{name!r}]={brief(function)}; {example}.")
        try:
            inspect.signature(function).bind({})
        except TypeError as error:
            raise TypeError(
                f"Got a function for {argument}[{name!r}] that does not take one configuration "
                f"({error}); {example}."
            ) from None
        except ValueError:  # A function of a library may have no signature.
            continue
    return functions


def evaluated(
    functions: Mapping[str, Quantity], xs: Mapping[str, np.ndarray], argument: str
) -> dict[str, np.ndarray]:
    """The values of functions of one configuration at configurations stacked on the first axis.

    As in a run, the functions receive discrete variables as 32-bit integers.
    """
    wide = {
        n: jnp.asarray(a.astype(np.int32) if a.dtype.kind in "iu" else a) for n, a in xs.items()
    }
    one = {n: jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for n, a in wide.items()}
    values = _mapped(Quantities.of(functions, one, argument), wide)
    return {name: np.asarray(array) for name, array in values.items()}


@eqx.filter_jit
def _mapped(quantities: Quantities, xs: Configuration) -> dict[str, Array]:
    return jax.lax.map(lambda x: quantities(x), xs, batch_size=256)
