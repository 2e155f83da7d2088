"""What `fit` returns beside the learnt EBM: the record of a run."""

from __future__ import annotations

import dataclasses
from typing import NoReturn

import numpy as np

from energydsl._messages import ON_HISTORY, hinted
from energydsl.compiler.ebm import EBM
from energydsl.learning.objective.base import AbstractObjective


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """The measure of the model on held-out data in the course of learning; smaller is better.

    Attributes:
        name: what was measured: ``"loss"``, ``"minus log-likelihood"``,
            ``"minus log pseudo-likelihood"``, or the name of the function ``measure=``.
        steps: after how many steps it was measured, of shape (evaluation,).
        values: the measure, of shape (evaluation,).
    """

    name: str
    steps: np.ndarray
    values: np.ndarray

    @property
    def best(self) -> int | None:
        """After how many steps the measure was lowest; None if it never was a finite number."""
        finite = np.isfinite(self.values)
        if not finite.any():
            return None
        return int(self.steps[np.argmin(np.where(finite, self.values, np.inf))])

    def __str__(self) -> str:
        if self.best is None:
            return f"held-out {self.name}, never finite in {len(self.steps)} evaluations"
        low = self.values[self.steps == self.best][0]
        return f"held-out {self.name} lowest after {self.best} steps ({low:.6g})"


@hinted(ON_HISTORY)
class History(dict[str, np.ndarray]):
    """What was recorded at each step, as arrays of shape (step,).

    ``loss``, the objective's own scalars, and ``learning_rate`` if the optimizer's state tells it,
    as that of ``optax.inject_hyperparams(optax.adam)(schedule)`` does.

    Attributes:
        objective: the objective, with the learnt values of its own arrays.
        held_out: the measure on held-out data, if such data were given.
        stopped: why the run ended before its last step; None if it did not.
        seconds: the wall time, including compilation.
    """

    objective: AbstractObjective | None = None
    held_out: HeldOut | None = None
    stopped: str | None = None
    seconds: float = 0.0

    @property
    def guide(self) -> EBM:
        """The guide that `energydsl.Variational` learnt beside the model."""
        return self._beside("guide")

    @property
    def generator(self) -> EBM:
        """The generator that `energydsl.Adversarial` learnt beside the model."""
        return self._beside("generator")

    def _beside(self, name: str) -> EBM:
        """A model that the objective learnt; if there is none, `ON_HISTORY` says who learns one."""
        model = getattr(self.objective, name, None)
        if not isinstance(model, EBM):
            raise AttributeError(name)
        return model

    def __missing__(self, name: str) -> NoReturn:
        raise KeyError(f"The history has no {name!r}; it has {', '.join(self)}.")

    def __repr__(self) -> str:
        count = len(next(iter(self.values()), ()))
        ends = ", ".join(f"{n} {a[0]:.6g} to {a[-1]:.6g}" for n, a in self.items() if count)
        held = f"; {self.held_out}" if self.held_out else ""
        note = f"; stopped: {self.stopped}" if self.stopped else ""
        return (
            f"<History of {count} steps in {self.seconds:.1f} s: {ends or 'no step'}{held}{note}>"
        )
