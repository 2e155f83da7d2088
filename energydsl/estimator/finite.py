"""Finite models as tables of log potentials in float64, for what is computed in NumPy."""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl.analysis.evaluation import as_double
from energydsl.analysis.joint_states import Rows, held_rows
from energydsl.analysis.structure import Structure
from energydsl.analysis.tables import Scopes, Tables, table_sizes
from energydsl.compiler.answers import Marginals
from energydsl.compiler.ebm import EBM
from energydsl.language.model import Model

MAX_TABLE = 20.0
"""log2 of the most joint states of a factor whose table is computed."""

MAX_CELLS = 2**25
"""The most cells of all tables together."""

ROUNDING = 1e-12
"""The rounding error of a bound, relative to the sum of the sizes of its terms. Bounds are widened
by it, so that they hold in spite of rounding."""


class Group(NamedTuple):
    """Factors whose tables have one shape."""

    scopes: np.ndarray
    """The sites of each factor, as positions among the free sites, (factor, place)."""
    cells: np.ndarray
    """The log potentials, (factor, *levels); -inf where a state is forbidden."""


class Finite(NamedTuple):
    """A model whose free sites are all finite."""

    levels: np.ndarray
    """The number of levels of each free site."""
    colours: np.ndarray
    """For each free site, a colour; sites of one colour do not interact."""
    groups: tuple[Group, ...]
    constant: float
    """Minus the energy of the factors without a free site."""

    @property
    def forbids(self) -> bool:
        """Whether some state is forbidden."""
        return any(np.isneginf(g.cells).any() for g in self.groups)

    def energy(self, states: np.ndarray) -> float:
        """The energy of a level for each free site, without the constant."""
        own = (cells[(np.arange(len(cells)), *states[scopes].T)] for scopes, cells in self.groups)
        return -float(sum(logs.sum() for logs in own))

    @property
    def margin(self) -> float:
        """By how much a bound must be widened to hold in spite of rounding."""
        sizes = [np.abs(np.where(np.isinf(g.cells), 0.0, g.cells)) for g in self.groups]
        total = sum(s.reshape(len(s), -1).max(axis=1).sum() for s in sizes)
        return ROUNDING * float(1 + abs(self.constant) + total + np.log(self.levels).sum())


def tabulated(ebm: EBM, method: str) -> Finite:
    """The tables of a model.

    Raises:
        TypeError: a free site has no finite list of levels.
        ValueError: the tables are too large, or an energy is NaN or minus infinity.
    """
    said = untabulated(ebm.structure)
    if said is not None:
        error = (
            TypeError if (ebm.structure.free & (ebm.structure.levels == 0)).any() else ValueError
        )
        raise error(f"{method} needs {said}. Estimate log Z of this model by ed.AIS or ed.Bracket.")
    return tables(ebm.model, ebm.structure, method)


@lru_cache(maxsize=8)
def untabulated(structure: Structure) -> str | None:
    """What a structure lacks for its tables to be computed; None if they are."""
    other = structure.free & (structure.levels == 0)
    if other.any():
        first = structure.describe(int(np.argmax(other)))
        return f"finite sites; {first} has no finite list of levels"
    bits, cells = table_sizes(structure)
    if bits.max(initial=0) > MAX_TABLE or cells.sum() > MAX_CELLS:
        return (
            f"the tables of all factors: {cells.sum():.3g} cells, the largest table "
            f"2^{bits.max():.3g}; at most {MAX_CELLS:.3g} and 2^{MAX_TABLE:.3g} are computed"
        )
    return None


def tables(model: Model, structure: Structure, method: str) -> Finite:
    """The tables of a structure for which `untabulated` says nothing.

    Raises:
        ValueError: an energy is NaN or minus infinity.
    """
    scopes, held, built = _planned(structure)
    position = np.cumsum(structure.free) - 1
    with jax.enable_x64(True):
        outside, known = _energies(model, held, built)
        alone, logs = float(outside), [-np.asarray(cells) for cells in known]
    groups = tuple(
        Group(position[g.scopes], known[g.table].reshape(-1, *scopes.levels(g)))
        for g, known in zip(scopes.groups, logs, strict=True)
    )
    _check(method, alone, groups)
    free = structure.free
    return Finite(structure.levels[free], structure.colours[free], groups, -alone)


@lru_cache(maxsize=8)
def _planned(structure: Structure) -> tuple[Scopes, tuple[Rows, ...], tuple[Tables, ...]]:
    """The scopes of all tables, the factors without a free site, and the tables' indices."""
    with jax.ensure_compile_time_eval():
        scopes = Scopes(structure, np.arange(len(structure.component_sizes)))
        return scopes, held_rows(structure), scopes.built()


@eqx.filter_jit
def _energies(
    model: Model, held: tuple[Rows, ...], tables: tuple[Tables, ...]
) -> tuple[Array, list[Array]]:
    """The energy of the factors without a free site, and the tables of the others."""
    model = as_double(model)
    env = model.environment(model.blank())
    outside = sum((jnp.sum(rows.energies(env)) for rows in held), jnp.zeros(()))
    return outside, [t.energies(model) for t in tables]


def merged(model: Finite) -> Finite:
    """The same model, in which the sites of each scope increase and no two factors have one scope.

    The scopes of one group are in increasing order.
    """
    found: dict[tuple[int, ...], list[Group]] = {}
    for scopes, cells in model.groups:
        orders, order = np.unique(np.argsort(scopes, axis=1), axis=0, return_inverse=True)
        for k, places in enumerate(orders):
            rows = np.flatnonzero(order.ravel() == k)
            turned = cells[rows].transpose(0, *(1 + places))
            found.setdefault(turned.shape[1:], []).append(Group(scopes[rows][:, places], turned))
    return model._replace(groups=tuple(map(_summed, found.values())))


def _summed(parts: list[Group]) -> Group:
    """Groups of one shape as one, in which the tables of equal scopes are added."""
    tables = np.concatenate([g.cells for g in parts])
    scopes, owner = np.unique(
        np.concatenate([g.scopes for g in parts]), axis=0, return_inverse=True
    )
    cells = np.zeros((len(scopes), *tables.shape[1:]))
    np.add.at(cells, owner.ravel(), tables)
    return Group(scopes, cells)


def absorbed(model: Finite) -> Finite:
    """The same model, in which no factor has only sites of another one, apart from single sites.

    Each factor of two sites or more whose sites all belong to a larger factor is added to that one.
    Scopes are increasing and differ, as `merged` leaves them.
    """
    groups = sorted(model.groups, key=lambda g: g.scopes.shape[1])
    kept: list[Group] = []
    for number, group in enumerate(groups):
        alone = np.ones(len(group.scopes), bool)
        if group.scopes.shape[1] > 1:
            for k in range(number + 1, len(groups)):
                found, groups[k] = _taken(group, alone, groups[k])
                alone[found] = False
        if alone.any():
            kept.append(Group(group.scopes[alone], group.cells[alone]))
    return model._replace(groups=tuple(kept))


def _taken(small: Group, left: np.ndarray, large: Group) -> tuple[np.ndarray, Group]:
    """The factors of `small`, of those that are left, that lie in others, and these with them."""
    size, wide = small.scopes.shape[1], large.scopes.shape[1]
    number = {tuple(scope): k for k, scope in enumerate(small.scopes.tolist()) if left[k]}
    cells, found = large.cells.copy(), []
    for places in itertools.combinations(range(wide), size) if size < wide else ():
        own = np.array([number.pop(tuple(s), -1) for s in large.scopes[:, places].tolist()])
        rows, own = np.flatnonzero(own >= 0), own[own >= 0]
        if len(own):
            shape = np.ones(wide, int)
            shape[list(places)] = small.cells.shape[1:]
            cells[rows] += small.cells[own].reshape(-1, *shape)
            found.append(own)
    return np.concatenate([np.zeros(0, int), *found]), Group(large.scopes, cells)


def site_marginals(ebm: EBM, laws: np.ndarray, kind: str, doubts: tuple[str, ...]) -> Marginals:
    """`Marginals` from the probabilities of each free site, (site, level)."""
    structure, free = ebm.structure, ebm.structure.free
    whole = np.zeros((structure.sites, laws.shape[1]))
    whole[free] = laws
    named = {
        v.name: whole[structure.offset[v.name] :][: v.size, : v.domain.levels]
        for v in structure.skeleton.free
    }
    return Marginals.of(ebm, named, kind, doubts=doubts)


def log_sum(terms: np.ndarray, axes: int | tuple[int, ...] = -1) -> np.ndarray:
    """The log of the sum of exponentials over some axes."""
    peak = terms.max(axis=axes, keepdims=True)
    peak = np.where(np.isfinite(peak), peak, 0.0)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(terms - peak).sum(axis=axes)) + peak.squeeze(axes)


def _check(method: str, held: float, groups: tuple[Group, ...]) -> None:
    bad = [np.isnan(g.cells) | np.isposinf(g.cells) for g in groups]
    if np.isnan(held) or np.isneginf(held) or any(b.any() for b in bad):
        raise ValueError(f"{method} found an energy that is NaN or minus infinity.")
    if np.isposinf(held):
        raise ValueError("The evidence is forbidden: its energy is infinite, so that Z = 0.")
