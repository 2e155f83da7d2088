"""Programs in float64 inside programs in float32.

`jax.enable_x64(True)` affects tracing. A traced program is translated to machine code later, with
the outer precision, and some operations (the index that `argmax` returns) then fail. Here a program
in float64 is one JAX primitive, which is traced, batched and translated in float64 whatever the
precision of the program that contains it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.extend.core as jex
import jax.numpy as jnp
from jax import Array
from jax.interpreters import batching, mlir

from energydsl._types import is_traced


def in_double(function: Callable[..., Any], *arguments: Any) -> Any:
    """The value of `function` at these arguments, in float64; JAX does not differentiate it.

    The function is called directly if no program is being traced.
    """
    with jax.enable_x64(True):
        # Under jit even a new array is abstract; under vmap only the mapped arguments are.
        if not is_traced(arguments, jnp.zeros(())):
            return function(*arguments)

    arrays, rest = eqx.partition(arguments, eqx.is_array)
    leaves, form = jax.tree.flatten(arrays)
    made: list[Any] = []

    def flat(*leaves: Array) -> list[Array]:
        result = function(*eqx.combine(jax.tree.unflatten(form, leaves), rest))
        found, other = eqx.partition(result, eqx.is_array)
        made[:] = [jax.tree.structure(found), other]
        return jax.tree.leaves(found)

    with jax.enable_x64(True):
        program = Program(jax.make_jaxpr(flat)(*leaves))
    found = jax.tree.unflatten(made[0], _double.bind(*leaves, program=program))
    return eqx.combine(found, made[1])


class Program:
    """A traced program. JAX does not look inside it, as it would require more of a jaxpr."""

    def __init__(self, closed: Any) -> None:
        self.call = jex.jaxpr_as_fun(closed)
        self.shapes = closed.out_avals


_double = jex.Primitive("in_double")
_double.multiple_results = True


@_double.def_impl
def _run(*leaves: Array, program: Program) -> list[Array]:
    with jax.enable_x64(True):
        return jax.jit(program.call)(*leaves)


@_double.def_abstract_eval
def _shapes(*leaves: Any, program: Program) -> Any:
    return program.shapes


def _lowered(context: Any, *leaves: Any, program: Program) -> Any:
    with jax.enable_x64(True):
        return mlir.lower_fun(program.call, multiple_results=True)(context, *leaves)


def _batched(leaves: Any, axes: Any, *, program: Program) -> tuple[list[Array], list[int]]:
    with jax.enable_x64(True):
        mapped = jax.vmap(program.call, in_axes=axes)
        wider = Program(jax.make_jaxpr(mapped)(*leaves))
    return _double.bind(*leaves, program=wider), [0] * len(wider.shapes)


mlir.register_lowering(_double, _lowered)
batching.primitive_batchers[_double] = _batched
