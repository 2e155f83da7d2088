"""Blocks: real sites that are connected by factors, and the finite sites of these factors."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np

from energydsl.analysis import graph
from energydsl.analysis.structure import Structure
from energydsl.analysis.tables import table_sizes
from energydsl.normalizer.elimination.search import MAX_TABLE, Network, named


class Alike(NamedTuple):
    """Blocks with equally many sites, whose finite neighbours have the same numbers of levels."""

    sites: np.ndarray
    """The sites of each block, (block, site)."""
    around: np.ndarray
    """The finite neighbours of each block, (block, neighbour)."""


class Blocks:
    """The blocks of a structure: its free real sites, as far as factors connect them.

    Given the finite sites, blocks are independent. What is left of a block when it has been
    integrated out is a table over its finite neighbours.
    """

    def __init__(self, structure: Structure) -> None:
        self.structure, self.count = structure, len(structure.component_sizes)
        real = structure.of_variables(v.name for v in structure.variables if v.domain.real_line)
        self.real = structure.free & real
        self.finite = structure.free & (structure.levels > 0)
        self.other = structure.free & ~self.real & ~self.finite

    @cached_property
    def mixed(self) -> np.ndarray:
        """True for each component with both real and finite sites, and with no others."""
        return self._with(self.real) & self._with(self.finite) & ~self._with(self.other)

    def _with(self, sites: np.ndarray) -> np.ndarray:
        found = np.zeros(self.count, bool)
        found[self.structure.component_of[sites]] = True
        return found

    @cached_property
    def steep(self) -> np.ndarray:
        """True for each component whose energy is not shown to be quadratic in its real sites."""
        steep = np.zeros(self.count, bool)
        degrees, rows = self.structure.degrees_in_reals, self.structure.row_components
        for owner, degree in zip(rows, degrees, strict=True):
            if degree > 2:
                steep[owner[owner >= 0]] = True
        return steep

    @cached_property
    def fits(self) -> np.ndarray:
        """True for each component whose blocks can be integrated out."""
        if self.structure.crowded or not self.mixed.any():
            return np.zeros(self.count, bool)
        return self.mixed & ~self.steep

    @cached_property
    def joined(self) -> tuple[np.ndarray, ...]:
        """For each batch, True at the factors with a free real site."""
        structure = self.structure
        return tuple(self.real[structure.scope(f)].any(axis=1) for f in structure.factors)

    @property
    def apart(self) -> tuple[np.ndarray, ...]:
        """For each batch, True at the factors without a free real site."""
        return tuple(~joined for joined in self.joined)

    @cached_property
    def block_of(self) -> np.ndarray:
        """The block of each real site of the components that fit; -1 at other sites."""
        structure = self.structure
        inside = self.real & self.fits[structure.component_of]
        edges = structure.edges
        within = edges[inside[edges].all(axis=1)]
        labels = graph.components(structure.sites, within)[1]
        _, compact = np.unique(labels[inside], return_inverse=True)
        blocks = np.full(structure.sites, -1)
        blocks[inside] = compact
        return blocks

    @cached_property
    def sizes(self) -> np.ndarray:
        """The number of sites of each block."""
        return np.bincount(self.block_of[self.block_of >= 0])

    @cached_property
    def owner(self) -> np.ndarray:
        """The component of each block."""
        inside = self.block_of >= 0
        owner = np.zeros(len(self.sizes), int)
        owner[self.block_of[inside]] = self.structure.component_of[inside]
        return owner

    @cached_property
    def neighbours(self) -> tuple[np.ndarray, np.ndarray]:
        """The finite neighbours of all blocks, block by block, and where those of each begin."""
        edges = self.structure.edges
        pairs = np.concatenate([edges, edges[:, ::-1]]).astype(np.int64)
        pairs = pairs[(self.block_of[pairs[:, 0]] >= 0) & self.finite[pairs[:, 1]]]
        codes = np.unique(self.block_of[pairs[:, 0]] * self.structure.sites + pairs[:, 1])
        block, site = np.divmod(codes, self.structure.sites)
        return site, np.searchsorted(block, np.arange(len(self.sizes) + 1))

    @cached_property
    def bits(self) -> np.ndarray:
        """log2 of the joint states of each block's finite neighbours."""
        site, starts = self.neighbours
        weights = np.log2(self.structure.levels[site])
        block = np.repeat(np.arange(len(self.sizes)), np.diff(starts))
        return np.bincount(block, weights, len(self.sizes))

    def alike(self, components: np.ndarray) -> list[Alike]:
        """The blocks of some components in groups of like ones."""
        blocks = np.flatnonzero(np.isin(self.owner, components))
        site, starts = self.neighbours
        inside = np.flatnonzero(self.block_of >= 0)
        order = inside[np.argsort(self.block_of[inside], kind="stable")]
        first = np.concatenate([[0], np.cumsum(self.sizes)])
        shapes = np.stack([self.sizes, np.diff(starts)], axis=1)[blocks]
        found = []
        for n, k in np.unique(shapes, axis=0).tolist():
            like = blocks[(shapes == (n, k)).all(axis=1)]
            around = site[starts[like][:, None] + np.arange(k)]
            sites = order[first[like][:, None] + np.arange(n)]
            _, kind = np.unique(self.structure.levels[around], axis=0, return_inverse=True)
            found += [Alike(sites[kind == c], around[kind == c]) for c in range(kind.max() + 1)]
        return found

    def widest(self, component: int) -> int:
        """The block of a component with the most joint states of its neighbours."""
        return int(np.argmax(np.where(self.owner == component, self.bits, -1.0)))

    def about(self, block: int) -> str:
        """The finite neighbours of a block, and the block's own sites, by their names."""
        site, starts = self.neighbours
        around = named(self.structure, site[starts[block] : starts[block + 1]])
        own = named(self.structure, np.flatnonzero(self.block_of == block))
        return f"of {around}, the finite neighbours of {own}"

    def reason(self, component: int) -> str:
        """Why the blocks of a component are not integrated out."""
        structure = self.structure
        if structure.crowded:
            return "a factor has too many sites to list its pairs"
        inside = structure.component_of == component
        if (inside & self.other).any():
            site = structure.describe(int(np.argmax(inside & self.other)))
            return f"{site} is neither finite nor real"
        if not self.mixed[component]:
            return f"it has no {'real' if (inside & self.finite).any() else 'finite'} site"
        if self.steep[component]:
            return "the energy is not shown to be quadratic in the real sites, given the others"
        block = self.widest(component)
        return (
            f"2^{self.bits[block]:.4g} joint states {self.about(block)}; a block of real sites "
            f"that are connected is integrated in at most 2^{MAX_TABLE:g}"
        )

    def network(self) -> Network:
        """The finite sites, joined by the factors without real sites and by the blocks."""
        structure, small = self.structure, self.bits <= MAX_TABLE
        edges = structure.edges
        served = self.fits.copy()
        served[self.owner[~small]] = False
        sites = self.finite & served[structure.component_of]
        pairs = [edges[sites[edges].all(axis=1)]]
        site, starts = self.neighbours
        widths = np.diff(starts)
        for k in np.unique(widths[small]).tolist():
            around = site[starts[:-1][small & (widths == k)][:, None] + np.arange(k)]
            left, right = np.triu_indices(k, 1)
            pairs.append(np.stack([around[:, left].ravel(), around[:, right].ravel()], axis=1))
        largest, cells = table_sizes(structure, self.apart)
        np.maximum.at(largest, self.owner, self.bits)
        cells += np.bincount(self.owner, np.exp2(np.minimum(self.bits, 2 * MAX_TABLE)), self.count)
        joined = graph.unique_edges(np.concatenate(pairs), structure.sites)
        joined = joined[sites[joined].all(axis=1)]
        return Network(structure, sites, joined, largest, cells, ~served, self.reason)
