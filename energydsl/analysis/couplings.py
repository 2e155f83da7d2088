r"""Finite free sites as a Potts model, given all other sites.

With $k_i$ the number of the level of site i, the energy is
$$E(k) = \sum_i f_i(k_i) - \sum_{(i, j)} J_{ij} [k_i = k_j] + c.$$
All functions of two sites with two levels have this form, those of sites with more levels if they
are shown to have it by the present values of the parameters.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl._types import Configuration, Refusal
from energydsl.analysis import graph
from energydsl.analysis.evaluation import as_double
from energydsl.analysis.joint_states import int32
from energydsl.analysis.structure import Structure
from energydsl.analysis.tables import Scopes, Tables
from energydsl.language.model import Model
from energydsl.language.variable import Variable

MAX_CELLS = 2**26
"""The most energies of pairs, and of single sites, that are computed."""

FEW = 16
"""The most levels among which a value is looked for by comparing it with all."""

ROUNDING = 1e-5
"""The rounding error of an energy in float32, relative to the largest one that it is made of."""


class Weights(NamedTuple):
    """The numbers of a Potts model."""

    couplings: Array
    """J of each edge."""
    fields: Array
    """f of each site and level; infinite at levels that the site does not have."""
    residual: Array
    """How far the energies are from this form, relative to the largest energy of a pair."""


class Term(eqx.Module):
    """Factors of one batch, with their tables."""

    table: Tables
    of: Array
    """The table of each factor."""
    ends: Array
    """The sites of each factor, (factor, 1 or 2)."""
    edge: Array | None
    """The edge of each factor of two sites."""


class Couplings(eqx.Module):
    """The Potts model that the finite free sites of a model are, given all other sites."""

    structure: Structure = eqx.field(static=True)
    """The structure of these sites, in which all others are constants."""
    variables: tuple[Variable, ...] = eqx.field(static=True)
    most: int = eqx.field(static=True)
    """The largest number of levels."""
    levels: Array
    """The number of levels of each site."""
    ends: Array
    """The sites that each edge joins, (edge, 2)."""
    places: tuple[Array, ...]
    """For each variable, the flat numbers of its sites among these."""
    fixed: tuple[Term, ...]
    moving: tuple[Term, ...]
    """The factors of one site whose energies depend on free sites that are not among these."""

    @property
    def sites(self) -> int:
        return len(self.levels)

    @property
    def edges(self) -> int:
        return len(self.ends)

    @property
    def pairs(self) -> tuple[Term, ...]:
        """The factors of two sites."""
        return tuple(term for term in self.fixed if term.edge is not None)

    def load(self, model: Model) -> Weights:
        """The numbers, without the fields that depend on other free sites."""
        known = jnp.arange(self.most) < self.levels[:, None]
        fields = jnp.where(known, 0.0, jnp.inf)
        couplings, worst = jnp.zeros(self.edges), jnp.zeros(())
        for term in self.fixed:
            cells = term.table.energies(model).reshape(-1, *term.table.levels)
            if term.edge is None:
                fields = _added(fields, term.ends[:, 0], cells[term.of])
                continue
            parts = _parts(cells)
            worst = jnp.maximum(worst, parts.residual)
            couplings = couplings.at[term.edge].add(parts.coupling[term.of])
            fields = _added(fields, term.ends[:, 0], parts.first[term.of])
            fields = _added(fields, term.ends[:, 1], parts.second[term.of])
        return Weights(couplings, fields, worst)

    def fields_at(self, model: Model, fields: Array, xs: Configuration) -> Array:
        """The fields, (chain, site, level), with the other free sites as in configurations.

        If they do not depend on these, there is one for all chains.
        """
        if not self.moving:
            return fields[None]

        def one(x: Configuration) -> Array:
            there, total = model.around(model.complete(x)), fields
            for term in self.moving:
                total = _added(total, term.ends[:, 0], term.table.energies(there)[term.of])
            return total

        return jax.vmap(one)(xs)

    def read(self, x: Configuration) -> Array:
        """The number of each site's level."""
        found = []
        for v, place in zip(self.variables, self.places, strict=True):
            values = jnp.asarray(v.domain.values, v.domain.dtype)
            # Comparing with all of a few values is faster than a search.
            method = "compare_all" if len(values) <= FEW else "scan"
            found.append(jnp.searchsorted(values, x[v.name].ravel()[place], method=method))
        return jnp.concatenate(found).astype(jnp.int32)

    def write(self, x: Configuration, levels: Array) -> Configuration:
        """The configuration with these levels."""
        x, start = dict(x), 0
        for v, place in zip(self.variables, self.places, strict=True):
            values = jnp.asarray(v.domain.values, v.domain.dtype)
            own = values[levels[start : start + len(place)]]
            start += len(place)
            x[v.name] = x[v.name].ravel().at[place].set(own).reshape(v.shape)
        return x

    def describe(self, edge: int) -> str:
        """The names of the sites that an edge joins."""
        numbers = np.flatnonzero(self.structure.free)
        first, last = (self.structure.describe(int(numbers[i])) for i in self.ends[edge])
        return f"{first} and {last}"

    def fault(self, model: Model) -> str | None:
        """Why the present values, which must be numbers, are no Potts model without frustration."""
        couplings, residual = np.zeros(self.edges), 0.0
        with jax.enable_x64(True):
            model = as_double(model)
            for term in self.pairs:
                cells = term.table.energies(model).reshape(-1, *term.table.levels)
                # In NumPy nothing is compiled; the difference of two infinities is refused below.
                with np.errstate(invalid="ignore"):
                    parts = _parts(np.asarray(cells))
                np.add.at(couplings, np.asarray(term.edge), parts.coupling[np.asarray(term.of)])
                residual = max(residual, parts.residual)
        if not np.isfinite(couplings).all():
            where = self.describe(int(np.argmin(np.isfinite(couplings))))
            return f"some levels of {where} exclude each other: their energy is infinite"
        if residual > ROUNDING:
            return "the energy of a pair is not the same at all unequal levels"
        repelling = (np.asarray(self.levels)[self.ends[:, 0]] > 2) & (couplings < 0)
        if (repelling & (couplings < -ROUNDING * np.abs(couplings).max(initial=0.0))).any():
            where = self.describe(int(np.argmin(np.where(repelling, couplings, 0.0))))
            return f"{where} have more than two levels and favour unequal ones"
        return self._frustration(np.where(repelling, 0.0, couplings))

    def _frustration(self, couplings: np.ndarray) -> str | None:
        """Sites that favour equality are joined to one node; the others must be two-colourable."""
        ends = np.asarray(self.ends)
        _, node = graph.components(self.sites, ends[couplings > 0])
        apart = ends[couplings < 0]
        sides = graph.parity(self.sites, graph.unique_edges(node[apart], self.sites))[node]
        wrong = sides[apart[:, 0]] == sides[apart[:, 1]]
        if not wrong.any():
            return None
        where = self.describe(int(np.flatnonzero(couplings < 0)[np.argmax(wrong)]))
        return (
            f"its couplings are frustrated: that of {where}, which favours unequal levels, "
            "contradicts those along another path between them"
        )


@lru_cache(maxsize=16)
def couplings_of(structure: Structure) -> Couplings | Refusal:
    """The finite free sites as a Potts model, or why they are none whatever the parameters are."""
    moved = structure.free & (structure.levels > 1)
    if not moved.any():
        return Refusal("no free site has finitely many levels")
    chosen, varying = [], []
    for factor in structure.factors:
        scope = structure.scope(factor)
        inside = np.sort(np.where(moved[scope], scope, -1), axis=1)
        counts = (np.diff(inside, axis=1, prepend=-1) > 0).sum(axis=1)
        others = (structure.free & ~moved)[scope].any(axis=1)
        wrong = (counts > 2) | ((counts == 2) & others)
        if wrong.any():
            row = int(np.argmax(wrong))
            return Refusal(_too_wide(structure, scope[row], moved, int(counts[row])))
        chosen.append(counts > 0)
        if chosen[-1].any():
            varying.append(others[chosen[-1]])
    # Caches must not contain values of a trace that is in progress.
    with jax.ensure_compile_time_eval():
        return _built(structure.part(moved, tuple(chosen)), varying)


def _too_wide(structure: Structure, scope: np.ndarray, moved: np.ndarray, count: int) -> str:
    pair = " and ".join(structure.describe(int(i)) for i in np.unique(scope[moved[scope]])[:2])
    if count > 2:
        return f"a factor joins {count:,} sites, {pair} among them; only pairs are supported"
    other = structure.describe(int(scope[structure.free[scope] & ~moved[scope]][0]))
    return f"the coupling of {pair} depends on {other}, which it does not move"


def _built(part: Structure, varying: list[np.ndarray]) -> Couplings | Refusal:
    components = np.arange(len(part.component_sizes))
    fixed = Scopes(part, components, tuple(~v for v in varying))
    moving = Scopes(part, components, tuple(varying))
    position, levels = np.cumsum(part.free) - 1, part.levels[part.free]
    pairs = [np.zeros((0, 2), np.int64)]
    for group in fixed.groups:
        if group.scopes.shape[1] == 2:
            unequal = np.diff(part.levels[group.scopes], axis=1)[:, 0] != 0
            if unequal.any():
                pair = map(part.describe, group.scopes[int(np.argmax(unequal))].tolist())
                return Refusal(f"{' and '.join(pair)} are coupled, but differ in number of levels")
            pairs.append(position[group.scopes])
    size = max(fixed.cells, moving.cells, len(levels) * int(levels.max()))
    if size > MAX_CELLS:
        return Refusal(f"it needs {size:.2g} energies of pairs and of single sites; "
                       f"at most {MAX_CELLS:.2g} are computed")  # fmt: skip
    edges = graph.unique_edges(np.concatenate(pairs), len(levels))
    own = {v: part.free[part.offset[v.name] :][: v.size] for v in part.variables}
    return Couplings(
        part,
        tuple(v for v, mask in own.items() if mask.any()),
        int(levels.max()),
        int32(levels),
        int32(edges),
        tuple(int32(np.flatnonzero(mask)) for mask in own.values() if mask.any()),
        _terms(fixed, position, edges),
        _terms(moving, position, edges),
    )


def _terms(scopes: Scopes, position: np.ndarray, edges: np.ndarray) -> tuple[Term, ...]:
    weights = np.array([len(position), 1])
    codes, terms = edges.astype(np.int64) @ weights, []
    for group, table in zip(scopes.groups, scopes.built(), strict=True):
        ends, edge = position[group.scopes], None
        if ends.shape[1] == 2:
            edge = int32(np.searchsorted(codes, np.sort(ends, axis=1) @ weights))
        terms.append(Term(table, int32(group.table), int32(ends), edge))
    return tuple(terms)


class _Parts(NamedTuple):
    """Tables of pairs as sums: first(a) + second(b) - coupling [a = b] + constant."""

    coupling: Any
    first: Any
    second: Any
    residual: Any


def _parts(cells: Any) -> _Parts:
    xp: Any = jnp if isinstance(cells, Array) else np
    equal, crossed = cells[:, 0, 0] + cells[:, 1, 1], cells[:, 0, 1] + cells[:, 1, 0]
    coupling = (crossed - equal) / 2
    base = cells[:, :1, 0] + coupling[:, None]
    later = xp.arange(cells.shape[1]) > 0
    first = xp.where(later, cells[:, :, 0] - base, 0.0)
    second = xp.where(later, cells[:, 0, :] - base, 0.0)
    form = base[:, None] + first[:, :, None] + second[:, None, :]
    form = form - coupling[:, None, None] * xp.eye(cells.shape[1])
    off, scale = (xp.max(xp.abs(a), initial=0.0) for a in (cells - form, cells))
    return _Parts(coupling, first, second, off / xp.where(scale > 0, scale, 1.0))


def _added(fields: Array, sites: Array, energies: Array) -> Array:
    """The fields with the energies of some sites' levels added."""
    return fields.at[sites, : energies.shape[1]].add(energies)
