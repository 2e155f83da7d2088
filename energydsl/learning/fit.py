"""The learning loop, which minimises any objective in compiled chunks of steps.

Between chunks, held-out data are measured, and the run ends if it has failed.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import paramax
from jax import Array

from energydsl._messages import brief, described
from energydsl._types import check_folder, check_key
from energydsl.compiler.ebm import EBM, check_compiled
from energydsl.learning.batches import AbstractReader, AbstractSource, Nothing, source_of
from energydsl.learning.divergence import Losses
from energydsl.learning.held_out import Watch, watch_of
from energydsl.learning.history import History
from energydsl.learning.latent import visible
from energydsl.learning.moving import Moving, moved, moving_of
from energydsl.learning.objective.base import AbstractObjective, at_first
from energydsl.learning.objective.choose import check_applies
from energydsl.learning.optimizer import Update
from energydsl.learning.steps import CAPACITY, Carry, Learner, averaged, begin, run_chunk
from energydsl.run.checkpoint import Identity, identity_of, model_identity, settings_identity
from energydsl.run.loop import AbstractRun, At, Store

LEARNING_RATE = 1e-2

STEPS = 1000
"""The number of steps if neither steps nor epochs are given."""

EVERY = 100
"""The number of steps from one measurement of held-out data to the next, if not given."""

HELD_OUT = "held_out"
"""The column of the measurements, among those of one entry a step; NaN where there is none."""


@described
def fit(
    ebm: EBM,
    objective: AbstractObjective,
    data: Mapping[str, Any] | Any = None,
    *,
    key: Array,
    optimizer: optax.GradientTransformation | None = None,
    steps: int | None = None,
    epochs: int | None = None,
    batch: int | None = None,
    held_out: Any = None,
    measure: Callable[[EBM, Any], Any] | None = None,
    every: int = EVERY,
    patience: int | None = None,
    average: float | None = None,
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
            along the first axis; or one array, if there is one such variable. An input that is the
            same for all examples is given to the EBM instead, by `EBM.given`. Given inputs, the
            loss is that of $p(y \mid x)$, for any objective. Arrays whose examples are divided
            among devices stay so, and each device computes its part of the gradient. Or batches of
            one size, one for each step: a function that returns the batch of step 0, 1, 2 and so
            on, or an iterator, with which learning ends. Left out if the objective needs none:
            moments are given to ``ed.MaximumEntropy(moments)``.
        key: a `jax.random.key`; equal keys give equal results.
        optimizer: an optax optimizer; Adam with learning rate 0.01 if not given. It sees a dict of
            the parameters by name, so that ``optax.masked`` and ``optax.multi_transform`` treat
            them apart by ``{"W": True, "b": False}``. Arrays of the objective have names such as
            ``objective.log_z``.
        steps: the number of updates; 1000 if neither `steps` nor `epochs` is given.
        epochs: the number of times that each example is shown, in place of `steps`: one epoch has
            as many steps as there are whole batches.
        batch: the number of examples per step. Their order is drawn anew in each epoch, and
            examples that do not fill a batch are left out of the epoch. All examples if not given.
        held_out: data that are not learnt from, by which the model is judged, in the form of `data`
            as arrays. The measure is the objective's loss where that says how well the model
            describes data, as for `MaximumLikelihood`, `PseudoLikelihood` and `ScoreMatching`;
            otherwise minus the mean log-likelihood if that is exact, or else minus the mean log
            pseudo-likelihood. It does not change what is learnt. ``history.held_out`` has its
            values.
        measure: a function of the EBM and `held_out` that is measured instead, smaller for a better
            model. Nothing is then asked of `held_out`, which is given to it as it is.
        every: the number of steps from one measurement to the next.
        patience: the number of measurements in a row without a new lowest value after which the run
            ends. The parameters with the lowest measure are then returned, also if the run ends
            otherwise.
        average: the share that each step keeps of an exponential average of the parameters after
            the steps, such as 0.999. This average, corrected for its start, is measured and
            returned in place of the last parameters. It is one of the arrays inside constraints,
            which it therefore satisfies. It smooths out the noise of minibatches and chains.
        checkpoint: a folder. A run that finds its own checkpoint there continues from it, and its
            result is bit for bit that of an uninterrupted run; `steps` may then be larger. An
            iterator must start again with the same batches, and those already used are skipped;
            a function is only asked for the batches that follow.
        progress: whether to show a progress bar on a terminal.

    Returns:
        The EBM with the learnt parameters, and the history of the loss. If the loss is not finite
        or grows far beyond all earlier ones, or if that of contrastive divergence falls without
        bound, the run stops with a warning and returns the last parameters; Ctrl-C returns the
        parameters reached so far.

    Raises:
        TypeError, ValueError: the objective does not apply to the model, data lie outside the
            domains, a setting is invalid, or the checkpoint is of another run.

    Source: the average: Kingma & Ba (2015), ICLR, section 7.2.
    """
    check_compiled(ebm, "fit")
    check_folder(checkpoint, "fit")
    check_key(key, "fit", ebm)
    if not isinstance(objective, AbstractObjective):
        raise TypeError(
            f"fit got the objective {brief(objective)}; expected one such as "
            "ed.MaximumLikelihood(), before the data: fit(ebm, objective, data, key=key)."
        )
    optimizer = optax.adam(LEARNING_RATE) if optimizer is None else optimizer
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(
            f"fit got the optimizer {brief(optimizer)}; expected one such as optax.adam(0.01)."
        )
    source = _source(ebm, objective, data, batch)
    rows, decay = _steps(steps, epochs, source), _decay(average)
    check_applies(paramax.unwrap(objective), ebm, source.first)
    watch = watch_of(
        ebm, objective, held_out, measure, every, patience,
        size=source.size, steps=rows, key=jr.fold_in(jr.split(key, 3)[1], 2),
    )  # fmt: skip
    run = _Fit(ebm, objective, source, key, optimizer, rows, decay, watch)
    with run:
        run.begin(checkpoint)
        return run.finish(progress)


def _source(ebm: EBM, objective: AbstractObjective, data: Any, batch: int | None) -> AbstractSource:
    """The source of examples; an objective that needs none must not be given any."""
    if objective.needs_data is not None and objective.needs_data == (data is None):
        name = type(objective).__name__
        if data is None:
            raise TypeError(
                f"fit got no data, and {name} needs some: fit(ebm, objective, data, key=key)."
            )
        raise TypeError(f"fit got data, and {name} needs none: fit(ebm, objective, key=key).")
    return Nothing() if data is None else source_of(ebm, data, batch)


def _steps(steps: int | None, epochs: int | None, source: AbstractSource) -> int:
    """The number of updates."""
    if steps is not None and epochs is not None:
        raise ValueError(
            f"fit got steps={brief(steps)} and epochs={brief(epochs)}; give one of them. An epoch "
            "shows each example once."
        )
    for name, number in {"steps": steps, "epochs": epochs}.items():
        if number is not None and (not isinstance(number, int | np.integer) or number < 1):
            raise ValueError(
                f"fit got {name}={brief(number)}; expected a whole number of at least 1."
            )
    if epochs is None:
        return STEPS if steps is None else int(steps)
    if source.per_epoch is None:
        raise ValueError(
            f"fit got epochs={epochs} and data that is no array, of which an epoch is not known; "
            "give steps= instead."
        )
    return int(epochs) * source.per_epoch


def _decay(average: float | None) -> Array | None:
    if average is None:
        return None
    if not isinstance(average, float) or not 0 < average < 1:
        raise ValueError(
            f"fit got average={brief(average)}; expected the share of the average that each step "
            "keeps, between 0 and 1, such as 0.999."
        )
    return jnp.asarray(average)


class _Progress(NamedTuple):
    """The state of a run between chunks."""

    steps: Carry
    best: Moving | None
    """The arrays at which held-out data, if there are any, had the lowest measure so far."""


class _Fit(AbstractRun):
    """A run of the learning loop."""

    word: ClassVar[str] = "steps"

    sound: bool = True
    """Whether the next update was computed from a sound loss, so that it may be applied."""
    tired: bool = False
    """Whether the run stopped because held-out data were described no better."""

    def __init__(
        self,
        ebm: EBM,
        objective: AbstractObjective,
        source: AbstractSource,
        key: Array,
        optimizer: optax.GradientTransformation,
        rows: int,
        decay: Array | None,
        watch: Watch | None,
    ) -> None:
        init_key, step_key, begin_key = jr.split(key, 3)
        objective = objective.begin(*at_first(ebm, source.first), key=begin_key)
        self.ebm, self.objective, self.source, self.key = ebm, objective, source, key
        self.rows, self.decay, self.watch = rows, decay, watch
        self.began = time.perf_counter()
        moving = moving_of(ebm, objective)
        if moving.empty:
            raise ValueError(
                "fit got a model with nothing to learn: numbers and arrays in an energy, and what "
                "ed.fixed marks, stay as they are. Declare what is to be learnt and write the "
                'energy with it: W = ed.parameter("W", array).'
            )
        named = moving.named(ebm)
        optimum = optimizer.init(named)
        update = Update.of(optimizer, optimum, named)
        self.learner = Learner(ebm, objective, update, decay, step_key)
        state = begin(ebm, objective, source.first, init_key)
        none = jax.tree.map(jnp.zeros_like, moving)
        average = None if decay is None else moving
        carry = Carry(moving, none, average, optimum, state, source.order)
        self.at = At(_Progress(carry, moving if watch is not None else None), 0, 0)
        self.losses = Losses(objective.loss_kind, sum(v.size for v in visible(ebm)))

    def begin(self, checkpoint: str | PathLike | None) -> None:
        """Allocate the history, and look for an earlier run's checkpoint."""
        # Zero steps: this compiles the program and shows which scalars it returns.
        _, told = self._compute(*self.source.read(0))
        names = sorted(told, key=lambda name: name != "loss")
        columns = {k: np.empty(self.rows, told[k].dtype) for k in names}
        if self.watch is not None:
            columns[HELD_OUT] = np.empty(self.rows)
        self.store = Store(columns)
        if checkpoint is not None:
            self.resume(checkpoint, self._identity())
        self.source.skip(self.at.steps)
        if self.saver is not None and self.at.steps:
            self._check_batches(self.saver.found)

    def _check_batches(self, found: str) -> None:
        """Raise ValueError unless the data begin with the batches that were used before."""
        if self.passed(self.at.steps) != found:
            raise ValueError(
                f"The checkpoint is of another run: data are other batches among the first "
                f"{self.at.steps}, or fewer. Give an iterator that begins anew with the same "
                "batches, or a function that returns the same ones, to resume; or another folder "
                "to start anew."
            )

    def passed(self, steps: int) -> str:
        return self.source.passed(steps)

    def finish(self, progress: bool) -> tuple[EBM, History]:
        """Take the remaining steps."""
        stopped = self.go(self.rows, type(self.objective).__name__, progress)
        moving, bad = self._reached(self.at.carry.steps, self.at.steps)
        if bad:
            what = f"the last update of {', '.join(bad)} is not finite"
            stopped = f"stopped after {self.at.steps} steps: {what}"
        columns = self.store.between(0, self.at.rows)
        kept, held_out = "what was learnt so far is returned", None
        if self.watch is not None:
            held_out = self.watch.seen(columns.pop(HELD_OUT))
            if self.watch.patience is not None and held_out.best is not None:
                moving = self.at.carry.best
                kept = f"the parameters after {held_out.best} steps are returned, which had the "
                kept += f"lowest held-out {held_out.name}"
        if stopped is not None and not self.tired:
            warnings.warn(f"fit {stopped}; {kept}.", stacklevel=4)
        history = History(columns)
        history.held_out, history.stopped = held_out, stopped
        history.seconds = time.perf_counter() - self.began
        learnt, history.objective = moved(self.ebm, self.objective, moving)
        return learnt, history

    def note(self) -> str:
        if not self.at.rows:
            return ""
        said = f"loss {self.store.arrays['loss'][self.at.rows - 1]:.4g}"
        if self.watch is not None and self.at.rows >= self.watch.every:
            last = self.at.rows // self.watch.every * self.watch.every
            said += f", held-out {self.store.arrays[HELD_OUT][last - 1]:.4g}"
        return said

    def chunk(self, length: int) -> str | None:
        done = self.at.rows
        length = min(length, CAPACITY, self.rows - done)
        if self.watch is not None:
            tired = self.watch.tired(self.store.arrays[HELD_OUT][:done])
            if tired is not None:
                self.tired = True
                return tired
            length = min(length, self.watch.every - done % self.watch.every)
        reader, count = self.source.read(length)
        if not count:
            return f"stopped after {self.at.steps} steps: {self.source.ended}"
        carry, new = self._compute(reader, count)
        losses = np.concatenate([self.store.arrays["loss"][:done], new["loss"]])
        failure = self.losses.failure(losses, done)
        if failure is None:
            self._commit(carry, new)
            return None
        self.sound = False
        if failure.step > done:
            self._commit(*self._compute(reader, failure.step - done))
        return f"stopped after {self.at.steps} steps: {failure.reason}"

    def _compute(self, reader: AbstractReader, count: int) -> tuple[Carry, dict[str, np.ndarray]]:
        numbers = jnp.asarray([self.at.steps, count])
        carry, buffer = run_chunk(self.learner, reader, self.at.carry.steps, numbers)
        return carry, {k: np.asarray(v)[:count] for k, v in buffer.items()}

    def _commit(self, carry: Carry, new: dict[str, np.ndarray]) -> None:
        """Put what a chunk returned in place, with the measure of held-out data where it is due."""
        done, best = self.at.rows + len(new["loss"]), self.at.carry.best
        if self.watch is not None:
            new = new | {HELD_OUT: np.full(len(new["loss"]), np.nan)}
            if done % self.watch.every == 0:
                moving, _ = self._reached(carry, done)
                ebm, own = moved(self.ebm, self.objective, moving)
                value = self.watch.measure(ebm, own, carry.state)
                new[HELD_OUT][-1] = value
                if self.watch.improves(value, self.store.arrays[HELD_OUT][: self.at.rows]):
                    best = moving
        self.store.put(self.at.rows, new)
        self.at = At(_Progress(carry, best), done, done)

    def _reached(self, carry: Carry, steps: int) -> tuple[Moving, list[str]]:
        """The arrays after this number of steps, and the names of those that are not finite.

        The update that is still due is applied if it is finite and follows from a sound loss.
        """
        moving, average = carry.moving, carry.average
        if self.sound and steps:
            after = eqx.apply_updates(moving, carry.change)
            bad = after.not_finite(self.ebm)
            if not bad and average is not None and self.decay is not None:
                return averaged(average, after, self.decay, steps), []
            if not bad:
                return after, []
        else:
            bad = []
        return moving if average is None else average, bad

    def _identity(self) -> Identity:
        """What must agree between a run and a later one that continues from its checkpoint."""
        optimizer = (self.learner.update, self.at.carry.steps.optimum)
        unwatched = {"held_out": identity_of(None, "held_out")}
        return {
            **model_identity(self.ebm.model),
            **settings_identity("objective", self.objective),
            "optimizer": ("an optimizer", identity_of(optimizer, "the optimizer")[1]),
            "data": identity_of(self.source.first, "the data"),
            "key": identity_of(self.key, "the key"),
            "batch": identity_of(self.source.size, "batch"),
            "average": identity_of(self.decay, "average"),
            **(unwatched if self.watch is None else self.watch.identity),
        }
