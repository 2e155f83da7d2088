"""log Z = 0: a component that one normalised density has to itself."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl.factor import Factor
from energydsl.model import Model
from energydsl.normalizer.base import AbstractRule
from energydsl.states import owners
from energydsl.structure import Structure, repeats


class Expert(AbstractRule):
    r"""$\log Z_c = \log \int q(x_c)\,dx_c = 0$ where $E_c = -\log q$, and that is all.

    The density is used with weight one, on all of its sites and no other, none of them clamped,
    and its support is the variable's domain (`AbstractPotential.normalised`).
    """

    name: ClassVar[str] = "normalised"

    def costs(self, structure: Structure, budget: int) -> np.ndarray:
        everything = np.arange(len(structure.component_sizes))
        touched, settled = np.zeros(len(everything), int), np.zeros(len(everything), bool)
        for factor in structure.factors:
            owner = owners(structure, factor, everything)
            touched += np.bincount(owner[owner >= 0], minlength=len(everything))
            if _is_normalised(structure, factor):
                scope = structure.scope(factor)
                whole = structure.free[scope].all(axis=1) & (owner >= 0)
                whole &= structure.component_sizes[owner] == scope.shape[1]
                settled[owner[whole]] = True
        return np.where(settled & (touched == 1), 1.0, np.inf)

    def reason(self, structure: Structure, component: int, budget: int) -> str:
        return "it is not one normalised density by itself"

    def bytes(self, structure: Structure, components: np.ndarray) -> float:
        return 0.0

    def log_partition(self, structure: Structure, model: Model, components: np.ndarray) -> Array:
        return jnp.zeros(())


def _is_normalised(structure: Structure, factor: Factor) -> bool:
    normalised = getattr(structure.function(factor), "normalised", None)
    if normalised is None or repeats(structure.scope(factor)):
        return False
    (leaf,) = factor.sites.values()
    return normalised(leaf.variable.domain, leaf.index.shape[1:])
