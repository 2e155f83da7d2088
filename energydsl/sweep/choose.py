"""The one choice of a lowering, for the compiler and for blocks of a user's own."""

from __future__ import annotations

from collections.abc import Sequence

from energydsl._types import Refusal
from energydsl.analysis.structure import Structure
from energydsl.sweep.base import AbstractSweep, Block, drawable
from energydsl.sweep.dense import DenseSweep
from energydsl.sweep.gather import GatherSweep
from energydsl.sweep.lattice import LatticeSweep

LOWERINGS: tuple[type[AbstractSweep], ...] = (LatticeSweep, DenseSweep, GatherSweep)
"""Those that are tried; of the ones that apply, the cheapest is taken."""

Considered = tuple[tuple[str, float | Refusal], ...]
"""Each lowering that was tried, with its predicted cost or with the reason against it."""


def choose_sweep(
    structure: Structure, blocks: Sequence[Block] | None = None
) -> tuple[AbstractSweep | None, Considered]:
    """The cheapest sweep over these blocks, or over blocks of its own; None if none applies."""
    if not drawable(structure, blocks):
        return None, ()
    plans = {kind.lowering: kind.plan(structure, blocks) for kind in LOWERINGS}
    considered = tuple((n, p if isinstance(p, Refusal) else p.cost) for n, p in plans.items())
    offers = [p for p in plans.values() if not isinstance(p, Refusal)]
    best = min(offers, key=lambda offer: offer.cost, default=None)
    return None if best is None else best.build(), considered
