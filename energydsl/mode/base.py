"""The contract of a method that looks for a mode, and what it is given."""

from __future__ import annotations

import abc
import dataclasses
from functools import cached_property
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl._types import Configuration, Refusal
from energydsl.analysis.evaluation import as_double
from energydsl.analysis.structure import Structure
from energydsl.compiler.ebm import EBM
from energydsl.estimator.finite import Finite, tables, untabulated
from energydsl.language.model import Model
from energydsl.mode.pairs import Pairs, bare, gauge


@dataclasses.dataclass(frozen=True, eq=False)
class Mode:
    """A configuration of low energy, and how low an energy could be.

    Attributes:
        configuration: an array for each free variable.
        energy: the energy of the configuration.
        bound: no configuration has an energy below this; minus infinity if no bound is known. It
            holds up to rounding in float64: $10^{-12}$ of the sum of the sizes of all terms of
            the energy.
        proven: True if the bound is the energy, so that no configuration has a lower one.
        method: how it was found.
    """

    configuration: Configuration
    energy: float
    bound: float
    proven: bool
    method: str


class Found(NamedTuple):
    """A configuration that a method found for its part of a model."""

    x: Configuration
    """An array for each free variable, of which only the part's sites matter."""
    excess: float
    """At most this much is the energy above the lowest: 0 if proven, infinity without a bound."""
    method: str


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """The connected components of a model for which no exact plan has a mode."""

    ebm: EBM
    structure: Structure
    """The structure of these components."""
    key: Array | None

    @cached_property
    def tables(self) -> Finite | Refusal:
        """The energies of all factors, or why they are not computed."""
        said = untabulated(self.structure)
        if said is not None:
            return Refusal(f"it needs {said}")
        return tables(self.ebm.model, self.structure, "map_configuration")

    @cached_property
    def pairs(self) -> Pairs | Refusal:
        """The energies of sites and pairs, or why the model has none."""
        if not self.structure.pairwise:
            return Refusal("some factor has more than two free sites")
        return self.tables if isinstance(self.tables, Refusal) else Pairs.of(self.tables)

    @cached_property
    def turned(self) -> np.ndarray | None:
        """The sites whose levels are reversed before a cut; None if no cut solves the pairs."""
        return gauge(bare(self.pairs)) if isinstance(self.pairs, Pairs) else None

    def placed(self, states: np.ndarray) -> Configuration:
        """The configuration with these levels of the part's free sites, in order."""
        structure, found = self.structure, {}
        level = np.zeros(structure.sites, int)
        level[structure.free] = states
        for v in structure.skeleton.free:
            if v.domain.levels is not None:
                own = level[structure.offset[v.name] :][: v.size].reshape(v.shape)
                found[v.name] = jnp.asarray(np.asarray(v.domain.values)[own], v.domain.dtype)
        return found

    def states(self, x: Configuration) -> np.ndarray:
        """The level of each free site of the part."""
        structure = self.structure
        level = np.zeros(structure.sites, int)
        for v in structure.skeleton.free:
            if v.domain.levels is not None:
                own = np.searchsorted(v.domain.values, np.asarray(x[v.name]).ravel())
                level[structure.offset[v.name] :][: v.size] = own
        return level[structure.free]


class AbstractMethod(abc.ABC):
    """A way to find a mode."""

    name: ClassVar[str]

    @abc.abstractmethod
    def reason(self, problem: Problem) -> str | None:
        """Why this method does not apply; None if it does."""

    @abc.abstractmethod
    def solve(self, problem: Problem) -> Found:
        """A configuration of low energy.

        Raises:
            ValueError: every configuration has infinite energy, or none of a finite one was found.
        """


def energy_of(model: Model, x: Configuration) -> float:
    """The energy of a configuration, computed in float64."""
    with jax.enable_x64(True):
        return float(_energy(model, x))


@eqx.filter_jit
def _energy(model: Model, x: Configuration) -> Array:
    return as_double(model).energy_anywhere(x)
