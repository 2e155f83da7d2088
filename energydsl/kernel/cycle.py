"""Kernels in turn."""

from __future__ import annotations

from typing import Any

import jax.random as jr
import numpy as np
from jax import Array

from energydsl._types import Configuration
from energydsl.ebm import EBM
from energydsl.kernel.base import AbstractKernel


class Cycle(AbstractKernel):
    """One step of each kernel in turn, each on the sites it moves.

    Args:
        *kernels: at least one; together they must move every free site.

    Raises:
        TypeError, ValueError: something that is no kernel, or nothing at all.
    """

    kernels: tuple[AbstractKernel, ...]

    def __init__(self, *kernels: AbstractKernel) -> None:
        if not kernels:
            raise ValueError("Cycle got no kernels; expected at least one.")
        for kernel in kernels:
            if not isinstance(kernel, AbstractKernel):
                raise TypeError(f"Cycle got {kernel!r}; expected kernels such as ed.Gibbs().")
        self.kernels = kernels

    def init(self, ebm: EBM, x: Configuration, *, key: Array, warmup: int) -> tuple[Any, ...]:
        keys = jr.split(key, len(self.kernels))
        return tuple(
            kernel.init(ebm, x, key=k, warmup=warmup)
            for kernel, k in zip(self.kernels, keys, strict=True)
        )

    def step(
        self, ebm: EBM, x: Configuration, state: tuple[Any, ...], *, key: Array
    ) -> tuple[Configuration, tuple[Any, ...], dict[str, Array]]:
        states, info = [], {}
        keys = jr.split(key, len(self.kernels))
        for number, (kernel, old, k) in enumerate(zip(self.kernels, state, keys, strict=True)):
            x, new, said = kernel.step(ebm, x, old, key=k)
            states.append(new)
            # Two kernels may say the same of themselves; the first keeps the plain name.
            info |= {n if n not in info else f"{n}_{number}": v for n, v in said.items()}
        return x, tuple(states), info

    def moves(self, ebm: EBM) -> np.ndarray:
        return np.any([kernel.moves(ebm) for kernel in self.kernels], axis=0)

    def reason(self, ebm: EBM) -> str:
        return "; ".join(f"{k}: {k.reason(ebm)}" for k in self.kernels)

    def __str__(self) -> str:
        return f"Cycle({', '.join(map(str, self.kernels))})"
