r"""Domains: the set in which each site of a variable takes its value.

A domain is described by its properties: whether it is discrete, which levels a site has, whether
the entries of one event constrain each other, its bijection from unconstrained reals, and the
distribution of random starts. The rest of the library uses these properties and never the type of a
domain.
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
"""A function of an event and ``key=`` that returns a proposed event and the log proposal ratio,
log q(old | new) - log q(new | old)."""


@dataclasses.dataclass(frozen=True)
class AbstractDomain(abc.ABC):
    """The set of values of one site. Subclasses are final; their fields are their parameters."""

    event_ndim: ClassVar[int] = 0
    """The number of trailing axes of the shape that form one event, such as the one axis of a
    probability vector; the entries of an event constrain each other. 0 if each site is an event."""

    @property
    @abc.abstractmethod
    def dtype(self) -> np.dtype:
        """The dtype of values in configurations."""

    @property
    @abc.abstractmethod
    def energy_dtype(self) -> np.dtype:
        """The dtype of values in energies: integer for labels, otherwise float."""

    @property
    def draw_dtype(self) -> np.dtype:
        """The dtype of values in stored draws, where integers are wide enough to be squared."""
        wide = np.issubdtype(self.dtype, np.integer)
        return np.promote_types(self.dtype, np.int32) if wide else self.dtype

    ordered: ClassVar[bool] = True
    """Whether the order of the levels has a meaning; False for labels."""

    @property
    def discrete(self) -> bool:
        """Whether the values are discrete, so that energies have no derivative in them."""
        return np.issubdtype(self.dtype, np.integer)

    @property
    def values(self) -> Any:
        """All levels of a site in increasing order, as a NumPy array; None if infinitely many."""
        return None

    @property
    def levels(self) -> int | None:
        """The number of levels of a site, whatever the values of the other sites.

        None if there are infinitely many, or if the entries of an event constrain each other: an
        entry of a permutation has finitely many values, but which of them are possible depends on
        the other entries.
        """
        return None if self.event_ndim or self.values is None else len(self.values)

    @property
    def transform(self) -> Any:
        """The NumPyro bijection from unconstrained reals to the domain; None if there is none."""
        return None

    @property
    def real_line(self) -> bool:
        """Whether a site takes every real number, whatever the values of the other sites."""
        return self.event_ndim == 0 and isinstance(self.transform, IdentityTransform)

    @property
    def constraint(self) -> Any:
        """The support as a NumPyro constraint; None if NumPyro has none for it."""
        return None

    @property
    def move(self) -> Move | None:
        """A random proposal of an event for Metropolis-Hastings; None if not defined.

        It is not needed if the domain has levels or a transform. The proposed event may lie outside
        the support; it then needs a log ratio of -inf.
        """
        return None

    @abc.abstractmethod
    def outside(self, array: np.ndarray) -> np.ndarray:
        """True at each entry (or event) that lies outside the support."""

    @abc.abstractmethod
    def start(self, shape: tuple[int, ...], *, key: Array) -> Array:
        """A random point of the support, at which chains may start."""

    def log_start_density(self, x: Array) -> Array | None:
        """The log-density (for discrete domains, the log-probability) of `start` at each event.

        Returns:
            An array without the axes of an event, or None if it is not known; annealing then
            cannot begin from the distribution of starts.
        """
        return None

    @property
    def name(self) -> str:
        """The name of the function by which users declare variables of this domain."""
        return type(self).__name__.lower()

    def check_shape(self, shape: tuple[int, ...], name: str) -> None:
        """Raise ValueError if a variable of this domain cannot have this shape."""
        if len(shape) < self.event_ndim:
            raise ValueError(
                f"Variable {name!r} of shape {shape} is too small for {self}, which takes the last "
                f"{self.event_ndim} axes of the shape."
            )

    def check(self, array: object, shape: tuple[int, ...], what: str) -> Array:
        """The array, checked and in this domain's dtype.

        Args:
            array: the values to check.
            shape: the shape that they must have.
            what: how to name them in messages.

        Raises:
            TypeError: floats are given for a discrete domain, or values that are not real numbers.
            ValueError: the shape is wrong, an entry is masked, or there is NaN or a value outside
                the support.
        """
        array = array if isinstance(array, jax.Array) else np.asarray(unmasked(array, what))
        if tuple(array.shape) != tuple(shape):
            raise ValueError(f"{what} has shape {tuple(array.shape)}; expected {tuple(shape)}.")
        whole = jnp.issubdtype(array.dtype, jnp.integer) or jnp.issubdtype(array.dtype, jnp.bool_)
        if np.issubdtype(self.dtype, np.integer):
            if not whole:
                raise TypeError(
                    f"{what} has dtype {array.dtype}, but {self} takes integers; "
                    f"convert it: array.astype({self.dtype})."
                )
        elif not (whole or jnp.issubdtype(array.dtype, jnp.floating)):
            raise TypeError(f"{what} has dtype {array.dtype}; {self} takes real numbers.")
        if not is_traced(array):
            self.check_values(np.asarray(array), what)
        return jnp.asarray(array, self.dtype)

    def check_values(self, array: np.ndarray, what: str) -> None:
        """Raise ValueError if there is NaN or a value outside the support."""
        if np.issubdtype(self.dtype, np.floating):
            with np.errstate(over="ignore"):
                array = array.astype(self.dtype)
        bad = np.isnan(array) if np.issubdtype(array.dtype, np.floating) else np.zeros((), bool)
        word = "NaN"
        if not bad.any():
            # The array is known, also where JAX traces the function that is given it.
            with jax.ensure_compile_time_eval():
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
        """A description of the support, for messages."""

    def __str__(self) -> str:
        fields = dataclasses.fields(self)
        inner = ", ".join(f"{f.name}={getattr(self, f.name)}" for f in fields)
        return f"{self.name}({inner})" if inner else self.name
