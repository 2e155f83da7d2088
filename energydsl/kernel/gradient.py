"""The base class of gradient kernels, which move a point in unconstrained coordinates.

With `summed`, the target of the moves is the marginal of the other sites, and the finite sites are
drawn after each move.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array, lax

from energydsl._messages import brief
from energydsl._types import Configuration, Refusal
from energydsl.analysis.coordinates import Unconstrained
from energydsl.analysis.uniform import open_uniform
from energydsl.compiler.ebm import EBM
from energydsl.kernel.base import AbstractEnsemble
from energydsl.kernel.point import AbstractPointKernel, Point, PointEnsemble
from energydsl.kernel.summed import AbstractSum, Marginal, Target, sum_of, summed_sites


class AbstractGradientKernel(AbstractPointKernel):
    """A kernel for the free continuous sites, or for those of `variables`."""

    summed: bool = eqx.field(default=False, kw_only=True)
    """Whether the free finite sites are summed out exactly, and drawn after each move."""

    def __check_init__(self) -> None:
        if not isinstance(self.summed, bool):
            raise TypeError(
                f"{type(self).__name__} got summed={brief(self.summed)}; expected True or False."
            )

    def at(self, ebm: Target, z: Array, x: Configuration) -> Point:
        space = self.space(ebm)
        energy, slope = jax.value_and_grad(lambda z: space.potential(ebm.energy, z, x))(z)
        return Point(z, energy, slope, x)

    def enter(self, ebm: Target, x: Configuration) -> Point:
        return self.at(ebm, self.space(ebm).coordinates(x), x)

    def leave(self, ebm: Target, point: Point) -> Configuration:
        return self.space(ebm).configuration(point.z, point.x)

    def energy_at(self, ebm: Target, point: Point) -> Array:
        # The point's energy differs from E only by the log of the Jacobian.
        return point.energy + self.space(ebm).log_jacobian(point.z, point.x)

    def init(self, ebm: EBM, x: Configuration, *, key: Array, warmup: int) -> Any:
        found = self._sum(ebm)
        target = ebm if found is None else Marginal(ebm, found)
        return self.begin(target, self.enter(target, x), key=key, warmup=warmup)

    def step(
        self, ebm: EBM, x: Configuration, state: Any, *, key: Array
    ) -> tuple[Configuration, Any, dict[str, Array]]:
        found = self._sum(ebm)
        if found is None:
            return super().step(ebm, x, state, key=key)
        move_key, draw_key = jr.split(key)
        x, state, info = self._moved(Marginal(ebm, found), x, state, key=move_key)
        xs = found.draw(ebm, jax.tree.map(lambda a: a[None], x), key=draw_key)
        return jax.tree.map(lambda a: a[0], xs), state, info

    def moves(self, ebm: EBM) -> np.ndarray:
        moved = ebm.structure.of_variables(self.space(ebm).names)
        return moved | summed_sites(ebm) if self.summed else moved

    def reason(self, ebm: EBM) -> str:
        if self.summed and isinstance(said := sum_of(ebm), Refusal):
            return said.reason
        if self.variables is not None:
            return f"its argument `variables` names only {', '.join(self.variables)}"
        return "it needs gradients, which discrete sites do not have"

    def applies(self, ebm: EBM) -> str | Refusal:
        """As for any kernel, but one that sums sites out does not apply if there are none."""
        said = super().applies(ebm)
        if isinstance(said, Refusal) or not self.summed:
            return said
        found = sum_of(ebm)
        if isinstance(found, Refusal):
            return found
        return f"its discrete sites are summed out exactly, {found.manner}, and drawn after a move"

    @property
    def name(self) -> str:
        return f"{type(self).__name__}(summed=True)" if self.summed else type(self).__name__

    def ensemble(self, ebm: EBM) -> AbstractEnsemble:
        return PointEnsemble(self, self._sum(ebm))

    def space(self, ebm: Target) -> Unconstrained:
        """The coordinates in which it moves."""
        return Unconstrained.of(ebm.structure, self.variables)

    def _sum(self, ebm: EBM) -> AbstractSum | None:
        """How the finite sites are summed out; None if they are not."""
        if not self.summed:
            return None
        found = sum_of(ebm)
        if isinstance(found, Refusal):
            raise TypeError(f"{self} does not apply: {found.reason}.")
        return found


def normals(key: Array, chains: int, size: int, uniforms: int) -> tuple[Array, Array]:
    """Standard normals (chains, size) and uniform numbers (chains, uniforms), all in one call."""
    u = open_uniform(key, (chains, size + uniforms))
    # The barrier prevents XLA from recomputing the normals wherever they are used.
    return lax.optimization_barrier(normal(u[:, :size])), u[:, size:]


def normal(u: Array) -> Array:
    """Standard normals by inversion of uniform numbers."""
    return jnp.sqrt(2.0) * lax.erf_inv(2 * u - 1)


def log_to_rate(log_ratio: Array) -> Array:
    """The acceptance probability of a log ratio; a proposal whose ratio is NaN is rejected."""
    return jnp.exp(jnp.minimum(jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio), 0.0))
