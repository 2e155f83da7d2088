"""Gibbs sampling: each site drawn from its law given all others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax import Array

from energydsl._types import Configuration, Refusal
from energydsl.analysis.structure import Structure
from energydsl.compiler.ebm import EBM
from energydsl.kernel.base import AbstractEnsemble, AbstractKernel
from energydsl.language.expression import Expression, sites_of
from energydsl.sweep import AbstractSweep, Block
from energydsl.sweep.base import conditionals
from energydsl.sweep.dense import plan_dense
from energydsl.sweep.gather import plan_gather


class Gibbs(AbstractKernel):
    r"""One sweep: every free site drawn once from $p(x_i \mid x_{-i})$, block by block.

    Sites of a block do not interact, so they are drawn at once. Blocks come from a colouring of
    the interaction graph unless given; `EBM.explain` says how the compiler lowers the sweep.

    Args:
        blocks: views, or tuples of views, visited in this order; together they must cover every
            free site, and no two sites of one may interact.

    Source: Geman & Geman (1984), IEEE PAMI 6(6), 721-741.
    """

    blocks: tuple[tuple[Expression, ...], ...] | None = eqx.field(static=True, default=None)

    def __init__(self, blocks: Sequence[Expression | Sequence[Expression]] | None = None) -> None:
        if blocks is not None:
            blocks = tuple((b,) if isinstance(b, Expression) else tuple(b) for b in blocks)  # type: ignore[assignment]
        self.blocks = blocks  # type: ignore[assignment]

    def init(self, ebm: EBM, x: Configuration, *, key: Array, warmup: int) -> None:
        return None

    def step(
        self, ebm: EBM, x: Configuration, state: None, *, key: Array
    ) -> tuple[Configuration, None, dict[str, Array]]:
        sweep = self._planned(ebm)
        packed = sweep.pack(jax.tree.map(lambda a: a[None], x))
        tables = sweep.load(ebm.structure, ebm.model)
        moved = sweep.unpack(sweep.sweep(ebm.structure, tables, packed, key=key))
        return jax.tree.map(lambda a: a[0], moved), None, {}

    def moves(self, ebm: EBM) -> np.ndarray:
        sweep = self._sweep(ebm)
        return ebm.structure.of_variables(sweep.drawn if sweep is not None else ())

    def reason(self, ebm: EBM) -> str:
        if self.blocks is not None:
            return "no block shows them"
        said = conditionals(ebm.structure).values()
        return "; ".join(s.reason for s in said if isinstance(s, Refusal))

    def ensemble(self, ebm: EBM) -> AbstractEnsemble:
        return GibbsEnsemble(self._planned(ebm))

    def _planned(self, ebm: EBM) -> AbstractSweep:
        sweep = self._sweep(ebm)
        if sweep is None:
            raise TypeError(f"{self.reason(ebm)}. Move it by a kernel for real variables.")
        return sweep

    def _sweep(self, ebm: EBM) -> AbstractSweep | None:
        if self.blocks is None:
            return ebm.sweep
        blocks = _checked_blocks(ebm.structure, self.blocks)
        plan: AbstractSweep | Refusal = plan_dense(ebm.structure, blocks)
        if isinstance(plan, Refusal):
            plan = plan_gather(ebm.structure, blocks)
        if isinstance(plan, Refusal):
            raise TypeError(f"{plan.reason}.")
        return plan

    def __str__(self) -> str:
        return "Gibbs()" if self.blocks is None else f"Gibbs({len(self.blocks)} blocks)"


class GibbsEnsemble(AbstractEnsemble):
    """Chains in the representation of the sweep's lowering."""

    sweep: AbstractSweep

    def start(self, ebm: EBM, xs: Configuration, *, key: Array, warmup: int) -> Any:
        return self.sweep.pack(xs)

    def refresh(self, ebm: EBM, carry: Any) -> Any:
        return carry

    def place(self, ebm: EBM, carry: Any, xs: Configuration) -> Any:
        return self.sweep.pack(xs)

    def load(self, ebm: EBM) -> Any:
        return self.sweep.load(ebm.structure, ebm.model)

    def advance(
        self, ebm: EBM, tables: Any, carry: Any, *, key: Array
    ) -> tuple[Any, dict[str, Array]]:
        return self.sweep.sweep(ebm.structure, tables, carry, key=key), {}

    def configurations(self, ebm: EBM, carry: Any) -> Configuration:
        return self.sweep.unpack(carry)

    def energies(self, ebm: EBM, carry: Any) -> Array:
        return jax.vmap(ebm.energy)(self.sweep.unpack(carry))


def _checked_blocks(
    structure: Structure, blocks: tuple[tuple[Expression, ...], ...]
) -> list[Block]:
    """The user's blocks by variable, or what is wrong with them."""
    laws = conditionals(structure)
    block_of = np.full(structure.sites, -1)
    parts = []
    for number, views in enumerate(blocks):
        for view in views:
            variable, sites = sites_of(view)
            if structure.offset.get(variable.name) is None or variable not in structure.variables:
                raise ValueError(f"Block {number} shows {variable}, which is not in the model.")
            law = laws.get(variable.name)
            if isinstance(law, Refusal):
                raise TypeError(f"{law.reason}; leave it out of the blocks.")
            sites = np.unique(sites)
            numbers = sites + structure.offset[variable.name]
            keep = structure.free[numbers]
            if (block_of[numbers] >= 0).any():
                twice = structure.describe(int(numbers[np.argmax(block_of[numbers] >= 0)]))
                raise ValueError(f"{twice} is in two blocks; each site belongs to one.")
            block_of[numbers] = number
            if keep.any():
                parts.append(Block(variable, sites[keep]))
    _refuse_coupled(structure, block_of)
    drawn = structure.of_variables({b.variable.name for b in parts})
    missed = drawn & structure.free & (block_of < 0)
    if missed.any():
        first = structure.describe(int(np.argmax(missed)))
        raise ValueError(
            f"The blocks leave out {int(missed.sum())} free sites of their variables, {first} "
            "first. Add a block for them, or clamp them."
        )
    return parts


def _refuse_coupled(structure: Structure, block_of: np.ndarray) -> None:
    edges = structure.edges
    if structure.crowded and np.bincount(block_of[block_of >= 0]).max(initial=0) > 1:
        raise ValueError("A factor joins all sites of a component, so each block is one site.")
    coupled = (block_of[edges[:, 0]] == block_of[edges[:, 1]]) & (block_of[edges[:, 0]] >= 0)
    if coupled.any():
        a, b = edges[np.argmax(coupled)]
        raise ValueError(
            f"Block {block_of[a]} contains {structure.describe(int(a))} and "
            f"{structure.describe(int(b))}, which interact: drawn at once, they would not keep the "
            "model's law. Put them into different blocks."
        )
