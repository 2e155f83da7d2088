r"""The conditional distribution of one site given all others.

Its density is proportional to exp(-g(value)), where g is the sum of the factors that contain the
site, as functions of that site alone. A conditional *measures* each factor by a few numbers that
determine it and that add over factors: the derivatives at 0 of a polynomial of low degree, or the
values of any function on finitely many levels. The totals of these numbers determine g up to a
constant, and so the distribution of the site, exactly.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from energydsl.analysis.structure import Structure
from energydsl.language.domain import AbstractDomain
from energydsl.language.variable import Variable

SiteEnergy = Callable[[Array], Array]
"""A factor's energy as a function of one of its sites."""


class AbstractConditional(eqx.Module):
    """The conditional distribution of a site, determined by numbers that add over factors."""

    derivatives: ClassVar[int]
    """The number of derivatives of the energy at 0 that determine the distribution: 1 for the
    slope, 2 for slope and curvature; 0 if the energy is evaluated at every level instead."""

    no_law: ClassVar[str]
    """The message for sites where `improper` is true; it follows "the conditional of a site"."""

    domain: AbstractDomain = eqx.field(static=True)

    @classmethod
    @abc.abstractmethod
    def serves(cls, domain: AbstractDomain) -> bool:
        """Whether this kind of conditional applies to sites of this domain."""

    @classmethod
    @abc.abstractmethod
    def refusal(cls, structure: Structure, variable: Variable) -> str | None:
        """Why this is not the exact conditional of the sites of a variable; None if it is."""

    @abc.abstractmethod
    def draw(self, total: Array, *, key: Array) -> Array:
        """One draw of each site; the numbers that determine it are the first axis of `total`."""

    @abc.abstractmethod
    def distribution(self, total: Array) -> Any:
        """The conditional as a NumPyro distribution; over levels, it is one of their indices."""

    @abc.abstractmethod
    def log_normalizer(self, total: Array) -> Array:
        """The log of the sum or integral of exp(-g) over each site.

        With derivatives, which do not determine the constant, g(0) = 0.
        """

    @abc.abstractmethod
    def mean(self, total: Array) -> Array:
        """The conditional mean of each site."""

    @abc.abstractmethod
    def improper(self, total: Array) -> Array:
        """True at each site for which the sum or integral of exp(-g) is not finite and positive."""

    def centre(self, total: Array) -> Array:
        """The value at which derivatives lose the least to rounding: 0, or the mode."""
        return jnp.zeros_like(total[0])

    @property
    def size(self) -> int:
        """The number of numbers that describe a factor."""
        return self.derivatives or len(self.domain.values)

    def measure(self, energy: SiteEnergy) -> Array:
        """The numbers that describe one factor, as a vector."""
        if not self.derivatives:
            return jax.vmap(energy)(self.numbers)
        return derivatives(energy, jnp.zeros((), self.domain.energy_dtype), self.derivatives)

    @property
    def numbers(self) -> Array:
        """The domain's levels, in the dtype of values in energies."""
        return jnp.asarray(self.domain.values, self.domain.energy_dtype)


def derivatives(energy: Callable[[Array], Array], at: Array, count: int) -> Array:
    """The first `count` derivatives of a scalar in each entry of an array, (count, *shape).

    Entries must not interact: mixed derivatives are then 0, so that derivatives along the vector of
    ones are those in each entry.
    """
    order: Callable[[Array], Array] = jax.grad(energy)
    found = [order(at)]
    for _ in range(count - 1):
        order = _along_ones(order)
        found.append(order(at))
    return jnp.stack(found)


def _along_ones(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return lambda at: jax.jvp(function, (at,), (jnp.ones_like(at),))[1]
