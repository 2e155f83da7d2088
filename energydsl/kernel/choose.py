"""The default kernels, from the list that `EBM.explain` shows."""

from __future__ import annotations

from collections.abc import Iterator

from energydsl._types import Refusal
from energydsl.compiler.ebm import EBM
from energydsl.compiler.recommendation import SAMPLERS
from energydsl.kernel.base import AbstractKernel


def choose(ebm: EBM) -> tuple[AbstractKernel, str]:
    """The kernel that `EBM.explain` recommends first, with the reason; used by `sample`."""
    return next(_applicable(ebm, _kernels()))


def cheapest(ebm: EBM) -> AbstractKernel:
    """The applicable kernel with the cheapest steps; used for annealing and learning."""
    return next(_applicable(ebm, sorted(_kernels(), key=lambda kernel: kernel.effort(ebm))))[0]


def _kernels() -> list[AbstractKernel]:
    return [kernel for kernel in SAMPLERS if isinstance(kernel, AbstractKernel)]


def _applicable(ebm: EBM, kernels: list[AbstractKernel]) -> Iterator[tuple[AbstractKernel, str]]:
    """The kernels that apply with their reasons; what is not asked for is not worked out."""
    for kernel in kernels:
        words = kernel.applies(ebm)
        if not isinstance(words, Refusal):
            yield kernel, words
