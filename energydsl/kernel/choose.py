"""The kernels that are taken where none is given, from the list that `EBM.explain` shows."""

from __future__ import annotations

from energydsl._types import Refusal
from energydsl.compiler.ebm import EBM
from energydsl.compiler.recommendation import SAMPLERS
from energydsl.kernel.base import AbstractKernel


def choose(ebm: EBM) -> tuple[AbstractKernel, str]:
    """For draws: the first kernel that `EBM.explain` recommends, and why it does."""
    return _applicable(ebm)[0]


def cheapest(ebm: EBM) -> AbstractKernel:
    """For annealing and learning: the one with the cheapest steps that moves every free site."""
    return min(_applicable(ebm), key=lambda found: found[0].effort(ebm))[0]


def _applicable(ebm: EBM) -> list[tuple[AbstractKernel, str]]:
    said = [
        (kernel, kernel.applies(ebm)) for kernel in SAMPLERS if isinstance(kernel, AbstractKernel)
    ]
    return [(kernel, words) for kernel, words in said if not isinstance(words, Refusal)]
