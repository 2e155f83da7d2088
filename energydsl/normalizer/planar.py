"""Exact log Z of planar spin models without a field, by a determinant."""

from __future__ import annotations

import dataclasses
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl.analysis import graph
from energydsl.analysis.joint_states import int32
from energydsl.analysis.structure import Structure
from energydsl.analysis.tables import Scopes, Tables
from energydsl.language.model import Model
from energydsl.normalizer.banded import NARROWEST, Band, inverse, numbering
from energydsl.normalizer.base import AbstractPlan, AbstractRule, Fields, Lack, Offer, Question

MAX_EDGES = 100_000
"""The most interactions of a component whose determinant is computed."""

MAX_TURNS = 10_000_000
"""The most pairs of edges that share a site."""

WORK = 20.0
"""The operations of a step that inverts a block, in units of its width cubed."""

SETUP = 1e8
"""The operations that could be carried out while the loops over blocks are compiled."""

BLOCKS = 40.0
"""The blocks that a step takes at once."""

LOSS = 1e-9
"""The estimated rounding error of log Z, relative to max(1, |log Z|), above which it is refused."""


@dataclasses.dataclass(frozen=True)
class Planar(AbstractRule):
    r"""$Z = e^{-c}\, 2^n \prod_e \cosh J_e \sqrt{\det(1 - T)}$ for $E(s) = c - \sum_e J_e s_i s_j$.

    T is the Kac-Ward matrix, with a row and a column for each edge in each direction. In a drawing
    of the graph with straight edges, $T_{ee'} = \tanh(J_e) e^{i\alpha/2}$ if e' starts where e ends
    and does not go back along it, where $\alpha$ is the angle of the turn between $-\pi$ and $\pi$.
    A change of basis makes each phase a sign. The edges are numbered so that those at a common site
    are near each other, and the determinant is computed by blocks; each leading part of the matrix
    belongs to a part of the graph, so that its determinant is positive.

    Every factor must be shown to stay as it is when all spins are flipped together, whatever the
    parameters are. So each spin is up with probability 1/2.

    Source: Kac & Ward (1952), Phys. Rev. 88, 1332; Lis (2016), arXiv:1502.04322, for the proof.
    """

    name: ClassVar[str] = "planar"

    def offer(self, structure: Structure) -> Offer:
        form = _form(structure)
        steps = 2.0 * form.edges
        wide = np.where(form.applies, _block(form.widths), 0.0)
        work = WORK * steps * wide**2 + structure.factor_counts
        operations = np.where(form.applies, work, np.inf)

        def plan(components: np.ndarray) -> tuple[AbstractPlan, ...]:
            classes = np.ceil(np.log2(wide[components]))
            groups = [components[classes == k] for k in np.unique(classes)]
            return tuple(_plan(self, structure, g, int(wide[g].max())) for g in groups)

        lacks: dict[Question, Lack] = {
            "draw": Lack(True, "the determinant does not give draws"),
            "mode": Lack(True, "the determinant does not give a mode"),
        }
        return Offer(
            operations,
            form.reason,
            plan,
            0.0,
            _bytes(steps, wide, structure.factor_counts),
            lacks=lacks,
            setup=SETUP,
        )


class PlanarPlan(AbstractPlan):
    """A plan for components of similar width, as one block-tridiagonal matrix."""

    tables: tuple[Tables, ...]
    tables_of: tuple[Array, ...]
    """For each batch, the table of each factor."""
    edges_of: tuple[Array, ...]
    """For each batch, the edge of each factor; empty if it has one site."""
    edges: int = eqx.field(static=True)
    spins: int = eqx.field(static=True)
    inside: Array
    """True at each site of these components."""
    band: Band
    fixed: Array
    """The entries that are 1, as (block, slot)."""
    signs: Array
    """The sign of each turn, as (block, slot); 0 where an entry is none."""
    from_edge: Array
    """The edge that each turn begins with, (block, slot)."""

    def log_partition(self, model: Model, fields: Fields | None = None) -> Array:
        assert fields is None, "marginals are computed without fields"
        value, loss = self._value_and_loss(model)
        return jnp.where(loss <= LOSS * jnp.maximum(1.0, jnp.abs(value)), value, jnp.nan)

    def marginals(self, model: Model) -> dict[str, Array]:
        laws = jnp.broadcast_to(jnp.where(self.inside[:, None], 0.5, 0.0), (len(self.inside), 2))
        return {
            v.name: laws[self.structure.offset[v.name] :][: v.size]
            for v in self.structure.skeleton.free
            if v.domain.levels == 2
        }

    def trouble(self, model: Model) -> str | None:
        couplings, constant = self._couplings(model)
        if not (jnp.isfinite(couplings).all() and jnp.isfinite(constant)):
            return "a coupling is not finite"
        value, loss = self._value_and_loss(model)
        strongest = float(jnp.max(jnp.abs(couplings)))
        return (
            f"the determinant for {self.spins:,} planar spins loses digits at these couplings, of "
            f"up to {strongest:.3g}: log Z near {value:.6g} would have an error of about "
            f"{loss:.2g}, more than {LOSS:g} of its value. Weaken the couplings"
        )

    def _value_and_loss(self, model: Model) -> tuple[Array, Array]:
        couplings, constant = self._couplings(model)
        log_cosh = jnp.logaddexp(couplings, -couplings) - jnp.log(2.0)
        entries = self.fixed - self.signs * jnp.tanh(couplings)[self.from_edge]
        log_det, loss = _log_det(entries, self.band)
        value = self.spins * jnp.log(2.0) - constant + jnp.sum(log_cosh) + log_det / 2
        return value, loss

    def _couplings(self, model: Model) -> tuple[Array, Array]:
        """J of each edge, and c: E(s) = c - sum of J s s'."""
        couplings, constant = jnp.zeros(self.edges), jnp.zeros(())
        for table, of, edge in zip(self.tables, self.tables_of, self.edges_of, strict=True):
            energies = table.energies(model)
            equal = energies[:, -1]
            other = energies[:, 1] if len(table.levels) == 2 else equal
            constant += jnp.sum(((equal + other) / 2)[of])
            if len(table.levels) == 2:
                couplings = couplings.at[edge].add(((other - equal) / 2)[of])
        return couplings, constant


@eqx.filter_custom_jvp
def _log_det(entries: Array, band: Band) -> tuple[Array, Array]:
    """The log-determinant, and the estimate of its error."""
    found = inverse(band, entries)
    return found.log_det, found.loss


@_log_det.def_jvp
def _log_det_jvp(primals: Any, tangents: Any) -> Any:
    entries, band = primals
    found = inverse(band, entries)
    moved = jnp.zeros(()) if tangents[0] is None else jnp.sum(found.entries * tangents[0])
    return (found.log_det, found.loss), (moved, jnp.zeros(()))


class _Form:
    """Which components have this form, and why the others have not."""

    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        self.count = len(structure.component_sizes)

    @cached_property
    def edges(self) -> np.ndarray:
        """The number of edges of each component."""
        return np.bincount(self.owner, minlength=self.count)

    @cached_property
    def owner(self) -> np.ndarray:
        """The component of each edge."""
        return self.structure.component_of[self.structure.edges[:, 0]]

    @cached_property
    def applies(self) -> np.ndarray:
        """True at each component for which the rule gives log Z."""
        return ~(self.no_spins | self.too_large | self.not_even | self.not_planar | self.too_wide)

    def reason(self, component: int) -> str:
        """Why the rule does not give log Z of a component."""
        if self.no_spins[component]:
            inside = (self.structure.component_of == component) & ~_spins(self.structure)
            return f"{self.structure.describe(int(np.argmax(inside)))} is not a spin"
        if self.structure.component_sizes[component] == 1:
            return "one spin has no interactions"
        if self.structure.crowded:
            return "a factor has too many sites to list its pairs"
        if self.too_large[component]:
            return f"more than {MAX_EDGES:,} interactions"
        if self.not_even[component]:
            return self.culprits[component]
        if self.not_planar[component]:
            return "its interactions do not form a planar graph"
        return "its sites have too many neighbours"

    @cached_property
    def no_spins(self) -> np.ndarray:
        """True at each component with a site that is not a spin."""
        bad = self.structure.free & ~_spins(self.structure)
        return _any(bad[self.structure.free], self._free_owner, self.count)

    @cached_property
    def too_large(self) -> np.ndarray:
        """True at each component with too many interactions, or with none."""
        sizes = self.structure.component_sizes
        return (self.edges > MAX_EDGES) | (sizes == 1) | self.structure.crowded

    @cached_property
    def not_even(self) -> np.ndarray:
        """True at each component with a factor of more than two spins, or not shown to be even."""
        return np.isin(np.arange(self.count), list(self.culprits))

    @cached_property
    def culprits(self) -> dict[int, str]:
        """For each component with such a factor, what is wrong with one of them."""
        found: dict[int, str] = {}
        candidate = np.append(~(self.no_spins | self.too_large), False)
        for number, owner in enumerate(self.structure.row_components):
            rows = np.flatnonzero(candidate[owner])
            if len(rows):
                self._judge(number, rows, found)
        return found

    def _judge(self, number: int, rows: np.ndarray, found: dict[int, str]) -> None:
        structure, factor = self.structure, self.structure.factors[number]
        scope, owner = structure.scope(factor)[rows], structure.row_components[number][rows]
        free = structure.free[scope]
        kinds, kind = np.unique(free, axis=0, return_inverse=True)
        for k, moving in enumerate(kinds):
            own = np.flatnonzero(kind.ravel() == k)
            sites = np.sort(scope[own][:, moving], axis=1)
            crowd = 1 + (np.diff(sites, axis=1) > 0).sum(axis=1) > 2
            even = crowd.all() or self._is_even(factor, moving)
            wrong = own[crowd if even else np.ones(len(own), bool)]
            for component, row in zip(*np.unique(owner[wrong], return_index=True), strict=True):
                named = sorted({structure.describe(i) for i in scope[wrong[row]][moving].tolist()})
                words = ", ".join(named[:3]) + (" and more" if len(named) > 3 else "")
                fault = "no field is not shown for" if not even else "more than two spins in"
                found.setdefault(int(component), f"{fault} the factor of {words}")

    def _is_even(self, factor: Any, moving: np.ndarray) -> bool:
        """Whether a factor is shown to stay as it is when its free sites are flipped."""
        flipped, start = [], 0
        for k, leaf in factor.sites.items():
            width = self.structure.numbers(leaf).shape[1]
            own = moving[start : start + width]
            start += width
            if own.any() and not own.all():
                return False
            if own.all():
                flipped.append(k)
        return self.structure.is_even(factor, flipped)

    @cached_property
    def not_planar(self) -> np.ndarray:
        """True at each candidate whose graph is not planar."""
        structure, sizes = self.structure, self.structure.component_sizes
        candidate = ~(self.no_spins | self.too_large | self.not_even)
        many = candidate & (self.edges >= 9) & (sizes >= 5)
        found = many & (self.edges > 3 * sizes - 6)
        order = np.argsort(self.owner, kind="stable")
        last = np.cumsum(self.edges)
        for k in np.flatnonzero(many & ~found):
            ends = structure.edges[order[last[k] - self.edges[k] : last[k]]]
            nodes, local = np.unique(ends, return_inverse=True)
            found[k] = not graph.is_planar(len(nodes), local.reshape(ends.shape))
        return found

    @cached_property
    def too_wide(self) -> np.ndarray:
        """True at each component with too many pairs of edges at common sites."""
        degrees = np.bincount(self.structure.edges.ravel(), minlength=self.structure.sites)
        free = self.structure.free
        turns = np.bincount(self._free_owner, degrees[free].astype(float) ** 2, self.count)
        return turns > MAX_TURNS

    @cached_property
    def chosen(self) -> np.ndarray:
        """The edges of the components for which the rule gives log Z."""
        return np.flatnonzero(self.applies[self.owner])

    @cached_property
    def _numbering(self) -> Any:
        ends = self.structure.edges[self.chosen]
        pairs = _at_common_sites(ends)
        meeting = graph.unique_edges(pairs, max(1, len(ends)))
        return numbering(len(ends), meeting, self.owner[self.chosen], self.count)

    @property
    def places(self) -> np.ndarray:
        """The number of each chosen edge within its component."""
        return self._numbering.place

    @property
    def widths(self) -> np.ndarray:
        """The largest difference of the numbers of two edges at a common site, by component."""
        return self._numbering.width

    @property
    def _free_owner(self) -> np.ndarray:
        return self.structure.component_of[self.structure.free]


@lru_cache(maxsize=4)
def _form(structure: Structure) -> _Form:
    return _Form(structure)


def _plan(
    rule: AbstractRule, structure: Structure, components: np.ndarray, width: int
) -> PlanarPlan:
    form = _form(structure)
    own = np.flatnonzero(np.isin(form.owner[form.chosen], components))
    own = own[np.lexsort([form.places[own], form.owner[form.chosen][own]])]
    ends = structure.edges[form.chosen[own]]
    rows, columns, signs = _turns(ends)
    size = 2 * len(ends)
    numbers = np.arange(size)
    band = Band(size, width, np.append(numbers, rows), np.append(numbers, columns))
    fixed, sign, from_edge = (np.zeros(np.prod(band.shape)) for _ in range(3))
    slots = np.asarray(band.slots)
    fixed[slots[:size]] = 1.0
    sign[slots[size:]] = signs
    from_edge[slots[size:]] = rows // 2
    codes = ends[:, 0].astype(np.int64) * structure.sites + ends[:, 1]
    order = np.argsort(codes)
    scopes = Scopes(structure, components)
    edges_of = []
    for group in scopes.groups:
        pair = np.sort(group.scopes, axis=1).astype(np.int64)
        code = pair[:, 0] * structure.sites + pair[:, 1] if pair.shape[1] == 2 else codes[:0]
        edges_of.append(int32(order[np.searchsorted(codes[order], code)]))
    inside = np.isin(structure.component_of, components)
    factors = structure.factor_counts[components].sum()
    return PlanarPlan(
        rule=rule,
        structure=structure,
        components=int32(components),
        operations=float(WORK * size * width**2 + factors),
        bytes=float(_bytes(size, width, factors) + 64.0 * np.prod(band.shape)),
        tables=scopes.built(),
        tables_of=tuple(int32(group.table) for group in scopes.groups),
        edges_of=tuple(edges_of),
        edges=len(ends),
        spins=int(inside.sum()),
        inside=jnp.asarray(inside),
        band=band,
        fixed=_float(fixed, band),
        signs=_float(sign, band),
        from_edge=int32(from_edge.reshape(band.shape)),
    )


def _turns(ends: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of directed edges, the second from where the first ends, and the sign of each turn.

    Edge k is numbered 2 k from its first end to its second one, and 2 k + 1 back.
    """
    nodes, local = np.unique(ends, return_inverse=True)
    local = local.reshape(ends.shape)
    place = graph.planar_drawing(len(nodes), local).astype(float)
    tail, head = local.ravel(), local[:, ::-1].ravel()
    step = place[head] - place[tail]
    angle = np.arctan2(step[:, 1], step[:, 0])
    order = np.argsort(tail, kind="stable")
    count = np.bincount(tail, minlength=len(nodes))
    start = np.cumsum(count) - count
    # Each directed edge, repeated once for each edge that starts at its head.
    first = np.repeat(np.arange(len(tail)), count[head])
    rank = np.arange(len(first)) - np.repeat(np.cumsum(count[head]) - count[head], count[head])
    second = order[start[head[first]] + rank]
    kept = second != first ^ 1
    first, second = first[kept], second[kept]
    signs = np.where(np.abs(angle[second] - angle[first]) < np.pi, 1.0, -1.0)
    return first, second, signs


def _at_common_sites(ends: np.ndarray) -> np.ndarray:
    """Pairs of edges that share a site."""
    site, edge = ends.ravel(), np.repeat(np.arange(len(ends)), 2)
    order = np.argsort(site, kind="stable")
    site, edge = site[order], edge[order]
    found, step = [np.zeros((0, 2), np.int64)], 1
    while (same := np.flatnonzero(site[step:] == site[:-step])).size:
        found.append(np.stack([edge[same], edge[same + step]], axis=1))
        step += 1
    return np.concatenate(found)


def _block(widths: np.ndarray) -> np.ndarray:
    """The rows of a block: two for each edge."""
    return np.maximum(2 * (widths + 1), NARROWEST).astype(float)


def _bytes(size: Any, width: Any, factors: Any) -> Any:
    """Bytes of the inverses of the blocks, those that a step takes, and the factors' tables."""
    return 8.0 * ((size + width) * width + BLOCKS * width**2 + 24.0 * factors)


def _float(numbers: np.ndarray, band: Band) -> Array:
    with jax.enable_x64(True):
        return jnp.asarray(numbers.reshape(band.shape))


def _spins(structure: Structure) -> np.ndarray:
    """True at each site whose levels are -1 and 1."""
    return structure.of_variables(
        v.name
        for v in structure.variables
        if v.domain.levels == 2 and np.array_equal(v.domain.values, [-1, 1])
    )


def _any(marked: np.ndarray, owner: np.ndarray, count: int) -> np.ndarray:
    return np.bincount(owner, marked, count) > 0
