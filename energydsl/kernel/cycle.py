"""A cycle of kernels."""

from __future__ import annotations

from typing import Any

import jax.random as jr
import numpy as np
from jax import Array

from energydsl._types import Configuration, Refusal
from energydsl.compiler.ebm import EBM
from energydsl.kernel.base import AbstractEnsemble, AbstractKernel
from energydsl.kernel.joint import check_kernels, together


class Cycle(AbstractKernel):
    """A kernel whose step is one step of each of several kernels in turn.

    Args:
        *kernels: at least one; together they must update every free site.

    Raises:
        TypeError: an argument that is not a kernel.
        ValueError: no kernels.
    """

    kernels: tuple[AbstractKernel, ...]

    def __init__(self, *kernels: AbstractKernel) -> None:
        check_kernels(kernels, "Cycle")
        self.kernels = kernels

    def init(self, ebm: EBM, x: Configuration, *, key: Array, warmup: int) -> tuple[Any, ...]:
        kernels = self._busy(ebm)
        keys = jr.split(key, len(kernels))
        return tuple(
            kernel.init(ebm, x, key=k, warmup=warmup)
            for kernel, k in zip(kernels, keys, strict=True)
        )

    def step(
        self, ebm: EBM, x: Configuration, state: tuple[Any, ...], *, key: Array
    ) -> tuple[Configuration, tuple[Any, ...], dict[str, Array]]:
        kernels, states, said = self._busy(ebm), [], []
        keys = jr.split(key, len(kernels))
        for kernel, old, k in zip(kernels, state, keys, strict=True):
            x, new, info = kernel.step(ebm, x, old, key=k)
            states.append(new)
            said.append(info)
        return x, tuple(states), together(said)

    def moves(self, ebm: EBM) -> np.ndarray:
        return np.any([kernel.moves(ebm) for kernel in self.kernels], axis=0)

    def reason(self, ebm: EBM) -> str:
        return "; ".join(f"{k}: {k.reason(ebm)}" for k in self.kernels)

    def check(self, ebm: EBM) -> None:
        for kernel in self.kernels:
            kernel.check(ebm)

    @property
    def name(self) -> str:
        return f"Cycle({', '.join(kernel.name for kernel in self.kernels)})"

    def merit(self, ebm: EBM) -> str:
        return f"{' and '.join(k.name for k in self.kernels)} together move every free site"

    def effort(self, ebm: EBM) -> float:
        return sum(kernel.effort(ebm) for kernel in self._busy(ebm))

    def applies(self, ebm: EBM) -> str | Refusal:
        """As for any kernel, but a cycle does not apply if one of its kernels alone does."""
        free = ebm.structure.free
        for kernel in self.kernels:
            if kernel.moves(ebm)[free].all():
                return Refusal(f"{kernel.name} alone moves every free site")
        return super().applies(ebm)

    def ensemble(self, ebm: EBM) -> AbstractEnsemble:
        return CycleEnsemble(tuple(kernel.ensemble(ebm) for kernel in self._busy(ebm)))

    def _busy(self, ebm: EBM) -> list[AbstractKernel]:
        """The kernels that update some site; in a conditioned model, one may have none left."""
        return [kernel for kernel in self.kernels if kernel.moves(ebm).any()]

    def __str__(self) -> str:
        return f"Cycle({', '.join(map(str, self.kernels))})"


class CycleEnsemble(AbstractEnsemble):
    """The ensembles of all kernels; the last one holds the present configurations."""

    parts: tuple[AbstractEnsemble, ...]

    def start(self, ebm: EBM, xs: Configuration, *, key: Array, warmup: int) -> tuple[Any, ...]:
        keys = jr.split(key, len(self.parts))
        return tuple(
            part.start(ebm, xs, key=k, warmup=warmup)
            for part, k in zip(self.parts, keys, strict=True)
        )

    def refresh(self, ebm: EBM, carry: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(part.refresh(ebm, c) for part, c in zip(self.parts, carry, strict=True))

    def place(self, ebm: EBM, carry: tuple[Any, ...], xs: Configuration) -> tuple[Any, ...]:
        return tuple(part.place(ebm, c, xs) for part, c in zip(self.parts, carry, strict=True))

    def load(self, ebm: EBM) -> tuple[Any, ...]:
        return tuple(part.load(ebm) for part in self.parts)

    def advance(
        self, ebm: EBM, tables: tuple[Any, ...], carry: tuple[Any, ...], *, key: Array
    ) -> tuple[tuple[Any, ...], dict[str, Array]]:
        keys = jr.split(key, len(self.parts))
        xs, new, said = self.configurations(ebm, carry), [], []
        for part, table, old, k in zip(self.parts, tables, carry, keys, strict=True):
            moved, info = part.advance(ebm, table, part.place(ebm, old, xs), key=k)
            xs = part.configurations(ebm, moved)
            new.append(moved)
            said.append(info)
        return tuple(new), together(said)

    def configurations(self, ebm: EBM, carry: tuple[Any, ...]) -> Configuration:
        return self.parts[-1].configurations(ebm, carry[-1])

    def energies(self, ebm: EBM, carry: tuple[Any, ...]) -> Array:
        return self.parts[-1].energies(ebm, carry[-1])
