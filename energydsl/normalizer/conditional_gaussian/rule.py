"""Exact log Z of finite sites beside real ones in which the energy is quadratic."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array, lax

from energydsl._types import Configuration
from energydsl.analysis.joint_states import int32
from energydsl.analysis.structure import Structure
from energydsl.analysis.tables import Scopes, Tables
from energydsl.language.model import Model
from energydsl.normalizer.base import AbstractPlan, AbstractRule, Fields, Offer, normal
from energydsl.normalizer.conditional_gaussian.blocks import Blocks
from energydsl.normalizer.conditional_gaussian.integrals import (
    Integrals,
    Laws,
    integrals,
    variances,
)
from energydsl.normalizer.elimination.finite_sum import FiniteSum, plan_sum
from energydsl.normalizer.elimination.passes import Found
from energydsl.normalizer.elimination.schedule import CELLS
from energydsl.normalizer.elimination.search import MAX_TABLE, SETUP, Search
from energydsl.normalizer.gaussian.quadratic import real_laws, upper_solve, with_reals

ALONE = 0.5
"""The share of these that log Z alone takes."""

EXPAND = 30.0
"""The operations for each of the numbers of a factor's expansion."""

MATRICES, EXPANSIONS = 5.0, 5.0
"""The matrices of a block, and of each of its factors, that are held in each state at once."""


@dataclasses.dataclass(frozen=True)
class ConditionalGaussian(AbstractRule):
    r"""Finite sites z beside real sites x, in which the energy is quadratic given z.

    Real sites that factors connect form a block, which is independent of the other blocks given
    its finite neighbours d. With the energy $\frac12 x^\top A_d x - b_d^\top x + k_d$, its integral
    is $\phi(d) = (2\pi)^{n/2} (\det A_d)^{-1/2} \exp(\frac12 b_d^\top A_d^{-1} b_d - k_d)$. These
    tables stand beside those of the other factors, and the finite sites are eliminated.

    The marginal of a real site is a mixture over d, whose weights are the derivatives of log Z in
    the cells of the block's table. A draw takes z by elimination and then each block from its
    normal distribution; a mode takes z by max-product over the highest densities.

    Source: Lauritzen (1992), Journal of the American Statistical Association 87, 1098-1108; Koller
    & Friedman (2009), Probabilistic Graphical Models, section 14.3.
    """

    name: ClassVar[str] = "conditional gaussian"

    def offer(self, structure: Structure) -> Offer:
        blocks = _blocks(structure)
        if not blocks.fits.any():
            nothing = np.full(blocks.count, np.inf)
            return Offer(nothing, blocks.reason, lambda _: ())
        search = _search(structure)
        operations, terms, memory = search.costs
        work, expansions, room = _costs(blocks)

        def plan(components: np.ndarray) -> tuple[AbstractPlan, ...]:
            return (_plan(self, structure, components),)

        def bottleneck(component: int) -> str:
            block = blocks.widest(component)
            if blocks.bits[block] < terms[component] - 1e-9:
                return search.widest(component)
            return blocks.about(block)

        return Offer(
            operations + work + expansions, search.reason, plan, terms, memory + room,
            "joint states of the widest clique", bottleneck=bottleneck, setup=SETUP,
        )  # fmt: skip


class ConditionalGaussianPlan(AbstractPlan):
    """A plan that integrates real blocks in each state of their neighbours, and sums over these."""

    sums: FiniteSum
    tables: tuple[Tables, ...]
    """The tables of the factors without real sites."""
    blocks: tuple[Integrals, ...]
    """The real blocks, whose tables come after those."""
    begin: int = eqx.field(static=True)
    """The cell where the first block's table begins."""

    def log_partition(self, model: Model, fields: Fields | None = None) -> Array:
        assert fields is None, "marginals are computed without fields"
        return self.sums.log_sum(self._integrated(model)[0])

    def marginals(self, model: Model) -> dict[str, Array]:
        cells, laws = self._integrated(model)
        found, shares = self.sums.laws(self.sums.summed(cells))
        for group, law, weights in zip(self.blocks, laws, self._shares(shares), strict=True):
            mean = jnp.einsum("bs,bsn->bn", weights, law.mean)
            spread = variances(law.factor) + (law.mean - mean[:, None]) ** 2
            both = jnp.stack([mean, jnp.einsum("bs,bsn->bn", weights, spread)], axis=-1)
            for name, each in real_laws(self.structure, group.sites, both).items():
                found[name] = found.get(name, 0.0) + each
        return found

    def prepare(self, model: Model) -> tuple[Found, list[Laws]]:
        cells, laws = self._integrated(model)
        return self.sums.summed(cells), laws

    def draw_prepared(self, model: Model, prepared: Any, *, key: Array) -> Configuration:
        summed, laws = prepared
        first, *keys = jr.split(key, 1 + len(self.blocks))
        chosen, found = self.sums.drawn(summed, key=first), []
        for group, law, k in zip(self.blocks, laws, keys, strict=True):
            factor, mean = (a[self._at(group, chosen)] for a in (law.factor, law.mean))
            found.append(mean + upper_solve(factor, normal(k, mean.shape)))
        return self._configuration(model, chosen, found)

    def mode(self, model: Model) -> Configuration:
        cells, laws = self._integrated(model, peaks=True)
        chosen = self.sums.likeliest(cells)
        pairs = zip(self.blocks, laws, strict=True)
        means = [law.mean[self._at(group, chosen)] for group, law in pairs]
        return self._configuration(model, chosen, means)

    def trouble(self, model: Model) -> str | None:
        for group, (bad, precision) in zip(self.blocks, _failures(self, model), strict=True):
            found = np.argwhere(np.asarray(bad))
            if len(found):
                block, state = found[0].tolist()
                return self._improper(group, block, state, np.asarray(precision[block, state]))
        return None

    def failures(self, model: Model) -> list[tuple[Array, Array]]:
        """For each group of blocks, its faults, (block, state), and its precisions.

        A fault is an improper precision in a state that is not forbidden.
        """
        laws = [group.laws(model) for group in self.blocks]
        cells = self.sums.filled(self._energies(model, laws))
        allowed = self._marked(cells, laws, 0.0)
        shares = self._shares(self.sums.laws(self.sums.summed(allowed))[1])
        return [
            (law.improper & (share > 0), group.quadratic(model)[0])
            for group, law, share in zip(self.blocks, laws, shares, strict=True)
        ]

    def _improper(self, group: Integrals, block: int, state: int, precision: np.ndarray) -> str:
        """What is wrong with the precision of a block in a state of its neighbours."""
        describe = self.structure.describe
        first, around = int(group.sites[block].min()), np.asarray(group.around[block])
        digits = np.asarray(group.digits(jnp.array([state])))[:, 0]
        values = [v.domain.values for v in self.structure.variables for _ in range(v.size)]
        said = ", ".join(
            f"{describe(int(i))} = {values[i][level]}"
            for i, level in zip(around, digits, strict=True)
        )
        whose = f"the precision of {len(precision):,} real sites, {describe(first)} first,"
        if not np.isfinite(precision).all():
            return f"{whose} is not finite where {said}"
        lowest = np.linalg.eigvalsh(precision)[0]
        return (
            f"{whose} is not positive definite (eigenvalue {lowest:.3g}) where {said}, so exp(-E) "
            "has no finite integral. Constrain the parameters, or check the signs: energies are "
            "minus log-densities"
        )

    def _integrated(self, model: Model, peaks: bool = False) -> tuple[Array, list[Laws]]:
        """The cells of all tables, and the Gaussians of the blocks.

        Cells and means are NaN if a state that is not forbidden has an improper precision.

        Args:
            model: the model.
            peaks: whether a block's table has its highest densities in place of its integrals.
        """
        laws = [group.laws(model) for group in self.blocks]
        cells = self.sums.filled(self._energies(model, laws, peaks))
        marks = self._marked(lax.stop_gradient(cells), laws, 1.0)

        def reached() -> Array:
            return jnp.max(self.sums.greatest(marks)) > 0

        improper = jnp.any(jnp.stack([jnp.any(law.improper) for law in laws]))
        bad = lax.cond(improper, reached, lambda: jnp.zeros((), bool))
        return jnp.where(bad, jnp.nan, cells), [law.poisoned(bad) for law in laws]

    def _energies(self, model: Model, laws: list[Laws], peaks: bool = False) -> list[Array]:
        """The energies of all tables; those of the blocks are minus their log integrals."""
        known = [t.energies(model) for t in self.tables]
        return known + [-(law.peak if peaks else law.integral) for law in laws]

    def _marked(self, cells: Array, laws: list[Laws], mark: float) -> Array:
        """Cells with -inf in forbidden states, `mark` where a precision is improper, else 0."""
        improper = jnp.concatenate([law.improper.ravel() for law in laws])
        marks = jnp.where(cells == -jnp.inf, -jnp.inf, 0.0)
        own = marks[self.begin : self.begin + len(improper)]
        return marks.at[self.begin : self.begin + len(improper)].set(jnp.where(improper, mark, own))

    def _shares(self, cells: Array) -> list[Array]:
        """What the cells of each group of blocks hold, (block, state)."""
        ends = self.begin + np.cumsum([0, *(group.cells for group in self.blocks)])
        return [
            cells[start : start + group.cells].reshape(-1, group.states)
            for group, start in zip(self.blocks, ends.tolist(), strict=False)
        ]

    def _at(self, group: Integrals, chosen: Array) -> tuple[Array, Array]:
        """The index of each block in the state that its neighbours have been given."""
        levels = chosen[self.sums.slot_of[group.around]]
        return jnp.arange(len(group.sites)), group.state(levels)

    def _configuration(self, model: Model, chosen: Array, found: list[Array]) -> Configuration:
        values = self.sums.placed(model, chosen)
        for group, x in zip(self.blocks, found, strict=True):
            values = with_reals(self.structure, values, group.sites, x)
        return values


@eqx.filter_jit
def _failures(plan: ConditionalGaussianPlan, model: Model) -> list[tuple[Array, Array]]:
    return plan.failures(model)


@lru_cache(maxsize=4)
def _blocks(structure: Structure) -> Blocks:
    return Blocks(structure)


@lru_cache(maxsize=4)
def _search(structure: Structure) -> Search:
    return Search(_blocks(structure).network())


def _costs(blocks: Blocks) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each component: operations, numbers of all factors' expansions, and bytes of both."""
    structure = blocks.structure
    n, states = blocks.sizes.astype(float), np.exp2(np.minimum(blocks.bits, 2 * MAX_TABLE))
    work = np.bincount(blocks.owner, states * (n + 1) ** 3, blocks.count)
    room = np.bincount(blocks.owner, MATRICES * 8 * states * (n + 1) ** 2, blocks.count)
    expansions = np.zeros(blocks.count)
    for factor, joined in zip(structure.factors, blocks.joined, strict=True):
        scope = structure.scope(factor)[joined]
        block = blocks.block_of[scope].max(axis=1, initial=-1)
        inside = block >= 0
        wide = scope.shape[1] ** 2 * states[block[inside]]
        owner = blocks.owner[block[inside]]
        expansions += np.bincount(owner, wide, blocks.count)
        room += np.bincount(owner, EXPANSIONS * 8 * wide, blocks.count)
    return work, expansions, room


def _plan(
    rule: ConditionalGaussian, structure: Structure, components: np.ndarray
) -> ConditionalGaussianPlan:
    blocks, search = _blocks(structure), _search(structure)
    scopes, groups = Scopes(structure, components, blocks.apart), blocks.alike(components)
    listed, starts = scopes.listed(CELLS)
    begin = end = CELLS + scopes.cells
    for group in groups:
        listed += group.around.tolist()
        size = int(np.prod(structure.levels[group.around[0]]))
        starts = np.concatenate([starts, end + size * np.arange(len(group.around))])
        end += size * len(group.around)
    made = plan_sum(search, components, listed, starts, end, scopes.arguments)
    work, expansions, room = (a[components].sum() for a in _costs(blocks))
    return ConditionalGaussianPlan(
        rule=rule,
        structure=structure,
        components=int32(components),
        operations=made.operations + float(work + EXPAND * expansions),
        # Log Z alone may look for improper precisions by maxima, which need as much room.
        bytes=made.bytes + made.more_bytes + ALONE * float(room),
        more_bytes=(1.0 - ALONE) * float(room),
        sums=made.sums,
        tables=scopes.built(),
        blocks=tuple(integrals(structure, components, group) for group in groups),
        begin=begin,
    )
