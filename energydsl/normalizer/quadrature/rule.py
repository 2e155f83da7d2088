"""Integrals over one to three real coordinates, by adaptive numerical integration."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from energydsl.analysis.joint_states import int32, state_bits
from energydsl.analysis.structure import Structure
from energydsl.language.model import Model
from energydsl.normalizer.base import MAX_TERMS, AbstractPlan, AbstractRule, Fields, Lack, Offer
from energydsl.normalizer.quadrature.cubature import SLIGHT, error_of, over_cells, refine
from energydsl.normalizer.quadrature.integrand import Surface, dimensions
from energydsl.normalizer.quadrature.landmarks import CHUNK, text_of, width_of
from energydsl.normalizer.quadrature.modes import SCANNED, search
from energydsl.normalizer.quadrature.product import POINTS

AIM = 1e-9
"""The relative error at which refinement stops; no smaller error is ever claimed."""

ACCEPTED = 1e-6
"""The largest error of a value: what float32, in which energies live, resolves of ten nats."""

ROUNDING = 4 * 2.0**-52
"""What float64 loses of an energy of 1, as an error of log Z."""

MAX_BITS = {1: 16, 2: 20, 3: 20}
"""log2 of the points for all states of a component together, by dimension.

Each state has at least as many as `LEAST_BITS` says."""

LEAST_BITS = {1: 13, 2: 15, 3: 20}
"""log2 of the points that each state of a component has at least, by dimension."""

SETUP = 1e7
"""The operations that could be carried out while the search and the cubature are compiled."""


@dataclasses.dataclass(frozen=True)
class Quadrature(AbstractRule):
    r"""$Z_c = \sum_s \int e^{-U(z, s)}\,dz$ over one to three unconstrained coordinates.

    U is the energy minus the log Jacobian of the map from z to the values of the sites; s runs
    over the states of the component's finite sites, and each state is integrated by itself.

    Modes of U are searched for on a grid over 34 powers of ten about 0 and about the numbers that
    the model holds, from whose minima Newton steps go down. Then z = m + A sinh(t), where m is the
    mode with the largest mass and A holds its widths, and each coordinate t goes from -40 to 40.
    That box is divided into cells. On each, two product rules are compared, with 13 and with 7
    points along each axis. A cell is bisected if the rules differ much, if it is longer than four
    widths of a mode in it, or if it is more than four times as long as a cell that touches it and
    holds some of the mass. This ends when the estimated error is below 1e-9 relative, or when
    there are as many cells as are allowed. If the error is then above 1e-6, there is no value.

    In three dimensions cells are few. One mode or two, with correlations or heavy tails, are
    resolved; of steep bent ridges, shells and many modes the error is mostly too large for a value.

    The value is that of a numerical integration, and its error is an estimate, not a bound. A
    narrow ridge, bent or straight, is followed along its length wherever a point has found it. A
    feature is missed, without a sign of it in the error, if no point of the grid and of the cells
    lies on it or on a slope of U towards it: a peak that is much narrower than its distance from
    0, from all numbers of the model and from all modes that were found. The points of the grid are
    apart by a tenth of their distance from 0, in three dimensions by a fifth, and at most 48, 32
    and 40 numbers of the model count in one, two and three dimensions.

    Source: the rules: Gander & Gautschi (2000), BIT 40(1), 84-101; sinh: Takahasi & Mori (1974),
    Publ. RIMS 9, 721-741; bisection: Berntsen, Espelid & Genz (1991), ACM TOMS 17(4), 437-451.
    """

    name: ClassVar[str] = "quadrature"

    def offer(self, structure: Structure) -> Offer:
        dims, bits = dimensions(structure), state_bits(structure)
        fits = np.isin(dims, list(SCANNED)) & ~structure.uncountable
        operations, terms = np.full(len(dims), np.inf), np.zeros(len(dims))
        memory = np.zeros(len(dims))
        for dim, points in SCANNED.items():
            here = np.flatnonzero(fits & (dims == dim))
            grid, states = _grid_bits(bits[here], dim), np.exp2(np.minimum(bits[here], MAX_TERMS))
            factors = np.maximum(structure.factor_counts[here], 1)
            terms[here] = grid + bits[here]
            operations[here] = (3 * np.exp2(grid) + points) * states * factors
            memory[here] = 8.0 * (3 * points + (4 * dim + 8) * _cells(grid, dim)) * states

        def reason(component: int) -> str:
            if structure.uncountable[component]:
                return "it has sites with neither finitely many levels nor real coordinates"
            dim = int(dims[component])
            return f"{dim:,} dimensions; at most 3" if dim else "no real site"

        def plan(components: np.ndarray) -> tuple[AbstractPlan, ...]:
            return (
                QuadraturePlan(
                    rule=self,
                    structure=structure,
                    components=int32(components),
                    operations=float(operations[components].sum()),
                    bytes=float(16.0 * CHUNK + memory[components].sum()),
                    numbers=tuple(components.tolist()),
                ),
            )

        why = "numerical integration does not give it"
        return Offer(
            operations=operations,
            reason=reason,
            plan=plan,
            terms=terms,
            memory=memory,
            noun="points, its states counted",
            lacks={q: Lack(True, why) for q in ("marginals", "draw", "mode")},
            setup=SETUP,
        )


class QuadraturePlan(AbstractPlan):
    """Integrals of some components, and their errors."""

    kind: ClassVar[str] = "quadrature"

    numbers: tuple[int, ...] = eqx.field(static=True)
    """The components, as numbers that are known when the program is compiled."""

    def log_partition(self, model: Model, fields: Fields | None = None) -> Array:
        found = _integrals(self.structure, model, self.numbers)
        return jnp.sum(jnp.stack([part.value.sum() for part in found]))

    def error(self, model: Model) -> float:
        found = _integrals(self.structure, model, self.numbers)
        return float(sum(part.error.sum() for part in found))

    def trouble(self, model: Model) -> str | None:
        structure = self.structure
        found = _integrals(structure, model, self.numbers)
        for group, part in zip(_groups(structure, np.array(self.numbers)), found, strict=True):
            for c, off, falls in zip(group, part.error, part.falls, strict=True):
                site = structure.describe(int(np.argmax(structure.component_of == c)))
                if not falls:
                    return (
                        f"the density around {site} does not fall off within the numbers that "
                        "float64 holds: exp(-E) may have no finite integral"
                    )
                if not off <= ACCEPTED:
                    return (
                        f"the quadrature over {site} and what it is coupled to did not settle: the "
                        f"estimated error is {off:.1g} relative, more than "
                        f"{ACCEPTED:.0g}. Estimate it: ed.estimate_log_partition(ebm, key=key)"
                    )
        return None


def _grid_bits(bits: np.ndarray, dim: int) -> np.ndarray:
    """log2 of the points for each state of components that have 2^bits states."""
    return np.clip(MAX_BITS[dim] - bits, LEAST_BITS[dim], MAX_BITS[dim])


def _cells(bits: np.ndarray, dim: int) -> np.ndarray:
    """How many cells 2^bits points suffice for."""
    return np.exp2(bits) // POINTS**dim


def _groups(structure: Structure, components: np.ndarray) -> list[np.ndarray]:
    """The components, those of equal dimension and equal number of states in one group."""
    like = np.stack([dimensions(structure), state_bits(structure)], axis=1)[components]
    kinds, number = np.unique(like, axis=0, return_inverse=True)
    return [components[number.ravel() == k] for k in range(len(kinds))]


@eqx.filter_jit
def _integrals(structure: Structure, model: Model, components: tuple[int, ...]) -> list[_Integral]:
    groups = _groups(structure, np.asarray(components))
    return [_integrate(Surface(structure, group), model) for group in groups]


class _Integral(NamedTuple):
    """For each component: log Z or NaN, its relative error, and whether the density falls off."""

    value: Array
    error: Array
    falls: Array


def _integrate(surface: Surface, model: Model) -> _Integral:
    still = jax.tree.map(lambda a: lax.stop_gradient(a) if isinstance(a, Array) else a, model)
    text = text_of(surface, still)
    (chart, marks), width = search(surface, still, text), width_of(text)

    def log_density(model: Model, t: Array) -> tuple[Array, Array]:
        z, slope = chart(t)
        u, held = surface(model, z)
        return slope - u, held

    def known(t: Array) -> tuple[Array, Array]:
        log, held = log_density(still, t)
        held &= log < jnp.inf
        return jnp.where(held, log, -jnp.inf), held

    bits = _grid_bits(np.array([surface.bits]), surface.dim)
    most = int(_cells(bits, surface.dim)[0])
    cells = refine(known, marks, surface.together, aim=AIM, most=most, width=width)
    whole, beyond = (
        surface.log_summed(jax.nn.logsumexp(a, axis=0)) for a in (cells.value, cells.edge)
    )
    falls = jnp.exp(beyond - whole) < ACCEPTED
    error = error_of(cells, jnp.tile(whole, surface.states), surface.summed)
    error = jnp.maximum(error, AIM) + ROUNDING * (1 + jnp.abs(whole))
    accepted = falls & (error <= ACCEPTED)
    reference = jnp.where(accepted, whole, 0.0)
    references = jnp.tile(reference, surface.states)
    counts = cells.value > references + np.log(SLIGHT * AIM / (most * surface.states))
    parts = over_cells(lambda t: log_density(model, t)[0], cells, counts, references, width)
    value = reference + jnp.log(surface.summed(parts))
    return _Integral(jnp.where(accepted, value, jnp.nan), error, falls)
