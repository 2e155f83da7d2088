r"""Domains: the set in which each site of a variable takes its value.

A domain knows its support, its dtype, how to check an array, how to draw a start, and, where
it is continuous, its bijection from unconstrained reals (NumPyro's).
"""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.transforms import Transform

from energydsl._types import is_traced

MAX_LEVEL = 2**24
"""Levels lie within +-MAX_LEVEL: the integers that float32, in which energies see them, holds."""


def _smallest_int(low: int, high: int) -> np.dtype:
    """The smallest signed dtype that holds both ends."""
    return np.promote_types(np.min_scalar_type(min(low, -1)), np.min_scalar_type(min(~high, -1)))


def _is_whole(value: object, low: int) -> bool:
    """Whether a parameter of a domain is an integer from `low` to MAX_LEVEL."""
    return isinstance(value, int | np.integer) and bool(low <= value <= MAX_LEVEL)


@dataclasses.dataclass(frozen=True)
class AbstractDomain(abc.ABC):
    """What one site may be. Subclasses are final and hold only their own parameters."""

    event_ndim: ClassVar[int] = 0
    """Trailing axes of the shape that make one value together, such as the one of a simplex."""

    @property
    @abc.abstractmethod
    def dtype(self) -> np.dtype:
        """The dtype in which configurations hold this domain."""

    @property
    @abc.abstractmethod
    def energy_dtype(self) -> np.dtype:
        """The dtype that energies see, float or, where the value is a mere label, integer."""

    ordered: ClassVar[bool] = True
    """Whether neighbouring levels are alike: labels are not."""

    finite: ClassVar[bool]
    """Whether a site has finitely many levels."""

    @property
    def values(self) -> np.ndarray:
        """Every level of a finite domain, in rising order."""
        raise TypeError(f"{self} has no finite list of values.")

    @abc.abstractmethod
    def outside(self, array: np.ndarray) -> np.ndarray:
        """True at each entry (or event) that lies outside the support."""

    @abc.abstractmethod
    def start(self, shape: tuple[int, ...], *, key: Array) -> Array:
        """A random point of the support, for chains to begin at."""

    @property
    def name(self) -> str:
        """The word by which users declare it."""
        return type(self).__name__.lower()

    @property
    def levels(self) -> int:
        """How many levels a finite site has."""
        return len(self.values)

    @property
    def transform(self) -> Any:
        """The bijection from unconstrained reals of a continuous domain, as NumPyro has it."""
        raise TypeError(f"{self} is discrete: no bijection leads to it from the reals.")

    def check(self, array: object, shape: tuple[int, ...], what: str) -> Array:
        """Return `array` in this domain's dtype, or say what is wrong with it.

        Raises:
            TypeError: floats given to a discrete domain.
            ValueError: another shape, NaN, or a value outside the support.
        """
        array = array if isinstance(array, jax.Array) else np.asarray(array)
        if tuple(array.shape) != tuple(shape):
            raise ValueError(f"{what} has shape {tuple(array.shape)}; expected {tuple(shape)}.")
        whole = jnp.issubdtype(array.dtype, jnp.integer) or jnp.issubdtype(array.dtype, jnp.bool_)
        if np.issubdtype(self.dtype, np.integer):
            if not whole:
                raise TypeError(
                    f"{what} has dtype {array.dtype}, but {self} takes integers; "
                    f"round it yourself: array.astype({self.dtype})."
                )
        elif not (whole or jnp.issubdtype(array.dtype, jnp.floating)):
            raise TypeError(f"{what} has dtype {array.dtype}; {self} takes real numbers.")
        if not is_traced(array):
            self._check_values(np.asarray(array), what)
        return jnp.asarray(array, self.dtype)

    def _check_values(self, array: np.ndarray, what: str) -> None:
        if np.issubdtype(self.dtype, np.floating):
            with np.errstate(over="ignore"):
                array = array.astype(self.dtype)
        bad = np.isnan(array) if np.issubdtype(array.dtype, np.floating) else np.zeros((), bool)
        word = "NaN"
        if not bad.any():
            bad, word = self.outside(array), f"a value outside {self}"
        if bad.any():
            first = tuple(int(i) for i in np.argwhere(bad)[0])
            raise ValueError(
                f"{what} has {word} in {int(bad.sum())} of {bad.size} places, first at {first} "
                f"({array[first]}); expected {self.support}."
            )

    @property
    @abc.abstractmethod
    def support(self) -> str:
        """The support in words, for messages."""

    def __str__(self) -> str:
        fields = dataclasses.fields(self)
        inner = ", ".join(f"{f.name}={getattr(self, f.name)}" for f in fields)
        return f"{self.name}({inner})" if inner else self.name


@dataclasses.dataclass(frozen=True)
class _Finite(AbstractDomain):
    """What the finite domains share: a table of levels."""

    finite: ClassVar[bool] = True

    @property
    @abc.abstractmethod
    def values(self) -> np.ndarray: ...

    @property
    def dtype(self) -> np.dtype:
        return _smallest_int(int(self.values[0]), int(self.values[-1]))

    @property
    def energy_dtype(self) -> np.dtype:
        return jnp.zeros(()).dtype

    def outside(self, array: np.ndarray) -> np.ndarray:
        return np.asarray(~np.isin(array, self.values))

    def start(self, shape: tuple[int, ...], *, key: Array) -> Array:
        return jr.choice(key, jnp.asarray(self.values, self.dtype), shape)

    @property
    def support(self) -> str:
        values = [str(v) for v in self.values]
        if len(values) > 4:
            values = [values[0], values[1], "...", values[-1]]
        return "{" + ", ".join(values) + "}"


@dataclasses.dataclass(frozen=True)
class Spin(_Finite):
    """{-1, +1}."""

    @property
    def values(self) -> np.ndarray:
        return np.array([-1, 1])


@dataclasses.dataclass(frozen=True)
class Binary(_Finite):
    """{0, 1}."""

    @property
    def values(self) -> np.ndarray:
        return np.array([0, 1])


@dataclasses.dataclass(frozen=True)
class Categorical(_Finite):
    """Labels {0 .. levels-1}; energies see integers, fit to index a table."""

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
class Integer(_Finite):
    """{low .. high}, both ends included."""

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


@dataclasses.dataclass(frozen=True)
class _Continuous(AbstractDomain):
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
class Real(_Continuous):
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
class Positive(_Continuous):
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
class Interval(_Continuous):
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


@dataclasses.dataclass(frozen=True)
class Simplex(_Continuous):
    """Non-negative vectors that sum to 1, along the last axis of the shape."""

    event_ndim: ClassVar[int] = 1

    @property
    def constraint(self) -> Any:
        return constraints.simplex

    @property
    def support(self) -> str:
        return "vectors of the last axis, >= 0 and summing to 1"
