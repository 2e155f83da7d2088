"""The measure of a model on data that it does not learn from, and when to stop by it."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import paramax
from jax import Array, lax

from energydsl._messages import brief
from energydsl._types import Configuration
from energydsl.compiler.ebm import EBM
from energydsl.learning.data import check_examples, count_of, split
from energydsl.learning.history import HeldOut
from energydsl.learning.objective.base import (
    AbstractObjective,
    at_first,
    check_fits,
    mean_loss,
)
from energydsl.learning.objective.maximum_likelihood import MaximumLikelihood
from energydsl.learning.objective.pseudo_likelihood import PseudoLikelihood
from energydsl.run.checkpoint import Identity, identity_of

JUDGES: dict[str, AbstractObjective] = {
    "minus log-likelihood": MaximumLikelihood(),
    "minus log pseudo-likelihood": PseudoLikelihood(),
}
"""What is measured if an objective's own loss is no measure: the first of these that applies."""

PART = 1024
"""The fewest examples that are measured together, if there are as many."""


class AbstractMeasure(abc.ABC):
    """A number that says how badly a model describes held-out data."""

    name: str

    @abc.abstractmethod
    def __call__(self, ebm: EBM, own: AbstractObjective, state: Any) -> float:
        """The measure of the EBM; `own` and `state` are those of the objective that learns."""

    @property
    @abc.abstractmethod
    def identity(self) -> Identity:
        """What must agree between a run and one that continues it."""


class _Loss(AbstractMeasure):
    """The mean loss of an objective over held-out examples; None is the objective that learns."""

    def __init__(
        self, ebm: EBM, objective: AbstractObjective, given: Any, size: int, key: Array
    ) -> None:
        try:
            self.data = check_examples(ebm, given, "fit")
        except (TypeError, ValueError) as error:
            raise type(error)(f"held_out: {error}") from None
        self.name, self.judge = _judge(ebm, objective, self.data)
        self.key = key
        # What the training examples' inputs need of memory is known to be there, and no more.
        self.part = size if split(ebm, self.data)[0] else max(size, PART)
        if self.judge is not None:
            self.state = self.judge.init(*at_first(ebm, self.data), key=key)

    def __call__(self, ebm: EBM, own: AbstractObjective, state: Any) -> float:
        if self.judge is not None:
            own, state = self.judge, self.state
        return float(_mean_loss(own, ebm, self.data, state, self.key, self.part))

    @property
    def identity(self) -> Identity:
        return {"held_out": identity_of(self.data, "held_out")}


class _Function(AbstractMeasure):
    """A function of the EBM and the held-out data, which are given to it as they are."""

    def __init__(self, function: Callable[[EBM, Any], Any], data: Any) -> None:
        self.function, self.data = function, data
        self.name = getattr(function, "__name__", type(function).__name__).replace("_", " ")
        self.name = "measure" if self.name == "<lambda>" else self.name

    def __call__(self, ebm: EBM, own: AbstractObjective, state: Any) -> float:
        value = self.function(ebm, self.data)
        try:
            return float(value)
        except (TypeError, ValueError):
            raise TypeError(
                f"The function measure= returned {brief(value)}; expected one number, which is "
                "smaller for a better model."
            ) from None

    @property
    def identity(self) -> Identity:
        return {
            "held_out": identity_of(self.data, "held_out"),
            "measure": identity_of(self.function, "measure"),
        }


class Watch:
    """When held-out data are measured, and whether the run should stop by what was found."""

    def __init__(self, measure: AbstractMeasure, every: int, patience: int | None) -> None:
        self.measure, self.every, self.patience = measure, every, patience

    def seen(self, column: np.ndarray) -> HeldOut:
        """The measurements among the steps of a column, which has one entry a step."""
        steps = np.arange(self.every, len(column) + 1, self.every)
        return HeldOut(self.measure.name, steps, column[steps - 1])

    def tired(self, column: np.ndarray) -> str | None:
        """Why the run should stop, if the measure has not fallen for long."""
        found = self.seen(column)
        if self.patience is None or not len(found.steps):
            return None
        if found.best is None:
            since, low = len(found.steps), "it never was a finite number"
        else:
            since = int((found.steps > found.best).sum())
            low = f"its lowest was {found.values[found.steps == found.best][0]:.5g}"
            low += f" after {found.best} steps, and the parameters of that step are returned"
        if since < self.patience:
            return None
        return (
            f"stopped after {len(column)} steps: the held-out {found.name} did not fall in "
            f"{since} evaluations; {low}"
        )

    def improves(self, value: float, column: np.ndarray) -> bool:
        """Whether a new value is lower than all those before."""
        before = self.seen(column).values
        return math.isfinite(value) and not (before[np.isfinite(before)] <= value).any()

    @property
    def identity(self) -> Identity:
        """What must agree between a run and one that continues it."""
        return dict(self.measure.identity) | {
            "every": identity_of(self.every, "every"),
            "patience": identity_of(self.patience, "patience"),
        }


def watch_of(
    ebm: EBM,
    objective: AbstractObjective,
    held_out: Any,
    measure: Callable[[EBM, Any], Any] | None,
    every: int,
    patience: int | None,
    *,
    size: int,
    steps: int,
    key: Array,
) -> Watch | None:
    """The watch over held-out data that the arguments of `fit` ask for, if they do.

    Raises:
        TypeError, ValueError: the settings are invalid or contradict each other, the data does not
            fit the model, or nothing can be measured.
    """
    if held_out is None:
        named = {"patience": patience, "measure": measure}
        extra = [f"{n}={brief(a)}" for n, a in named.items() if a is not None]
        if extra:
            raise ValueError(
                f"fit got {' and '.join(extra)} without held_out. Give the data by which to judge: "
                "held_out=examples that are not among those to learn from."
            )
        return None
    for name, value in {"every": every, "patience": 1 if patience is None else patience}.items():
        if not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(
                f"fit got {name}={brief(value)}; expected a whole number of at least 1."
            )
    if every > steps:
        raise ValueError(
            f"fit got held_out, which is measured after every {every} steps, and takes {steps} "
            "steps in all; give a smaller every=, or more steps."
        )
    if measure is None:
        found: AbstractMeasure = _Loss(ebm, objective, held_out, size, key)
    elif callable(measure):
        found = _Function(measure, held_out)
    else:
        raise TypeError(
            f"fit got measure={brief(measure)}; expected a function of the EBM and the held-out "
            "data that returns a number, smaller for a better model."
        )
    return Watch(found, int(every), patience if patience is None else int(patience))


def _judge(
    ebm: EBM, objective: AbstractObjective, data: Configuration
) -> tuple[str, AbstractObjective | None]:
    """The objective whose loss measures the model, None for the one that learns, and its name."""
    if objective.loss_kind == "measure":
        check_fits(paramax.unwrap(objective), ebm, data)
        return "loss", None
    reasons = []
    for name, judge in JUDGES.items():
        try:
            check_fits(judge, ebm, data)
        except (TypeError, ValueError) as error:
            reasons.append(f"{type(judge).__name__}: {error}")
        else:
            return name, judge
    raise TypeError(
        f"fit got held_out with {type(objective).__name__}, whose loss does not say how well the "
        "model describes data, and no likelihood serves in its place. Give measure=, a function "
        "of the EBM and the held-out data that is smaller for a better model. Refused were "
        + " ".join(reasons)
    )


@eqx.filter_jit
def _mean_loss(
    objective: AbstractObjective,
    ebm: EBM,
    data: Configuration,
    state: Any,
    key: Array,
    part: int,
) -> Array:
    """The mean loss over all examples, at most `part` of them at a time."""
    whole, count = paramax.unwrap(objective), count_of(data)
    parts = count // part

    def loss(rows: Configuration, key: Array) -> Array:
        return mean_loss(whole, ebm, rows, state, key=key)[0]

    if not parts:
        return loss(data, key)
    full = {n: a[: parts * part].reshape(parts, part, *a.shape[1:]) for n, a in data.items()}
    keys = jr.split(key, parts + 1)
    values = lax.map(lambda one: loss(*one), (full, keys[:parts]))
    rest = jax.tree.map(lambda a: a[parts * part :], data)
    if not count_of(rest):
        return jnp.mean(values)
    last = loss(rest, keys[parts])
    return (part * jnp.sum(values) + count_of(rest) * last) / count
