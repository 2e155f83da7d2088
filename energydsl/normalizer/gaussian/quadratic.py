"""Quadratic energies of real sites: which energies are, and the derivatives of their factors."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl._types import Configuration
from energydsl.analysis.factor import Factor, Whole
from energydsl.analysis.joint_states import Rows
from energydsl.analysis.structure import Structure
from energydsl.language.model import Model
from energydsl.normalizer.base import AbstractPlan


class Fit:
    """Which components are real with an energy that is shown to be quadratic."""

    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        self.unreal, self.steep = _unreal(structure), _steep(structure)

    @property
    def refused(self) -> np.ndarray:
        """True for each component that is not of this kind."""
        return self.unreal | self.steep

    def reason(self, component: int) -> str:
        """Why a component is not of this kind."""
        structure = self.structure
        if self.unreal[component]:
            inside = (structure.component_of == component) & ~_real(structure)
            return f"{structure.describe(int(np.argmax(inside)))} is not real"
        return "the energy is not shown to be quadratic"


class AbstractGaussianPlan(AbstractPlan):
    """A plan for real sites, numbered as its matrices are."""

    rows: tuple[Rows, ...]
    order: Array
    """The sites, in the shape of the plan's vectors."""

    def _configuration(self, model: Model, x: Array) -> Configuration:
        """A configuration with these numbers, in the shape of `order`, at the plan's sites."""
        blank = model.blank()
        names = [v.name for v in self.structure.variables]
        flat = jnp.concatenate([jnp.ravel(blank[n]).astype(x.dtype) for n in names])
        flat = flat.at[self.order].set(x)
        values = {}
        for v in self.structure.variables:
            start = self.structure.offset[v.name]
            values[v.name] = flat[start : start + v.size].reshape(v.shape)
        # Labels must stay integers; no component of this rule contains any.
        return {
            n: a if jnp.issubdtype(blank[n].dtype, jnp.floating) else blank[n]
            for n, a in values.items()
        }

    def _by_variable(self, laws: Array) -> dict[str, Array]:
        """Means and variances as (size, 2) for each real variable, 0 at other sites."""
        flat = jnp.zeros((self.structure.sites, 2)).at[self.order].set(laws)
        return {
            v.name: flat[self.structure.offset[v.name] :][: v.size]
            for v in self.structure.skeleton.free
            if v.domain.real_line
        }


def _real(structure: Structure) -> np.ndarray:
    return structure.of_variables(v.name for v in structure.variables if v.domain.real_line)


def _unreal(structure: Structure) -> np.ndarray:
    """True for each component with a site that is not real."""
    bad = structure.free & ~_real(structure)
    return np.bincount(structure.component_of[structure.free], bad[structure.free]) > 0


def _steep(structure: Structure) -> np.ndarray:
    """True for each component with a factor that is not shown to be quadratic."""
    steep = np.zeros(len(structure.component_sizes), bool)
    for owner, bound in zip(structure.row_components, structure.degrees, strict=True):
        if bound.total > 2:
            steep[owner[owner >= 0]] = True
    return steep


def numbers_of_factors(structure: Structure) -> np.ndarray:
    """For each component, the numbers that the Hessians of its factors take."""
    numbers = np.zeros(len(structure.component_sizes))
    for factor, owner in zip(structure.factors, structure.row_components, strict=True):
        each = 4.0 * structure.scope_size(factor) ** 2 + 4.0 * len(factor.leaves)
        numbers += each * np.bincount(owner[owner >= 0], minlength=len(numbers))
    return numbers


def expand(factor: Factor, values: list[Any]) -> tuple[Array, Array, Array]:
    """Value, gradient and Hessian of each factor with respect to its concatenated sites."""
    where = list(factor.sites)
    shapes = [leaf.index.shape[1:] for leaf in factor.sites.values()]
    ends = np.cumsum([int(np.prod(s, dtype=int)) for s in shapes])
    axes = tuple(None if isinstance(leaf, Whole) else 0 for leaf in factor.leaves)

    def energy(flat: Array, *rest: Any) -> Array:
        arguments = list(rest)
        for k, part, shape in zip(where, jnp.split(flat, ends[:-1]), shapes, strict=True):
            arguments[k] = part.reshape(shape).astype(rest[k].dtype)
        return factor.energy(*arguments)

    count = len(values[where[0]])
    flat = jnp.concatenate([values[k].reshape(count, -1) for k in where], axis=1)
    flat = flat.astype(float)
    gradient, hessian = jax.grad(energy), jax.hessian(energy)
    mapped = [jax.vmap(f, in_axes=(0, *axes)) for f in (energy, gradient, hessian)]
    each, slopes, curvatures = (f(flat, *values) for f in mapped)
    return each, slopes, curvatures
