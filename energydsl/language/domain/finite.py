"""Domains with finitely many levels."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array
from numpyro.distributions import constraints

from energydsl.language.domain.base import AbstractDomain

MAX_LEVEL = 2**24
"""The largest absolute value of a level: energies use float32, which holds integers up to here."""


def _smallest_int(low: int, high: int) -> np.dtype:
    """The smallest signed integer dtype that holds both numbers."""
    return np.promote_types(np.min_scalar_type(min(low, -1)), np.min_scalar_type(min(~high, -1)))


def _is_whole(value: object, low: int) -> bool:
    """Whether the value is an integer from `low` to MAX_LEVEL."""
    return isinstance(value, int | np.integer) and bool(low <= value <= MAX_LEVEL)


@dataclasses.dataclass(frozen=True)
class AbstractFinite(AbstractDomain):
    """A domain with finitely many levels, which are listed."""

    @property
    @abc.abstractmethod
    def values(self) -> np.ndarray: ...

    @property
    def constraint(self) -> Any:
        low, high = int(self.values[0]), int(self.values[-1])
        whole = high - low == len(self.values) - 1
        return constraints.integer_interval(low, high) if whole else None

    @property
    def dtype(self) -> np.dtype:
        return _smallest_int(int(self.values[0]), int(self.values[-1]))

    @property
    def energy_dtype(self) -> np.dtype:
        return np.dtype(jax.dtypes.canonicalize_dtype(float))

    def outside(self, array: np.ndarray) -> np.ndarray:
        return np.asarray(~np.isin(array, self.values))

    def start(self, shape: tuple[int, ...], *, key: Array) -> Array:
        return jr.choice(key, jnp.asarray(self.values, self.dtype), shape)

    def log_start_density(self, x: Array) -> Array:
        return jnp.full(jnp.shape(x), -np.log(len(self.values)))

    @property
    def support(self) -> str:
        values = [str(v) for v in self.values]
        if len(values) > 4:
            values = [values[0], values[1], "...", values[-1]]
        return "{" + ", ".join(values) + "}"


@dataclasses.dataclass(frozen=True)
class AbstractSmall(AbstractFinite):
    """A finite domain of small values, which stored draws keep in their small dtype."""

    @property
    def draw_dtype(self) -> np.dtype:
        return self.dtype


@dataclasses.dataclass(frozen=True)
class Spin(AbstractSmall):
    """The spins {-1, +1}."""

    @property
    def values(self) -> np.ndarray:
        return np.array([-1, 1])


@dataclasses.dataclass(frozen=True)
class Binary(AbstractSmall):
    """The bits {0, 1}."""

    @property
    def values(self) -> np.ndarray:
        return np.array([0, 1])

    @property
    def constraint(self) -> Any:
        return constraints.boolean


@dataclasses.dataclass(frozen=True)
class Categorical(AbstractSmall):
    """The labels {0 .. levels-1}, which are integers in energies so that they can index tables."""

    ordered: ClassVar[bool] = False
    number: int

    def __post_init__(self) -> None:
        if not _is_whole(self.number, 1):
            raise ValueError(
                f"categorical got levels={self.number!r}; expected an integer from 1 to 2^24."
            )

    @property
    def values(self) -> np.ndarray:
        return np.arange(self.number)

    @property
    def energy_dtype(self) -> np.dtype:
        return np.dtype(np.int32)

    def __str__(self) -> str:
        return f"categorical(levels={self.number})"


@dataclasses.dataclass(frozen=True)
class Integer(AbstractFinite):
    """The integers {low .. high}, both ends included."""

    low: int
    high: int

    def __post_init__(self) -> None:
        if not (_is_whole(self.low, -MAX_LEVEL) and _is_whole(self.high, self.low)):
            raise ValueError(
                f"integer got low={self.low!r}, high={self.high!r}; expected two integers with "
                "low <= high (both included), within +-2^24, which float32 holds exactly."
            )

    @property
    def values(self) -> np.ndarray:
        return np.arange(self.low, self.high + 1)
