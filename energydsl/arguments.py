"""From a model's values to the arguments of its factors: the step between tree and batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl.expression import Environment
from energydsl.factor import Factor, Leaf
from energydsl.variable import Variable


def argument(leaf: Leaf, index: Any, env: Environment) -> Any:
    """What the entries `index` of a leaf's source hold, in the dtype that energies see."""
    if leaf.source is None:
        return index
    if leaf.index is None:
        return env.parameters[leaf.source]
    if isinstance(leaf.source, Variable):
        values = env.variables[leaf.source.name].ravel()
        return values[index].astype(leaf.source.domain.energy_dtype)
    return jnp.ravel(env.parameters[leaf.source])[index]


def batched(factor: Factor, axes: int = 1) -> Callable[..., Array]:
    """The factor's energy over `axes` leading axes of its arguments; functions are shared."""
    energy = factor.energy
    in_axes = tuple(0 if leaf.index is not None else None for leaf in factor.leaves)
    for _ in range(axes):
        energy = jax.vmap(energy, in_axes=in_axes)
    return energy


def factor_energies(factor: Factor, env: Environment, indices: tuple[Any, ...]) -> Array:
    """The energy of every factor of a batch.

    Args:
        factor: the batch.
        env: values of all variables, and the parameters.
        indices: the leaves' index arrays, as arguments rather than constants of the program.
    """
    values = [argument(leaf, i, env) for leaf, i in zip(factor.leaves, indices, strict=True)]
    if all(leaf.index is None for leaf in factor.leaves):
        return factor.energy(*values)[None]
    return batched(factor)(*values)


def index_arrays(factor: Factor) -> tuple[np.ndarray | None, ...]:
    """The leaves' index arrays."""
    return tuple(leaf.index for leaf in factor.leaves)
