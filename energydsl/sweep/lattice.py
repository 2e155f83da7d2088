"""Sweeps of regular lattices, where the neighbours of all sites are a shifted array.

The lattice is tiled by copies of a small cell. The sites at one position of all cells form a
sublattice, so that a 2 x 2 cell gives 4 interleaved sublattices. The cell is chosen such that no
two sites of a sublattice interact. Each sublattice is stored as a dense array and drawn at once,
given the shifted arrays of its neighbours.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array, lax

from energydsl._types import Configuration, Refusal
from energydsl.analysis.conditional import AbstractConditional
from energydsl.analysis.evaluation import argument, common_argument
from energydsl.analysis.factor import Factor, Leaf, Sites, Whole, is_common
from energydsl.analysis.structure import Structure
from energydsl.language.expression import Environment
from energydsl.language.model import Model
from energydsl.language.variable import Variable
from energydsl.sweep.base import AbstractSweep, Block, Offer, drawable, evaluations, scales

Offset = tuple[int, ...]

Step = tuple[int, int]
"""The number of a drawn variable, and the number of one of its sublattices."""

MAX_CELL = 3
"""The longest side of a cell that is tried."""

MAX_NUMBERS = 32
"""The most numbers that describe a site, such as the energies of its levels."""


class Stencil(eqx.Module):
    """The factors of one batch in which a site is leaf `slot`, with the offsets of other sites.

    `offsets` has the displacement of each leaf from the site; None for leaves that are constant
    during sampling. `indices` has the entries of those leaves at every site, (sublattice, *site);
    None if all these factors have the same argument: see `is_common`.
    `valid` is True at the sites that have such a factor; None if all sites have one.
    """

    number: int = eqx.field(static=True)
    slot: int = eqx.field(static=True)
    offsets: tuple[Offset | None, ...] = eqx.field(static=True)
    indices: tuple[Any, ...]
    valid: Array | None


class LatticeSweep(AbstractSweep):
    """A sweep that draws one sublattice after another; see the module.

    Its state has a separate array for each sublattice.
    """

    lowering: ClassVar[str] = "lattice"

    drawn: tuple[str, ...] = eqx.field(static=True)
    note: str = eqx.field(static=True)
    variables: tuple[Variable, ...] = eqx.field(static=True)
    cell: tuple[int, ...] = eqx.field(static=True)
    steps: tuple[Step, ...] = eqx.field(static=True)
    laws: tuple[AbstractConditional, ...]
    stencils: tuple[tuple[Stencil, ...], ...]
    free: tuple[Array | None, ...]
    """For each drawn variable, True at its free sites; None if all are free."""

    @classmethod
    def plan(cls, structure: Structure, blocks: Sequence[Block] | None) -> Offer | Refusal:
        laws = drawable(structure, blocks)
        if (most := max(law.size for law in laws.values())) > MAX_NUMBERS:
            return Refusal(
                f"a conditional is described by {most} numbers, of which whole sublattices would "
                f"fill the memory; at most {MAX_NUMBERS}"
            )
        grid = _grid(structure)
        if isinstance(grid, Refusal):
            return grid
        offsets, cell = grid
        steps = _steps(structure, laws, cell, blocks)
        if isinstance(steps, Refusal):
            return steps
        build = partial(_build, structure, laws, offsets, cell, steps)
        return Offer(evaluations(structure, laws), build)

    def load(self, structure: Structure, model: Model) -> Any:
        env = model.environment(model.evidence)
        tables = []
        for stencils in self.stencils:
            tables.append([])
            for s in stencils:
                leaves = structure.factors[s.number].leaves
                rows = zip(leaves, s.offsets, s.indices, strict=True)
                tables[-1].append([_constant(f, o, i, env) for f, o, i in rows])
        return tables

    def pack(self, x: Configuration) -> dict[str, tuple[Array, ...]]:
        return {
            v.name: tuple(jax.vmap(lambda a: split(a, self.cell), out_axes=1)(x[v.name]))
            for v in self.variables
        }

    def unpack(self, state: dict[str, tuple[Array, ...]]) -> Configuration:
        return {
            v.name: jax.vmap(lambda *a, v=v: join(jnp.stack(a), self.cell, v.shape))(*state[v.name])
            for v in self.variables
        }

    def sweep(
        self,
        structure: Structure,
        tables: Any,
        state: Any,
        *,
        key: Array,
        betas: Array | None = None,
    ) -> Any:
        step_keys = jr.split(key, len(self.steps))
        for (k, residue), step_key in zip(self.steps, step_keys, strict=True):
            name = self.drawn[k]
            total = self._total(structure, k, residue, tables[k], state)
            total = total if betas is None else total * scales(betas, total)
            # XLA would otherwise shift the neighbours' arrays again for every use.
            drawn = self.laws[k].draw(lax.optimization_barrier(total), key=step_key)
            free = self.free[k]
            if free is not None:
                drawn = jnp.where(free[residue], drawn, state[name][residue])
            parts = state[name]
            state = state | {name: (*parts[:residue], drawn, *parts[residue + 1 :])}
        return state

    def _total(self, structure: Structure, k: int, residue: int, tables: Any, state: Any) -> Array:
        """The numbers that determine the conditionals of a sublattice, (number, chain, *site)."""
        law = self.laws[k]
        shape = state[self.drawn[k]][residue].shape
        total = jnp.zeros((law.size, *shape))
        for stencil, table in zip(self.stencils[k], tables, strict=True):
            factor = structure.factors[stencil.number]
            values = [
                _value(leaf, offset, constant, index, residue, self.cell, state)
                for leaf, offset, constant, index in zip(
                    factor.leaves, stencil.offsets, table, stencil.indices, strict=True
                )
            ]
            measured = _measure(law, factor, stencil, values, len(shape))
            if stencil.valid is not None:
                measured = jnp.where(stencil.valid[residue], measured, 0.0)
            total = total + measured
        return total


def _grid(
    structure: Structure,
) -> tuple[list[tuple[Offset | None, ...]], tuple[int, ...]] | Refusal:
    """The offsets of each batch's leaves, and the cell; or why the model is not a lattice."""
    free = structure.skeleton.free
    shapes = {v.shape for v in free}
    if len(shapes) != 1 or not (shape := free[0].shape):
        return Refusal("the free variables are not arrays of one shape")
    offsets: list[tuple[Offset | None, ...]] = []
    wraps = np.zeros(len(shape), bool)
    for factor in structure.factors:
        found = _offsets(factor, free, shape)
        if isinstance(found, Refusal):
            return found
        offsets.append(found[0])
        wraps |= found[1]
    cell = _cell(structure, offsets, shape, wraps)
    return cell if isinstance(cell, Refusal) else (offsets, cell)


def _build(
    structure: Structure,
    laws: Mapping[Variable, AbstractConditional],
    offsets: list[tuple[Offset | None, ...]],
    cell: tuple[int, ...],
    steps: tuple[Step, ...],
) -> LatticeSweep:
    shape = structure.skeleton.free[0].shape
    stencils = tuple(
        tuple(
            _stencil(structure, number, slot, offsets[number], shape, cell)
            for number, factor in enumerate(structure.factors)
            for slot, leaf in factor.sites.items()
            if leaf.variable == v
        )
        for v in laws
    )
    return LatticeSweep(
        tuple(v.name for v in laws),
        f"{math.prod(cell)} interleaved sublattices of a {_times(cell)} cell",
        structure.skeleton.free,
        cell,
        steps,
        tuple(laws.values()),
        stencils,
        tuple(_free_mask(structure, v, cell) for v in laws),
    )


def _steps(
    structure: Structure,
    laws: Mapping[Variable, AbstractConditional],
    cell: tuple[int, ...],
    blocks: Sequence[Block] | None,
) -> tuple[Step, ...] | Refusal:
    """The sublattices in the order in which they are drawn, or why blocks are not sublattices."""
    count = math.prod(cell)
    if blocks is None:
        return tuple(itertools.product(range(len(laws)), range(count)))
    variables, steps = list(laws), []
    for number, block in enumerate(blocks):
        v = block.variable
        place = np.unravel_index(np.arange(v.size), v.shape)
        residue = np.ravel_multi_index([i % p for i, p in zip(place, cell, strict=True)], cell)
        seen = np.unique(residue[block.sites])
        free = ~structure.skeleton.mask(v).ravel()
        if np.isin(residue[free], seen).sum() != len(block.sites):
            return Refusal(f"block {number} is not a union of sublattices of a {_times(cell)} cell")
        steps += [(variables.index(v), int(r)) for r in seen]
    return tuple(steps)


def _times(cell: tuple[int, ...]) -> str:
    return " x ".join(map(str, cell))


def split(array: Any, cell: tuple[int, ...], fill: float = 0) -> Any:
    """The sublattices of an array, (sublattice, *coordinates), padded with `fill`."""
    xp = jnp if isinstance(array, jax.Array) else np
    padding = [(0, -n % p) for n, p in zip(array.shape, cell, strict=True)]
    array = xp.pad(array, padding, constant_values=fill)
    blocks = [n // p for n, p in zip(array.shape, cell, strict=True)]
    axes = range(len(cell))
    cut = array.reshape([n for pair in zip(blocks, cell, strict=True) for n in pair])
    cut = cut.transpose([2 * a + 1 for a in axes] + [2 * a for a in axes])
    return cut.reshape(-1, *blocks)


def join(parts: Array, cell: tuple[int, ...], shape: tuple[int, ...]) -> Array:
    """The array of this shape whose sublattices are given: the inverse of `split`."""
    dims = len(cell)
    whole = parts.reshape(*cell, *parts.shape[1:])
    whole = whole.transpose([a for d in range(dims) for a in (dims + d, d)])
    padded = [p * n for p, n in zip(cell, parts.shape[1:], strict=True)]
    return whole.reshape(padded)[tuple(slice(n) for n in shape)]


def _constant(leaf: Leaf, offset: Offset | None, index: Any, env: Environment) -> Any:
    """The argument of a leaf that is constant during sampling; None if it is not."""
    if offset is not None:
        return None
    return common_argument(leaf, env) if index is None else argument(leaf, index, env)


def reached(offset: Offset, residue: int, cell: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """The sublattice at an offset from another, and by how much its array must be rolled."""
    place = np.unravel_index(residue, cell)
    there = [int(r) + d for r, d in zip(place, offset, strict=True)]
    number = np.ravel_multi_index([t % p for t, p in zip(there, cell, strict=True)], cell)
    return int(number), tuple(-(t // p) for t, p in zip(there, cell, strict=True))


def _value(
    leaf: Leaf,
    offset: Offset | None,
    constant: Any,
    index: Any,
    residue: int,
    cell: tuple[int, ...],
    state: dict[str, tuple[Array, ...]],
) -> Any:
    """The values of a leaf for every site of a sublattice."""
    if offset is None:
        return constant if index is None else constant[residue]
    assert isinstance(leaf, Sites)
    variable = leaf.variable
    place, shift = reached(offset, residue, cell)
    values = state[variable.name][place]
    axes = tuple(range(1, values.ndim))
    moved = jnp.roll(values, shift, axes) if any(shift) else values
    return moved.astype(variable.domain.energy_dtype)


def _measure(
    law: AbstractConditional, factor: Factor, stencil: Stencil, values: list[Any], ndim: int
) -> Array:
    def measure(*given: Any) -> Array:
        return law.measure(
            lambda v: factor.energy(*(v if k == stencil.slot else g for k, g in enumerate(given)))
        )

    moving = [o is not None for o in stencil.offsets]
    placed = [m or i is not None for m, i in zip(moving, stencil.indices, strict=True)]
    batched = measure
    for _ in range(ndim - 1):
        batched = jax.vmap(batched, in_axes=tuple(0 if p else None for p in placed), out_axes=1)
    chains = tuple(0 if m else None for m in moving)
    return jax.vmap(batched, in_axes=chains, out_axes=1)(*values)


def _offsets(
    factor: Factor, free: tuple[Variable, ...], shape: tuple[int, ...]
) -> tuple[tuple[Offset | None, ...], np.ndarray] | Refusal:
    """The offset of each free leaf from the first one, and which axes are periodic."""
    moving = {k: leaf for k, leaf in factor.sites.items() if leaf.variable in free}
    found: list[Offset | None] = [None] * len(factor.leaves)
    wraps = np.zeros(len(shape), bool)
    first: np.ndarray | None = None
    for k, leaf in moving.items():
        index = leaf.index
        if index.ndim > 1:
            return Refusal("a factor has an argument that is an array of sites")
        if np.bincount(index, minlength=1).max() > 1:
            return Refusal("two factors of a batch have the same site as the same argument")
        here = np.stack(np.unravel_index(index, shape))
        first = here if first is None else first
        offset = _constant_offset(here - first, shape)
        if offset is None:
            return Refusal("the factors of a batch are not translates of one pattern")
        found[k] = tuple(int(d) for d in offset)
        wraps |= (here - first != np.array(offset)[:, None]).any(axis=1)
    if len({(leaf.variable, found[k]) for k, leaf in moving.items()}) < len(moving):
        return Refusal("a factor contains a site twice")
    return tuple(found), wraps


def _constant_offset(difference: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """The displacement that all factors share, modulo the shape if need be; None if they differ."""
    sizes = np.array(shape)
    if (difference == difference[:, :1]).all():
        return difference[:, 0]
    around = difference % sizes[:, None]
    if not (around == around[:, :1]).all():
        return None
    return (around[:, 0] + sizes // 2) % sizes - sizes // 2


def _cell(
    structure: Structure, offsets: list, shape: tuple[int, ...], wraps: np.ndarray
) -> tuple[int, ...] | Refusal:
    """The smallest cell whose sublattices have no two interacting sites."""
    gaps = set()
    for factor, found in zip(structure.factors, offsets, strict=True):
        moving = [(leaf.variable, found[k]) for k, leaf in factor.sites.items() if found[k]]
        for (u, a), (v, b) in itertools.combinations(moving, 2):
            if u == v:
                gaps.add(tuple(y - x for x, y in zip(a, b, strict=True)))
    for cell in _cells(len(shape)):
        whole = all(n % p == 0 for n, p, w in zip(shape, cell, wraps, strict=True) if w)
        apart = all(any(d % p for d, p in zip(gap, cell, strict=True)) for gap in gaps)
        if whole and apart:
            return cell
    return Refusal(
        f"no cell of side {MAX_CELL} or less gives sublattices of a {_times(shape)} lattice "
        "without neighbours in one sublattice"
    )


def _cells(ndim: int) -> Iterator[tuple[int, ...]]:
    sides = range(1, MAX_CELL + 1)
    return iter(sorted(itertools.product(sides, repeat=ndim), key=math.prod))


def _stencil(
    structure: Structure,
    number: int,
    slot: int,
    offsets: tuple[Offset | None, ...],
    shape: tuple[int, ...],
    cell: tuple[int, ...],
) -> Stencil:
    factor = structure.factors[number]
    own, here = factor.sites[slot].index, offsets[slot] or (0,) * len(shape)
    # The factor of the batch in which each site is leaf `slot`.
    row = np.zeros(shape, np.int32)
    row.ravel()[own] = np.arange(factor.size)
    valid = np.zeros(shape, bool)
    valid.ravel()[own] = True
    rows, indices = split(row, cell), []
    for leaf, offset in zip(factor.leaves, offsets, strict=True):
        if isinstance(leaf, Whole) or offset is not None or is_common(leaf):
            indices.append(None)
        else:
            indices.append(jnp.asarray(leaf.index[rows]))
    relative = tuple(
        None if o is None else tuple(a - b for a, b in zip(o, here, strict=True)) for o in offsets
    )
    held = None if valid.all() else jnp.asarray(split(valid, cell))
    return Stencil(number, slot, relative, tuple(indices), held)


def _free_mask(structure: Structure, variable: Variable, cell: tuple[int, ...]) -> Array | None:
    held = structure.skeleton.mask(variable)
    return jnp.asarray(split(~held, cell)) if held.any() else None
