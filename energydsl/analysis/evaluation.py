"""From a model's values to the arguments of its factors: the step between tree and batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from energydsl.analysis.factor import Entries, Factor, Leaf, Sites, Whole
from energydsl.language.expression import Environment
from energydsl.language.model import Model


def as_double(model: Model) -> Model:
    """The model with its floats as float64, for work where JAX has that on."""
    return jax.tree.map(_double, model)


def _double(leaf: Any) -> Any:
    floating = isinstance(leaf, Array) and jnp.issubdtype(leaf.dtype, jnp.floating)
    return leaf.astype(jnp.float64) if floating else leaf


def argument(leaf: Leaf, index: Any, env: Environment) -> Any:
    """What the entries `index` of a leaf's source hold, in the dtype that energies see."""
    match leaf:
        case Whole(slot=slot):
            return env.slots[slot]
        case Entries(slot=slot):
            return jnp.ravel(env.slots[slot])[index]
        case Sites(variable=v):
            return env.variables[v.name].ravel()[index].astype(v.domain.energy_dtype)
    return index


def batched(factor: Factor, axes: int = 1) -> Callable[..., Array]:
    """The factor's energy over `axes` leading axes of its arguments; functions are shared."""
    energy = factor.energy
    in_axes = tuple(None if isinstance(leaf, Whole) else 0 for leaf in factor.leaves)
    for _ in range(axes):
        energy = jax.vmap(energy, in_axes=in_axes)
    return energy


def factor_energies(factor: Factor, env: Environment) -> Array:
    """The energy of every factor of a batch, in an environment with all variables."""
    values = [argument(leaf, getattr(leaf, "index", None), env) for leaf in factor.leaves]
    if all(isinstance(leaf, Whole) for leaf in factor.leaves):
        return factor.energy(*values)[None]
    return batched(factor)(*values)
