r"""The law of one site given all others, from the energies of the factors it is in.

A conditional *measures* each factor as a function of the site alone, g(value): a few numbers that
add over factors. From their totals it draws the site. Measures are exact: derivatives at 0 say all
about a polynomial of low degree, a table says all about any g on finitely many levels.
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
    """What to measure of a factor, and how to draw a site from the sum of the measures."""

    derivatives: ClassVar[int]
    """How many derivatives of the energy, at 0, determine the law: 1 for the slope, 2 for slope
    and curvature. 0 where none do, and the energy is measured at every level instead."""

    no_law: ClassVar[str]
    """What is wrong where `improper` is true, after "the conditional of a site"."""

    domain: AbstractDomain = eqx.field(static=True)

    @classmethod
    @abc.abstractmethod
    def serves(cls, domain: AbstractDomain) -> bool:
        """Whether it is a law on this domain at all."""

    @classmethod
    @abc.abstractmethod
    def refusal(cls, structure: Structure, variable: Variable) -> str | None:
        """Why it is not the exact law of the sites of a variable; None where it is."""

    @abc.abstractmethod
    def draw(self, total: Array, *, key: Array) -> Array:
        """Draw sites; the measures stand on the first axis of `total`."""

    @abc.abstractmethod
    def distribution(self, total: Array) -> Any:
        """The same law as a NumPyro distribution; finite ones count levels from 0."""

    @abc.abstractmethod
    def log_normalizer(self, total: Array) -> Array:
        """Log of the sum, or integral, of exp(-g) over each site; derivatives take g(0) as 0."""

    @abc.abstractmethod
    def mean(self, total: Array) -> Array:
        """The mean of each site."""

    @abc.abstractmethod
    def improper(self, total: Array) -> Array:
        """True at the sites whose weights exp(-g) have no finite, positive sum or integral."""

    def centre(self, total: Array) -> Array:
        """Where to take derivatives so that little is rounded away: 0, or the law's mode."""
        return jnp.zeros_like(total[0])

    @property
    def size(self) -> int:
        """How many numbers measure a factor."""
        return self.derivatives or len(self.domain.values)

    def measure(self, energy: SiteEnergy) -> Array:
        """The numbers that describe one factor, as a vector."""
        if not self.derivatives:
            return jax.vmap(energy)(self.numbers)
        return derivatives(energy, jnp.zeros((), self.domain.energy_dtype), self.derivatives)

    @property
    def numbers(self) -> Array:
        """The domain's levels, as energies see them."""
        return jnp.asarray(self.domain.values, self.domain.energy_dtype)


def derivatives(energy: Callable[[Array], Array], at: Array, count: int) -> Array:
    """The first derivatives of a scalar in each entry of an array, (count, *shape).

    Entries must not interact: then one direction, all ones, shows every entry's own derivative.
    """
    order: Callable[[Array], Array] = jax.grad(energy)
    found = [order(at)]
    for _ in range(count - 1):
        order = _along_ones(order)
        found.append(order(at))
    return jnp.stack(found)


def _along_ones(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return lambda at: jax.jvp(function, (at,), (jnp.ones_like(at),))[1]
