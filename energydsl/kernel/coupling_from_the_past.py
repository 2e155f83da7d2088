"""Coupling from the past: independent exact draws of attractive models."""

from __future__ import annotations

from functools import lru_cache
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array, lax

from energydsl._messages import brief, described
from energydsl._types import Configuration, Refusal
from energydsl.analysis.couplings import Couplings, couplings_of
from energydsl.analysis.joint_states import int32
from energydsl.analysis.structure import Structure
from energydsl.analysis.uniform import open_uniform
from energydsl.compiler.ebm import EBM
from energydsl.kernel.base import AbstractEnsemble, AbstractKernel
from energydsl.kernel.clusters import clusters, fault_of

MAX_ENTRIES = 2**26
"""The most neighbours of all sites together, where each site has as many as the one with most."""

CHANGED = (
    "The parameters are no longer those of an attractive model, so that chains from the two "
    "extreme states need not enclose all others. Use ed.Gibbs(), or keep the couplings positive: "
    "ed.parameter(name, init, positive=True)."
)


@described
class CouplingFromThePast(AbstractKernel):
    r"""Coupling from the past: every step is an independent exact draw of an attractive model.

    For models of spins and bits of any size in which all couplings favour equal levels, whatever
    the fields; or equal and unequal ones so that the levels of some sites can be exchanged to make
    all favour equal ones. Two chains of Gibbs sweeps begin at time -T, one with all sites at their
    upper level and one with all at the lower, and use the same random numbers. No chain between
    them ever leaves them, so that if they are equal at time 0, every chain from the infinite past
    has this configuration, which is a draw from the distribution. If not, T is doubled, with the
    same random numbers at the same times.

    The time until the two meet is random. It is short where single sites mix fast, and grows
    exponentially with the size of a model below its critical temperature.

    Statistics of a step: `sweeps`, the T at which the two chains met.

    Args:
        sweeps: the limit of T, which is a power of 2. If chains that began then have not met, the
            run ends with an error. To draw with other keys until one succeeds would favour
            configurations that are reached early.

    Raises:
        TypeError: the finite free sites are coupled in other ways than by pairs, or have more than
            two levels.
        ValueError: the present values are not those of an attractive model.
        RuntimeError: the two chains did not meet.

    Source: Propp & Wilson (1996), Random Structures and Algorithms 9, 223-252.
    """

    independent: ClassVar[bool] = True

    sweeps: int = eqx.field(static=True, default=2**16)

    def __check_init__(self) -> None:
        if not isinstance(self.sweeps, int | np.integer) or self.sweeps < 1:
            raise ValueError(
                f"CouplingFromThePast got sweeps={brief(self.sweeps)}; expected a whole number of "
                "at least 1."
            )

    def init(self, ebm: EBM, x: Configuration, *, key: Array, warmup: int) -> None:
        return None

    def step(
        self, ebm: EBM, x: Configuration, state: None, *, key: Array
    ) -> tuple[Configuration, None, dict[str, Array]]:
        ensemble = self.ensemble(ebm)
        xs = jax.tree.map(lambda a: a[None], x)
        xs, info = ensemble.drawn(ebm, ensemble.load(ebm), xs, key[None])
        return jax.tree.map(lambda a: a[0], xs), None, jax.tree.map(lambda a: a[0], info)

    def moves(self, ebm: EBM) -> np.ndarray:
        structure = ebm.structure
        found = isinstance(_plan(structure), _Plan)
        return structure.free & (structure.levels > 0) & found

    def reason(self, ebm: EBM) -> str:
        found = _plan(ebm.structure)
        return found.reason if isinstance(found, Refusal) else "they have no finite list of levels"

    def check(self, ebm: EBM) -> None:
        fault = _fault(ebm)
        if fault is not None:
            raise ValueError(
                f"{self} needs an attractive model: {fault}. Use ed.ExactDraws() where it applies, "
                "else ed.Gibbs()."
            )

    def merit(self, ebm: EBM) -> str:
        return "its draws are independent and exact, if its chains from the past meet soon"

    def effort(self, ebm: EBM) -> float:
        # Draws that forget the chain's configuration serve neither annealing nor learning.
        return np.inf

    def applies(self, ebm: EBM) -> str | Refusal:
        """As for any kernel; the present values count, too."""
        said = super().applies(ebm)
        fault = None if isinstance(said, Refusal) else _fault(ebm)
        return said if fault is None else Refusal(fault)

    def ensemble(self, ebm: EBM) -> CoupledEnsemble:
        found = _plan(ebm.structure)
        if isinstance(found, Refusal):
            raise TypeError(
                f"{self} does not apply: {found.reason}. Use ed.Gibbs() for these sites."
            )
        return CoupledEnsemble(int(self.sweeps), *found)

    def __str__(self) -> str:
        return "CouplingFromThePast()"


class _Plan(NamedTuple):
    """The sites of each colour, which do not interact, with their neighbours."""

    couplings: Couplings
    sites: Array
    """The sites of each colour, (colour, site), padded with the number of a site too many."""
    neighbours: Array
    """The neighbours of each, (colour, site, neighbour)."""
    edges: Array
    """The edges to these, padded with the number of an edge too many."""


class _Numbers(NamedTuple):
    """What the levels of a site depend on."""

    flipped: Array
    """True at each site whose levels are exchanged, so that no coupling is negative."""
    pulls: Array
    """The couplings of each edge, of which none is negative, and 0 for one edge too many."""
    fields: Array
    """The energies of each site's two levels."""


class CoupledEnsemble(AbstractEnsemble):
    """Chains whose configurations are drawn anew in each step, given the sites it does not move."""

    sweeps: int = eqx.field(static=True)
    couplings: Couplings
    sites: Array
    neighbours: Array
    edges: Array

    def start(self, ebm: EBM, xs: Configuration, *, key: Array, warmup: int) -> Configuration:
        return xs

    def refresh(self, ebm: EBM, carry: Configuration) -> Configuration:
        return carry

    def place(self, ebm: EBM, carry: Configuration, xs: Configuration) -> Configuration:
        return xs

    def load(self, ebm: EBM) -> _Numbers:
        weights, ends = self.couplings.load(ebm.model), self.couplings.ends
        flipped, attractive = _exchanged(ends, weights.couplings, self.couplings.sites)
        attractive &= jnp.all(jnp.isfinite(weights.couplings))
        pulls = eqx.error_if(jnp.abs(weights.couplings), ~attractive, CHANGED)
        return _Numbers(flipped, jnp.append(pulls, 0.0), weights.fields)

    def advance(
        self, ebm: EBM, tables: _Numbers, carry: Configuration, *, key: Array
    ) -> tuple[Configuration, dict[str, Array]]:
        return self.drawn(ebm, tables, carry, jr.split(key, len(next(iter(carry.values())))))

    def drawn(
        self, ebm: EBM, numbers: _Numbers, xs: Configuration, keys: Array
    ) -> tuple[Configuration, dict[str, Array]]:
        """A draw of every chain by its own key."""
        fields = self.couplings.fields_at(ebm.model, numbers.fields, xs)
        slopes = fields[..., 0] - fields[..., 1]
        slopes = jnp.where(numbers.flipped, -slopes, slopes).T
        upper, began = self._met(numbers.pulls, slopes, keys)
        levels = (upper != numbers.flipped[:, None]).T.astype(jnp.int32)
        return jax.vmap(self.couplings.write)(xs, levels), {"sweeps": began}

    def _met(self, pulls: Array, slopes: Array, keys: Array) -> tuple[Array, Array]:
        """Where the two chains meet, (site, chain), and from which time in the past they began."""
        shape = self.couplings.sites, len(keys), 2
        extremes = jnp.broadcast_to(jnp.array([False, True]), shape)

        def attempt(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            time, _, began = carry

            def sweep(k: Array, states: Array) -> Array:
                # A time before 0 has the same random numbers however early the chains begin.
                now = jax.vmap(lambda key: jr.fold_in(key, time - k))(keys)
                return self._swept(pulls, slopes, states, now)

            states = lax.fori_loop(0, time, sweep, extremes)
            met = jnp.all(states[..., 0] == states[..., 1], axis=0)
            return 2 * time, states, jnp.where((began == 0) & met, time, began)

        def goes_on(carry: tuple[Array, Array, Array]) -> Array:
            return jnp.any(carry[2] == 0) & (carry[0] <= self.sweeps)

        begin = jnp.asarray(1), extremes, jnp.zeros(len(keys), int)
        _, states, began = lax.while_loop(goes_on, attempt, begin)
        states = eqx.error_if(states, jnp.any(began == 0), _never(self.sweeps))
        return states[..., 0], began

    def _swept(self, pulls: Array, slopes: Array, states: Array, keys: Array) -> Array:
        """The states, (site, chain, state), after one Gibbs sweep by each chain's key."""
        uniform = jax.vmap(lambda key: open_uniform(key, (self.couplings.sites,)), out_axes=1)(keys)
        noise = jnp.log(uniform) - jnp.log1p(-uniform)

        def visit(states: Array, colour: tuple[Array, Array, Array]) -> tuple[Array, None]:
            sites, neighbours, edges = colour
            pull = pulls[edges][..., None, None]
            # Sums of the same terms in the same order keep the order of the two states.
            total = jnp.sum(jnp.where(states[neighbours], pull, -pull), axis=1)
            total += slopes[sites][..., None]
            return states.at[sites].set(total + noise[sites][..., None] > 0, mode="drop"), None

        return lax.scan(visit, states, (self.sites, self.neighbours, self.edges))[0]

    def configurations(self, ebm: EBM, carry: Configuration) -> Configuration:
        return carry

    def energies(self, ebm: EBM, carry: Configuration) -> Array:
        return jax.vmap(ebm.energy)(carry)


def _exchanged(ends: Array, couplings: Array, sites: int) -> tuple[Array, Array]:
    """The sites whose levels must be exchanged to make all couplings attractive, if that is so.

    Each site has a second copy with its levels exchanged. A coupling joins the copies whose levels
    it favours to be equal. If a site were joined with its own second copy, there is frustration.
    """
    second, negative = ends + sites, (couplings < 0)[:, None]
    swapped = jnp.stack([second[:, 0], ends[:, 1]], axis=1)
    joined = jnp.where(negative, jnp.stack([ends[:, 0], second[:, 1]], axis=1), ends)
    mirrored = jnp.where(negative, swapped, second)
    bonds = jnp.tile(couplings != 0, 2)[None]
    roots = clusters(jnp.concatenate([joined, mirrored]), bonds, 2 * sites)[0]
    return roots[:sites] > roots[sites:], jnp.all(roots[:sites] != roots[sites:])


def _never(sweeps: int) -> str:
    return (
        f"Chains from the two extreme states did not meet within {sweeps:,} sweeps, so that there "
        f"is no draw. Give a larger limit, such as sweeps={4 * sweeps:,}, or use "
        "ed.SwendsenWang(), which needs no meeting. Do not try other keys until one succeeds: "
        "such draws favour configurations that are reached early."
    )


@lru_cache(maxsize=16)
def _plan(structure: Structure) -> _Plan | Refusal:
    """The sites of two levels with their neighbours, or why there is no plan."""
    found = couplings_of(structure)
    if isinstance(found, Refusal):
        return found
    part = found.structure
    more = part.free & (part.levels > 2)
    if more.any():
        return Refusal(f"{part.describe(int(np.argmax(more)))} has more than two levels")
    ends = np.asarray(found.ends)
    owners, others = ends.T.ravel(), ends[:, ::-1].T.ravel()
    order = np.argsort(owners, kind="stable")
    degrees = np.bincount(owners, minlength=found.sites)
    colours = part.colours[part.free]
    blocks = [np.flatnonzero(colours == c) for c in np.unique(colours)]
    most, width = int(degrees.max()), max(map(len, blocks))
    if len(blocks) * width * most > MAX_ENTRIES:
        return Refusal(f"a site has {most:,} neighbours, too many for a table of all neighbours")
    sites = np.full((len(blocks), width), found.sites)
    for row, block in zip(sites, blocks, strict=True):
        row[: len(block)] = block
    near, edges = (
        np.zeros((found.sites + 1, most), int),
        np.full((found.sites + 1, most), found.edges),
    )
    first = np.concatenate([[0], np.cumsum(degrees)])
    place = owners[order], np.arange(len(order)) - first[owners[order]]
    near[place], edges[place] = others[order], np.tile(np.arange(found.edges), 2)[order]
    # Caches must not contain values of a trace that is in progress.
    with jax.ensure_compile_time_eval():
        return _Plan(found, int32(sites), int32(near[sites]), int32(edges[sites]))


def _fault(ebm: EBM) -> str | None:
    """Why the present values do not suit the kernel, where they are known."""
    found = _plan(ebm.structure)
    return fault_of(ebm, found if isinstance(found, Refusal) else found.couplings)
