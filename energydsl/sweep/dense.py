"""Sweeps over dense energies: layer by layer, one gradient of the energy a layer.

Where derivatives determine the conditionals (the energy linear in each finite site and quadratic
in each real one, say), those of the whole energy give a whole layer's at once; for an RBM they are
the matrix products.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array

from energydsl._types import Configuration, Refusal
from energydsl.analysis.conditional import AbstractConditional, derivatives
from energydsl.analysis.structure import Structure
from energydsl.language.model import Model
from energydsl.language.variable import Variable
from energydsl.sweep.base import AbstractSweep, Block, Offer, colour_blocks, drawable

DENSE_DEGREE = 16
"""Neighbours a site has on average, from which gradients beat gathers."""

MAX_LAYERS = 8
"""Layers at most: each costs a gradient of the whole energy."""


OVERHEAD = 24
"""What a layer costs for each site beside its factors: with gathers at 4 an argument, gradients
are then cheaper from `DENSE_DEGREE` neighbours on, in two layers."""


class DenseLayer(eqx.Module):
    """Sites of one variable drawn from one gradient; `mask` where they are not all of it."""

    variable: Variable = eqx.field(static=True)
    law: AbstractConditional
    mask: Array | None


class DenseSweep(AbstractSweep):
    """Layer by layer; see the module."""

    lowering: ClassVar[str] = "dense"

    drawn: tuple[str, ...] = eqx.field(static=True)
    note: str = eqx.field(static=True)
    layers: tuple[DenseLayer, ...]

    @classmethod
    def plan(cls, structure: Structure, blocks: Sequence[Block] | None) -> Offer | Refusal:
        laws = drawable(structure, blocks)
        odd = [v.name for v, law in laws.items() if not law.derivatives]
        if odd:
            return Refusal(f"no derivatives determine the conditionals of {odd}")
        degree = 2 * len(structure.edges) / max(int(structure.free.sum()), 1)
        if degree < DENSE_DEGREE:
            return Refusal(f"{degree:.1f} neighbours a site; a gradient pays from {DENSE_DEGREE}")
        blocks = colour_blocks(structure) if blocks is None else blocks
        if len(blocks) > MAX_LAYERS:
            return Refusal(f"{len(blocks)} layers, a gradient each; at most {MAX_LAYERS}")

        def build() -> DenseSweep:
            layers = tuple(DenseLayer(b.variable, laws[b.variable], _mask(b)) for b in blocks)
            return DenseSweep(tuple(v.name for v in laws), f"{len(layers)} layers", layers)

        whole = sum(f.size * structure.scope_size(f) for f in structure.factors)
        gradients = sum(laws[b.variable].derivatives for b in blocks)
        return Offer(gradients * (whole + OVERHEAD * int(structure.free.sum())), build)

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


def _mask(block: Block) -> Array | None:
    if len(block.sites) == block.variable.size:
        return None
    mask = np.zeros(block.variable.size, bool)
    mask[block.sites] = True
    return jnp.asarray(mask.reshape(block.variable.shape))


def _visit(model: Model, layer: DenseLayer, state: Configuration, key: Array) -> Configuration:
    name = layer.variable.name
    old = state[name]

    def energy(value: Array, rest: Configuration) -> Array:
        value = value if layer.mask is None else jnp.where(layer.mask, value, rest[name])
        return model.energy_of(model.complete(rest | {name: value}))

    # No two sites of a layer interact, so each one's derivatives stand by themselves.
    zero = jnp.zeros(old.shape[1:], layer.law.domain.energy_dtype)
    total = jax.vmap(
        lambda rest: derivatives(lambda v: energy(v, rest), zero, layer.law.derivatives), out_axes=1
    )(state)
    drawn = layer.law.draw(total, key=key).astype(old.dtype)
    return state | {name: drawn if layer.mask is None else jnp.where(layer.mask, drawn, old)}
