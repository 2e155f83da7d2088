"""Domains of single real numbers."""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import Any, ClassVar

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.transforms import Transform

from energydsl.language.domain.base import AbstractDomain


@dataclasses.dataclass(frozen=True)
class AbstractContinuous(AbstractDomain):
    """What the continuous domains share: floats, and a bijection."""

    finite: ClassVar[bool] = False

    @property
    def dtype(self) -> np.dtype:
        return jnp.zeros(()).dtype

    @property
    def energy_dtype(self) -> np.dtype:
        return self.dtype

    @property
    @abc.abstractmethod
    def constraint(self) -> Any:
        """The support as NumPyro names it."""

    @property
    def transform(self) -> Transform:
        return biject_to(self.constraint)

    def outside(self, array: np.ndarray) -> np.ndarray:
        return np.asarray(~np.asarray(self.constraint(jnp.asarray(array, self.dtype))))

    def start(self, shape: tuple[int, ...], *, key: Array) -> Array:
        transform = self.transform
        unconstrained = jr.uniform(key, transform.inverse_shape(shape), minval=-2.0, maxval=2.0)
        return jnp.asarray(transform(unconstrained))


@dataclasses.dataclass(frozen=True)
class Real(AbstractContinuous):
    """The real line."""

    @property
    def constraint(self) -> Any:
        return constraints.real

    @property
    def support(self) -> str:
        return "finite real numbers"

    def outside(self, array: np.ndarray) -> np.ndarray:
        return np.asarray(~np.isfinite(array))


@dataclasses.dataclass(frozen=True)
class Positive(AbstractContinuous):
    """(0, inf)."""

    @property
    def constraint(self) -> Any:
        return constraints.positive

    @property
    def support(self) -> str:
        return "finite numbers above 0"

    def outside(self, array: np.ndarray) -> np.ndarray:
        return np.asarray(~(np.isfinite(array) & (array > 0)))


@dataclasses.dataclass(frozen=True)
class Interval(AbstractContinuous):
    """[low, high]."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(
                f"interval got low={self.low!r}, high={self.high!r}; "
                "expected two finite numbers with low < high."
            )

    @property
    def constraint(self) -> Any:
        return constraints.interval(self.low, self.high)

    @property
    def support(self) -> str:
        return f"numbers from {self.low} to {self.high}"
