"""Sites that are independent given the rest, summed or integrated out in closed form."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl._types import Configuration
from energydsl.conditional import AbstractConditional, Gaussian, Linear

Sites = Mapping[str, tuple[AbstractConditional, np.ndarray]]
"""For each variable that has some, its conditional and the (flat) sites to sum out."""


def by_slope(law: AbstractConditional) -> bool:
    """Whether derivatives at 0 say all about a site but its energy there."""
    return isinstance(law, Linear | Gaussian)


def sum_out(energy: Callable[[Configuration], Array], values: Configuration, sites: Sites) -> Array:
    r"""$-\log \sum_t e^{-E(s, t)}$ for sites t that are independent given all others, s.

    E(s, t) = E(s, 0) + sum_i (b_i(s) t_i + a_i(s) t_i^2 / 2): one gradient of the whole energy
    gives every b, one Hessian-vector product every a, as no two of the sites interact.

    Args:
        energy: of a value for each variable.
        values: these; what they hold at `sites` does not matter.
        sites: those to sum out, each with a conditional that is measured by slopes (`by_slope`).
    """
    flat = {
        n: jnp.ravel(values[n]).astype(law.domain.energy_dtype).at[where].set(0.0)
        for n, (law, where) in sites.items()
    }

    def of(moving: Configuration) -> Array:
        shaped = {n: a.reshape(jnp.shape(values[n])) for n, a in moving.items()}
        return energy({**values, **shaped})

    base, slope = jax.value_and_grad(of)(flat)
    curvature = slope
    if any(isinstance(law, Gaussian) for law, _ in sites.values()):
        along = {
            n: jnp.zeros_like(flat[n]).at[where].set(float(isinstance(law, Gaussian)))
            for n, (law, where) in sites.items()
        }
        curvature = jax.jvp(jax.grad(of), (flat,), (along,))[1]
    for n, (law, where) in sites.items():
        measures = [slope[n][where], curvature[n][where]]
        total = jnp.stack(measures[: 2 if isinstance(law, Gaussian) else 1])
        base = base - jnp.sum(law.log_normalizer(total))
    return base
