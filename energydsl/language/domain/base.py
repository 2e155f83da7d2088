r"""Domains: the set in which each site of a variable takes its value.

A domain tells its capabilities: whether it is discrete, which levels a site has, whether the
entries of one event bind each other, its bijection from unconstrained reals, how starts are drawn
and with which density. The rest of the library asks for these and never for a domain's type.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.distributions.transforms import IdentityTransform

from energydsl._types import is_traced, unmasked

Move = Callable[..., tuple[Array, Array]]
"""From an event, with ``key=``: another, and log q(old | new) - log q(new | old)."""


@dataclasses.dataclass(frozen=True)
class AbstractDomain(abc.ABC):
    """What one site may be. Subclasses are final and hold only their own parameters."""

    event_ndim: ClassVar[int] = 0
    """Trailing axes of the shape that make one value (an event) together, such as the one of a
    simplex: the entries of an event bind each other."""

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

    @property
    def discrete(self) -> bool:
        """Whether its values lie apart, so that energies have no slope in them."""
        return np.issubdtype(self.dtype, np.integer)

    @property
    def values(self) -> Any:
        """Every level of a site in rising order, as a NumPy array; None if not finitely many."""
        return None

    @property
    def levels(self) -> int | None:
        """How many levels a site takes, whatever the other sites are.

        None where they are not finitely many, or where the entries of an event bind each other:
        the entries of a permutation have finitely many values, but none that is free.
        """
        return None if self.event_ndim or self.values is None else len(self.values)

    @property
    def transform(self) -> Any:
        """The bijection from unconstrained reals, as NumPyro has it; None if there is none."""
        return None

    @property
    def real_line(self) -> bool:
        """Whether a site takes every real number, whatever the other sites are."""
        return self.event_ndim == 0 and isinstance(self.transform, IdentityTransform)

    @property
    def constraint(self) -> Any:
        """The support as NumPyro names it; None if it has no name for it."""
        return None

    @property
    def move(self) -> Move | None:
        """A random step from an event to another, for Metropolis-Hastings; None if not known.

        Not needed where there are levels or a transform. The other event may lie outside the
        support; it is then given a log ratio of -inf.
        """
        return None

    @abc.abstractmethod
    def outside(self, array: np.ndarray) -> np.ndarray:
        """True at each entry (or event) that lies outside the support."""

    @abc.abstractmethod
    def start(self, shape: tuple[int, ...], *, key: Array) -> Array:
        """A random point of the support, for chains to begin at."""

    def log_start_density(self, x: Array) -> Array | None:
        """The log-density (of discrete domains, the log-probability) of `start` at each event.

        Returns:
            An array without the axes of an event, or None where it is not known: then annealing
            cannot begin at a start.
        """
        return None

    @property
    def name(self) -> str:
        """The word by which users declare it."""
        return type(self).__name__.lower()

    def check_shape(self, shape: tuple[int, ...], name: str) -> None:
        """Raise ValueError where a variable of this domain cannot have this shape."""
        if len(shape) < self.event_ndim:
            raise ValueError(
                f"Variable {name!r} of shape {shape} is too small for {self}, which takes the last "
                f"{self.event_ndim} axes of the shape."
            )

    def check(self, array: object, shape: tuple[int, ...], what: str) -> Array:
        """Return `array` in this domain's dtype, or say what is wrong with it.

        Raises:
            TypeError: floats given to a discrete domain.
            ValueError: another shape, a masked entry, NaN, or a value outside the support.
        """
        array = array if isinstance(array, jax.Array) else np.asarray(unmasked(array, what))
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
