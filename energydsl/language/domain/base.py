r"""Domains: the set in which each site of a variable takes its value.

A domain knows its support, its dtype, how to check an array, how to draw a start, and, where
it is continuous, its bijection from unconstrained reals (NumPyro's).
"""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl._types import is_traced


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

    @property
    def draw_dtype(self) -> np.dtype:
        """The dtype in which draws are kept: integers wide enough to be squared and added."""
        wide = np.issubdtype(self.dtype, np.integer)
        return np.promote_types(self.dtype, np.int32) if wide else self.dtype

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
