"""The one learning loop: any objective, in compiled chunks.

The key and the minibatch of step t depend on t alone, so that neither chunk sizes nor a resume
change what is learnt. A step's update is put in by the step after it: the parameters that a run
holds are always ones at which the loss was seen to be finite.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from os import PathLike
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import paramax
from jax import Array, lax

from energydsl._types import Configuration, check_key
from energydsl.compiler.ebm import EBM, check_ebm
from energydsl.learning.batches import AbstractReader, AbstractSource, source_of
from energydsl.learning.moving import Moving, moved, moving_of
from energydsl.learning.objective.base import AbstractObjective
from energydsl.learning.optimizer import Update
from energydsl.run.checkpoint import Identity, identity_of, model_identity, settings_identity
from energydsl.run.loop import AbstractRun, At, Store

CAPACITY = 4096
"""Steps of a chunk at most: the rows of its buffer."""

DIVERGED = 1e3
"""A run has diverged where the loss has risen above the first one by this many times its size."""

LEARNING_RATE = 1e-2


class History(dict[str, np.ndarray]):
    """What was seen at each step: ``loss``, and what the objective tells, each of shape (step,).

    Attributes:
        objective: the objective, with what the arrays of its own have learnt.
        stopped: why the run ended before its last step, or None.
        seconds: wall time, compilation included.
    """

    objective: AbstractObjective | None = None
    stopped: str | None = None
    seconds: float = 0.0


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
    """Learn a model's parameters from data.

    What moves is what `energydsl.parameter` declares and what potentials own, where
    `energydsl.fixed` does not freeze it: neither numbers nor arrays of the energy's text, which
    are data. Constraints (paramax wrappers) hold, as their insides are what moves. Arrays of floats
    that an objective owns learn beside the model's, and come back in ``history.objective``.

    Args:
        ebm: where to begin.
        objective: what to go down, such as ``ed.ContrastiveDivergence()``.
        data: an array for each variable that is no latent, examples first; or one array, where
            there is one such variable. Or an iterator of batches of such data, all of one size:
            a step each, ending where it ends.
        key: a `jax.random.key`; the same key learns the same.
        optimizer: optax's; Adam at a rate of 0.01 if not given.
        steps: how many updates.
        batch: examples a step, in a new order each epoch, what is left over left out; all of them
            if not given.
        checkpoint: a folder. A run that finds its own checkpoint there goes on from it, and ends
            bit for bit where it would have ended; `steps` may then be larger. An iterator must
            begin anew, with the same batches: those of the steps taken are passed over.
        progress: show a bar on a terminal.

    Returns:
        The EBM with what was learnt, and what was seen on the way. A loss that is not finite or
        diverges stops the run, with a warning, at the last parameters before it; Ctrl-C ends it
        with those reached.

    Raises:
        TypeError, ValueError: an objective that does not fit the model, data outside the domains,
            numbers that make no sense, or a checkpoint of another run.
    """
    check_ebm(ebm, "fit")
    check_key(key, "fit", ebm)
    if not isinstance(objective, AbstractObjective):
        raise TypeError(
            f"fit got the objective {objective!r}; expected one such as ed.ContrastiveDivergence()."
        )
    if not isinstance(steps, int | np.integer) or steps < 1:
        raise ValueError(f"fit got steps={steps!r}; expected a whole number of at least 1.")
    optimizer = optax.adam(LEARNING_RATE) if optimizer is None else optimizer
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(f"fit got the optimizer {optimizer!r}; expected one such as optax.adam().")
    source = source_of(ebm, data, batch)
    paramax.unwrap(objective).check(ebm, source.first)
    run = _Fit(ebm, objective, source, key, optimizer, int(steps))
    with run:
        run.begin(checkpoint)
        return run.finish(progress)


class _Carry(NamedTuple):
    """What goes from step to step on the device."""

    moving: Moving
    """The arrays that learn, at which the last loss was taken."""
    change: Moving
    """What the next step adds to them."""
    optimum: Any
    """The optimizer's state."""
    state: Any
    order: Array
    """What the examples' reader keeps: this epoch's order."""


class _Fit(AbstractRun):
    """Steps."""

    word: ClassVar[str] = "steps"

    sound: bool = True
    """Whether the update to come is one that a finite loss gave parameters for."""

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
        """Make room for the history, and find an earlier run's checkpoint."""
        # No step yet: the program is compiled, and shows what it will tell.
        _, told = self._compute(*self.source.read(0))
        self.store = Store({k: np.empty(self.rows, a.dtype) for k, a in told.items()})
        if checkpoint is not None:
            self.resume(checkpoint, self._identity())
        self.source.skip(self.at.steps)
        if self.saver is not None and self.at.steps:
            self._check_stream(self.saver.found)

    def _check_stream(self, found: str) -> None:
        """Raise ValueError unless the stream began with the batches of the steps taken."""
        if self.passed(self.at.steps) != found:
            raise ValueError(
                f"The checkpoint is of another run: data are other batches among the first "
                f"{self.at.steps}, or fewer. Give an iterator that begins anew with the same "
                "batches to resume, or another folder to start anew."
            )

    def passed(self, steps: int) -> str:
        return self.source.passed(steps)

    def finish(self, progress: bool) -> tuple[EBM, History]:
        """Take the steps that are left."""
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
            warnings.warn(f"fit {stopped}; what was learnt so far is returned.", stacklevel=3)
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
        """What must agree between a run and the one that goes on from its checkpoint."""
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
    return paramax.unwrap(objective).init(ebm, data, key=key)


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
        return paramax.unwrap(own).loss(learning, seen, carry.state, key=key_t)

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
    """`count` steps from step `first` on, and what they told in a buffer of CAPACITY rows."""
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
