"""The batches of examples for learning, from arrays, an iterator or a function."""

from __future__ import annotations

import abc
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array, lax
from jax.sharding import NamedSharding

from energydsl._identity import content
from energydsl._types import Configuration
from energydsl.compiler.ebm import EBM
from energydsl.learning.data import check_examples, count_of

WINDOW_STEPS, WINDOW_BYTES = 256, 2**24
"""Limits on the batches of a stream that are on the device at once; at least one is."""


class AbstractReader(eqx.Module):
    """The source of batches within a compiled chunk."""

    @abc.abstractmethod
    def batch(self, order: Array, key: Array, t: Array, i: Array) -> tuple[Array, Configuration]:
        """The new order of the examples, and the batch for step t, the i-th step of the chunk."""


class AbstractSource(abc.ABC):
    """The source of examples on the host."""

    first: Configuration
    """Examples that are used for checks and for the initial state."""
    size: int
    """The number of examples per step."""
    order: Array
    """The initial order of the examples, which the reader updates from step to step."""
    per_epoch: int | None = None
    """The number of steps that show each example once; None if there is no such number."""
    ended: str = "the data ended"
    """The reason why there are no more batches, if so."""

    def passed(self, steps: int) -> str:
        """A digest by which a resume knows the batches of the first steps; empty for arrays."""
        return ""

    @abc.abstractmethod
    def read(self, count: int) -> tuple[AbstractReader, int]:
        """A reader for the next steps, and the number of these steps, at most `count`."""

    @abc.abstractmethod
    def skip(self, steps: int) -> None:
        """Skip the batches that an earlier run has used."""


class _Shuffled(AbstractReader):
    data: Configuration
    size: int = eqx.field(static=True)
    places: tuple[tuple[str, NamedSharding], ...] = eqx.field(static=True)
    """How the examples of a batch are divided among devices, by variable."""

    def batch(self, order: Array, key: Array, t: Array, i: Array) -> tuple[Array, Configuration]:
        count = count_of(self.data)
        if self.size == count:
            return order, self.data
        epoch, place = jnp.divmod(t, count // self.size)

        def shuffled() -> Array:
            shuffle_key = jr.fold_in(jr.fold_in(key, 0), epoch)
            return jr.permutation(shuffle_key, jnp.arange(count, dtype=order.dtype))

        order = lax.cond(place == 0, shuffled, lambda: order)
        rows = lax.dynamic_slice(order, (place * self.size,), (self.size,))
        batch = {n: a[rows] for n, a in self.data.items()}
        divided = {n: lax.with_sharding_constraint(batch[n], place) for n, place in self.places}
        return order, batch | divided


def _places(data: Configuration, size: int) -> Iterator[tuple[str, NamedSharding]]:
    """How examples are divided among devices, for variables whose batches can be divided alike."""
    for name, array in data.items():
        place = array.sharding
        if isinstance(place, NamedSharding):
            shards = len(array) // place.shard_shape(array.shape)[0]
            if size % shards == 0:
                yield name, place


class Whole(AbstractSource):
    """Examples that are all on the device or devices, shuffled anew for each epoch."""

    def __init__(self, data: Configuration, size: int) -> None:
        self.first, self.size = data, size
        self.order = jnp.arange(count_of(data), dtype=jnp.int32)
        self.per_epoch = count_of(data) // size
        self.reader = _Shuffled(data, size, tuple(_places(data, size)))

    def read(self, count: int) -> tuple[AbstractReader, int]:
        return self.reader, count

    def skip(self, steps: int) -> None:
        """Do nothing: the order of the examples is restored from the checkpoint."""


class _Nothing(AbstractReader):
    def batch(self, order: Array, key: Array, t: Array, i: Array) -> tuple[Array, Configuration]:
        return order, {}


class Nothing(AbstractSource):
    """No examples, for an objective that needs none."""

    def __init__(self) -> None:
        self.first, self.size, self.order = {}, 0, jnp.zeros(0, jnp.int32)

    def read(self, count: int) -> tuple[AbstractReader, int]:
        return _Nothing(), count

    def skip(self, steps: int) -> None:
        """Do nothing: there is nothing to skip."""


class _Window(AbstractReader):
    batches: Configuration

    def batch(self, order: Array, key: Array, t: Array, i: Array) -> tuple[Array, Configuration]:
        return order, {n: a[i] for n, a in self.batches.items()}


class AbstractBatches(AbstractSource):
    """Batches that are made on the host, of which several are on the device at once.

    Args:
        ebm: the compiled model, by which each batch is checked.
        first: the first batch, which the others must be like.
    """

    def __init__(self, ebm: EBM, first: Any) -> None:
        self.ebm = ebm
        self.first = check_examples(ebm, first, "fit", masks=True)
        self.size, self.order = count_of(self.first), jnp.zeros(0, jnp.int32)
        each = sum(a.nbytes for a in self.first.values())
        self.room = max(1, min(WINDOW_STEPS, WINDOW_BYTES // each))
        self.number = 0
        """The number of batches that have been read."""

    @abc.abstractmethod
    def following(self) -> Iterator[Any]:
        """The batches from `number` on."""

    def read(self, count: int) -> tuple[AbstractReader, int]:
        window = {n: np.zeros((self.room, *a.shape), a.dtype) for n, a in self.first.items()}
        found = 0
        for batch in itertools.islice(self.following(), min(count, self.room)):
            try:
                checked = self.check(batch)
            except (TypeError, ValueError) as error:
                self.ended = f"batch {self.number}: {error}"
                self.stop()
                break
            for n, a in checked.items():
                window[n][found] = a
            self.used(checked)
            found += 1
        return _Window({n: jnp.asarray(a) for n, a in window.items()}), found

    def used(self, batch: Configuration) -> None:
        """Note that a batch has been read."""
        self.number += 1

    def stop(self) -> None:
        """Give no more batches, as one does not fit the model."""

    def check(self, batch: Any) -> Configuration:
        """A batch as arrays, after all checks."""
        checked = check_examples(self.ebm, batch, "fit", masks=True)
        if checked.keys() != self.first.keys():
            differ = sorted(checked.keys() ^ self.first.keys())
            raise ValueError(
                f"It and the first batch differ in {differ}. Give all batches the same variables, "
                "and as masked arrays (numpy.ma) if entries are missing in any of them."
            )
        if count_of(checked) != self.size:
            raise ValueError(
                f"It has {count_of(checked)} examples, but the first batch had {self.size}; give "
                "all batches the same size, without a smaller last one."
            )
        return checked


class Stream(AbstractBatches):
    """Batches from an iterator."""

    def __init__(self, ebm: EBM, batches: Iterator[Any]) -> None:
        try:
            first = next(batches)
        except StopIteration:
            raise ValueError("fit got an iterator of data that yields no batch.") from None
        super().__init__(ebm, first)
        self.seals = [b""]
        self.batches = itertools.chain([first], batches)

    def following(self) -> Iterator[Any]:
        return self.batches

    def stop(self) -> None:
        self.batches = iter(())

    def skip(self, steps: int) -> None:
        for batch in itertools.islice(self.batches, steps):
            self.used(self.check(batch))

    def used(self, batch: Configuration) -> None:
        super().used(batch)
        self.seals.append(bytes.fromhex(content(self.seals[-1], batch).digest))

    def passed(self, steps: int) -> str:
        """The digest of all batches of the first steps."""
        return self.seals[steps].hex() if steps < len(self.seals) else "fewer"


class Numbered(AbstractBatches):
    """Batches from a function of the step's number, which reads none of those before."""

    def __init__(self, ebm: EBM, batch_of: Callable[[int], Any]) -> None:
        super().__init__(ebm, batch_of(0))
        self.batch_of = batch_of

    def following(self) -> Iterator[Any]:
        return map(self.batch_of, itertools.count(self.number))

    def skip(self, steps: int) -> None:
        self.number = steps

    def passed(self, steps: int) -> str:
        """The digest of the last batch of the first steps."""
        return content(self.check(self.batch_of(steps - 1))).digest if steps else ""


def source_of(ebm: EBM, data: Mapping[str, Any] | Any, size: int | None) -> AbstractSource:
    """The source of examples for `fit`.

    Raises:
        TypeError, ValueError: the data does not fit the model, or the batch size is invalid.
    """
    if isinstance(data, Iterator):
        if size is not None:
            raise ValueError(
                f"fit got batch={size} and an iterator, which gives whole batches; leave out batch."
            )
        return Stream(ebm, data)
    if callable(data):
        if size is not None:
            raise ValueError(
                f"fit got batch={size} and a function of the step's number, which returns whole "
                "batches; leave out batch."
            )
        return Numbered(ebm, data)
    checked = check_examples(ebm, data, "fit")
    return Whole(checked, _size(size, count_of(checked)))


def _size(size: int | None, count: int) -> int:
    if size is None:
        return count
    if not isinstance(size, int | np.integer) or size < 1:
        raise ValueError(f"fit got batch={size!r}; expected a whole number of at least 1.")
    if size > count:
        raise ValueError(
            f"fit got batch={size}, more than the {count} examples; give at most {count}, or leave "
            "it out to use all at each step."
        )
    return int(size)
