"""The default kernels, from the list that `EBM.explain` shows."""

from __future__ import annotations

from energydsl._types import Refusal
from energydsl.compiler.ebm import EBM
from energydsl.compiler.recommendation import SAMPLERS
from energydsl.kernel.base import AbstractKernel


def choose(ebm: EBM) -> tuple[AbstractKernel, str]:
    """The kernel that `EBM.explain` recommends first, with the reason; used by `sample`."""
    return _applicable(ebm)[0]


def cheapest(ebm: EBM) -> AbstractKernel:
    """The applicable kernel with the cheapest steps; used for annealing and learning."""
    return min(_applicable(ebm), key=lambda found: found[0].effort(ebm))[0]


def _applicable(ebm: EBM) -> list[tuple[AbstractKernel, str]]:
    said = [
        (kernel, kernel.applies(ebm)) for kernel in SAMPLERS if isinstance(kernel, AbstractKernel)
    ]
    return [(kernel, words) for kernel, words in said if not isinstance(words, Refusal)]
