"""Sites that are conditionally independent, summed or integrated out in closed form."""

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
"""Sites that are independent given all others: for each variable that has some, its conditional
distribution and the flat numbers of these sites."""


def latent_layer(structure: Structure) -> IndependentSites | Refusal:
    """The free latent sites as a layer, or why they do not form one."""
    latents = [w for w in structure.skeleton.free if w.latent]
    hidden = structure.free & structure.of_variables(w.name for w in latents)
    if latents and (structure.crowded or hidden[structure.edges].all(axis=1).any()):
        return Refusal("the latents interact, so they are not independent given the other sites")
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
    r"""The energy E(s, u), and the derivatives that determine the conditionals of the layer.

    $E(s, t) = E(s, u) + \sum_i (b_i(s) (t_i - u_i) + \tfrac12 a_i(s) (t_i - u_i)^2)$ for the sites
    t of the layer and all others s. As no two sites of the layer interact, one gradient of the
    whole energy gives all b, and one Hessian-vector product all a.

    Args:
        energy: the energy as a function of a value for each variable.
        values: a value for each variable; the entries at the layer's sites are not used.
        layer: the sites, with conditionals that are determined by derivatives.
        at: u, the value of each site at which derivatives are taken; 0 if not given.

    Returns:
        E(s, u), and for each variable the array `total` of `AbstractConditional.draw`.
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
    r"""The free energy $-\log \sum_t e^{-E(s, t)}$, summed over the sites t of a layer.

    The arguments are those of `measured`. A quadratic energy is expanded about its minimum: E(s, 0)
    may be so large that the differences between the relevant energies would be lost to rounding.
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
