"""Domains of single real numbers."""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.transforms import Transform

from energydsl.language.domain.base import AbstractDomain

COARSEST = 2.0**-12
"""The largest distance between neighbouring floating-point numbers that is allowed in an interval,
as a fraction of the interval's length."""

START = 2.0
"""Starts are uniform on [-START, START] in unconstrained coordinates."""


@dataclasses.dataclass(frozen=True)
class AbstractContinuous(AbstractDomain):
    """A continuous domain, with a bijection from unconstrained reals."""

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(jax.dtypes.canonicalize_dtype(float))

    @property
    def energy_dtype(self) -> np.dtype:
        return self.dtype

    @property
    @abc.abstractmethod
    def constraint(self) -> Any: ...

    @property
    def transform(self) -> Transform:
        return biject_to(self.constraint)

    def outside(self, array: np.ndarray) -> np.ndarray:
        return np.asarray(~np.asarray(self.constraint(jnp.asarray(array, self.dtype))))

    def start(self, shape: tuple[int, ...], *, key: Array) -> Array:
        transform = self.transform
        z = jr.uniform(key, transform.inverse_shape(shape), minval=-START, maxval=START)
        return jnp.asarray(transform(z))

    def log_start_density(self, x: Array) -> Array:
        z = self.transform.inv(x)
        jacobian = jnp.asarray(self.transform.log_abs_det_jacobian(z, x))
        inside = jnp.where(jnp.abs(z) <= START, -jnp.log(2 * START), -jnp.inf)
        return _over_event(inside, jacobian.ndim) - jacobian


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
    """The positive numbers, (0, inf)."""

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
    """The interval [low, high]."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(
                f"interval got low={self.low!r}, high={self.high!r}; "
                "expected two finite numbers with low < high."
            )
        grain = float(np.spacing(np.asarray(max(abs(self.low), abs(self.high)), self.dtype)))
        if grain > COARSEST * (self.high - self.low):
            raise ValueError(
                f"interval got low={self.low!r}, high={self.high!r}, where {self.dtype} numbers "
                f"lie {grain:.2g} apart: {(self.high - self.low) / grain:.3g} in all, too few to "
                "resolve values near an end. Declare the distance from an end instead, as in low + "
                f"ed.interval(..., low=0, high={self.high - self.low:g}), or use float64 by "
                "jax.enable_x64."
            )

    @property
    def constraint(self) -> Any:
        return constraints.interval(self.low, self.high)

    @property
    def support(self) -> str:
        return f"numbers from {self.low} to {self.high}"


def _over_event(each: Array, ndim: int) -> Array:
    """The sum over all axes but the first `ndim`."""
    return each.sum(axis=tuple(range(ndim, each.ndim)))
