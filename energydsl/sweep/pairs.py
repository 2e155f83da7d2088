"""The energies of two sites at once: the factors that contain both, at all of their levels."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl.analysis.evaluation import argument, common_argument
from energydsl.analysis.factor import Count, Sites, Whole, is_common
from energydsl.analysis.structure import Structure
from energydsl.language.expression import Environment
from energydsl.language.variable import Variable


class Pairs(eqx.Module):
    """Factors of one batch that contain both sites of a pair, for several pairs.

    Index arrays have the axes (pair, factor, *axes of one factor's argument); `lower` and `upper`
    mark the entries of site arguments that are the pair's first and second site. A leaf has no
    index array if all these factors have the same argument: see `is_common`. `valid` is False at
    padding.
    """

    number: int = eqx.field(static=True)
    still: bool = eqx.field(static=True)
    """Whether the factors have no other free site, so that their energies are constants."""
    slots: Array
    """The place of each pair in the result."""
    levels: tuple[Array, Array]
    """The values of both sites' levels, (pair, level)."""
    indices: tuple[Any, ...]
    lower: tuple[Any, ...]
    upper: tuple[Any, ...]
    valid: Array

    def arguments(self, structure: Structure, free: tuple[Variable, ...], env: Environment) -> Any:
        """The arguments that are constant during sampling; None for the values of free sites."""
        leaves = structure.factors[self.number].leaves
        pairs = zip(leaves, self.indices, strict=True)
        return [None if _moves(leaf, free) else _still(leaf, i, env) for leaf, i in pairs]

    def energies(self, structure: Structure, arguments: Any, state: dict[str, Array]) -> Array:
        """The energies of each pair, (level, level, pair), and the chain last if not `still`."""
        factor = structure.factors[self.number]
        values, chains = [], []
        for leaf, index, value in zip(factor.leaves, self.indices, arguments, strict=True):
            moving = False
            if isinstance(leaf, Sites) and value is None:
                moving = True
                flat = state[leaf.variable.name]
                flat = flat[:, :1] if self.still else flat
                read = leaf.index[0] if index is None else index
                value = flat[read].astype(leaf.variable.domain.energy_dtype)
            values.append(value)
            chains.append(-1 if moving else None)

        def energy(one: list[Any], marks: Any, low: Array, high: Array) -> Array:
            replaced = [
                g if a is None else jnp.where(a, low, jnp.where(b, high, g)).astype(g.dtype)
                for g, a, b in zip(one, *marks, strict=True)
            ]
            return factor.energy(*replaced)

        # In turn: chains, the factors of a pair, levels of the second and the first site, pairs.
        marks = self.lower, self.upper
        spread = [None if i is None else 0 for i in self.indices]
        known = jax.tree.map(lambda _: 0, marks)
        mapped = jax.vmap(energy, (chains, None, None, None))
        mapped = jax.vmap(mapped, (spread, known, None, None))
        mapped = jax.vmap(mapped, (None, None, None, 0))
        mapped = jax.vmap(mapped, (None, None, 0, None))
        mapped = jax.vmap(mapped, (spread, known, 0, 0))
        found = mapped(values, marks, *self.levels)
        found = jnp.where(self.valid[:, None, None, :, None], found, 0.0).sum(axis=3)
        found = jnp.moveaxis(found, 0, 2)
        return found[..., 0] if self.still else found


class Chosen(NamedTuple):
    """Factors of one batch with the pair of sites that each contains, and the pair's place."""

    number: int
    rows: np.ndarray
    first: np.ndarray
    second: np.ndarray
    slots: np.ndarray


def _still(leaf: Any, index: Any, env: Environment) -> Any:
    return common_argument(leaf, env) if index is None else argument(leaf, index, env)


def _moves(leaf: Any, free: tuple[Variable, ...]) -> bool:
    return isinstance(leaf, Sites) and leaf.variable in free


def pairs_of(structure: Structure, chosen: Chosen, levels: np.ndarray) -> Pairs:
    """The factors of a batch grouped by pairs.

    Args:
        structure: the structure.
        chosen: the factors and their pairs.
        levels: the values of each site's levels, (site, level).
    """
    factor = structure.factors[chosen.number]
    slots, start, pair = np.unique(chosen.slots, return_index=True, return_inverse=True)
    order = np.argsort(pair, kind="stable")
    counts = np.bincount(pair)
    ranks = np.arange(counts.max())
    valid = ranks < counts[:, None]
    begin = np.cumsum(counts) - counts
    rows = chosen.rows[order[np.where(valid, begin[:, None] + ranks, begin[:, None])]]
    low, high = chosen.first[start], chosen.second[start]
    indices, lower, upper, still = [], [], [], True
    for leaf in factor.leaves:
        common = is_common(leaf)
        masks: tuple[Any, Any] = None, None
        if isinstance(leaf, Sites):
            site = leaf.index[rows] + structure.offset[leaf.variable.name]
            ends = [a.reshape(-1, *(1,) * (site.ndim - 1)) for a in (low, high)]
            masks = site == ends[0], site == ends[1]
            still &= not (structure.free[site] & ~masks[0] & ~masks[1]).any()
            if masks[0].any() or masks[1].any():
                common = False
            else:
                masks = None, None
        if isinstance(leaf, Whole) or common:
            indices.append(None)
        else:
            indices.append(_placed(leaf, leaf.index[rows]))
        lower.append(None if masks[0] is None else jnp.asarray(masks[0]))
        upper.append(None if masks[1] is None else jnp.asarray(masks[1]))
    return Pairs(
        chosen.number,
        still,
        jnp.asarray(slots, jnp.int32),
        (jnp.asarray(levels[low]), jnp.asarray(levels[high])),
        tuple(indices),
        tuple(lower),
        tuple(upper),
        jnp.asarray(valid),
    )


def _placed(leaf: Any, index: np.ndarray) -> Array:
    return jnp.asarray(index, None if isinstance(leaf, Count) else jnp.int32)
