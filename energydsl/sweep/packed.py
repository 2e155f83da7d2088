r"""Sweeps of homogeneous lattices with 32 chains in the bits of each word (multi-spin coding).

Where all sites of a periodic lattice have the same factors, the probability of a site's upper level
depends only on how many of its neighbours are at their upper level. These are counted for 32 chains
at once, by a few logical operations a neighbour. A chain's new level is the upper one if a random
number u of `BITS` bits is below the probability, rounded to as many bits. The comparison, too,
takes a few logical operations a bit, from the lowest to the highest, and each bit of u is one of a
random word.

Each probability is thus wrong by at most $2^{-25}$, so that a level whose probability is below that
is never drawn. The uniform numbers of other sweeps have 23 bits.

Source: Jacobs & Rebbi (1981), Journal of Computational Physics 41, 203-210.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import partial, reduce
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax import Array, lax

from energydsl._types import Configuration, Refusal
from energydsl.analysis.conditional import AbstractConditional
from energydsl.analysis.factor import Entries, Known, Whole
from energydsl.analysis.structure import Structure
from energydsl.analysis.uniform import word_pair
from energydsl.language.model import Model
from energydsl.sweep.base import AbstractSweep, Block, Offer, drawable
from energydsl.sweep.lattice import LatticeSweep, Offset, Stencil, reached

LANES = 32
"""The chains of a word."""

BITS = 24
"""The bits of a random number."""

LEAST = 6
"""The fewest chains for which words are used: a word takes as long for 1 chain as for 32."""

UNROLLED = 4
"""The pairs of bits that are compared in one iteration of a loop."""

MAX_CLASSES = 64
"""The most combinations of neighbours' counts that have a probability of their own."""

ADVANTAGE = 8
"""How much faster a full word is than one site of each of its chains after the other."""


class Packed(eqx.Module):
    """The state: for each sublattice the upper levels of all chains, (word, *site)."""

    parts: tuple[Array, ...]
    chains: int = eqx.field(static=True)


class PackedSweep(AbstractSweep):
    """A sweep of a homogeneous lattice; see the module. A few chains are swept as in `plain`."""

    lowering: ClassVar[str] = "packed"

    drawn: tuple[str, ...] = eqx.field(static=True)
    note: str = eqx.field(static=True)
    groups: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    """The stencils with a neighbour, by factor: the probability depends on counts in each group."""
    plain: LatticeSweep

    @classmethod
    def plan(cls, structure: Structure, blocks: Sequence[Block] | None) -> Offer | Refusal:
        offer = LatticeSweep.plan(structure, blocks)
        if isinstance(offer, Refusal):
            return offer
        laws = drawable(structure, blocks)
        (variable, law), *others = laws.items()
        two = variable.domain.levels == 2 and law.derivatives == 1
        if others or len(structure.skeleton.free) > 1 or not two:
            return Refusal("it is for one variable of two levels, in which the energy is linear")
        if structure.skeleton.mask(variable).any():
            return Refusal("some sites are clamped, so that sites differ")
        plain = offer.build()
        assert isinstance(plain, LatticeSweep)
        groups = _groups(plain, structure)
        if isinstance(groups, Refusal):
            return groups
        note = f"{plain.note}, the chains as bits of words from {LEAST} chains on"
        return Offer(offer.cost / ADVANTAGE, partial(cls, plain.drawn, note, groups, plain))

    def load(self, structure: Structure, model: Model) -> tuple[Any, Array]:
        """The tables of the plain sweep, and the slope of the energy for each class of counts."""
        tables = self.plain.load(structure, model)
        low, high = (self._slopes(structure, tables, level) for level in (0, 1))
        slopes = sum(low, jnp.zeros(()))
        for axis, group in enumerate(self.groups):
            count = jnp.arange(len(group) + 1.0)
            shape = [1] * len(self.groups)
            shape[axis] = len(count)
            slopes = slopes + ((high[group[0]] - low[group[0]]) * count).reshape(shape)
        return tables, slopes.ravel()

    def pack(self, x: Configuration) -> Any:
        state = self.plain.pack(x)
        (name,), chains = self.drawn, len(next(iter(x.values())))
        if chains < LEAST:
            return state
        high = self._law.domain.values[1]
        return Packed(tuple(_bits(part == high) for part in state[name]), chains)

    def unpack(self, state: Any) -> Configuration:
        if not isinstance(state, Packed):
            return self.plain.unpack(state)
        levels = jnp.asarray(self._law.domain.values, self._law.domain.dtype)
        parts = tuple(levels[_lanes(part, state.chains)] for part in state.parts)
        return self.plain.unpack({self.drawn[0]: parts})

    def sweep(
        self,
        structure: Structure,
        tables: tuple[Any, Array],
        state: Any,
        *,
        key: Array,
        betas: Array | None = None,
    ) -> Any:
        plain, slopes = tables
        if not isinstance(state, Packed):
            return self.plain.sweep(structure, plain, state, key=key, betas=betas)
        thresholds = self._thresholds(slopes, betas, state.chains)
        parts = list(state.parts)
        for (_, residue), step_key in zip(
            self.plain.steps, jr.split(key, len(self.plain.steps)), strict=True
        ):
            classes = lax.optimization_barrier(self._classes(residue, parts))
            parts[residue] = _drawn(classes, thresholds, key=step_key)
        return Packed(tuple(parts), state.chains)

    def _slopes(self, structure: Structure, tables: Any, level: int) -> list[Array]:
        """What each stencil adds to a site's slope with its neighbour at one of the two levels."""
        law = self._law
        value = jnp.asarray(law.domain.values[level], law.domain.energy_dtype)
        found = []
        for stencil, table in zip(self.plain.stencils[0], tables[0], strict=True):
            factor = structure.factors[stencil.number]
            pairs = zip(table, stencil.offsets, strict=True)
            given = [constant if offset is None else value for constant, offset in pairs]
            found.append(
                law.measure(
                    lambda v, f=factor, s=stencil, g=given: f.energy(
                        *(v if k == s.slot else a for k, a in enumerate(g))
                    )
                )[0]
            )
        return found

    def _thresholds(self, slopes: Array, betas: Array | None, chains: int) -> Array:
        """The bits of each probability, lowest first and a 1 last, (bit, class, word)."""
        low, high = (int(v) for v in self._law.domain.values)
        betas = jnp.ones(chains) if betas is None else betas
        probability = jax.nn.sigmoid((low - high) * slopes[:, None] * betas)
        whole = jnp.round(probability * 2.0**BITS).astype(jnp.uint32)
        digits = (whole >> jnp.arange(BITS + 1, dtype=jnp.uint32)[:, None, None]) & 1
        return jnp.moveaxis(_bits(jnp.moveaxis(digits, -1, 0) == 1), 0, -1)

    def _classes(self, residue: int, parts: Sequence[Array]) -> list[Array]:
        """For each class of counts, the chains whose neighbours are in it, (word, *site)."""
        stencils, cell = self.plain.stencils[0], self.plain.cell
        classes = []
        for group in self.groups:
            counts = [~jnp.zeros_like(parts[residue])]
            for k in group:
                (offset,) = _neighbours(stencils[k])
                place, shift = reached(offset, residue, cell)
                up = jnp.roll(parts[place], shift, tuple(range(1, parts[place].ndim)))
                more = [*(count & ~up for count in counts), jnp.zeros_like(up)]
                counts = [m | c for m, c in zip(more, [0, *(c & up for c in counts)], strict=True)]
            classes.append(counts)
        return [reduce(jnp.bitwise_and, chosen) for chosen in itertools.product(*classes)]

    @property
    def _law(self) -> AbstractConditional:
        return self.plain.laws[0]


def _groups(plain: LatticeSweep, structure: Structure) -> tuple[tuple[int, ...], ...] | Refusal:
    """The stencils that have a neighbour and count alike, or why counts do not suffice."""
    if any(n % p for n, p in zip(plain.variables[0].shape, plain.cell, strict=True)):
        return Refusal("the sublattices have different sizes")
    found: dict[Any, list[int]] = {}
    for k, stencil in enumerate(plain.stencils[0]):
        if stencil.valid is not None:
            return Refusal("sites at the boundary have fewer factors than others")
        if any(index is not None for index in stencil.indices):
            return Refusal("the factors of a batch have different numbers, so that sites differ")
        near = _neighbours(stencil)
        if len(near) > 1:
            return Refusal("a factor joins more than two sites")
        if near:
            found.setdefault(_kind(structure, stencil.number), []).append(k)
    if not found:
        return Refusal("the sites are independent")
    groups = tuple(map(tuple, found.values()))
    classes = math.prod(len(group) + 1 for group in groups)
    if classes > MAX_CLASSES:
        return Refusal(f"neighbours have {classes} combinations of counts; at most {MAX_CLASSES}")
    return groups


def _kind(structure: Structure, number: int) -> Any:
    """What factors of equal energies have in common: their program and the numbers that it reads.

    An energy that is linear in each of two sites changes by the same amount per neighbour for both.
    """
    factor = structure.factors[number]
    if any(isinstance(leaf, Whole | Known) for leaf in factor.leaves):
        return number
    program = jax.make_jaxpr(factor.energy)(*map(structure.abstract, factor.leaves))
    read = [
        (leaf.slot, leaf.index[0].tobytes()) for leaf in factor.leaves if isinstance(leaf, Entries)
    ]
    return str(program), tuple(read)


def _neighbours(stencil: Stencil) -> list[Offset]:
    """The offsets of the sites that a stencil's factor joins to its own."""
    offsets = [o for k, o in enumerate(stencil.offsets) if k != stencil.slot]
    return [o for o in offsets if o is not None]


def _drawn(classes: Sequence[Array], thresholds: Array, *, key: Array) -> Array:
    """The chains whose level is the upper one, (word, *site)."""
    shape = classes[0].shape
    below = jnp.zeros(shape, jnp.uint32)

    def threshold(bit: Array | int) -> Array:
        """This bit of each chain's own probability."""
        spread = thresholds[bit].reshape(len(classes), -1, *(1,) * (len(shape) - 1))
        return reduce(jnp.bitwise_or, (c & t for c, t in zip(classes, spread, strict=True)))

    def compare(pair: Array, below: Array) -> Array:
        for k, word in enumerate(word_pair(key, pair, shape)):
            bit = threshold(2 * pair + k)
            below = below ^ ((word ^ bit) & (bit ^ below))
        return below

    return lax.fori_loop(0, BITS // 2, compare, below, unroll=UNROLLED) | threshold(BITS)


def _bits(levels: Array) -> Array:
    """Booleans of chains, (chain, ...), as the bits of words, (word, ...)."""
    padding = [(0, -len(levels) % LANES), *[(0, 0)] * (levels.ndim - 1)]
    lanes = jnp.pad(levels, padding).reshape(-1, LANES, *levels.shape[1:]).astype(jnp.uint32)
    place = jnp.arange(LANES, dtype=jnp.uint32).reshape(-1, *(1,) * (levels.ndim - 1))
    return jnp.sum(lanes << place, axis=1, dtype=jnp.uint32)


def _lanes(words: Array, chains: int) -> Array:
    """The inverse of `_bits`, as numbers 0 and 1."""
    place = jnp.arange(LANES, dtype=jnp.uint32).reshape(-1, *(1,) * (words.ndim - 1))
    lanes = (words[:, None] >> place) & 1
    return lanes.reshape(-1, *words.shape[1:])[:chains].astype(jnp.int32)
