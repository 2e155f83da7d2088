"""Gaussian integrals, by Cholesky."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl.analysis.evaluation import argument
from energydsl.analysis.factor import Factor, Whole
from energydsl.analysis.joint_states import owners
from energydsl.analysis.structure import Structure
from energydsl.language.model import Model
from energydsl.normalizer.base import AbstractRule

MAX_SITES = 2**13
"""Sites of one component at most: its precision then takes half a gigabyte."""


class Gaussian(AbstractRule):
    r"""Energies $\frac12 x^\top A x - b^\top x + c$ of real sites.

    $\log Z = \frac n2 \log 2\pi - \frac12 \log\det A + \frac12 b^\top A^{-1} b - c$.

    A and b are added up from the exact second and first derivatives of the factors, which are at
    most quadratic in their free sites jointly; A = L L' by Cholesky.

    Source: Rue & Held (2005), Gaussian Markov Random Fields, sections 2.2 and 2.4.
    """

    name: ClassVar[str] = "gaussian"

    def costs(self, structure: Structure, budget: int) -> np.ndarray:
        sizes = structure.component_sizes.astype(float)
        bad = _unfit(structure) | _steep(structure) | (sizes > MAX_SITES)
        return np.where(bad, np.inf, sizes**3)

    def reason(self, structure: Structure, component: int, budget: int) -> str:
        if _unfit(structure)[component]:
            inside = (structure.component_of == component) & ~_real(structure)
            return f"{structure.describe(int(np.argmax(inside)))} is not real"
        if _steep(structure)[component]:
            return "the energy is not shown to be quadratic"
        return f"{structure.component_sizes[component]:,} sites; at most {MAX_SITES:,}"

    def bytes(self, structure: Structure, components: np.ndarray) -> float:
        return 16.0 * float((structure.component_sizes[components].astype(float) ** 2).sum())

    def log_partition(self, structure: Structure, model: Model, components: np.ndarray) -> Array:
        total = jnp.zeros(())
        for group in _by_size(structure, components):
            precision, linear, constant = _quadratic(structure, model, group)
            factor = jnp.linalg.cholesky(precision)
            whitened = jax.lax.linalg.triangular_solve(
                factor, linear[..., None], left_side=True, lower=True
            )
            volume = linear.size / 2 * jnp.log(2 * jnp.pi)
            half_log_det = jnp.sum(jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)))
            total += volume - half_log_det + jnp.sum(whitened**2) / 2 - jnp.sum(constant)
        return total

    def trouble(self, structure: Structure, model: Model, components: np.ndarray) -> str | None:
        for group in _by_size(structure, components):
            precision = np.asarray(_quadratic(structure, model, group)[0])
            if not np.isfinite(precision).all():
                return "a precision is not finite"
            lowest = np.linalg.eigvalsh(precision)[:, 0]
            worst = int(np.argmin(lowest))
            if np.isnan(np.asarray(jnp.linalg.cholesky(precision))).any():
                site = int(np.argmax(structure.component_of == group[worst]))
                return (
                    f"the precision of {structure.component_sizes[group[worst]]:,} real sites, "
                    f"{structure.describe(site)} first, is not positive definite (eigenvalue "
                    f"{lowest[worst]:.3g}), so exp(-E) has no finite integral. Constrain the "
                    "parameters, or check the signs: energies are minus log-densities"
                )
        return None


def _real(structure: Structure) -> np.ndarray:
    return structure.of_variables(v.name for v in structure.variables if v.domain.real_line)


def _unfit(structure: Structure) -> np.ndarray:
    """True at each component with a site that is not real."""
    bad = structure.free & ~_real(structure)
    return np.bincount(structure.component_of[structure.free], bad[structure.free]) > 0


def _steep(structure: Structure) -> np.ndarray:
    """True at each component with a factor that is not shown to be quadratic."""
    steep = np.zeros(len(structure.component_sizes), bool)
    everything = np.arange(len(steep))
    for factor, bound in zip(structure.factors, structure.degrees, strict=True):
        if bound.total > 2:
            owner = owners(structure, factor, everything)
            steep[owner[owner >= 0]] = True
    return steep


def _by_size(structure: Structure, components: np.ndarray) -> list[np.ndarray]:
    """Components of like size, which are one batch of matrices."""
    sizes = structure.component_sizes[components]
    return [components[sizes == n] for n in np.unique(sizes)]


def _quadratic(
    structure: Structure, model: Model, components: np.ndarray
) -> tuple[Array, Array, Array]:
    """A, b and c of components of one size n: (components, n, n), (components, n), (components,).

    E = x'Ax/2 - b'x + c, read off at x = 0.
    """
    count, n = len(components), int(structure.component_sizes[components[0]])
    inside = np.isin(structure.component_of, components)
    order = np.argsort(structure.component_of, kind="stable")
    local = np.zeros(structure.sites, np.int64)
    local[order[inside[order]]] = np.tile(np.arange(n), count)

    blank = {k: v.ravel() for k, v in model.blank().items()}
    values = {
        v.name: jnp.where(
            inside[structure.offset[v.name] : structure.offset[v.name] + v.size],
            jnp.zeros((), blank[v.name].dtype),
            blank[v.name],
        ).reshape(v.shape)
        for v in structure.variables
    }
    env = model.environment(values)
    precision = jnp.zeros((count, n, n))
    slope, constant = jnp.zeros((count, n)), jnp.zeros(count)
    for factor in structure.factors:
        owner = owners(structure, factor, components)
        rows = np.flatnonzero(owner >= 0)
        if not len(rows):
            continue
        owner, scope = owner[rows], structure.scope(factor)[rows]
        own = inside[scope]
        place, first, second = local[scope], own[:, :, None], own[:, None, :]
        each, gradient, hessian = _expand(factor, env, rows)
        at = (owner[:, None, None], place[:, :, None], place[:, None, :])
        precision = precision.at[at].add(jnp.where(first & second, hessian, 0.0))
        slope = slope.at[owner[:, None], place].add(jnp.where(own, gradient, 0.0))
        constant = constant.at[owner].add(each)
    return precision, -slope, constant


def _expand(factor: Factor, env: Any, rows: np.ndarray) -> tuple[Array, Array, Array]:
    """Value, gradient and Hessian of each factor in its sites, side by side."""
    values = [
        argument(leaf, None if isinstance(leaf, Whole) else leaf.index[rows], env)
        for leaf in factor.leaves
    ]
    where = list(factor.sites)
    shapes = [factor.leaves[k].index.shape[1:] for k in where]  # type: ignore[union-attr]
    ends = np.cumsum([int(np.prod(s, dtype=int)) for s in shapes])
    axes = tuple(None if isinstance(leaf, Whole) else 0 for leaf in factor.leaves)

    def energy(flat: Array, *rest: Any) -> Array:
        arguments = list(rest)
        for k, part, shape in zip(where, jnp.split(flat, ends[:-1]), shapes, strict=True):
            arguments[k] = part.reshape(shape).astype(rest[k].dtype)
        return factor.energy(*arguments)

    flat = jnp.concatenate([values[k].reshape(len(rows), -1) for k in where], axis=1)
    flat = flat.astype(float)
    gradient, hessian = jax.grad(energy), jax.hessian(energy)
    mapped = [jax.vmap(f, in_axes=(0, *axes)) for f in (energy, gradient, hessian)]
    each, slopes, curvatures = (f(flat, *values) for f in mapped)
    return each, slopes, curvatures
