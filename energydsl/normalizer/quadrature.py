"""Integrals in one or two dimensions, by adaptive quadrature about the modes that were found."""

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
from energydsl.normalizer.cubature import POINTS, SLIGHT, error_of, over_cells, refine
from energydsl.normalizer.integrand import Surface, dimensions
from energydsl.normalizer.modes import CHUNK, SCANNED, search, width_of

AIM = 1e-9
"""Cells are bisected until the estimated error is below this, relative; none is claimed smaller."""

ACCEPTED = 1e-6
"""The largest error of a value: what float32, in which energies live, resolves of ten nats."""

ROUNDING = 4 * 2.0**-52
"""What float64 loses of an energy of 1, as an error of log Z."""

MAX_BITS = {1: 16, 2: 20}
"""log2 of the points of a component, its states counted, if that leaves enough, by dimension."""

LEAST_BITS = {1: 13, 2: 15}
"""log2 of the points that each state has at least, by dimension."""


@dataclasses.dataclass(frozen=True)
class Quadrature(AbstractRule):
    r"""$Z_c = \sum_s \int e^{-U(z, s)}\,dz$ over one or two unconstrained coordinates.

    U holds the Jacobian; s are the states of the component's finite sites, each with modes, scales
    and cells of its own. Modes are searched for on a grid over 34 powers of ten about 0 and about
    the numbers that the model holds; then, in coordinates $z = m + a \sinh t$ about the highest,
    cells are bisected until those at every mode are as small as the mode and the error, judged in
    each by two rules, of 13 points and of 7 along each axis, is below 1e-9 relative.
    Where the most cells that are allowed leave more than 1e-6 there is no value.

    The value is that of a numerical integration, not proven. What the search cannot see is missed:
    a feature far narrower than its distance from 0, from every number of the model and from every
    mode, with no slope of U towards it. Bent ridges that fall off like a square are followed to
    where they end, by valleys of U between a cell's points; the part of a ridge that lies inside
    a broad hump shows no such valley, and may be missed while a small error is claimed.

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
            size = factors + structure.component_sizes[here]
            memory[here] = 8.0 * (size + 3 * points) * states

        def reason(component: int) -> str:
            if structure.uncountable[component]:
                return "it has sites with neither finitely many levels nor real coordinates"
            dim = int(dims[component])
            return f"{dim:,} dimensions; at most 2" if dim else "no real site"

        def plan(components: np.ndarray) -> tuple[AbstractPlan, ...]:
            return (
                QuadraturePlan(
                    rule=self,
                    structure=structure,
                    components=int32(components),
                    operations=float(operations[components].sum()),
                    bytes=float(max(8.0 * CHUNK, memory[components].sum())),
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
        )


class QuadraturePlan(AbstractPlan):
    """Integrals of some components, and their errors."""

    kind: ClassVar[str] = "quadrature"

    numbers: tuple[int, ...] = eqx.field(static=True)
    """The components again, of which the program is made."""

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
    """log2 of the points that each state of a component with so many states may have."""
    return np.clip(MAX_BITS[dim] - bits, LEAST_BITS[dim], MAX_BITS[dim])


def _groups(structure: Structure, components: np.ndarray) -> list[np.ndarray]:
    """Components of like dimension and like number of states together."""
    like = np.stack([dimensions(structure), state_bits(structure)], axis=1)[components]
    kinds, number = np.unique(like, axis=0, return_inverse=True)
    return [components[number.ravel() == k] for k in range(len(kinds))]


@eqx.filter_jit
def _integrals(structure: Structure, model: Model, components: tuple[int, ...]) -> list[_Integral]:
    groups = _groups(structure, np.asarray(components))
    return [_integrate(Surface(structure, group), model) for group in groups]


class _Integral(NamedTuple):
    """For each component: log Z or NaN, its error, whether U rises towards all ends."""

    value: Array
    error: Array
    falls: Array


def _integrate(surface: Surface, model: Model) -> _Integral:
    still = jax.tree.map(lambda a: lax.stop_gradient(a) if isinstance(a, Array) else a, model)
    (chart, marks), width = search(surface, still), width_of(surface)

    def log_density(model: Model, t: Array) -> tuple[Array, Array]:
        z, slope = chart(t)
        u, held = surface(model, z)
        return slope - u, held

    def known(t: Array) -> tuple[Array, Array]:
        log, held = log_density(still, t)
        held &= log < jnp.inf
        return jnp.where(held, log, -jnp.inf), held

    bits = _grid_bits(np.array([surface.bits]), surface.dim)[0]
    most = int(2**bits / POINTS**surface.dim)
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
