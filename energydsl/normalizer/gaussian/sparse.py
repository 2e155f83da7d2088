"""Exact log Z of quadratic energies whose sites interact with few others, by sparse matrices."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl._types import Configuration
from energydsl.analysis.joint_states import int32, owned_rows
from energydsl.analysis.structure import Structure
from energydsl.language.model import Model
from energydsl.normalizer.banded import (
    NARROWEST,
    Band,
    Numbering,
    cholesky,
    first_failure,
    moments,
    numbering,
    upper_solve,
)
from energydsl.normalizer.base import AbstractPlan, AbstractRule, Fields, Offer, normal
from energydsl.normalizer.gaussian.quadratic import (
    AbstractGaussianPlan,
    Fit,
    expand,
    numbers_of_factors,
)

WORK = 12.0
"""The operations of a step that factorises a block and inverts it, in units of its width cubed."""

SETUP = 1e8
"""The operations that could be carried out while the loops over blocks are compiled."""

ALONE = 0.25
"""The share of the numbers of the factors that log Z alone takes, which keeps no block."""

BLOCKS = 24.0
"""The blocks that a step takes at once."""


@dataclasses.dataclass(frozen=True)
class SparseGaussian(AbstractRule):
    r"""Gaussian integrals of energies $\frac12 x^\top A x - b^\top x + c$ with sparse A.

    The sites are numbered so that those that interact are less than a width w apart, and A is
    factorised in blocks of w sites, each of which is joined to the next only. So n sites take
    $n w^2$ operations and $n w$ numbers, and no n x n matrix is made: w is 1 for a chain, and the
    shorter side of a grid. Derivatives and variances need the entries of $A^{-1}$ where A has
    entries, which a recursion over the blocks gives; draws and the mode follow from the factors.

    Source: Rue & Held (2005), Gaussian Markov Random Fields, sections 2.3 and 2.4.
    """

    name: ClassVar[str] = "sparse gaussian"

    def offer(self, structure: Structure) -> Offer:
        sizes, fit = structure.component_sizes, Fit(structure)
        if structure.crowded:
            wide = np.full(len(sizes), np.inf)
        else:
            wide = np.maximum(_numbering(structure).width, NARROWEST).astype(float)
        narrow = 2 * wide <= sizes

        def reason(component: int) -> str:
            if fit.refused[component]:
                return fit.reason(component)
            if structure.crowded:
                return "a factor has too many sites to list its pairs"
            return (
                f"blocks of {wide[component]:.0f} sites are not narrow among {sizes[component]:,}"
            )

        def plan(components: np.ndarray) -> tuple[AbstractPlan, ...]:
            classes = np.ceil(np.log2(wide[components]))
            groups = [components[classes == k] for k in np.unique(classes)]
            return tuple(_plan(self, structure, g, int(wide[g].max())) for g in groups)

        applies = narrow & ~fit.refused
        bounded = np.where(applies, wide, 0.0)
        operations = np.where(applies, _operations(sizes, bounded, structure), np.inf)
        return Offer(operations, reason, plan, 0.0, _memory(sizes, bounded, structure), setup=SETUP)


class SparseGaussianPlan(AbstractGaussianPlan):
    """A plan for components of similar width, as one block-tridiagonal matrix."""

    band: Band
    places: tuple[Array, ...]
    """The row of each factor's sites; the number of rows for a clamped site."""
    slots: tuple[Array, ...]
    """The slot of each entry of each factor's Hessian; the number of slots for those left out."""

    def log_partition(self, model: Model, fields: Fields | None = None) -> Array:
        assert fields is None, "marginals are computed without fields"
        entries, right, constant = self._quadratic(model)
        volume = self.band.size / 2 * jnp.log(2 * jnp.pi)
        return volume + _log_integral(entries, right, self.band) - constant

    def marginals(self, model: Model) -> dict[str, Array]:
        entries, right, _ = self._quadratic(model)
        found = moments(self.band, entries, cholesky(self.band, entries, right))
        laws = [self.band.joined(found.mean), self.band.joined(found.diagonal)]
        return self._by_variable(jnp.stack(laws, axis=-1))

    def prepare(self, model: Model) -> Any:
        entries, right, _ = self._quadratic(model)
        return entries, cholesky(self.band, entries, right)

    def draw_prepared(self, model: Model, prepared: Any, *, key: Array) -> Configuration:
        entries, found = prepared
        noise = self.band.split(normal(key, (self.band.size,)))
        return self._solved(model, entries, found, found.whitened + noise)

    def mode(self, model: Model) -> Configuration:
        entries, found = self.prepare(model)
        return self._solved(model, entries, found, found.whitened)

    def trouble(self, model: Model) -> str | None:
        entries, right, _ = self._quadratic(model)
        if not (jnp.isfinite(entries).all() and jnp.isfinite(right).all()):
            return "a precision is not finite"
        row = first_failure(self.band, entries)
        if row is None:
            return None
        site = self.structure.describe(int(self.order[row]))
        return (
            f"the precision of {self.band.size:,} real sites is not positive definite: "
            f"integrated in the order of the factorisation, {site} has no finite integral. "
            "Constrain the parameters, or check the signs: energies are minus log-densities"
        )

    def _solved(self, model: Model, entries: Array, found: Any, right: Array) -> Configuration:
        x = upper_solve(self.band, entries, found, right)
        return self._configuration(model, self.band.joined(x))

    def _quadratic(self, model: Model) -> tuple[Array, Array, Array]:
        """The entries of A, b as (block, row), and c. See `GaussianPlan`."""
        env = model.environment(self._configuration(model, jnp.zeros(self.band.size)))
        shape = self.band.shape
        entries, slope = jnp.zeros(shape[0] * shape[1] + 1), jnp.zeros(self.band.size + 1)
        constant = jnp.zeros(())
        for part, place, slot in zip(self.rows, self.places, self.slots, strict=True):
            factor = self.structure.factors[part.number]
            each, gradient, hessian = expand(factor, part.arguments(env), list(factor.sites))
            entries = entries.at[slot].add(hessian)
            slope = slope.at[place].add(gradient)
            constant += jnp.sum(each)
        return entries[:-1].reshape(shape), self.band.split(-slope[:-1]), constant


class _Slopes(NamedTuple):
    entries: Array
    right: Array


@eqx.filter_custom_jvp
def _log_integral(entries: Array, right: Array, band: Band) -> Array:
    r"""$-\frac12 \log\det A + \frac12 b^\top A^{-1} b$."""
    found = cholesky(band, entries, right)
    return (found.square - found.log_det) / 2


@_log_integral.def_jvp
def _log_integral_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    value, slopes = _value_and_slopes(*primals)
    moved = [jnp.sum(g * t) for g, t in zip(slopes, tangents, strict=False) if t is not None]
    return value, sum(moved, jnp.zeros(()))


def _value_and_slopes(entries: Array, right: Array, band: Band) -> tuple[Array, _Slopes]:
    """The derivatives are minus half the second moments, twice off the diagonal, and the mean."""
    found = cholesky(band, entries, right)
    inverse, _, mean = moments(band, entries, found)
    row, column = band.places[:, 0], band.places[:, 1]
    both = jnp.concatenate([jnp.pad(mean, ((1, 0), (0, 0)))[:-1], mean], axis=1)
    pair = jnp.take_along_axis(both, row, axis=1) * jnp.take_along_axis(both, column, axis=1)
    times = jnp.where(row == column, 0.5, 1.0)
    slopes = _Slopes(-times * (inverse + pair), mean)
    return (found.square - found.log_det) / 2, slopes


@lru_cache(maxsize=4)
def _numbering(structure: Structure) -> Numbering:
    count = len(structure.component_sizes)
    return numbering(structure.sites, structure.edges, structure.component_of, count)


def _plan(
    rule: AbstractRule, structure: Structure, components: np.ndarray, width: int
) -> SparseGaussianPlan:
    sites = np.flatnonzero(np.isin(structure.component_of, components))
    order = sites[np.lexsort([_numbering(structure).place[sites], structure.component_of[sites]])]
    size = len(order)
    place_of = np.full(structure.sites, size)
    place_of[order] = np.arange(size)
    parts, places, codes = owned_rows(structure, components), [], []
    for part in parts:
        owned = np.isin(structure.row_components[part.number], components)
        place = place_of[structure.scope(structure.factors[part.number])[owned]]
        places.append(int32(place))
        row, column = place[:, :, None], place[:, None, :]
        # The Hessian is symmetric: its entries above the diagonal of A are left out.
        codes.append(np.where((column <= row) & (row < size), row * size + column, -1))
    # Every site has an entry on the diagonal, also where no factor has it.
    diagonal = np.arange(size) * (size + 1)
    entries = np.unique(np.concatenate([diagonal, *(c[c >= 0] for c in codes)]))
    band = Band(size, width, entries // size, entries % size)
    slot_of = np.append(np.asarray(band.slots), np.prod(band.shape))
    slots = [
        int32(slot_of[np.where(c < 0, len(entries), np.searchsorted(entries, c))]) for c in codes
    ]
    factors = numbers_of_factors(structure)[components].sum()
    held = 32.0 * np.prod(band.shape)
    alone = float(8.0 * (BLOCKS * width**2 + ALONE * factors) + held)
    return SparseGaussianPlan(
        rule=rule,
        structure=structure,
        components=int32(components),
        # Half of the work is the inverse.
        operations=float(WORK / 2 * size * width**2 + structure.factor_counts[components].sum()),
        bytes=alone,
        more_bytes=float(_bytes(size, width, factors) + held) - alone,
        rows=parts,
        order=int32(order),
        band=band,
        places=tuple(places),
        slots=tuple(slots),
    )


def _operations(sizes: np.ndarray, width: np.ndarray, structure: Structure) -> np.ndarray:
    return WORK * sizes * width**2 + structure.factor_counts


def _memory(sizes: np.ndarray, width: np.ndarray, structure: Structure) -> np.ndarray:
    """Bytes for each component."""
    return _bytes(sizes, width, numbers_of_factors(structure))


def _bytes(sizes: Any, width: Any, factors: Any) -> Any:
    """Bytes of the blocks of the factorisation, those that a step takes, and the factors."""
    return 8.0 * ((sizes + width) * width + BLOCKS * width**2 + factors)
