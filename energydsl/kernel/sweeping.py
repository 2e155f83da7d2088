"""Chains that are moved by sweeps, in the representation that the sweep's lowering uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax import Array

from energydsl._types import Configuration
from energydsl.compiler.ebm import EBM
from energydsl.kernel.base import AbstractEnsemble
from energydsl.sweep import AbstractSweep


def swept_alone(sweep: AbstractSweep, ebm: EBM, x: Configuration, *, key: Array) -> Configuration:
    """The configuration of one chain after a sweep."""
    packed = sweep.pack(jax.tree.map(lambda a: a[None], x))
    tables = sweep.load(ebm.structure, ebm.model)
    moved = sweep.unpack(sweep.sweep(ebm.structure, tables, packed, key=key))
    return jax.tree.map(lambda a: a[0], moved)


class GibbsEnsemble(AbstractEnsemble):
    """Chains in the representation that the sweep's lowering uses."""

    sweep: AbstractSweep

    def start(self, ebm: EBM, xs: Configuration, *, key: Array, warmup: int) -> Any:
        return self.sweep.pack(xs)

    def refresh(self, ebm: EBM, carry: Any) -> Any:
        return carry

    def place(self, ebm: EBM, carry: Any, xs: Configuration) -> Any:
        return self.sweep.pack(xs)

    def load(self, ebm: EBM) -> Any:
        return self.sweep.load(ebm.structure, ebm.model)

    def advance(
        self, ebm: EBM, tables: Any, carry: Any, *, key: Array
    ) -> tuple[Any, dict[str, Array]]:
        return self.sweep.sweep(ebm.structure, tables, carry, key=key), {}

    def configurations(self, ebm: EBM, carry: Any) -> Configuration:
        return self.sweep.unpack(carry)

    def energies(self, ebm: EBM, carry: Any) -> Array:
        return self.sweep.energies(ebm.structure, ebm.model, carry)

    def observe(self, ebm: EBM, carry: Any, function: Callable[[Configuration], Any]) -> Any:
        return self.sweep.observe(function, carry)
