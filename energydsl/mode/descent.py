"""Local minima in continuous variables, by L-BFGS in unconstrained coordinates.

The energy itself is minimised, without the Jacobian of the coordinates: a mode is a configuration
of highest density, and the density is that of the variables as they were declared.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.optimize import minimize

from energydsl._types import Configuration
from energydsl.analysis.coordinates import Unconstrained
from energydsl.analysis.evaluation import as_double
from energydsl.language.model import Model

OPTIONS = {"maxiter": 2000, "maxfun": 4000, "ftol": 1e-15, "gtol": 1e-9}
"""When L-BFGS stops."""


def descended(model: Model, space: Unconstrained, x: Configuration) -> Configuration:
    """A configuration near `x` at a local minimum of the energy, in float64.

    Raises:
        ValueError: the energy falls without a bound.
    """
    with jax.enable_x64(True):
        x = {n: _wide(a) for n, a in x.items()}

        def value(z: np.ndarray) -> tuple[float, np.ndarray]:
            energy, slope = _value_and_slope(model, space, jnp.asarray(z), x)
            if np.isneginf(energy):
                raise ValueError(
                    "The energy falls without a bound, so that there is no mode: the density is "
                    "infinite somewhere, as that of a Gamma with a concentration below 1 is at 0."
                )
            return (np.inf if np.isnan(energy) else float(energy)), np.nan_to_num(slope)

        z = np.asarray(space.coordinates(x))
        found = minimize(value, z, jac=True, method="L-BFGS-B", options=OPTIONS)
        z = found.x if found.fun <= value(z)[0] else z
        return space.configuration(jnp.asarray(z), x)


def _wide(array: Array) -> Array:
    floating = jnp.issubdtype(jnp.asarray(array).dtype, jnp.floating)
    return jnp.asarray(array, jnp.float64) if floating else jnp.asarray(array)


@eqx.filter_jit
def _value_and_slope(
    model: Model, space: Unconstrained, z: Array, x: Configuration
) -> tuple[Array, Array]:
    double = as_double(model)
    return jax.value_and_grad(lambda z: double.energy_anywhere(space.configuration(z, x)))(z)
