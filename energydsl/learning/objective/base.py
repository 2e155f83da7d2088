"""The contract of an objective: the loss that learning minimises, and its state.

Each objective is a file in this folder; the learning loop does not depend on particular ones.
"""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax import Array

from energydsl._types import Configuration
from energydsl.compiler.ebm import EBM
from energydsl.learning.data import split
from energydsl.learning.divergence import LossKind
from energydsl.learning.shown import masks_of


class DoesNotFit(TypeError):
    """An objective does not fit a model or the kind of its data, whatever the parameters' values.

    Its message is the reason; `fit` adds which objectives do fit.
    """


class AbstractObjective(eqx.Module):
    """A loss that learning minimises. Its chains and buffers are its state, a pytree of arrays.

    Its fields are its settings and its own arrays. Every floating-point array among the fields,
    such as a learnt log Z or the weights of a recognition network, is learnt together with the
    model's parameters, with the same loss and optimizer, unless `energydsl.fixed` freezes it. The
    arrays inside a field that is a kernel, a start, a model or a NumPyro distribution are not
    learnt; the parameters of compiled models in the fields that `learns` names are. `check`,
    `init` and `loss` are called with all paramax wrappers replaced by their values.

    An objective need not know of a model's inputs. If data have values of them, `check`, `begin`
    and `init` are called with those of the first example, and `loss` of `of_one_example` for each
    example alone, as a batch of one, given its inputs; the value and the scalars are averaged over
    the batch. The state must then be the same for all examples.
    """

    learns: ClassVar[tuple[str, ...]] = ()
    """The names of the fields that are compiled models which learn beside the model."""

    missing_entries: ClassVar[bool] = False
    """Whether `loss` accepts data of which some entries are missing. A batch then has masks, which
    `energydsl.learning.shown.masks_of` tells from the values."""

    @property
    def needs_data(self) -> bool | None:
        """Whether it learns from data; None if it may do either.

        Without data, `check`, `init` and `loss` get an empty dict.
        """
        return True

    loss_kind: ClassVar[LossKind] = "other"
    """What the loss says of the model. A ``"measure"`` is a mean over examples that is smaller if
    the model describes them better, so that it is computed of held-out data too. A
    ``"difference"`` of energies between data and samples is near 0 for a good model, and says
    nothing more. Of ``"other"`` losses nothing is assumed."""

    def of_one_example(self) -> AbstractObjective:
        """The objective of a single example that has inputs of its own; by default the same.

        Raises:
            TypeError: there is none, because something of it is common to all examples.
        """
        return self

    @abc.abstractmethod
    def check(self, ebm: EBM, data: Configuration) -> None:
        """Raise TypeError or ValueError if the objective does not apply to a model.

        To a `DoesNotFit`, which is a TypeError, `fit` adds the objectives that do apply; any other
        message says itself what to do.
        """

    def begin(self, ebm: EBM, data: Configuration, *, key: Array) -> AbstractObjective:
        """The objective with the initial values of its own arrays; by default the same.

        It is called once, with the model and the data at which learning begins.
        """
        return self

    @abc.abstractmethod
    def init(self, ebm: EBM, data: Configuration, *, key: Array) -> Any:
        """The initial state. The examples are along the first axis of the data."""

    @abc.abstractmethod
    def loss(
        self, ebm: EBM, batch: Configuration, state: Any, *, key: Array
    ) -> tuple[Array, tuple[Any, dict[str, Array]]]:
        """The loss of a batch, whose gradient the optimizer follows.

        It is differentiated with respect to the EBM's parameters and the objective's own arrays. If
        a term is meant to update only one of them, apply `jax.lax.stop_gradient` to the other.

        Returns:
            The loss, the new state, and scalars for the history by name.
        """


def check_fits(objective: AbstractObjective, ebm: EBM, data: Configuration) -> None:
    """Raise TypeError or ValueError unless an objective applies to a model and its data."""
    lacking = {n: int((~a).sum()) for n, a in masks_of(ebm, data)[1].items() if not a.all()}
    if lacking and not objective.missing_entries:
        name, count = next(iter(lacking.items()))
        raise DoesNotFit(
            f"{type(objective).__name__} needs every entry of the data, and {count} of {name!r} "
            "are missing."
        )
    if split(ebm, data)[0]:
        objective = objective.of_one_example()
    objective.check(*at_first(ebm, data))


def at_first(ebm: EBM, data: Configuration) -> tuple[EBM, Configuration]:
    """The EBM given the inputs of the first example, and the data of all other variables."""
    inputs, rest = split(ebm, data)
    return ebm.given({n: a[0] for n, a in inputs.items()}), rest


def mean_loss(
    objective: AbstractObjective, ebm: EBM, batch: Configuration, state: Any, *, key: Array
) -> tuple[Array, tuple[Any, dict[str, Array]]]:
    """The loss of a batch whose examples may have inputs of their own."""
    inputs, rest = split(ebm, batch)
    if not inputs:
        return objective.loss(ebm, batch, state, key=key)
    single = objective.of_one_example()

    def one(given: Configuration, v: Configuration, key: Array) -> Any:
        batch = {n: a[None] for n, a in v.items()}
        value, (after, info) = single.loss(ebm.given(given), batch, state, key=key)
        return value, info, after

    keys = jr.split(key, len(next(iter(rest.values()))))
    # out_axes of None: the state after the step must be the same for all examples.
    values, info, state = jax.vmap(one, out_axes=(0, 0, None))(inputs, rest, keys)
    return jnp.mean(values), (state, {n: jnp.mean(a) for n, a in info.items()})
