"""Independent exact draws, by the rules for log Z."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.random as jr
import numpy as np
from jax import Array

from energydsl._messages import described
from energydsl._types import Configuration, Refusal
from energydsl.compiler.ebm import EBM
from energydsl.kernel.base import AbstractEnsemble, AbstractKernel
from energydsl.normalizer import Intractable
from energydsl.normalizer.base import Planned
from energydsl.normalizer.evaluate import draw, prepare


@described
class ExactDraws(AbstractKernel):
    """Independent exact draws: every step is a new draw from the EBM's distribution.

    Each connected component is drawn by the cheapest rule for log Z that provides draws: by
    enumeration, by a Cholesky factor, layer by layer, or ancestrally. No warmup is needed.
    """

    independent: ClassVar[bool] = True

    def init(self, ebm: EBM, x: Configuration, *, key: Array, warmup: int) -> None:
        return None

    def step(
        self, ebm: EBM, x: Configuration, state: None, *, key: Array
    ) -> tuple[Configuration, None, dict[str, Array]]:
        plans = _plans(ebm)
        return draw(ebm.model, plans, prepare(ebm.model, plans), key=key), None, {}

    def moves(self, ebm: EBM) -> np.ndarray:
        return ebm.structure.free & isinstance(_normalizer(ebm), Planned)

    def effort(self, ebm: EBM) -> float:
        # Draws that forget the chain's configuration serve neither annealing nor learning.
        return np.inf

    def applies(self, ebm: EBM) -> str | Refusal:
        """The rules that give draws; why each other does not is said where log Z is explained."""
        normalizer = _normalizer(ebm)
        if isinstance(normalizer, Planned):
            return f"its draws are independent, by {normalizer.rules}"
        exact = isinstance(ebm.normalizer, Planned)
        return Refusal(f"no rule gives {'draws of this model' if exact else 'log Z'}")

    def reason(self, ebm: EBM) -> str:
        return f"no rule gives exact draws: {_normalizer(ebm)}"

    def ensemble(self, ebm: EBM) -> AbstractEnsemble:
        return IndependentEnsemble(_plans(ebm))

    def __str__(self) -> str:
        return "ExactDraws()"


class IndependentEnsemble(AbstractEnsemble):
    """Independent draws; the intermediate results that they share are computed once."""

    plans: Planned

    def start(self, ebm: EBM, xs: Configuration, *, key: Array, warmup: int) -> Configuration:
        return xs

    def refresh(self, ebm: EBM, carry: Configuration) -> Configuration:
        return carry

    def place(self, ebm: EBM, carry: Configuration, xs: Configuration) -> Configuration:
        return xs

    def load(self, ebm: EBM) -> Any:
        return prepare(ebm.model, self.plans)

    def advance(
        self, ebm: EBM, tables: Any, carry: Configuration, *, key: Array
    ) -> tuple[Configuration, dict[str, Array]]:
        keys = jr.split(key, len(next(iter(carry.values()))))
        return jax.vmap(lambda k: draw(ebm.model, self.plans, tables, key=k))(keys), {}

    def configurations(self, ebm: EBM, carry: Configuration) -> Configuration:
        return carry

    def energies(self, ebm: EBM, carry: Configuration) -> Array:
        return jax.vmap(ebm.energy)(carry)


def _normalizer(ebm: EBM) -> Planned | Intractable:
    return ebm.conclusions.survey.choose("draw")


def _plans(ebm: EBM) -> Planned:
    normalizer = _normalizer(ebm)
    if isinstance(normalizer, Intractable):
        raise TypeError(f"ExactDraws does not apply: no rule gives exact draws: {normalizer}.")
    return normalizer
