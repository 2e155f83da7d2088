"""Sweeps that draw whole trees of finite sites jointly from their distribution given the rest.

The finite sites are split into a few sets, each of which induces a forest. One set is drawn after
another, each at once given all other sites.

Source: Hamze & de Freitas (2004), From fields to trees, UAI, 243-250, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import equinox as eqx
import jax.random as jr
import numpy as np
from jax import Array

from energydsl._types import Configuration, Refusal
from energydsl.analysis.incidence import MAX_ENTRIES
from energydsl.analysis.structure import Structure
from energydsl.language.model import Model
from energydsl.language.variable import Variable
from energydsl.sweep.base import AbstractSweep, Block, Offer
from energydsl.sweep.forest import finite_sites, forest_sets
from energydsl.sweep.trees import Trees, downwards, load, trees_of, upwards, written

MAX_SETS = 16
"""The most sets of trees, as each is compiled separately."""

VISIT = 40
"""The cost of a draw for each pair of levels of a site, beside its factors."""


class TreeSweep(AbstractSweep):
    """A sweep that draws one set of trees after another; see the module."""

    lowering: ClassVar[str] = "trees"

    drawn: tuple[str, ...] = eqx.field(static=True)
    note: str = eqx.field(static=True)
    variables: tuple[Variable, ...] = eqx.field(static=True)
    sets: tuple[Trees, ...]

    @classmethod
    def plan(cls, structure: Structure, blocks: Sequence[Block] | None) -> Offer | Refusal:
        if structure.crowded:
            return Refusal("a factor has too many sites to list its pairs")
        if not finite_sites(structure).any():
            return Refusal("no free site has finitely many levels")
        sets = forest_sets(structure)
        count = int(sets.max()) + 1
        if count > MAX_SETS:
            return Refusal(
                f"the graph is so dense that its sites fall into {count:,} sets of trees; at most "
                f"{MAX_SETS}"
            )
        levels = structure.levels[sets >= 0].astype(float)
        if levels.max() ** 2 * len(levels) > MAX_ENTRIES:
            return Refusal(
                f"all pairs of up to {levels.max():.0f} levels at {len(levels):,} sites need more "
                f"than {MAX_ENTRIES:.2g} numbers"
            )
        return Offer(VISIT * float((levels**2).sum()), partial(_build, structure, sets))

    def load(self, structure: Structure, model: Model) -> Any:
        env = model.environment(model.evidence)
        return [load(structure, self.variables, trees, env) for trees in self.sets]

    def pack(self, x: Configuration) -> dict[str, Array]:
        return {n: a.reshape(a.shape[0], -1).T for n, a in x.items()}

    def unpack(self, state: dict[str, Array]) -> Configuration:
        return {v.name: state[v.name].T.reshape((-1, *v.shape)) for v in self.variables}

    def sweep(
        self,
        structure: Structure,
        tables: Any,
        state: Any,
        *,
        key: Array,
        betas: Array | None = None,
    ) -> Any:
        keys = jr.split(key, len(self.sets))
        for trees, table, tree_key in zip(self.sets, tables, keys, strict=True):
            passed = upwards(structure, trees, table, state, betas)
            state = written(trees, state, downwards(trees, passed, key=tree_key))
        return state


def _build(structure: Structure, sets: np.ndarray) -> TreeSweep:
    count = int(sets.max()) + 1
    built = tuple(trees_of(structure, sets == k) for k in range(count))
    drawn = tuple(v.name for v in structure.skeleton.free if v.domain.levels is not None)
    deepest = max(trees.shape[0] + 1 for trees in built)
    note = f"{count} sets of trees, up to {deepest:,} sites from a root to a leaf"
    return TreeSweep(drawn, note, structure.skeleton.free, built)
