"""Exact log Z of quadratic energies by a Cholesky factorisation."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl._types import Configuration
from energydsl.analysis.joint_states import int32, owned_rows
from energydsl.analysis.structure import Structure
from energydsl.language.model import Model
from energydsl.normalizer.base import AbstractPlan, AbstractRule, Fields, Offer, normal
from energydsl.normalizer.gaussian.quadratic import (
    AbstractGaussianPlan,
    Fit,
    expand,
    lower_solve,
    numbers_of_factors,
    upper_solve,
)

EXPAND = 2.5
"""The operations for each of the numbers of a factor's expansion."""

MATRICES, EXPANSIONS = 6.0, 1.1
"""The matrices of a component, and the expansions of all factors, that are held at once."""

ALONE = 2.0, 0.55
"""The same for log Z alone."""


@dataclasses.dataclass(frozen=True)
class Gaussian(AbstractRule):
    r"""Gaussian integrals of energies $\frac12 x^\top A x - b^\top x + c$ of real sites.

    $\log Z = \frac n2 \log 2\pi - \frac12 \log\det A + \frac12 b^\top A^{-1} b - c$.

    A and b are the sums of the exact second and first derivatives of the factors, which must be at
    most quadratic in their free sites jointly; $A = L L^\top$ is the Cholesky factorisation. The
    mode is the mean $A^{-1} b$, the variances are the diagonal of $A^{-1}$, and a draw is the mean
    plus $L^{-\top} z$ with z standard normal.

    Source: Rue & Held (2005), Gaussian Markov Random Fields, sections 2.2 and 2.4.
    """

    name: ClassVar[str] = "gaussian"

    def offer(self, structure: Structure) -> Offer:
        sizes, fit = structure.component_sizes.astype(float), Fit(structure)
        memory = _memory(structure, MATRICES, EXPANSIONS)

        def plan(components: np.ndarray) -> tuple[AbstractPlan, ...]:
            classes = structure.component_sizes[components]
            groups = [components[classes == n] for n in np.unique(classes)]
            return tuple(_plan(self, structure, g, memory) for g in groups)

        operations = np.where(fit.refused, np.inf, sizes**3 + structure.factor_counts)
        return Offer(operations, fit.reason, plan, 0.0, memory)


class GaussianPlan(AbstractGaussianPlan):
    """A plan for components of the same size n, as a batch of n x n matrices."""

    places: tuple[Array, ...]
    """The index of each factor's sites within their component; n for a clamped site. The order of
    the sites is (components, n)."""

    def log_partition(self, model: Model, fields: Fields | None = None) -> Array:
        factor, _, whitened, constant = self._solved(model, fields)
        volume = whitened.size / 2 * jnp.log(2 * jnp.pi)
        half_log_det = jnp.sum(jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)))
        return volume - half_log_det + jnp.sum(whitened**2) / 2 - jnp.sum(constant)

    def marginals(self, model: Model) -> dict[str, Array]:
        factor, mean, _, _ = self._solved(model)
        units = jnp.broadcast_to(jnp.eye(mean.shape[1]), factor.shape)
        variance = jnp.sum(lower_solve(factor, units) ** 2, axis=-2)
        return self._by_variable(jnp.stack([mean, variance], axis=-1))

    def prepare(self, model: Model) -> tuple[Array, Array]:
        factor, mean, _, _ = self._solved(model)
        return factor, mean

    def draw_prepared(self, model: Model, prepared: Any, *, key: Array) -> Configuration:
        factor, mean = prepared
        noise = normal(key, mean.shape)
        return self._configuration(model, mean + upper_solve(factor, noise))

    def mode(self, model: Model) -> Configuration:
        return self._configuration(model, self._solved(model)[1])

    def trouble(self, model: Model) -> str | None:
        precision = np.asarray(self._quadratic(model)[0])
        if not np.isfinite(precision).all():
            return "a precision is not finite"
        lowest = np.linalg.eigvalsh(precision)[:, 0]
        worst = int(np.argmin(lowest))
        if not np.isnan(np.asarray(jnp.linalg.cholesky(precision))).any():
            return None
        site = self.structure.describe(int(self.order[worst].min()))
        return (
            f"the precision of {precision.shape[1]:,} real sites, {site} first, is not positive "
            f"definite (eigenvalue {lowest[worst]:.3g}), so exp(-E) has no finite integral. "
            "Constrain the parameters, or check the signs: energies are minus log-densities"
        )

    def _solved(
        self, model: Model, fields: Fields | None = None
    ) -> tuple[Array, Array, Array, Array]:
        """L, the mean A^-1 b, L^-1 b and c."""
        precision, linear, constant = self._quadratic(model)
        if fields is not None:
            added = self._flat({n: f for n, f in fields.items()})
            linear = linear - added[..., 0]
            precision = precision + 2 * jax.vmap(jnp.diag)(added[..., 1])
        factor = jnp.linalg.cholesky(precision)
        whitened = lower_solve(factor, linear[..., None])[..., 0]
        return factor, upper_solve(factor, whitened), whitened, constant

    def _quadratic(self, model: Model) -> tuple[Array, Array, Array]:
        """A, b and c: (components, n, n), (components, n), (components,).

        E = x'Ax/2 - b'x + c, so that they follow from the derivatives of E at x = 0.
        """
        count, n = self.order.shape
        env = model.environment(self._configuration(model, jnp.zeros((count, n))))
        # Entries of clamped sites go into an extra row and column n, which are then cut off.
        precision = jnp.zeros((count, n + 1, n + 1))
        slope, constant = jnp.zeros((count, n + 1)), jnp.zeros(count)
        for part, place in zip(self.rows, self.places, strict=True):
            factor = self.structure.factors[part.number]
            each, gradient, hessian = expand(factor, part.arguments(env), list(factor.sites))
            owner = part.owner
            at = (owner[:, None, None], place[:, :, None], place[:, None, :])
            precision = precision.at[at].add(hessian)
            slope = slope.at[owner[:, None], place].add(gradient)
            constant = constant.at[owner].add(each)
        return precision[:, :n, :n], -slope[:, :n], constant

    def _flat(self, fields: Fields) -> Array:
        """Fields as (components, n, 2)."""
        none = [jnp.zeros((v.size, 2)) for v in self.structure.variables]
        parts = [
            fields[v.name] if v.domain.real_line and v.name in fields else zero
            for v, zero in zip(self.structure.variables, none, strict=True)
        ]
        return jnp.concatenate(parts)[self.order]


def _plan(
    rule: AbstractRule,
    structure: Structure,
    components: np.ndarray,
    memory: np.ndarray,
) -> GaussianPlan:
    count, n = len(components), int(structure.component_sizes[components[0]])
    inside = np.isin(structure.component_of, components)
    order = np.argsort(structure.component_of, kind="stable")
    order = order[inside[order]]
    local = np.full(structure.sites, n)
    local[order] = np.tile(np.arange(n), count)
    rows, places = owned_rows(structure, components), []
    for part in rows:
        owned = np.isin(structure.row_components[part.number], components)
        places.append(int32(local[structure.scope(structure.factors[part.number])[owned]]))
    alone = float(_memory(structure, *ALONE)[components].sum())
    return GaussianPlan(
        rule=rule,
        structure=structure,
        components=int32(components),
        operations=float(
            count * n**3 / 3 + EXPAND * numbers_of_factors(structure)[components].sum()
        ),
        bytes=alone,
        more_bytes=float(memory[components].sum()) - alone,
        rows=rows,
        places=tuple(places),
        order=int32(order.reshape(count, n)),
    )


def _memory(structure: Structure, matrices: float, expansions: float) -> np.ndarray:
    """Bytes for each component."""
    numbers = matrices * (structure.component_sizes + 1.0) ** 2
    return 8.0 * (numbers + expansions * numbers_of_factors(structure))
