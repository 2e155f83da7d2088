"""The base class of gradient kernels, which move a point in unconstrained coordinates.

From step to step the point is kept with its energy and gradient. After other kernels of a cycle
have moved sites, the point is recomputed from the configuration. With `summed`, the target of the
moves is the marginal of the other sites, and the finite sites are drawn after each move.
"""

from __future__ import annotations

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
from jax import Array

from energydsl._messages import brief
from energydsl._types import Configuration, Refusal
from energydsl.analysis.coordinates import Unconstrained
from energydsl.compiler.ebm import EBM
from energydsl.kernel.base import AbstractEnsemble, AbstractKernel
from energydsl.kernel.summed import AbstractSum, Marginal, Target, sum_of, summed_sites


class Point(NamedTuple):
    """Unconstrained coordinates, their energy and gradient, and the other sites' configuration."""

    z: Array
    energy: Array
    slope: Array
    x: Configuration


class AbstractGradientKernel(AbstractKernel):
    """A kernel for the free continuous sites, or for those of `variables`."""

    variables: eqx.AbstractVar[tuple[str, ...] | None]
    summed: bool = eqx.field(default=False, kw_only=True)
    """Whether the free finite sites are summed out exactly, and drawn after each move."""

    def __check_init__(self) -> None:
        if not isinstance(self.summed, bool):
            raise TypeError(
                f"{type(self).__name__} got summed={brief(self.summed)}; expected True or False."
            )
        names = self.variables
        if names is None:
            return
        if not isinstance(names, tuple | list) or not all(isinstance(n, str) for n in names):
            raise TypeError(
                f"{type(self).__name__} got variables={brief(names)}; expected names, such as "
                'variables=("x", "y"). Other settings are given by name: step_size=0.1.'
            )

    @abc.abstractmethod
    def begin(self, ebm: Target, point: Point, *, key: Array, warmup: int) -> Any:
        """The initial state of a chain."""

    @abc.abstractmethod
    def move(
        self, ebm: Target, point: Point, state: Any, *, random: Any
    ) -> tuple[Point, Any, dict[str, Array]]:
        """One transition by one chain's part of `randoms`: the new point, state and statistics."""

    def randoms(self, key: Array, chains: int, size: int) -> Any:
        """The random part of one move of each chain, with the chains on the first axis.

        By default it is a key for each. A kernel that needs a few numbers per coordinate, of which
        a chain has `size`, draws them for all chains at once, which is much faster.
        """
        return jr.split(key, chains)

    def at(self, ebm: Target, z: Array, x: Configuration) -> Point:
        """The point at the coordinates z."""
        space = self._space(ebm)
        energy, slope = jax.value_and_grad(lambda z: space.potential(ebm.energy, z, x))(z)
        return Point(z, energy, slope, x)

    def enter(self, ebm: Target, x: Configuration) -> Point:
        """The point that corresponds to a configuration."""
        return self.at(ebm, self._space(ebm).coordinates(x), x)

    def leave(self, ebm: Target, point: Point) -> Configuration:
        """The configuration that corresponds to a point."""
        return self._space(ebm).configuration(point.z, point.x)

    def energy_at(self, ebm: Target, point: Point) -> Array:
        """E of the configuration at a point."""
        return point.energy + self._space(ebm).log_jacobian(point.z, point.x)

    def distribution(self, ebm: EBM) -> Target:
        """The distribution of the sites that are moved: of the EBM, or with finite sites summed."""
        if not self.summed:
            return ebm
        found = sum_of(ebm)
        if isinstance(found, Refusal):
            raise TypeError(f"{self} does not apply: {found.reason}.")
        return Marginal(ebm, found)

    def init(self, ebm: EBM, x: Configuration, *, key: Array, warmup: int) -> Any:
        target = self.distribution(ebm)
        return self.begin(target, self.enter(target, x), key=key, warmup=warmup)

    def step(
        self, ebm: EBM, x: Configuration, state: Any, *, key: Array
    ) -> tuple[Configuration, Any, dict[str, Array]]:
        target = self.distribution(ebm)
        point = self.enter(target, x)
        move_key, draw_key = self.keys(key)
        random = jax.tree.map(lambda a: a[0], self.randoms(move_key, 1, point.z.size))
        point, state, info = self.move(target, point, state, random=random)
        x = self.leave(target, point)
        if isinstance(target, Marginal):
            xs = target.sum.draw(ebm, jax.tree.map(lambda a: a[None], x), key=draw_key)
            x = jax.tree.map(lambda a: a[0], xs)
        return x, state, info

    def keys(self, key: Array) -> tuple[Array, Array]:
        """The keys of the move and of the draw of summed sites; without these, the first is `key`.

        Random numbers of kernels that sum nothing do not depend on this setting.
        """
        if not self.summed:
            return key, key
        move_key, draw_key = jr.split(key)
        return move_key, draw_key

    def moves(self, ebm: EBM) -> np.ndarray:
        moved = ebm.structure.of_variables(self._space(ebm).names)
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
        target = self.distribution(ebm)
        return PointEnsemble(self, target.sum if isinstance(target, Marginal) else None)

    def _space(self, ebm: Target) -> Unconstrained:
        return Unconstrained.of(ebm.structure, self.variables)


def check_between(kernel: AbstractGradientKernel, name: str, high: float, expected: str) -> None:
    """Raise ValueError unless a setting of a kernel is a number between 0 and `high`."""
    value = getattr(kernel, name)
    try:
        inside = bool(0 < value < high)
    except TypeError:
        inside = False
    if not inside:
        raise ValueError(f"{type(kernel).__name__} got {name}={brief(value)}; expected {expected}.")


class PointEnsemble(AbstractEnsemble):
    """Chains as points, whose energies and gradients are kept from step to step."""

    kernel: AbstractGradientKernel
    sum: AbstractSum | None

    def start(self, ebm: EBM, xs: Configuration, *, key: Array, warmup: int) -> Any:
        target = self._target(ebm)

        def one(x: Configuration, key: Array) -> Any:
            point = self.kernel.enter(target, x)
            return point, self.kernel.begin(target, point, key=key, warmup=warmup)

        return jax.vmap(one)(xs, jr.split(key, len(next(iter(xs.values())))))

    def refresh(self, ebm: EBM, carry: Any) -> Any:
        points, states = carry
        target = self._target(ebm)
        return jax.vmap(lambda p: self.kernel.at(target, p.z, p.x))(points), states

    def place(self, ebm: EBM, carry: Any, xs: Configuration) -> Any:
        target = self._target(ebm)
        return jax.vmap(lambda x: self.kernel.enter(target, x))(xs), carry[1]

    def load(self, ebm: EBM) -> None:
        return None

    def advance(
        self, ebm: EBM, tables: Any, carry: Any, *, key: Array
    ) -> tuple[Any, dict[str, Array]]:
        target = self._target(ebm)

        def one(point: Point, state: Any, random: Any) -> Any:
            point, state, info = self.kernel.move(target, point, state, random=random)
            return (point, state), info

        points, states = carry
        move_key, draw_key = self.kernel.keys(key)
        randoms = self.kernel.randoms(move_key, *points.z.shape)
        carry, info = jax.vmap(one)(points, states, randoms)
        if self.sum is None:
            return carry, info
        # F does not depend on the finite sites, so that the points stay as they are.
        xs = self.sum.draw(ebm, self.configurations(ebm, carry), key=draw_key)
        return (carry[0]._replace(x=xs), carry[1]), info

    def configurations(self, ebm: EBM, carry: Any) -> Configuration:
        target = self._target(ebm)
        return jax.vmap(lambda point: self.kernel.leave(target, point))(carry[0])

    def energies(self, ebm: EBM, carry: Any) -> Array:
        if self.sum is not None:
            return jax.vmap(ebm.energy)(self.configurations(ebm, carry))
        # The point's energy differs from E only by the log of the Jacobian.
        return jax.vmap(lambda point: self.kernel.energy_at(ebm, point))(carry[0])

    def _target(self, ebm: EBM) -> Target:
        return ebm if self.sum is None else Marginal(ebm, self.sum)
