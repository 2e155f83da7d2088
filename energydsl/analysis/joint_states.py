"""Enumeration of the joint states of finite sites within each connected component.

All components are enumerated at once: at step t each takes its own t-th state (mixed radix over its
sites' levels), so that the number of steps is that of the component with the most states. Index
arrays are leaves of pytrees and enter compiled code as arguments.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl._types import Configuration
from energydsl.analysis.evaluation import argument, batched
from energydsl.analysis.factor import Count, Leaf, Whole
from energydsl.analysis.structure import Structure
from energydsl.language.expression import Environment
from energydsl.language.model import Model

WORD = 31
"""The number of bits of each of the two words that represent a number of states: JAX has no 64-bit
arrays unless they are enabled."""


class States(eqx.Module):
    """The joint states of components: in state t, site i has level (t // stride_i) mod levels_i.

    Args:
        structure: the structure of the model.
        components: the numbers of the components to enumerate.
        sites: True at the finite sites to enumerate; by default the free sites of `components`.

    Raises:
        ValueError: a component has more states than int64 can number.
    """

    structure: Structure = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)
    """The variables that have some of these sites."""
    largest: int = eqx.field(static=True)
    """The largest number of states of a component."""
    inside: Array
    owner: Array
    """The position of each site's component in `components`; 0 at sites not enumerated."""
    strides: Array
    counts: Array

    def __init__(
        self, structure: Structure, components: np.ndarray, sites: np.ndarray | None = None
    ) -> None:
        owner = positions(structure, components)[structure.component_of]
        inside = owner >= 0 if sites is None else (owner >= 0) & sites
        stride, counts = _mixed_radix(structure, owner, inside, len(components))
        self.structure = structure
        self.names = tuple(
            v.name
            for v in structure.variables
            if inside[structure.offset[v.name] :][: v.size].any()
        )
        self.largest = int(counts.max())
        self.inside, self.owner = jnp.asarray(inside), int32(np.where(inside, owner, 0))
        self.strides, self.counts = _words(stride), _words(counts)

    @property
    def states(self) -> Array:
        """The number of states of each component; JAX's 64-bit mode must be on."""
        return _joined(self.counts)

    def digits(self, t: Array) -> dict[str, Array]:
        """The index of each site's level in the t-th state, by variable.

        Args:
            t: the number of the state: one for all components, or one for each.
        """
        stride = _joined(self.strides)
        t = t if jnp.ndim(t) == 0 else t[self.owner]
        digits = {}
        for v in self.structure.variables:
            if v.name in self.names:
                place = self._place(v.name, v.size)
                at = t if jnp.ndim(t) == 0 else t[place]
                digits[v.name] = at // stride[place] % len(v.domain.values)
        return digits

    def put(self, values: Configuration, t: Array) -> Configuration:
        """The values of all variables with the enumerated sites in their t-th state."""
        values, digits = dict(values), self.digits(t)
        for v in self.structure.variables:
            if v.name in digits:
                new = jnp.asarray(v.domain.values, v.domain.dtype)[digits[v.name]]
                inside = self.inside[self._place(v.name, v.size)]
                old = values[v.name].ravel()
                values[v.name] = jnp.where(inside, new, old).reshape(v.shape)
        return values

    def fields(self, fields: Any, t: Array) -> Array:
        """The sum of single-site energies, given by variable, site and level, in each component."""
        count = self.counts.shape[1]
        total = jnp.zeros(count)
        for name, level in self.digits(t).items():
            place = self._place(name, len(level))
            each = jnp.take_along_axis(fields[name], level[:, None], axis=1)[:, 0]
            each = jnp.where(self.inside[place], each, 0.0)
            total += by_owner(each, self.owner[place], count)
        return total

    def _place(self, name: str, size: int) -> slice:
        start = self.structure.offset[name]
        return slice(start, start + size)


def _mixed_radix(
    structure: Structure, owner: np.ndarray, inside: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The stride of each site and the number of states of each component."""
    order = np.flatnonzero(inside & (structure.levels > 1))
    order = order[np.argsort(owner[order], kind="stable")]
    labels = owner[order]
    rank = np.arange(len(order)) - np.searchsorted(labels, labels)
    stride, counts = np.ones(structure.sites, np.int64), np.ones(count, np.int64)
    bits = np.bincount(labels, np.log2(structure.levels[order]), count)
    if bits.max(initial=0) >= 2 * WORD + 1e-9:
        raise ValueError(
            f"A component has 2^{bits.max():.4g} states; expected at most 2^{2 * WORD}, which "
            "int64 can number."
        )
    for k in range(int(rank.max(initial=-1)) + 1):
        at = order[rank == k]
        stride[at] = counts[owner[at]]
        counts[owner[at]] *= structure.levels[at]
    return stride, counts


class Rows(eqx.Module):
    """Some factors of one batch, each with the position of the component to which it belongs."""

    structure: Structure = eqx.field(static=True)
    number: int = eqx.field(static=True)
    """The number of the batch."""
    slices: tuple[Any, ...] = eqx.field(static=True)
    """For each leaf, its index as a slice if its entries are contiguous, so that no gather is
    needed; None otherwise."""
    indices: tuple[Array | None, ...]
    owner: Array

    def __init__(
        self, structure: Structure, number: int, rows: np.ndarray, owner: np.ndarray
    ) -> None:
        self.structure, self.number, self.owner = structure, number, int32(owner)
        leaves = structure.factors[number].leaves
        chosen = [None if isinstance(f, Whole) else f.index[rows] for f in leaves]
        pairs = list(zip(leaves, chosen, strict=True))
        self.slices = tuple(None if i is None else _run(f, i) for f, i in pairs)
        self.indices = tuple(
            None if i is None or s is not None else int32(i)
            for (_, i), s in zip(pairs, self.slices, strict=True)
        )

    def arguments(self, env: Environment) -> list[Any]:
        """The values of each leaf for these factors."""
        leaves = self.structure.factors[self.number].leaves
        return [
            argument(leaf, index if run is None else run, env)
            for leaf, index, run in zip(leaves, self.indices, self.slices, strict=True)
        ]

    def energies(self, env: Environment) -> Array:
        """The energy of each factor."""
        factor, values = self.structure.factors[self.number], self.arguments(env)
        if all(isinstance(leaf, Whole) for leaf in factor.leaves):
            return factor.energy(*values)[None]
        return batched(factor)(*values)

    def __len__(self) -> int:
        return len(self.owner)


class Energies(eqx.Module):
    """The energies of components: each the sum of the factors that contain a free site of it."""

    rows: tuple[Rows, ...]
    count: int = eqx.field(static=True)

    def __init__(self, structure: Structure, components: np.ndarray) -> None:
        self.rows, self.count = owned_rows(structure, components), len(components)

    @property
    def size(self) -> int:
        """The number of factors."""
        return sum(map(len, self.rows))

    def __call__(self, model: Model, values: Configuration) -> Array:
        """The energy of each component, given values of all variables."""
        env, total = model.environment(values), jnp.zeros(self.count)
        for part in self.rows:
            total += by_owner(part.energies(env), part.owner, self.count)
        return total


def owned_rows(
    structure: Structure, components: np.ndarray, chosen: tuple[np.ndarray, ...] | None = None
) -> tuple[Rows, ...]:
    """The factors of some components; `chosen` marks, for each batch, the factors to include."""
    position, found = positions(structure, components), []
    for number, component in enumerate(structure.row_components):
        owner = position[component]
        rows = np.flatnonzero((owner >= 0) & (True if chosen is None else chosen[number]))
        if len(rows):
            found.append(Rows(structure, number, rows, owner[rows]))
    return tuple(found)


def held_rows(structure: Structure) -> tuple[Rows, ...]:
    """The factors that have no free site and so belong to no component."""
    found = []
    for number, component in enumerate(structure.row_components):
        rows = np.flatnonzero(component < 0)
        if len(rows):
            found.append(Rows(structure, number, rows, component[rows]))
    return tuple(found)


def state_bits(structure: Structure) -> np.ndarray:
    """For each component, log2 of the number of states of its finite free sites, rounded up."""
    finite = structure.free & (structure.levels > 0)
    bits = np.log2(structure.levels[finite].astype(float))
    total = np.bincount(structure.component_of[finite], bits, len(structure.component_sizes))
    return np.ceil(total - 1e-9).astype(int)


def positions(structure: Structure, components: np.ndarray) -> np.ndarray:
    """The position of each component in `components`; -1 for others, and at index -1 (clamped)."""
    position = np.full(len(structure.component_sizes) + 1, -1)
    position[components] = np.arange(len(components))
    return position


def by_owner(numbers: Array, owner: Array | np.ndarray, count: int) -> Array:
    """The sum of the numbers that belong to each owner."""
    if count == 1:
        return jnp.sum(numbers)[None]
    return jax.ops.segment_sum(numbers, owner, count)


def take(flat: Array, index: np.ndarray) -> Array:
    """The entries at flat positions `index`; no gather if these are all positions in order."""
    if index.size == flat.size and (index.ravel() == np.arange(flat.size)).all():
        return flat.reshape(index.shape)
    return flat[index]


def int32(array: np.ndarray) -> Array:
    """An index array of 32 bits, whatever JAX's default is."""
    # Without the second type, JAX would compile a program for each new shape.
    return jnp.asarray(np.asarray(array, np.int32), np.int32)


def _run(leaf: Leaf, index: np.ndarray) -> tuple[Any, ...] | None:
    """An index as a slice and new axes, if its entries are consecutive; None otherwise."""
    if isinstance(leaf, Count) or not index.size or index.size != len(index):
        return None
    flat = index.ravel()
    if not (np.diff(flat) == 1).all():
        return None
    return (slice(int(flat[0]), int(flat[0]) + len(flat)), *(None,) * (index.ndim - 1))


def _words(numbers: np.ndarray) -> Array:
    return int32(np.stack([numbers >> WORD, numbers & (2**WORD - 1)]))


def _joined(words: Array) -> Array:
    """Two words as one number; without JAX's 64-bit mode, it must be below 2^31."""
    high, low = words.astype(int)
    return (high << WORD) | low
