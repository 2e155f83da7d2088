"""Second-order Langevin dynamics: steps that follow the local curvature."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from energydsl._messages import described
from energydsl._types import Configuration
from energydsl.compiler.ebm import EBM
from energydsl.kernel.gradient import AbstractGradientKernel, log_to_rate, normals
from energydsl.kernel.point import check_between
from energydsl.kernel.summed import Target
from energydsl.kernel.tuning import Tuned


class CurvedPoint(NamedTuple):
    r"""A point with its metric $G = Q\,\mathrm{diag}(g)\,Q^\top$: `axes` is Q, `curvature` is g."""

    z: Array
    energy: Array
    slope: Array
    x: Configuration
    axes: Array
    curvature: Array


@described
class HessianLangevin(AbstractGradientKernel):
    r"""Langevin step preconditioned by the Hessian of the energy (simplified manifold MALA).

    In unconstrained coordinates it proposes
    $z' = z - h\, G(z)^{-1} \nabla U(z) + \sqrt{2h}\, G(z)^{-1/2} \xi$, so that steps are long where
    the energy is flat and short where it is curved. G has the eigenvectors of the Hessian, and
    $\lambda \coth(\lambda / f)$ in place of each eigenvalue $\lambda$, which is about
    $|\lambda|$ and at least the floor f. The Metropolis test, which takes both metrics into
    account, makes the stationary distribution exact. Warmup adapts $h$ towards the acceptance rate
    `target`.

    A step computes a Hessian and its eigenvectors: d gradients and about $10\, d^3$ operations for
    d coordinates. It is meant for few coordinates whose scales vary from place to place.

    Args:
        step_size: $h$, which has no unit: 1 is a step to the minimum of a quadratic energy.
        floor: f, in units of the Hessian; directions of less curvature are taken to have as much.
        target: the acceptance rate that warmup aims at.
        variables: names of the variables to move; by default every free continuous one.
        summed: whether the free sites with finitely many levels, such as the labels of a mixture,
            are summed out exactly and drawn given the others after each move.

    Source: Girolami & Calderhead (2011), JRSS B 73(2), 123-214, section 5 (the simplified
    proposal); the metric: Betancourt (2013), Geometric Science of Information, 327-334, section 3.
    """

    step_size: float = 0.5
    floor: float = 0.1
    target: float = 0.574
    variables: tuple[str, ...] | None = None

    def __check_init__(self) -> None:
        check_between(self, "step_size", math.inf, "a number above 0")
        check_between(self, "floor", math.inf, "a curvature above 0")
        check_between(self, "target", 1.0, "a rate between 0 and 1")

    def merit(self, ebm: EBM) -> str:
        return "every free site is continuous, and a step follows the local curvature"

    def effort(self, ebm: EBM) -> float:
        return float(ebm.structure.free.sum())

    def at(self, ebm: Target, z: Array, x: Configuration) -> CurvedPoint:
        point = super().at(ebm, z, x)
        space = self.space(ebm)
        hessian = jax.hessian(lambda z: space.potential(ebm.energy, z, x))(z)
        # Eigenvectors of a matrix that is not finite do not exist; such a proposal is rejected.
        finite = jnp.all(jnp.isfinite(hessian))
        values, axes = jnp.linalg.eigh(jnp.where(finite, hessian, jnp.eye(z.size)))
        curvature = jnp.where(finite, soft_absolute(values, self.floor), jnp.nan)
        return CurvedPoint(*point, axes=axes, curvature=curvature)

    def begin(self, ebm: Target, point: CurvedPoint, *, key: Array, warmup: int) -> Tuned:
        return Tuned.begin(self.step_size, warmup)

    def randoms(self, key: Array, chains: int, size: int) -> tuple[Array, Array]:
        """Standard normals, and a uniform number for the Metropolis test."""
        return normals(key, chains, size, 1)

    def move(
        self, ebm: Target, point: CurvedPoint, state: Tuned, *, random: tuple[Array, Array]
    ) -> tuple[CurvedPoint, Tuned, dict[str, Array]]:
        h = state.value
        noise, height = random
        step = jnp.sqrt(2 * h / point.curvature) * noise - h * _drift(point)
        new = self.at(ebm, point.z + point.axes @ step, point.x)

        back = new.axes.T @ (point.z - new.z) + h * _drift(new)
        log_forth = jnp.sum(jnp.log(point.curvature)) / 2 - (noise @ noise) / 2
        log_back = jnp.sum(jnp.log(new.curvature) - new.curvature * back**2 / (2 * h)) / 2
        accept = log_to_rate(point.energy - new.energy + log_back - log_forth)
        taken = height[0] < accept
        point = jax.tree.map(lambda a, b: jnp.where(taken, a, b), new, point)
        info = {"acceptance_rate": accept, "step_size": h}
        return point, state.learn(accept, self.target), info


def soft_absolute(values: Array, floor: float) -> Array:
    r"""$\lambda \coth(\lambda / f)$: about $|\lambda|$ far from 0, and f at 0."""
    ratio = values / floor
    small = jnp.abs(ratio) < 1e-2
    safe = jnp.where(small, 1.0, ratio)
    return floor * jnp.where(small, 1 + ratio**2 / 3, safe / jnp.tanh(safe))


def _drift(point: CurvedPoint) -> Array:
    """The preconditioned gradient, along the axes of the metric."""
    return (point.axes.T @ point.slope) / point.curvature
