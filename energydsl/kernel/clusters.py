r"""The base class of cluster kernels, which move connected sites together.

In the Potts model that the finite sites are (`Couplings`), two coupled sites are bonded with
probability $1 - e^{-|J|}$ if their coupling favours their present levels, and else not. Given the
bonds, the levels of a cluster of bonded sites may be shifted together, $k_i \to k_i + t$ modulo the
number of levels: bonds between equal levels then still join equal levels, and those between the two
unequal levels of spins unequal ones. Only the fields tell shifts apart.

Source: Edwards & Sokal (1988), Physical Review D 38, 2009-2012.
"""

from __future__ import annotations

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array, lax

from energydsl._types import Configuration, Refusal
from energydsl.analysis.couplings import ROUNDING, Couplings, Weights, couplings_of
from energydsl.analysis.uniform import uniform
from energydsl.compiler.ebm import EBM
from energydsl.kernel.base import AbstractEnsemble, AbstractKernel

EFFORT = 10.0
"""The sweeps of single sites that take about as long as one step."""

CHANGED = (
    "The parameters are no longer those of a Potts model: sites of more than two levels favour "
    "unequal ones, the energy of a pair differs between unequal levels, or it is infinite. Use "
    "ed.Gibbs(), or keep the couplings positive: ed.parameter(name, init, positive=True)."
)


class AbstractClusterKernel(AbstractKernel):
    """A kernel for the finite sites of a model that form a Potts model without frustration."""

    @abc.abstractmethod
    def shifts(
        self, costs: Array, roots: Array, levels: Array, *, keys: Array
    ) -> tuple[Array, dict[str, Array]]:
        """By how many levels each site is shifted, equal in a cluster, and the statistics.

        Args:
            costs: the energy of each shift of a site alone, (chain, site, shift).
            roots: the number of a site that is the same for all sites of a cluster, (chain, site).
            levels: the number of levels of each site, which is the same in a cluster.
            keys: a key for each chain.
        """

    def init(self, ebm: EBM, x: Configuration, *, key: Array, warmup: int) -> None:
        return None

    def step(
        self, ebm: EBM, x: Configuration, state: None, *, key: Array
    ) -> tuple[Configuration, None, dict[str, Array]]:
        ensemble = self.ensemble(ebm)
        xs = jax.tree.map(lambda a: a[None], x)
        xs, info = ensemble.moved(ebm, ensemble.load(ebm), xs, key[None])
        return jax.tree.map(lambda a: a[0], xs), None, jax.tree.map(lambda a: a[0], info)

    def moves(self, ebm: EBM) -> np.ndarray:
        structure = ebm.structure
        found = isinstance(couplings_of(structure), Couplings)
        return structure.free & (structure.levels > 0) & found

    def reason(self, ebm: EBM) -> str:
        found = couplings_of(ebm.structure)
        return found.reason if isinstance(found, Refusal) else "they have no finite list of levels"

    def check(self, ebm: EBM) -> None:
        fault = fault_of(ebm, couplings_of(ebm.structure))
        if fault is not None:
            raise ValueError(
                f"{self} cannot form clusters: {fault}. Use ed.Gibbs(), which moves single sites."
            )

    def effort(self, ebm: EBM) -> float:
        return EFFORT

    def applies(self, ebm: EBM) -> str | Refusal:
        """As for any kernel; the present values count, too."""
        said = super().applies(ebm)
        fault = None if isinstance(said, Refusal) else fault_of(ebm, couplings_of(ebm.structure))
        return said if fault is None else Refusal(fault)

    def ensemble(self, ebm: EBM) -> ClusterEnsemble:
        found = couplings_of(ebm.structure)
        if isinstance(found, Refusal):
            raise TypeError(
                f"{self} does not apply: {found.reason}. Use ed.Gibbs() for these sites."
            )
        return ClusterEnsemble(self, found)


class ClusterEnsemble(AbstractEnsemble):
    """Chains whose clusters are found together, as those of one graph."""

    kernel: AbstractClusterKernel
    couplings: Couplings

    def start(self, ebm: EBM, xs: Configuration, *, key: Array, warmup: int) -> Configuration:
        return xs

    def refresh(self, ebm: EBM, carry: Configuration) -> Configuration:
        return carry

    def place(self, ebm: EBM, carry: Configuration, xs: Configuration) -> Configuration:
        return xs

    def load(self, ebm: EBM) -> Weights:
        weights, levels = self.couplings.load(ebm.model), self.couplings.levels
        repelling = (levels[self.couplings.ends[:, 0]] > 2) & (weights.couplings < 0)
        least = -ROUNDING * jnp.max(jnp.abs(weights.couplings), initial=0.0)
        bad = jnp.any(repelling & (weights.couplings < least)) | (weights.residual > ROUNDING)
        bad |= ~jnp.all(jnp.isfinite(weights.couplings))
        # Within rounding, the coupling of such sites is 0.
        kept = jnp.where(repelling, 0.0, weights.couplings)
        return weights._replace(couplings=eqx.error_if(kept, bad, CHANGED))

    def advance(
        self, ebm: EBM, tables: Weights, carry: Configuration, *, key: Array
    ) -> tuple[Configuration, dict[str, Array]]:
        return self.moved(ebm, tables, carry, jr.split(key, len(next(iter(carry.values())))))

    def moved(
        self, ebm: EBM, weights: Weights, xs: Configuration, keys: Array
    ) -> tuple[Configuration, dict[str, Array]]:
        """One step of every chain by its own key."""
        here, counts = self.couplings, self.couplings.levels
        both = jax.vmap(jr.split)(keys)
        levels = jax.vmap(here.read)(xs)
        bonds = _bonds(here, weights.couplings, levels, both[:, 0])
        costs = _costs(here.fields_at(ebm.model, weights.fields, xs), levels, counts)
        # XLA would otherwise compute them again for every use, within loops over edges.
        bonds, costs = lax.optimization_barrier((bonds, costs))
        roots = clusters(here.ends, bonds, here.sites)
        shifts, info = self.kernel.shifts(costs, roots, counts, keys=both[:, 1])
        return jax.vmap(here.write)(xs, (levels + shifts) % counts), info

    def configurations(self, ebm: EBM, carry: Configuration) -> Configuration:
        return carry

    def energies(self, ebm: EBM, carry: Configuration) -> Array:
        return jax.vmap(ebm.energy)(carry)


def clusters(ends: Array, bonds: Array, sites: int) -> Array:
    """The least site of each site's cluster, (chain, site), given the bonds, (chain, edge).

    Each site points to one of its cluster, at first to itself, and later to lesser ones only. In
    every round the greater of the two sites to which the ends of a bond point is made to point to
    the lesser, and then each site to where the one that it points to does, twice. When the ends
    of all bonds point to the same site, so does the whole cluster. The number of rounds is about
    the logarithm of the number of sites.

    Source: Shiloach & Vishkin (1982), Journal of Algorithms 3, 57-67.
    """
    chains = len(bonds)
    first = sites * jnp.arange(chains, dtype=jnp.int32)
    # What is not bonded is an edge from site 0 to itself.
    joined = jnp.where(bonds[..., None], ends + first[:, None, None], 0).reshape(-1, 2)
    here, there = joined.T

    def hooked(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        target, a, b = carry
        target = target.at[jnp.maximum(a, b)].min(jnp.minimum(a, b))
        for _ in range(2):
            # XLA would otherwise compute the inner values again for each outer one.
            target = lax.optimization_barrier(target[target])
        return target, target[here], target[there]

    begin = jnp.arange(chains * sites, dtype=jnp.int32), here, there
    target = lax.while_loop(lambda c: jnp.any(c[1] != c[2]), hooked, begin)[0]
    return target.reshape(chains, sites) - first[:, None]


def _bonds(here: Couplings, couplings: Array, levels: Array, keys: Array) -> Array:
    """Whether each edge is a bond, (chain, edge)."""
    equal = levels[:, here.ends[:, 0]] == levels[:, here.ends[:, 1]]
    height = jax.vmap(lambda key: uniform(key, (here.edges,)))(keys)
    return (equal == (couplings > 0)) & (height < -jnp.expm1(-jnp.abs(couplings)))


def _costs(fields: Array, levels: Array, counts: Array) -> Array:
    """The energy of each site at each shift, (chain, site, shift)."""
    shift = jnp.arange(fields.shape[-1])
    shifted = (levels[..., None] + shift) % counts[:, None]
    costs = jnp.take_along_axis(jnp.broadcast_to(fields, shifted.shape), shifted, axis=-1)
    # A shift by the number of levels or more is the same as a lesser one.
    return jnp.where(shift < counts[:, None], costs, jnp.inf)


def fault_of(ebm: EBM, found: Couplings | Refusal) -> str | None:
    """Why the present values have no clusters, where they are known; `found` are the couplings."""
    if isinstance(found, Refusal):
        finite = (ebm.structure.free & (ebm.structure.levels > 1)).any()
        return found.reason if finite else None
    return found.fault(ebm.model) if ebm.model.numeric else None
