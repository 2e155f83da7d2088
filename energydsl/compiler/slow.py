"""What will take long although it need not, and what to write instead.

Each answer is a sentence for `EBM.explain`, and None where there is nothing to say. They depend on
predicted costs and sizes, so they are said only where these are large.
"""

from __future__ import annotations

import jax
import numpy as np

from energydsl.analysis.factor import Factor, slots_of
from energydsl.analysis.structure import Structure
from energydsl.language.model import Model
from energydsl.normalizer import Intractable, Normalizer

COSTLY = 1e6
"""The least predicted operations of a quadrature for which learning by it is said to be slow."""

MANY = 50
"""The least number of single factors for which they are said to be written one by one."""

LARGE, DWARFED = 2**26, 1000
"""The least bytes of the energy's arrays, and the least ratio to the bytes of all sites, for which
they are said to dwarf the model."""


def slow_parts(structure: Structure, model: Model, normalizer: Normalizer) -> list[str]:
    """What will be slow, with the line to write instead."""
    found = (
        _learning(structure, model, normalizer),
        _one_by_one(structure),
        _arrays(structure, model),
    )
    return [said for said in found if said is not None]


def _learning(structure: Structure, model: Model, normalizer: Normalizer) -> str | None:
    """Log Z by a costly quadrature that depends on what is learnt."""
    if isinstance(normalizer, Intractable):
        return None
    costs = [p.operations if p.kind == "quadrature" else 0.0 for p in normalizer.plans]
    owner = np.asarray(normalizer.plan_of)
    used = {
        int(k)
        for factor in structure.factors
        if _learns(model, factor)
        for k in np.unique(owner[structure.scope(factor)])
        if k >= 0
    }
    total = sum(costs[k] for k in used)
    if total < COSTLY:
        return None
    smooth = all(v.domain.transform is not None for v in structure.skeleton.free)
    others = (
        "ed.ScoreMatching() or ed.ContrastiveDivergence()"
        if smooth
        else ("ed.ContrastiveDivergence()")
    )
    return (
        f"ed.MaximumLikelihood computes log Z by quadrature at every step, {total:.2g} operations; "
        f"learn by {others}, which need no log Z"
    )


def _learns(model: Model, factor: Factor) -> bool:
    """Whether a batch of factors has a parameter that learning updates."""
    slots = [slot for leaf in factor.leaves for slot in slots_of(leaf)]
    return any(jax.tree.leaves([model.learnt[slot] for slot in slots]))


def _one_by_one(structure: Structure) -> str | None:
    """Many terms that stand alone, since they could not be merged into batches."""
    single = sum(factor.size == 1 for factor in structure.factors)
    if single < MANY:
        return None
    return (
        f"{single:,} terms stand alone, and each is compiled on its own; write like terms as one "
        "sum over arrays: (w * s[i] * s[j]).sum() with arrays i and j in place of a loop over edges"
    )


def _arrays(structure: Structure, model: Model) -> str | None:
    """Arrays of the energy that dwarf the model."""
    data = [
        value
        for value, record in zip(model.slots, model.skeleton.slots, strict=True)
        if record.name is None
    ]
    size = sum(getattr(leaf, "nbytes", 0) for leaf in jax.tree.leaves(data))
    if size < max(LARGE, DWARFED * 4 * structure.sites):
        return None
    return (
        f"the energy reads {size / 1e6:,.0f} MB of arrays at every evaluation, for "
        f"{structure.sites:,} sites; sum over the examples first where the energy allows it: "
        "x @ (A.T @ A) @ x in place of ((A @ x)**2).sum()"
    )
