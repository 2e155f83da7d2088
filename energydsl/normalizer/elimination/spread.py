"""A bound of how far apart the terms of an elimination are, which shows where numbers can serve."""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from energydsl.analysis.joint_states import int32
from energydsl.normalizer.elimination.steps import Steps

LIMIT = 600.0
"""How far apart the logarithms of a clique's terms may be; those of float64 go from -708 to 709."""


class Spread(eqx.Module):
    r"""A bound of how far apart the logarithms of a clique's terms can be.

    If one site changes its level, the log of any product of tables changes by at most the sum of
    the ranges, $\max \log \phi - \min \log \phi$, of the tables of this site. The same holds for a
    message, which is a sum of such products. So the terms of a clique are at most the sum over its
    sites apart. Where a table forbids a state the bound is infinite.
    """

    owner: Array
    """The table of each cell of the factors' tables."""
    table_of: Array
    site_of: Array
    """Each site of each table: the number of the table, and that of the site."""
    clique_of: Array
    member: Array
    """Each site of each wide clique: the number of the clique, and that of the site."""
    first: int = eqx.field(static=True)
    sizes: tuple[int, int, int] = eqx.field(static=True)
    """The numbers of tables, sites and wide cliques."""

    def __init__(self, steps: Steps, wide: Sequence[bool], starts: np.ndarray, end: int) -> None:
        scopes = steps.scopes[: steps.tables]
        cliques = [steps.clique(s) for s, is_wide in zip(steps.steps, wide, strict=True) if is_wide]
        # Like factors share a table.
        begin, table_of = np.unique(starts, return_inverse=True)
        self.first = int(begin[0])
        self.owner = int32(np.repeat(np.arange(len(begin)), np.diff([*begin, end])))
        number, self.site_of = _listed(scopes)
        self.table_of = int32(table_of[np.asarray(number)])
        self.clique_of, self.member = _listed(cliques)
        self.sizes = len(begin), len(steps.levels), len(cliques)

    def is_small(self, cells: Array) -> Array:
        """Whether all products of the tables are in the range of float64."""
        tables, sites, cliques = self.sizes
        known = lax.stop_gradient(cells[self.first : self.first + len(self.owner)])
        high, low = (
            f(known, self.owner, tables) for f in (jax.ops.segment_max, jax.ops.segment_min)
        )
        by_site = jax.ops.segment_sum((high - low)[self.table_of], self.site_of, sites)
        apart = jax.ops.segment_sum(by_site[self.member], self.clique_of, cliques)
        return jnp.all(apart <= LIMIT)


def _listed(scopes: Sequence[Sequence[int]]) -> tuple[Array, Array]:
    owner = np.repeat(np.arange(len(scopes)), [len(scope) for scope in scopes])
    return int32(owner), int32(np.array([i for scope in scopes for i in scope], np.int64))
