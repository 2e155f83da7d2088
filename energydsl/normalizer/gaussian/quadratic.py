"""Quadratic energies of real sites: which energies are, and the derivatives of their factors."""

from __future__ import annotations

from collections.abc import Sequence
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
        return with_reals(self.structure, model.blank(), self.order, x)

    def _by_variable(self, laws: Array) -> dict[str, Array]:
        """Means and variances as (size, 2) for each real variable, 0 at other sites."""
        return real_laws(self.structure, self.order, laws)


def with_reals(
    structure: Structure, values: Configuration, order: Array, x: Array
) -> Configuration:
    """The values of all variables with the numbers x at the real sites `order`, of one shape."""
    names = [v.name for v in structure.variables]
    flat = jnp.concatenate([jnp.ravel(values[n]).astype(x.dtype) for n in names])
    flat, new = flat.at[order].set(x), dict(values)
    for v in structure.variables:
        if v.domain.real_line:
            start = structure.offset[v.name]
            new[v.name] = flat[start : start + v.size].reshape(v.shape)
    return new


def real_laws(structure: Structure, order: Array, laws: Array) -> dict[str, Array]:
    """Means and variances, (*order.shape, 2), as (size, 2) by real variable, 0 at other sites."""
    flat = jnp.zeros((structure.sites, 2)).at[order].set(laws)
    return {
        v.name: flat[structure.offset[v.name] :][: v.size]
        for v in structure.skeleton.free
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


def expand(factor: Factor, values: list[Any], leaves: Sequence[int]) -> tuple[Array, Array, Array]:
    """Value, gradient and Hessian of each factor with respect to the sites of some leaves.

    The sites are concatenated in the order of the leaves, which are given by their positions.
    """
    shapes = [factor.sites[k].index.shape[1:] for k in leaves]
    ends = np.cumsum([int(np.prod(s, dtype=int)) for s in shapes])
    axes = tuple(None if isinstance(leaf, Whole) else 0 for leaf in factor.leaves)

    def energy(flat: Array, *rest: Any) -> Array:
        arguments = list(rest)
        for k, part, shape in zip(leaves, jnp.split(flat, ends[:-1]), shapes, strict=True):
            arguments[k] = part.reshape(shape).astype(rest[k].dtype)
        return factor.energy(*arguments)

    count = len(values[leaves[0]])
    flat = jnp.concatenate([values[k].reshape(count, -1) for k in leaves], axis=1)
    flat = flat.astype(float)
    gradient, hessian = jax.grad(energy), jax.hessian(energy)
    mapped = [jax.vmap(f, in_axes=(0, *axes)) for f in (energy, gradient, hessian)]
    each, slopes, curvatures = (f(flat, *values) for f in mapped)
    return each, slopes, curvatures


def lower_solve(factor: Array, right: Array) -> Array:
    """L^-1 times a matrix of columns."""
    return jax.lax.linalg.triangular_solve(factor, right, left_side=True, lower=True)


def upper_solve(factor: Array, right: Array) -> Array:
    """L'^-1 times a batch of vectors."""
    solved = jax.lax.linalg.triangular_solve(
        factor, right[..., None], left_side=True, lower=True, transpose_a=True
    )
    return solved[..., 0]
