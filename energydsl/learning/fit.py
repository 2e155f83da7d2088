"""The learning loop, which minimises any objective in compiled chunks of steps.

The random key and the minibatch of step t depend only on t, so that the size of the chunks and a
resume do not change the result. The update that a step computes is applied at the beginning of the
next step. The parameters in memory are therefore always ones whose loss was found to be finite.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from os import PathLike
from typing import Any, ClassVar, NamedTuple, NoReturn

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import paramax
from jax import Array, lax

from energydsl._messages import ON_HISTORY, brief, described, hinted
from energydsl._types import Configuration, check_folder, check_key
from energydsl.compiler.ebm import EBM, check_compiled
from energydsl.learning.batches import AbstractReader, AbstractSource, source_of
from energydsl.learning.data import split
from energydsl.learning.moving import Moving, moved, moving_of
from energydsl.learning.objective.base import AbstractObjective, at_first, mean_loss
from energydsl.learning.optimizer import Update
from energydsl.learning.shown import masks_of
from energydsl.run.checkpoint import Identity, identity_of, model_identity, settings_identity
from energydsl.run.loop import AbstractRun, At, Store

CAPACITY = 4096
"""The most steps of one chunk: the number of rows of its buffer."""

DIVERGED = 1e3
"""A run has diverged when its loss exceeds the first loss L by this number times 1 + |L|."""

LEARNING_RATE = 1e-2


@hinted(ON_HISTORY)
class History(dict[str, np.ndarray]):
    """The ``loss`` and the objective's other scalars at each step, as arrays of shape (step,).

    Attributes:
        objective: the objective, with the learnt values of its own arrays.
        stopped: why the run ended before its last step; None if it did not.
        seconds: the wall time, including compilation.
    """

    objective: AbstractObjective | None = None
    stopped: str | None = None
    seconds: float = 0.0

    @property
    def guide(self) -> EBM:
        """The guide that `energydsl.Variational` learnt beside the model."""
        guide = getattr(self.objective, "guide", None)
        if not isinstance(guide, EBM):
            raise AttributeError(
                f"This history of {type(self.objective).__name__} has no guide; ed.Variational "
                "learns one."
            )
        return guide

    def __missing__(self, name: str) -> NoReturn:
        raise KeyError(f"The history has no {name!r}; it has {', '.join(self)}.")

    def __repr__(self) -> str:
        count = len(next(iter(self.values()), ()))
        ends = ", ".join(f"{n} {a[0]:.6g} to {a[-1]:.6g}" for n, a in self.items() if count)
        note = f"; stopped: {self.stopped}" if self.stopped else ""
        return f"<History of {count} steps in {self.seconds:.1f} s: {ends or 'no step'}{note}>"


@described
def fit(
    ebm: EBM,
    objective: AbstractObjective,
    data: Mapping[str, Any] | Any,
    *,
    key: Array,
    optimizer: optax.GradientTransformation | None = None,
    steps: int = 1000,
    batch: int | None = None,
    checkpoint: str | PathLike | None = None,
    progress: bool = True,
) -> tuple[EBM, History]:
    r"""Learn a model's parameters from data.

    The parameters that `energydsl.parameter` declares and the arrays that potentials own are
    learnt, except those that `energydsl.fixed` freezes. Numbers and arrays in the energy are data
    and are not changed. Constraints (paramax wrappers) remain satisfied, because the optimizer
    updates the unconstrained array inside the wrapper. Floating-point arrays that the objective
    owns are learnt together with the model's; ``history.objective`` has their final values.

    Args:
        ebm: the compiled model with its initial parameters.
        objective: the loss to minimise, such as ``ed.ContrastiveDivergence()``.
        data: an array for each variable that is not latent, inputs included, with the examples
            along the first axis; or one array, if there is one such variable. Or an iterator of
            such batches, all of one size: each step uses one batch, and learning ends when the
            iterator does. An input that is the same for all examples is given to the EBM instead,
            by `EBM.given`. Given inputs, the loss is that of $p(y \mid x)$, for any objective.
        key: a `jax.random.key`; equal keys give equal results.
        optimizer: an optax optimizer; Adam with learning rate 0.01 if not given.
        steps: the number of updates.
        batch: the number of examples per step. Their order is drawn anew in each epoch, and
            examples that do not fill a batch are left out of the epoch. All examples if not given.
        checkpoint: a folder. A run that finds its own checkpoint there continues from it, and its
            result is bit for bit that of an uninterrupted run; `steps` may then be larger. An
            iterator must start again with the same batches: those already used are skipped.
        progress: whether to show a progress bar on a terminal.

    Returns:
        The EBM with the learnt parameters, and the history of the loss. If the loss diverges or is
        not finite, the run stops with a warning and returns the last parameters with a finite
        loss; Ctrl-C returns the parameters reached so far.

    Raises:
        TypeError, ValueError: the objective does not apply to the model, data lie outside the
            domains, a setting is invalid, or the checkpoint is of another run.
    """
    check_compiled(ebm, "fit")
    check_folder(checkpoint, "fit")
    check_key(key, "fit", ebm)
    if not isinstance(objective, AbstractObjective):
        raise TypeError(
            f"fit got the objective {brief(objective)}; expected one such as "
            "ed.MaximumLikelihood(), before the data: fit(ebm, objective, data, key=key)."
        )
    if not isinstance(steps, int | np.integer) or steps < 1:
        raise ValueError(f"fit got steps={brief(steps)}; expected a whole number of at least 1.")
    optimizer = optax.adam(LEARNING_RATE) if optimizer is None else optimizer
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(
            f"fit got the optimizer {brief(optimizer)}; expected one such as optax.adam(0.01)."
        )
    source = source_of(ebm, data, batch)
    whole = paramax.unwrap(objective)
    _check_missing(ebm, objective, source.first)
    if split(ebm, source.first)[0]:
        whole = whole.of_one_example()
    whole.check(*at_first(ebm, source.first))
    run = _Fit(ebm, objective, source, key, optimizer, int(steps))
    with run:
        run.begin(checkpoint)
        return run.finish(progress)


def _check_missing(ebm: EBM, objective: AbstractObjective, data: Configuration) -> None:
    lacking = {n: int((~a).sum()) for n, a in masks_of(ebm, data)[1].items() if not a.all()}
    if lacking and not objective.missing_entries:
        name, count = next(iter(lacking.items()))
        raise TypeError(
            f"{type(objective).__name__} needs every entry of the data, and {count} of {name!r} "
            "are missing. Use MaximumLikelihood(), which sums them out where that is exact, or "
            "ContrastiveDivergence(), which draws them."
        )


class _Carry(NamedTuple):
    """The state that each step passes to the next."""

    moving: Moving
    """The learnt arrays, at which the last loss was computed."""
    change: Moving
    """The update that the next step adds to them."""
    optimum: Any
    """The optimizer's state."""
    state: Any
    order: Array
    """The order of the examples in the present epoch."""


class _Fit(AbstractRun):
    """A run of the learning loop."""

    word: ClassVar[str] = "steps"

    sound: bool = True
    """Whether the next update was computed from a finite loss, so that it may be applied."""

    def __init__(
        self,
        ebm: EBM,
        objective: AbstractObjective,
        source: AbstractSource,
        key: Array,
        optimizer: optax.GradientTransformation,
        steps: int,
    ) -> None:
        self.ebm, self.objective, self.source, self.key = ebm, objective, source, key
        self.rows = steps
        self.began = time.perf_counter()
        moving = moving_of(ebm, objective)
        if moving.empty:
            raise ValueError(
                "fit got a model with nothing to learn: numbers and arrays in an energy, and what "
                "ed.fixed marks, stay as they are. Declare what is to be learnt and write the "
                'energy with it: W = ed.parameter("W", array).'
            )
        self.init_key, self.step_key = jr.split(key)
        optimum = optimizer.init(moving)
        self.update = Update.of(optimizer, optimum, moving)
        state = _begin(ebm, objective, source.first, self.init_key)
        none = jax.tree.map(jnp.zeros_like, moving)
        self.at = At(_Carry(moving, none, optimum, state, source.order), 0, 0)

    def begin(self, checkpoint: str | PathLike | None) -> None:
        """Allocate the history, and look for an earlier run's checkpoint."""
        # Zero steps: this compiles the program and shows which scalars it returns.
        _, told = self._compute(*self.source.read(0))
        self.store = Store({k: np.empty(self.rows, a.dtype) for k, a in told.items()})
        if checkpoint is not None:
            self.resume(checkpoint, self._identity())
        self.source.skip(self.at.steps)
        if self.saver is not None and self.at.steps:
            self._check_stream(self.saver.found)

    def _check_stream(self, found: str) -> None:
        """Raise ValueError unless the iterator began with the batches that were used before."""
        if self.passed(self.at.steps) != found:
            raise ValueError(
                f"The checkpoint is of another run: data are other batches among the first "
                f"{self.at.steps}, or fewer. Give an iterator that begins anew with the same "
                "batches to resume, or another folder to start anew."
            )

    def passed(self, steps: int) -> str:
        return self.source.passed(steps)

    def finish(self, progress: bool) -> tuple[EBM, History]:
        """Take the remaining steps."""
        stopped = self.go(self.rows, type(self.objective).__name__, progress)
        moving = self.at.carry.moving
        if self.sound:
            after = eqx.apply_updates(moving, self.at.carry.change)
            bad = after.not_finite(self.ebm)
            if bad:
                what = f"the last update of {', '.join(bad)} is not finite"
                stopped = f"stopped after {self.at.steps} steps: {what}"
            else:
                moving = after
        if stopped is not None:
            warnings.warn(f"fit {stopped}; what was learnt so far is returned.", stacklevel=4)
        history = History(self.store.between(0, self.at.rows))
        history.stopped, history.seconds = stopped, time.perf_counter() - self.began
        learnt, history.objective = moved(self.ebm, self.objective, moving)
        return learnt, history

    def note(self) -> str:
        return f"loss {self.store.arrays['loss'][self.at.rows - 1]:.4g}" if self.at.rows else ""

    def chunk(self, length: int) -> str | None:
        reader, count = self.source.read(min(length, CAPACITY, self.rows - self.at.rows))
        if not count:
            return f"stopped after {self.at.steps} steps: {self.source.ended}"
        carry, new = self._compute(reader, count)
        first = new["loss"][0] if not self.at.rows else self.store.arrays["loss"][0]
        limit = first + DIVERGED * (1 + abs(first))
        bad = ~(np.isfinite(new["loss"]) & (new["loss"] <= limit))
        if not bad.any():
            self._commit(carry, new)
            return None
        good = int(bad.argmax())
        self.sound = False
        if good:
            self._commit(*self._compute(reader, good))
        value = new["loss"][good]
        why = "has diverged" if np.isfinite(value) else "is not finite"
        hint = "give the optimizer a lower learning rate, or clip its gradients"
        if not self.at.steps:
            hint = "the starting parameters or the data do not suit this objective"
        return f"stopped after {self.at.steps} steps: the loss {why} ({value:.4g}); {hint}"

    def _compute(self, reader: AbstractReader, count: int) -> tuple[_Carry, dict[str, np.ndarray]]:
        numbers = jnp.asarray([self.at.steps, count])
        carry, buffer = _run_chunk(
            self.ebm, self.objective, self.update, reader, self.at.carry, self.step_key, numbers
        )  # fmt: skip
        return carry, {k: np.asarray(v)[:count] for k, v in buffer.items()}

    def _commit(self, carry: _Carry, new: dict[str, np.ndarray]) -> None:
        rows = self.store.put(self.at.rows, new)
        self.at = At(carry, rows, rows)

    def _identity(self) -> Identity:
        """What must agree between a run and a later one that continues from its checkpoint."""
        optimizer = (self.update, self.at.carry.optimum)
        return (
            model_identity(self.ebm.model)
            | settings_identity("objective", self.objective)
            | {
                "optimizer": ("an optimizer", identity_of(optimizer, "the optimizer")[1]),
                "data": identity_of(self.source.first, "the data"),
                "key": identity_of(self.key, "the key"),
                "batch": identity_of(self.source.size, "batch"),
            }
        )


@eqx.filter_jit
def _begin(ebm: EBM, objective: AbstractObjective, data: Configuration, key: Array) -> Any:
    return paramax.unwrap(objective).init(*at_first(ebm, data), key=key)


def _step(
    ebm: EBM,
    objective: AbstractObjective,
    update: Update,
    reader: AbstractReader,
    carry: _Carry,
    key: Array,
    t: Array,
    i: Array,
) -> tuple[_Carry, dict[str, Array]]:
    order, seen = reader.batch(carry.order, key, t, i)
    moving = eqx.apply_updates(carry.moving, carry.change)

    def loss(moving: Moving) -> tuple[Array, Any]:
        key_t = jr.fold_in(jr.fold_in(key, 1), t)
        learning, own = moved(ebm, objective, moving)
        return mean_loss(paramax.unwrap(own), learning, seen, carry.state, key=key_t)

    (value, (state, info)), slope = jax.value_and_grad(loss, has_aux=True)(moving)
    change, optimum = update(slope, carry.optimum, moving, value)
    return _Carry(moving, change, optimum, state, order), {"loss": value, **info}


@eqx.filter_jit
def _run_chunk(
    ebm: EBM,
    objective: AbstractObjective,
    update: Update,
    reader: AbstractReader,
    carry: _Carry,
    key: Array,
    numbers: Array,
) -> tuple[_Carry, dict[str, Array]]:
    """`count` steps, beginning with step `first`, and their scalars in CAPACITY rows."""
    first, count = numbers

    def step(carry: _Carry, i: Array) -> tuple[_Carry, dict[str, Array]]:
        return _step(ebm, objective, update, reader, carry, key, first + i, i)

    def body(i: Array, loop: tuple[_Carry, dict[str, Array]]) -> Any:
        carry, buffer = loop
        carry, said = step(carry, i)
        return carry, {k: b.at[i].set(said[k]) for k, b in buffer.items()}

    shapes = jax.eval_shape(step, carry, count)[1]
    _check_scalars(objective, shapes)
    buffer = {k: jnp.zeros(CAPACITY, s.dtype) for k, s in shapes.items()}
    return lax.fori_loop(0, count, body, (carry, buffer))


def _check_scalars(objective: AbstractObjective, shapes: dict[str, Any]) -> None:
    wide = {k: s.shape for k, s in shapes.items() if s.shape}
    if wide:
        raise ValueError(
            f"{type(objective).__name__} tells arrays of shapes {wide} at each step; the history "
            "holds scalars: reduce them."
        )
