"""The base class of gradient kernels, which move a point in unconstrained coordinates."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from energydsl._types import Configuration
from energydsl.analysis.coordinates import Unconstrained
from energydsl.analysis.uniform import open_uniform
from energydsl.compiler.ebm import EBM
from energydsl.kernel.point import AbstractPointKernel, Point


class AbstractGradientKernel(AbstractPointKernel):
    """A kernel for the free continuous sites, or for those of `variables`."""

    def at(self, ebm: EBM, z: Array, x: Configuration) -> Point:
        space = self.space(ebm)
        energy, slope = jax.value_and_grad(lambda z: space.potential(ebm.energy, z, x))(z)
        return Point(z, energy, slope, x)

    def enter(self, ebm: EBM, x: Configuration) -> Point:
        return self.at(ebm, self.space(ebm).coordinates(x), x)

    def leave(self, ebm: EBM, point: Point) -> Configuration:
        return self.space(ebm).configuration(point.z, point.x)

    def energy_at(self, ebm: EBM, point: Point) -> Array:
        # The point's energy differs from E only by the log of the Jacobian.
        return point.energy + self.space(ebm).log_jacobian(point.z, point.x)

    def moves(self, ebm: EBM) -> np.ndarray:
        return ebm.structure.of_variables(self.space(ebm).names)

    def reason(self, ebm: EBM) -> str:
        if self.variables is not None:
            return f"its argument `variables` names only {', '.join(self.variables)}"
        return "it needs gradients, which discrete sites do not have"

    def space(self, ebm: EBM) -> Unconstrained:
        """The coordinates in which it moves."""
        return Unconstrained.of(ebm.structure, self.variables)


def normals(key: Array, chains: int, size: int, uniforms: int) -> tuple[Array, Array]:
    """Standard normals (chains, size) and uniform numbers (chains, uniforms), all in one call."""
    u = open_uniform(key, (chains, size + uniforms))
    # The barrier prevents XLA from recomputing the normals wherever they are used.
    noise = lax.optimization_barrier(jnp.sqrt(2.0) * lax.erf_inv(2 * u[:, :size] - 1))
    return noise, u[:, size:]


def log_to_rate(log_ratio: Array) -> Array:
    """The acceptance probability of a log ratio; a proposal whose ratio is NaN is rejected."""
    return jnp.exp(jnp.minimum(jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio), 0.0))
