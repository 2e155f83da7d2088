"""The batches of examples for learning, from arrays or from a stream."""

from __future__ import annotations

import abc
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array, lax

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
    ended: str = "the data ended"
    """The reason why there are no more batches, if so."""

    def passed(self, steps: int) -> str:
        """The digest of the batches of the first steps of a stream; empty for arrays."""
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
        return order, {n: a[rows] for n, a in self.data.items()}


class Whole(AbstractSource):
    """Examples that are all on the device, shuffled anew for each epoch."""

    def __init__(self, data: Configuration, size: int) -> None:
        self.first, self.size = data, size
        self.order = jnp.arange(count_of(data), dtype=jnp.int32)
        self.reader = _Shuffled(data, size)

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


class Stream(AbstractSource):
    """Batches from an iterator; each is checked, and several are on the device at once."""

    def __init__(self, ebm: EBM, batches: Iterator[Any]) -> None:
        try:
            first = next(batches)
        except StopIteration:
            raise ValueError("fit got an iterator of data that yields no batch.") from None
        self.ebm, self.seals = ebm, [b""]
        self.batches = itertools.chain([first], batches)
        self.first = check_examples(ebm, first, "fit", masks=True)
        self.size, self.order = count_of(self.first), jnp.zeros(0, jnp.int32)
        each = sum(a.nbytes for a in self.first.values())
        self.room = max(1, min(WINDOW_STEPS, WINDOW_BYTES // each))

    def read(self, count: int) -> tuple[AbstractReader, int]:
        window = {n: np.zeros((self.room, *a.shape), a.dtype) for n, a in self.first.items()}
        found = 0
        for batch in itertools.islice(self.batches, min(count, self.room)):
            try:
                checked = self._check(batch)
            except (TypeError, ValueError) as error:
                self.ended, self.batches = f"batch {self.number}: {error}", iter(())
                break
            for n, a in checked.items():
                window[n][found] = a
            self._pass(checked)
            found += 1
        return _Window({n: jnp.asarray(a) for n, a in window.items()}), found

    def skip(self, steps: int) -> None:
        for batch in itertools.islice(self.batches, steps):
            self._pass(self._check(batch))

    def passed(self, steps: int) -> str:
        return self.seals[steps].hex() if steps < len(self.seals) else "fewer"

    @property
    def number(self) -> int:
        """The number of batches that have been read."""
        return len(self.seals) - 1

    def _pass(self, batch: Configuration) -> None:
        """Update the digest of all batches read so far."""
        self.seals.append(bytes.fromhex(content(self.seals[-1], batch).digest))

    def _check(self, batch: Any) -> Configuration:
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
