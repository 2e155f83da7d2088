"""Traces: the values of one quantity in all chains and draws, with R-hat and ESS of its entries.

Moments of all entries are computed in one pass over blocks, so that a lattice of 10^6 sites takes
seconds and little memory. ArviZ, which ranks all draws of an entry, is used for all entries of a
small quantity, and for a random subset of the entries of a large one.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from functools import cached_property

import numpy as np
from scipy.sparse.csgraph import connected_components

BLOCK = 2**20
"""The number of values in a block."""

RANKED, RANKED_ENTRIES = 2**23, 2000
"""The largest numbers of values and of entries for which ArviZ ranks every entry; it takes almost a
millisecond per entry."""

SUBSET = 256
"""The number of entries of a larger quantity that ArviZ ranks."""

FEWEST = 4
"""The least number of draws per chain, for half-chains to have a variance."""


@dataclasses.dataclass(frozen=True)
class Moments:
    """Means and variances of half-chains, first halves first, and which chains moved each entry."""

    means: np.ndarray
    variances: np.ndarray
    moved: np.ndarray

    @staticmethod
    def of(values: np.ndarray) -> Moments:
        """The moments of values of shape (chain, draw, entry)."""
        chains, draws, entries = values.shape
        width = max(1, BLOCK // (chains * draws))
        blocks = [_moments(values[:, :, i : i + width]) for i in range(0, entries, width)]
        return Moments(*(np.concatenate(parts, axis=1) for parts in zip(*blocks, strict=True)))


def _moments(block: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    half = block.shape[1] // 2
    halves = np.concatenate([block[:, :half], block[:, half : 2 * half]]).astype(float)
    moved = (block != block[:, :1]).any(axis=1)
    with np.errstate(invalid="ignore", over="ignore"):
        return halves.mean(axis=1), halves.var(axis=1, ddof=1), moved


@dataclasses.dataclass(frozen=True)
class Trace:
    """The values of one quantity in all chains and draws.

    Attributes:
        name: the name of the variable, or the name given in ``keep=``.
        shape: the shape of the quantity in one draw.
        places: the flat index of each entry in that shape; clamped sites are left out.
        values: an array of shape (chain, draw, entry) with at least four draws.
    """

    name: str
    shape: tuple[int, ...]
    places: np.ndarray
    values: np.ndarray

    @cached_property
    def moments(self) -> Moments:
        """The moments of all entries, computed in one pass."""
        return Moments.of(self.values)

    @cached_property
    def finite(self) -> np.ndarray:
        """A mask of the entries that are never NaN or infinite."""
        return np.isfinite(self.moments.variances).all(axis=0)

    @cached_property
    def frozen(self) -> np.ndarray:
        """A mask of the entries that are constant in every chain."""
        return self.finite & ~self.moments.moved.any(axis=0)

    @cached_property
    def split(self) -> np.ndarray:
        """A mask of the frozen entries whose value differs between chains."""
        return self.frozen & (self.values[:, 0] != self.values[:1, 0]).any(axis=0)

    @cached_property
    def live(self) -> np.ndarray:
        """The numbers of the entries that have R-hat and ESS: those finite and not frozen."""
        return np.flatnonzero(self.finite & (self.moments.variances.sum(axis=0) > 0))

    @cached_property
    def _capacity(self) -> int:
        """The largest number of entries that ArviZ ranks."""
        return min(RANKED_ENTRIES, max(16, RANKED // math.prod(self.values.shape[:2])))

    @cached_property
    def rhat(self) -> np.ndarray:
        """Split R-hat of each live entry, rank-normalised unless there are too many entries."""
        if len(self.values) > 1 and len(self.live) <= self._capacity:
            return self._arviz("rhat", self.live)
        half = self.values.shape[1] // 2
        between = self.moments.means[:, self.live].var(axis=0, ddof=1)
        within = self.moments.variances[:, self.live].mean(axis=0)
        return np.sqrt((half - 1) / half + between / within)

    @cached_property
    def ess(self) -> np.ndarray:
        """Bulk ESS of all live entries, or of a random subset of them."""
        entries = self.live
        if len(entries) > self._capacity:
            count = min(SUBSET, self._capacity)
            entries = np.random.default_rng(0).choice(entries, count, replace=False)
        return self._arviz("ess", entries)

    def _arviz(self, what: str, entries: np.ndarray) -> np.ndarray:
        import arviz as az

        with warnings.catch_warnings():
            # Folding can make an entry constant; ArviZ ignores the resulting NaN, but warns.
            warnings.simplefilter("ignore", RuntimeWarning)
            return getattr(az, what)(self.values[:, :, entries].astype(float))

    def modes(self, entries: np.ndarray) -> list[list[int]]:
        """Chains grouped by the mode in which they stay; one group if they drift or overlap.

        Half-chains belong to the same group if their means are within two standard deviations of
        each other: up to this distance, a mixture of two equally wide normals has a single mode.
        """
        means = self.moments.means[:, entries]
        within = self.moments.variances[:, entries].mean(axis=0)
        gaps = np.stack([((means - mean) ** 2 / within).mean(axis=1) for mean in means])
        first, second = np.split(connected_components(gaps <= 4, directed=False)[1], 2)
        if (first != second).any():
            return [list(range(len(first)))]
        return [np.flatnonzero(first == label).tolist() for label in np.unique(first)]

    def describe(self, entries: np.ndarray) -> str:
        """A text with the first of these entries and the number of the others."""
        if not self.shape:
            return self.name
        index = np.unravel_index(self.places[entries[0]], self.shape)
        first = f"{self.name}[{', '.join(map(str, index))}]"
        if len(entries) == 1:
            return first
        return f"{first} and {len(entries) - 1:,} more of {len(self.places):,} entries"
