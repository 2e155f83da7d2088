"""Parts of kernels around kernels, and the base class of those that move all chains together."""

from __future__ import annotations

import abc
from typing import Any

import jax
from jax import Array

from energydsl._messages import brief
from energydsl._types import Configuration
from energydsl.compiler.ebm import EBM
from energydsl.kernel.base import AbstractEnsemble, AbstractKernel


class AbstractJointKernel(AbstractKernel):
    """A kernel that implements `ensemble`; a single chain is moved as an ensemble of one."""

    @abc.abstractmethod
    def ensemble(self, ebm: EBM) -> AbstractEnsemble:
        """The ensemble of a run's chains."""

    def init(self, ebm: EBM, x: Configuration, *, key: Array, warmup: int) -> Any:
        return self.ensemble(ebm).start(ebm, _one(x), key=key, warmup=warmup)

    def step(
        self, ebm: EBM, x: Configuration, state: Any, *, key: Array
    ) -> tuple[Configuration, Any, dict[str, Array]]:
        ensemble = self.ensemble(ebm)
        state = ensemble.place(ebm, state, _one(x))
        state, info = ensemble.advance(ebm, ensemble.load(ebm), state, key=key)
        moved, info = jax.tree.map(lambda a: a[0], (ensemble.configurations(ebm, state), info))
        return moved, state, info


def check_kernels(kernels: tuple[Any, ...], owner: str) -> None:
    """Raise ValueError if there are no kernels, and TypeError if one is no kernel."""
    if not kernels:
        raise ValueError(f"{owner} got no kernels; expected at least one.")
    for kernel in kernels:
        if not isinstance(kernel, AbstractKernel):
            raise TypeError(f"{owner} got {brief(kernel)}; expected kernels such as ed.Gibbs().")


def together(said: list[dict[str, Array]]) -> dict[str, Array]:
    """All kernels' statistics; a name that repeats gets the kernel's number as a suffix."""
    info: dict[str, Array] = {}
    for number, told in enumerate(said):
        info |= {n if n not in info else f"{n}_{number}": v for n, v in told.items()}
    return info


def _one(x: Configuration) -> Configuration:
    return jax.tree.map(lambda a: a[None], x)
