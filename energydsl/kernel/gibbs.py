"""Gibbs sampling: each site is drawn from its conditional distribution given all others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Literal

import equinox as eqx
import jax
import numpy as np
from jax import Array

from energydsl._messages import brief, described
from energydsl._types import Configuration, Refusal
from energydsl.analysis.conditional import conditionals
from energydsl.analysis.structure import Structure
from energydsl.compiler.ebm import EBM
from energydsl.kernel.base import AbstractEnsemble, AbstractKernel
from energydsl.kernel.sweeping import GibbsEnsemble, swept_alone
from energydsl.language.expression import Expression, sites_of
from energydsl.sweep import AbstractSweep, Block, TreeSweep, choose_sweep


@described
class Gibbs(AbstractKernel):
    r"""Gibbs sweeps: each step draws every free site once from $p(x_i \mid x_{-i})$.

    Sites of a block do not interact, so that they are drawn simultaneously. By default the blocks
    are the colours of a colouring of the interaction graph. `EBM.explain` shows how the sweep is
    compiled.

    With `blocks="trees"`, the sites with finitely many levels are split into a few sets, such as
    the even and the odd rows of a lattice, so that the interactions within a set form trees. All
    sites of a set are drawn jointly from $p(x_A \mid x_{-A})$, by messages from the leaves of each
    tree to its root and draws from the root to the leaves. A step costs several times as much as
    one of single sites, but strong interactions within trees slow it down no more. If the whole
    graph is a forest, the draws are independent.

    Args:
        blocks: views, or tuples of views, visited in this order; or "trees". Together, views must
            contain every free site of their variables, and no two sites of a block may interact.

    Raises:
        TypeError: a block is not a view.
        ValueError: a word other than "trees".

    Source: Geman & Geman (1984), IEEE PAMI 6(6), 721-741. Trees: Hamze & de Freitas (2004), UAI,
    243-250, section 3.
    """

    blocks: tuple[tuple[Block, ...], ...] | Literal["trees"] | None = eqx.field(
        static=True, default=None
    )

    def __init__(
        self,
        blocks: Sequence[Expression | Sequence[Expression]] | Literal["trees"] | None = None,
    ) -> None:
        if isinstance(blocks, str) and blocks != "trees":
            raise ValueError(
                f'Gibbs got blocks={blocks!r}; expected "trees", or views such as '
                "ed.Gibbs([s[::2], s[1::2]])."
            )
        if blocks is None or isinstance(blocks, str):
            self.blocks = blocks
        else:
            views = [_views_of(b) for b in (blocks if isinstance(blocks, Iterable) else [blocks])]
            # Stored as sites, because `==` of expressions is not a comparison of their content.
            self.blocks = tuple(tuple(Block(*sites_of(v)) for v in block) for block in views)

    def init(self, ebm: EBM, x: Configuration, *, key: Array, warmup: int) -> None:
        return None

    def step(
        self, ebm: EBM, x: Configuration, state: None, *, key: Array
    ) -> tuple[Configuration, None, dict[str, Array]]:
        return swept_alone(self._planned(ebm), ebm, x, key=key), None, {}

    def moves(self, ebm: EBM) -> np.ndarray:
        sweep = self._sweep(ebm)
        return ebm.structure.of_variables(sweep.drawn if sweep is not None else ())

    def reason(self, ebm: EBM) -> str:
        if self.blocks == "trees":
            trees = _trees_of(ebm.structure)
            if isinstance(trees, Refusal):
                return trees.reason
            return "only sites with finitely many levels are drawn as trees"
        laws = conditionals(ebm.structure)
        if self.blocks is not None and not all(isinstance(s, Refusal) for s in laws.values()):
            return "no block contains them"
        said = [
            f"Gibbs cannot draw {n!r}: {law.reason}"
            for n, law in laws.items()
            if isinstance(law, Refusal)
        ]
        if ebm.sweep is None:
            tried = ebm.conclusions.lowerings
            said += [f"not {n}: {p.reason}" for n, p in tried if isinstance(p, Refusal)]
        return "; ".join(said)

    def merit(self, ebm: EBM) -> str:
        return "every free site has a conditional distribution that is drawn exactly"

    def ensemble(self, ebm: EBM) -> AbstractEnsemble:
        return GibbsEnsemble(self._planned(ebm))

    def _planned(self, ebm: EBM) -> AbstractSweep:
        sweep = self._sweep(ebm)
        if sweep is None:
            raise TypeError(f"{self.reason(ebm)}. Use another kernel for these sites.")
        return sweep

    def _sweep(self, ebm: EBM) -> AbstractSweep | None:
        if self.blocks == "trees":
            trees = _trees_of(ebm.structure)
            return None if isinstance(trees, Refusal) else trees
        return ebm.sweep if self.blocks is None else _sweep_over(ebm.structure, self.blocks)

    def __str__(self) -> str:
        if self.blocks is None:
            return "Gibbs()"
        said = "blocks='trees'" if self.blocks == "trees" else f"{len(self.blocks)} blocks"
        return f"Gibbs({said})"


def _views_of(block: object) -> tuple[Expression, ...]:
    """The views of a block, which is one view or a sequence of views."""
    views: tuple[Any, ...] = tuple(block) if isinstance(block, list | tuple) else (block,)
    for view in views:
        if not isinstance(view, Expression):
            raise TypeError(
                f"Gibbs got {brief(view)} among its blocks; expected views, such as "
                "ed.Gibbs([s[::2], s[1::2]])."
            )
    return views


@lru_cache(maxsize=32)
def _trees_of(structure: Structure) -> AbstractSweep | Refusal:
    """The sweep that draws whole trees, or why there is none."""
    offer = TreeSweep.plan(structure, None)
    if isinstance(offer, Refusal):
        return offer
    with jax.ensure_compile_time_eval():
        return offer.build()


@lru_cache(maxsize=32)
def _sweep_over(
    structure: Structure, blocks: tuple[tuple[Block, ...], ...]
) -> AbstractSweep | None:
    """The cheapest sweep over these blocks; None if they contain no free site."""
    # The sweep is cached, so it must not contain values of a trace that is in progress.
    with jax.ensure_compile_time_eval():
        sweep, considered = choose_sweep(structure, _checked_blocks(structure, blocks))
    refused = [f"{name}: {said.reason}" for name, said in considered if isinstance(said, Refusal)]
    if sweep is None and refused:
        raise TypeError(f"No lowering of the sweep supports these blocks. {'; '.join(refused)}.")
    return sweep


def _checked_blocks(structure: Structure, blocks: tuple[tuple[Block, ...], ...]) -> list[Block]:
    """The user's blocks, split by variable; raises where they do not fit the model."""
    laws = conditionals(structure)
    block_of = np.full(structure.sites, -1)
    parts = []
    for number, shown in enumerate(blocks):
        for block in shown:
            variable, sites = block.variable, block.sites
            if structure.offset.get(variable.name) is None or variable not in structure.variables:
                raise ValueError(f"Block {number} contains {variable}, which is not in the model.")
            law = laws.get(variable.name)
            if isinstance(law, Refusal):
                raise TypeError(
                    f"Gibbs cannot draw {variable.name!r}: {law.reason}; leave it out of the "
                    "blocks."
                )
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
        raise ValueError(
            "A factor joins all sites of a component, so each block must be a single site."
        )
    coupled = (block_of[edges[:, 0]] == block_of[edges[:, 1]]) & (block_of[edges[:, 0]] >= 0)
    if coupled.any():
        a, b = edges[np.argmax(coupled)]
        raise ValueError(
            f"Block {block_of[a]} contains {structure.describe(int(a))} and "
            f"{structure.describe(int(b))}, which interact, so that drawing them "
            "simultaneously would be wrong. Put them into different blocks."
        )
