"""Traces: one quantity over all chains and draws, and how well its entries mixed.

Everything that is asked of every entry comes from one blocked pass, so that a lattice of 10^6
sites takes seconds and little memory; ArviZ, which ranks all draws of an entry, gets the small
quantities whole and a random subset of the large ones.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from functools import cached_property

import numpy as np
from scipy.sparse.csgraph import connected_components

BLOCK = 2**20
"""Values that are looked at together."""

RANKED, RANKED_ENTRIES = 2**23, 2000
"""Values, and entries, up to which ArviZ ranks every entry: it takes a good part of a millisecond
for each, and more for long chains."""

SUBSET = 256
"""Entries of a larger quantity that ArviZ ranks."""

FEWEST = 4
"""Draws a chain without which half-chains have no variance."""


@dataclasses.dataclass(frozen=True)
class Moments:
    """Of each entry: means and variances of half-chains, first halves first; who ever moved it."""

    means: np.ndarray
    variances: np.ndarray
    moved: np.ndarray

    @staticmethod
    def of(values: np.ndarray) -> Moments:
        """From (chain, draw, entry)."""
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
    """One quantity.

    Attributes:
        name: of the variable, or the one that ``keep=`` gave.
        shape: of the quantity at one draw.
        places: where in that shape, flattened, each entry stands; clamped sites have none.
        values: (chain, draw, entry), at least four draws.
    """

    name: str
    shape: tuple[int, ...]
    places: np.ndarray
    values: np.ndarray

    @cached_property
    def moments(self) -> Moments:
        """From one pass over all values."""
        return Moments.of(self.values)

    @cached_property
    def finite(self) -> np.ndarray:
        """Entries that are never NaN or infinite."""
        return np.isfinite(self.moments.variances).all(axis=0)

    @cached_property
    def frozen(self) -> np.ndarray:
        """Entries that no chain ever changed."""
        return self.finite & ~self.moments.moved.any(axis=0)

    @cached_property
    def split(self) -> np.ndarray:
        """Frozen entries whose value differs between chains."""
        return self.frozen & (self.values[:, 0] != self.values[:1, 0]).any(axis=0)

    @cached_property
    def live(self) -> np.ndarray:
        """The numbers of the entries that have an R-hat and an ESS: finite, and not frozen."""
        return np.flatnonzero(self.finite & (self.moments.variances.sum(axis=0) > 0))

    @cached_property
    def _capacity(self) -> int:
        """How many entries ArviZ ranks at most."""
        return min(RANKED_ENTRIES, max(16, RANKED // math.prod(self.values.shape[:2])))

    @cached_property
    def rhat(self) -> np.ndarray:
        """Split R-hat of each live entry: rank-normalised by ArviZ where it can, else plain."""
        if len(self.values) > 1 and len(self.live) <= self._capacity:
            return self._arviz("rhat", self.live)
        half = self.values.shape[1] // 2
        between = self.moments.means[:, self.live].var(axis=0, ddof=1)
        within = self.moments.variances[:, self.live].mean(axis=0)
        return np.sqrt((half - 1) / half + between / within)

    @cached_property
    def ess(self) -> np.ndarray:
        """Bulk ESS of live entries: of all, or of a random subset."""
        entries = self.live
        if len(entries) > self._capacity:
            count = min(SUBSET, self._capacity)
            entries = np.random.default_rng(0).choice(entries, count, replace=False)
        return self._arviz("ess", entries)

    def _arviz(self, what: str, entries: np.ndarray) -> np.ndarray:
        import arviz as az

        with warnings.catch_warnings():
            # Folding can make an entry constant; ArviZ ignores the NaN that follows, but warns.
            warnings.simplefilter("ignore", RuntimeWarning)
            return getattr(az, what)(self.values[:, :, entries].astype(float))

    def modes(self, entries: np.ndarray) -> list[list[int]]:
        """Chains by the mode they stay in; one group where they drift or overlap.

        Half-chains belong together where their means are within two standard deviations of each
        other: so far a mixture of two normals of equal width has a single mode.
        """
        means = self.moments.means[:, entries]
        within = self.moments.variances[:, entries].mean(axis=0)
        gaps = np.stack([((means - mean) ** 2 / within).mean(axis=1) for mean in means])
        first, second = np.split(connected_components(gaps <= 4, directed=False)[1], 2)
        if (first != second).any():
            return [list(range(len(first)))]
        return [np.flatnonzero(first == label).tolist() for label in np.unique(first)]

    def describe(self, entries: np.ndarray) -> str:
        """The quantity, how many entries of it are meant, and which is the first."""
        if not self.shape:
            return self.name
        index = np.unravel_index(self.places[entries[0]], self.shape)
        first = f"{self.name}[{', '.join(map(str, index))}]"
        if len(entries) == 1:
            return first
        return f"{first} and {len(entries) - 1:,} more of {len(self.places):,} entries"
