"""Sites that are independent given the rest, summed or integrated out in closed form."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl._types import Configuration, Refusal
from energydsl.analysis.conditional import AbstractConditional, Gaussian, Linear, conditional_for
from energydsl.analysis.structure import Structure

Layer = Mapping[str, tuple[AbstractConditional, np.ndarray | Array]]
"""Sites that are independent given the rest: for each variable that has some, the conditional
and which of its (flat) sites."""


def by_slope(law: AbstractConditional) -> bool:
    """Whether derivatives at 0 say all about a site but its energy there."""
    return isinstance(law, Linear | Gaussian)


def latent_layer(structure: Structure) -> Layer | Refusal:
    """The free latents, each measured by slopes (`by_slope`), or why they are no layer."""
    latents = [w for w in structure.skeleton.free if w.latent]
    hidden = structure.free & structure.of_variables(w.name for w in latents)
    if latents and (structure.crowded or hidden[structure.edges].all(axis=1).any()):
        return Refusal("the latents interact, so they are not independent given the rest")
    layer = {}
    for w in latents:
        law = conditional_for(w.domain, structure.degree_in(w))
        if law is None or not by_slope(law):
            return Refusal(f"the energy is neither linear nor quadratic in the latent {w.name!r}")
        layer[w.name] = law, np.flatnonzero(~structure.skeleton.mask(w).ravel())
    return layer


def measured(
    energy: Callable[[Configuration], Array], values: Configuration, layer: Layer
) -> tuple[Array, dict[str, Array]]:
    r"""E(s, 0), and what `AbstractConditional.draw` reads of each site t of the layer.

    E(s, t) = E(s, 0) + sum_i (b_i(s) t_i + a_i(s) t_i^2 / 2): one gradient of the whole energy
    gives every b, one Hessian-vector product every a, as no two of the sites interact.

    Args:
        energy: of a value for each variable.
        values: these; what they hold at the layer's sites does not matter.
        layer: each site with a conditional that is measured by slopes (`by_slope`).
    """
    flat = {
        n: _put(jnp.ravel(values[n]).astype(law.domain.energy_dtype), where, 0.0)
        for n, (law, where) in layer.items()
    }

    def of(moving: Configuration) -> Array:
        shaped = {n: a.reshape(jnp.shape(values[n])) for n, a in moving.items()}
        return energy({**values, **shaped})

    base, slope = jax.value_and_grad(of)(flat)
    curvature = slope
    if any(isinstance(law, Gaussian) for law, _ in layer.values()):
        along = {
            n: _put(jnp.zeros_like(flat[n]), where, float(isinstance(law, Gaussian)))
            for n, (law, where) in layer.items()
        }
        curvature = jax.jvp(jax.grad(of), (flat,), (along,))[1]
    totals = {}
    for n, (law, where) in layer.items():
        numbers = [slope[n], curvature[n]] if isinstance(law, Gaussian) else [slope[n]]
        totals[n] = jnp.stack([_take(a, where) for a in numbers])
    return base, totals


def sum_out(energy: Callable[[Configuration], Array], values: Configuration, layer: Layer) -> Array:
    r"""$-\log \sum_t e^{-E(s, t)}$ over the sites t of a layer; arguments as of `measured`."""
    base, totals = measured(energy, values, layer)
    for n, (law, _) in layer.items():
        base = base - jnp.sum(law.log_normalizer(totals[n]))
    return base


def _take(flat: Array, where: np.ndarray | Array) -> Array:
    return flat if len(where) == len(flat) else flat[where]


def _put(flat: Array, where: np.ndarray | Array, value: float) -> Array:
    return jnp.full_like(flat, value) if len(where) == len(flat) else flat.at[where].set(value)
