"""The choice of a lowering, for the compiler's blocks and for blocks given by the user."""

from __future__ import annotations

from collections.abc import Sequence

from energydsl._types import Refusal
from energydsl.analysis.structure import Structure
from energydsl.sweep.base import AbstractSweep, Block, drawable
from energydsl.sweep.dense import DenseSweep
from energydsl.sweep.gather import GatherSweep
from energydsl.sweep.lattice import LatticeSweep
from energydsl.sweep.packed import PackedSweep

LOWERINGS: tuple[type[AbstractSweep], ...] = (PackedSweep, LatticeSweep, DenseSweep, GatherSweep)
"""The lowerings that are tried; the cheapest that applies is used."""

Considered = tuple[tuple[str, float | Refusal], ...]
"""Each lowering that was tried, with its predicted cost or the reason why it does not apply."""


def choose_sweep(
    structure: Structure, blocks: Sequence[Block] | None = None
) -> tuple[AbstractSweep | None, Considered]:
    """The cheapest sweep of these blocks, and all lowerings considered.

    If blocks are not given, the lowerings choose them. The sweep is None if no lowering applies.
    """
    if not drawable(structure, blocks):
        return None, ()
    plans = {kind.lowering: kind.plan(structure, blocks) for kind in LOWERINGS}
    considered = tuple((n, p if isinstance(p, Refusal) else p.cost) for n, p in plans.items())
    offers = [p for p in plans.values() if not isinstance(p, Refusal)]
    best = min(offers, key=lambda offer: offer.cost, default=None)
    return None if best is None else best.build(), considered
