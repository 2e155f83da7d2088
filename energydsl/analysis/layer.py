"""Sites that are independent given the rest, summed or integrated out in closed form."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from energydsl._types import Configuration, Refusal
from energydsl.analysis.conditional import AbstractConditional, conditional_for
from energydsl.analysis.structure import Structure

IndependentSites = Mapping[str, tuple[AbstractConditional, np.ndarray | Array]]
"""Sites that are independent given the rest: for each variable that has some, the conditional
and which of its (flat) sites."""


def latent_layer(structure: Structure) -> IndependentSites | Refusal:
    """The free latents, each measured by derivatives, or why they are no layer."""
    latents = [w for w in structure.skeleton.free if w.latent]
    hidden = structure.free & structure.of_variables(w.name for w in latents)
    if latents and (structure.crowded or hidden[structure.edges].all(axis=1).any()):
        return Refusal("the latents interact, so they are not independent given the rest")
    layer = {}
    for w in latents:
        law = conditional_for(structure, w)
        if isinstance(law, Refusal) or not law.derivatives:
            return Refusal(f"the energy is neither linear nor quadratic in the latent {w.name!r}")
        layer[w.name] = law, np.flatnonzero(~structure.skeleton.mask(w).ravel())
    return layer


def measured(
    energy: Callable[[Configuration], Array],
    values: Configuration,
    layer: IndependentSites,
    at: Mapping[str, Array] | None = None,
) -> tuple[Array, dict[str, Array]]:
    r"""E(s, u), and what `AbstractConditional.draw` reads of each site t of the layer.

    $E(s, t) = E(s, u) + \sum_i (b_i(s) (t_i - u_i) + \tfrac12 a_i(s) (t_i - u_i)^2)$: one gradient
    of the whole energy gives every b, one Hessian-vector product every a, as no two of the sites
    interact.

    Args:
        energy: of a value for each variable.
        values: these; what they hold at the layer's sites does not matter.
        layer: each site with a conditional that derivatives measure.
        at: u, the value of each site at which derivatives are taken; 0 if not given.
    """
    flat = {
        n: _put(
            jnp.ravel(values[n]).astype(law.domain.energy_dtype),
            where,
            0.0 if at is None else at[n],
        )
        for n, (law, where) in layer.items()
    }

    def of(moving: Configuration) -> Array:
        shaped = {n: a.reshape(jnp.shape(values[n])) for n, a in moving.items()}
        return energy({**values, **shaped})

    base, slope = jax.value_and_grad(of)(flat)
    curved = {n: law.derivatives > 1 for n, (law, _) in layer.items()}
    curvature = slope
    if any(curved.values()):
        along = {
            n: _put(jnp.zeros_like(flat[n]), where, float(curved[n]))
            for n, (_, where) in layer.items()
        }
        curvature = jax.jvp(jax.grad(of), (flat,), (along,))[1]
    totals = {}
    for n, (_, where) in layer.items():
        numbers = [slope[n], curvature[n]] if curved[n] else [slope[n]]
        totals[n] = jnp.stack([_take(a, where) for a in numbers])
    return base, totals


def sum_out(
    energy: Callable[[Configuration], Array], values: Configuration, layer: IndependentSites
) -> Array:
    r"""$-\log \sum_t e^{-E(s, t)}$ over the sites t of a layer; arguments as of `measured`.

    A quadratic is expanded about its lowest point: E(s, 0) may be so much larger than the energies
    that count that their difference would be lost to rounding.
    """
    base, totals = measured(energy, values, layer)
    if any(law.derivatives > 1 for law, _ in layer.values()):
        at = {n: lax.stop_gradient(law.centre(totals[n])) for n, (law, _) in layer.items()}
        base, totals = measured(energy, values, layer, at)
    for n, (law, _) in layer.items():
        base = base - jnp.sum(law.log_normalizer(totals[n]))
    return base


def _take(flat: Array, where: np.ndarray | Array) -> Array:
    return flat if len(where) == len(flat) else flat[where]


def _put(flat: Array, where: np.ndarray | Array, value: Array | float) -> Array:
    if len(where) == len(flat):
        return jnp.broadcast_to(jnp.asarray(value, flat.dtype), flat.shape)
    return flat.at[where].set(value)
