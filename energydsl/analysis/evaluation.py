"""Evaluation of factors: their arguments from a model's values, and their energies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from energydsl.analysis.factor import Entries, Factor, Known, Leaf, Sites, Whole
from energydsl.language.expression import Environment, evaluate
from energydsl.language.model import Model


def as_double(model: Model) -> Model:
    """The model with its floating-point arrays as float64; JAX's 64-bit mode must be on."""
    return jax.tree.map(_double, model)


def _double(leaf: Any) -> Any:
    floating = isinstance(leaf, Array) and jnp.issubdtype(leaf.dtype, jnp.floating)
    return leaf.astype(jnp.float64) if floating else leaf


def with_finite[T](tree: T, price: float) -> T:
    """The same model with finite parameters: `price` in place of infinity, with its sign.

    An infinite entry of a table forbids states; this gives them a finite energy.
    """

    def bounded(leaf: Any) -> Any:
        if not (isinstance(leaf, Array) and jnp.issubdtype(leaf.dtype, jnp.floating)):
            return leaf
        return jnp.where(jnp.isinf(leaf), jnp.sign(leaf) * price, leaf)

    return jax.tree.map(bounded, tree)


def argument(leaf: Leaf, index: Any, env: Environment) -> Any:
    """The value of a leaf at entries `index` of its source, in the dtype of values in energies."""
    match leaf:
        case Whole(slot=slot):
            return env.slots[slot]
        case Entries(slot=slot):
            return jnp.ravel(env.slots[slot])[index]
        case Sites(variable=v):
            return env.variables[v.name].ravel()[index].astype(v.domain.energy_dtype)
        case Known(expression=expression):
            return jnp.ravel(evaluate(expression, env))[index]
    return index


def common_argument(leaf: Leaf, env: Environment) -> Any:
    """The value of a leaf that all factors of a batch share; see `is_common`."""
    return argument(leaf, None if isinstance(leaf, Whole) else leaf.index[0], env)


def batched(factor: Factor, axes: int = 1) -> Callable[..., Array]:
    """The factor's energy, mapped over `axes` leading axes of all arguments but functions."""
    energy = factor.energy
    in_axes = tuple(None if isinstance(leaf, Whole) else 0 for leaf in factor.leaves)
    for _ in range(axes):
        energy = jax.vmap(energy, in_axes=in_axes)
    return energy


def factor_energies(factor: Factor, env: Environment) -> Array:
    """The energies of all factors of a batch, in an environment that has all variables."""
    values = [argument(leaf, getattr(leaf, "index", None), env) for leaf in factor.leaves]
    if all(isinstance(leaf, Whole) for leaf in factor.leaves):
        return factor.energy(*values)[None]
    return batched(factor)(*values)
