"""The examples of each step of learning: of data held whole, or of a stream."""

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
"""Batches of a stream that are on the device at once: as many as both allow, one at least."""


class AbstractReader(eqx.Module):
    """What a compiled chunk reads its batches from."""

    @abc.abstractmethod
    def batch(self, order: Array, key: Array, t: Array, i: Array) -> tuple[Array, Configuration]:
        """The examples of step t, the chunk's i-th, and the order from which the next ones come."""


class AbstractSource(abc.ABC):
    """Where the examples come from, on the host."""

    first: Configuration
    """Examples to check, and to begin with."""
    size: int
    """Examples a step."""
    order: Array
    """What the reader keeps from step to step, before the first."""
    ended: str = "the data ended"
    """Why there are no more steps to read."""

    def passed(self, steps: int) -> str:
        """The digest of the batches of these first steps, where they come one by one."""
        return ""

    @abc.abstractmethod
    def read(self, count: int) -> tuple[AbstractReader, int]:
        """A reader for the next steps, at most `count`, and for how many."""

    @abc.abstractmethod
    def skip(self, steps: int) -> None:
        """Go past the batches of steps that an earlier run took."""


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
    """All examples on the device; each epoch goes through them in an order of its own."""

    def __init__(self, data: Configuration, size: int) -> None:
        self.first, self.size = data, size
        self.order = jnp.arange(count_of(data), dtype=jnp.int32)
        self.reader = _Shuffled(data, size)

    def read(self, count: int) -> tuple[AbstractReader, int]:
        return self.reader, count

    def skip(self, steps: int) -> None:
        """Nothing: the order that a run is in stands in its checkpoint."""


class _Window(AbstractReader):
    batches: Configuration

    def batch(self, order: Array, key: Array, t: Array, i: Array) -> tuple[Array, Configuration]:
        return order, {n: a[i] for n, a in self.batches.items()}


class Stream(AbstractSource):
    """Batches from an iterator, each checked as it comes; some of them at once on the device."""

    def __init__(self, ebm: EBM, batches: Iterator[Any]) -> None:
        try:
            first = next(batches)
        except StopIteration:
            raise ValueError("fit got an iterator of data without a single batch.") from None
        self.ebm, self.seals = ebm, [b""]
        self.batches = itertools.chain([first], batches)
        self.first = check_examples(ebm, first, "fit")
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
        """How many batches have been read."""
        return len(self.seals) - 1

    def _pass(self, batch: Configuration) -> None:
        """Note what was read: a batch with all those before it."""
        self.seals.append(bytes.fromhex(content(self.seals[-1], batch).digest))

    def _check(self, batch: Any) -> Configuration:
        checked = check_examples(self.ebm, batch, "fit")
        if count_of(checked) != self.size:
            raise ValueError(
                f"It has {count_of(checked)} examples, the first had {self.size}; give all "
                "batches one size, leaving out what is left over."
            )
        return checked


def source_of(ebm: EBM, data: Mapping[str, Any] | Any, size: int | None) -> AbstractSource:
    """Where `fit` reads its examples.

    Raises:
        TypeError, ValueError: data that do not fit the model, or a size that makes no sense.
    """
    if isinstance(data, Iterator):
        if size is not None:
            raise ValueError(
                f"fit got batch={size} and an iterator, which gives whole batches; leave one out."
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
