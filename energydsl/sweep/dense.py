"""Sweeps of densely connected models: one gradient of the energy for each layer of sites.

If derivatives determine the conditionals (for example, if the energy is linear in each finite site
and quadratic in each real site), the gradient of the whole energy gives the conditionals of all
sites of a layer. For an RBM this computes the usual matrix products.
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
from energydsl.sweep.base import AbstractSweep, Block, Offer, colour_blocks, drawable, scales

DENSE_DEGREE = 16
"""The average number of neighbours of a site above which gradients are faster than gathers."""

MAX_LAYERS = 8
"""The most layers of a sweep, as each needs a gradient of the whole energy."""


OVERHEAD = 24
"""The cost of a layer for each site, in addition to its factors. With gathers at 4 per argument, a
sweep of two layers is then cheaper by gradients from `DENSE_DEGREE` neighbours on."""


class DenseLayer(eqx.Module):
    """Sites of one variable that are drawn from one gradient; `mask` is None if they are all."""

    variable: Variable = eqx.field(static=True)
    law: AbstractConditional
    mask: Array | None


class DenseSweep(AbstractSweep):
    """A sweep that draws layers of sites from gradients of the energy; see the module."""

    lowering: ClassVar[str] = "dense"

    drawn: tuple[str, ...] = eqx.field(static=True)
    note: str = eqx.field(static=True)
    layers: tuple[DenseLayer, ...]

    @classmethod
    def plan(cls, structure: Structure, blocks: Sequence[Block] | None) -> Offer | Refusal:
        laws = drawable(structure, blocks)
        odd = [v.name for v, law in laws.items() if not law.derivatives]
        if odd:
            return Refusal(f"the conditionals of {odd} are not determined by derivatives")
        degree = 2 * len(structure.edges) / max(int(structure.free.sum()), 1)
        if degree < DENSE_DEGREE:
            return Refusal(
                f"{degree:.1f} neighbours a site; gradients are used from {DENSE_DEGREE} on"
            )
        blocks = colour_blocks(structure) if blocks is None else blocks
        if len(blocks) > MAX_LAYERS:
            return Refusal(
                f"{len(blocks)} layers, each of which needs a gradient; at most {MAX_LAYERS}"
            )

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

    def sweep(
        self,
        structure: Structure,
        tables: Model,
        state: Any,
        *,
        key: Array,
        betas: Array | None = None,
    ) -> Any:
        for layer, layer_key in zip(self.layers, jr.split(key, len(self.layers)), strict=True):
            state = _visit(tables, layer, state, layer_key, betas)
        return state


def _mask(block: Block) -> Array | None:
    if len(block.sites) == block.variable.size:
        return None
    mask = np.zeros(block.variable.size, bool)
    mask[block.sites] = True
    return jnp.asarray(mask.reshape(block.variable.shape))


def _visit(
    model: Model, layer: DenseLayer, state: Configuration, key: Array, betas: Array | None
) -> Configuration:
    name = layer.variable.name
    old = state[name]

    def energy(value: Array, rest: Configuration) -> Array:
        value = value if layer.mask is None else jnp.where(layer.mask, value, rest[name])
        return model.energy_of(model.complete(rest | {name: value}))

    # No two sites of a layer interact, so the derivatives in one do not depend on another.
    zero = jnp.zeros(old.shape[1:], layer.law.domain.energy_dtype)
    total = jax.vmap(
        lambda rest: derivatives(lambda v: energy(v, rest), zero, layer.law.derivatives), out_axes=1
    )(state)
    total = total if betas is None else total * scales(betas, total)
    drawn = layer.law.draw(total, key=key).astype(old.dtype)
    return state | {name: drawn if layer.mask is None else jnp.where(layer.mask, drawn, old)}
