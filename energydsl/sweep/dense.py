"""Sweeps over dense energies: layer by layer, one gradient of the energy a layer.

Where the energy is linear in each finite site and quadratic in each real one, its derivatives at
a layer are the exact conditionals of the whole layer; for an RBM they are the matrix products.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array

from energydsl._types import Configuration, Refusal
from energydsl.analysis.conditional import AbstractConditional, Gaussian, Linear
from energydsl.analysis.structure import Structure
from energydsl.language.model import Model
from energydsl.language.variable import Variable
from energydsl.sweep.base import AbstractSweep, Block, laws_of

DENSE_DEGREE = 16
"""Neighbours a site has on average, from which gradients beat gathers."""

MAX_LAYERS = 8
"""Layers at most: each costs a gradient of the whole energy."""


class Layer(eqx.Module):
    """Sites of one variable drawn from one gradient; `mask` where they are not all of it."""

    variable: Variable = eqx.field(static=True)
    law: AbstractConditional
    mask: Array | None


class DenseSweep(AbstractSweep):
    """Layer by layer; see the module."""

    lowering: ClassVar[str] = "dense"

    drawn: tuple[str, ...] = eqx.field(static=True)
    note: str = eqx.field(static=True)
    layers: tuple[Layer, ...]

    def load(self, structure: Structure, model: Model) -> Model:
        return model

    def pack(self, x: Configuration) -> Configuration:
        return x

    def unpack(self, state: Configuration) -> Configuration:
        return state

    def sweep(self, structure: Structure, tables: Model, state: Any, *, key: Array) -> Any:
        for layer, layer_key in zip(self.layers, jr.split(key, len(self.layers)), strict=True):
            state = _visit(tables, layer, state, layer_key)
        return state


def plan_dense(structure: Structure, blocks: list[Block]) -> DenseSweep | Refusal:
    """Gradients a layer: applies to few layers of many neighbours and known degrees."""
    drawn = tuple(dict.fromkeys(b.variable.name for b in blocks))
    laws = laws_of(structure, drawn)
    odd = [n for n, law in laws.items() if not isinstance(law, Linear | Gaussian)]
    if odd:
        return Refusal(f"the energy is not linear in the finite sites of {odd}")
    degree = 2 * len(structure.edges) / max(int(structure.free.sum()), 1)
    if degree < DENSE_DEGREE:
        return Refusal(f"{degree:.1f} neighbours a site; a gradient pays from {DENSE_DEGREE}")
    if len(blocks) > MAX_LAYERS:
        return Refusal(f"{len(blocks)} layers, a gradient each; at most {MAX_LAYERS}")
    layers = tuple(Layer(b.variable, laws[b.variable.name], _mask(b)) for b in blocks)
    return DenseSweep(drawn, f"{len(layers)} layers", layers)


def _mask(block: Block) -> Array | None:
    if len(block.sites) == block.variable.size:
        return None
    mask = np.zeros(block.variable.size, bool)
    mask[block.sites] = True
    return jnp.asarray(mask.reshape(block.variable.shape))


def _visit(model: Model, layer: Layer, state: Configuration, key: Array) -> Configuration:
    name = layer.variable.name
    old = state[name]

    def energy(value: Array, rest: Configuration) -> Array:
        value = value if layer.mask is None else jnp.where(layer.mask, value, rest[name])
        return model.energy_of(model.complete(rest | {name: value}))

    slope = jax.vmap(jax.grad(energy))
    zero = jnp.zeros(old.shape, layer.law.domain.energy_dtype)
    first = slope(zero, state)
    if isinstance(layer.law, Linear):
        total = first[None]
    else:
        # No two sites of a layer interact, so the Hessian is diagonal: one direction shows it.
        total = jnp.stack([first, slope(zero + 1, state) - first])
    drawn = layer.law.draw(total, key=key).astype(old.dtype)
    return state | {name: drawn if layer.mask is None else jnp.where(layer.mask, drawn, old)}
