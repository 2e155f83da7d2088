"""Variables: named arrays of sites over one domain."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl.language.domain import AbstractDomain


def as_shape(shape: int | tuple[int, ...], name: str) -> tuple[int, ...]:
    """A shape as a tuple of positive integers, or an error that names the variable."""
    axes = shape if isinstance(shape, Sequence) else (shape,)
    if any(not isinstance(a, int | np.integer) or a < 1 for a in axes):
        raise ValueError(f"Variable {name!r} got shape {shape!r}; expected positive integers.")
    return tuple(int(a) for a in axes)


Dims = str | Sequence[str] | Mapping[str, Sequence[Any] | None]
"""Names for the axes of a variable: one name, several, or a mapping from names to labels."""


class Axes(dict[str, tuple[Any, ...] | None]):
    """The names of a variable's axes, in their order, each with labels or None."""

    @staticmethod
    def of(dims: Dims, shape: tuple[int, ...], name: str) -> Axes:
        """Checked names and labels of the axes of a variable.

        Raises:
            ValueError: the number of names, or of labels along an axis, is not that of the shape.
        """
        names = [dims] if isinstance(dims, str) else list(dims)
        labels = dims if isinstance(dims, Mapping) else {}
        if len(set(names)) != len(shape) or not all(isinstance(n, str) and n for n in names):
            raise ValueError(
                f"Variable {name!r} got dims={names}; expected {len(shape)} different names, one "
                f"for each axis of its shape {shape}."
            )
        for axis, size in zip(names, shape, strict=True):
            own = labels.get(axis)
            if own is not None and len(own) != size:
                raise ValueError(
                    f"Variable {name!r} got {len(own)} labels for its axis {axis!r}; expected "
                    f"{size}, its size."
                )
        given = {n: labels.get(n) for n in names}
        return Axes({n: None if own is None else tuple(own) for n, own in given.items()})


@dataclasses.dataclass(frozen=True)
class Variable:
    """A declared variable: its name, domain and shape, and its role.

    Data show it and the model is of it, unless it is `latent` (never shown) or `given` (an input,
    of which the model is no distribution).
    """

    name: str
    domain: AbstractDomain
    shape: tuple[int, ...]
    latent: bool = False
    given: bool = False
    axes: Axes | None = dataclasses.field(default=None, compare=False)
    """The names of its axes and their labels, for trees of chains; None if they have no names."""

    def __post_init__(self) -> None:
        # "/" separates groups in an ArviZ tree.
        if not isinstance(self.name, str) or not self.name or "/" in self.name:
            raise ValueError(
                f"A variable got the name {self.name!r}; expected a non-empty string without '/'."
            )
        if self.latent and self.given:
            raise ValueError(
                f"Variable {self.name!r} got latent=True and given=True; data never show a latent "
                "variable and always show an input, so choose one."
            )
        self.domain.check_shape(self.shape, self.name)

    @property
    def size(self) -> int:
        """The number of sites."""
        return math.prod(self.shape)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one event: the axes whose entries the domain binds together."""
        return self.shape[len(self.shape) - self.domain.event_ndim :]

    def check(self, array: object, batch: tuple[int, ...] = ()) -> jnp.ndarray:
        """A value, or a batch of values, checked and in the domain's dtype.

        See `AbstractDomain.check`.
        """
        return self.domain.check(array, (*batch, *self.shape), f"Variable {self.name!r}")

    def describe(self, site: int) -> str:
        """The name of a site, as the user would index it: ``s[3, 4]``."""
        where = ", ".join(str(int(i)) for i in np.unravel_index(site, self.shape))
        return f"{self.name}[{where}]" if self.shape else self.name

    def __str__(self) -> str:
        shape = ", ".join(map(str, self.shape))
        role = " latent" if self.latent else " given" if self.given else ""
        return f"{self.name}: {self.domain}[{shape}]{role}"


@dataclasses.dataclass(frozen=True, eq=False)
class Events:
    """Some of a variable's events, by their numbers in its array."""

    variable: Variable
    numbers: np.ndarray

    @property
    def sites(self) -> np.ndarray:
        """The sites of each event: positions in the flat array, (events, sites)."""
        return self._rows(np.arange(self.variable.size))[self.numbers].reshape(
            len(self.numbers), math.prod(self.variable.event_shape)
        )

    def of(self, array: Any) -> Any:
        """These events of an array or expression of the variable's shape: (events, *event)."""
        rows = self._rows(array)
        return rows if len(self.numbers) == rows.shape[0] else rows[self.numbers]

    def put(self, array: Array, events: Array) -> Array:
        """The array with new values of these events."""
        rows = self._rows(array)
        whole = len(self.numbers) == len(rows)
        rows = events if whole else rows.at[self.numbers].set(events)
        return rows.reshape(self.variable.shape)

    def _rows(self, array: Any) -> Any:
        return array.reshape(-1, *self.variable.event_shape)
