"""The base class of kernels that move a point, which is kept with its energy and its slopes.

Such a kernel uses coordinates of its own, such as unconstrained reals or the numbers of levels.
From step to step the point is kept, so that its energy and slopes are computed once. After other
kernels of a cycle have moved sites, the point is recomputed from the configuration. Where finite
sites are summed out, they are drawn after each move.
"""

from __future__ import annotations

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.random as jr
from jax import Array

from energydsl._messages import brief
from energydsl._types import Configuration
from energydsl.compiler.ebm import EBM
from energydsl.kernel.base import AbstractEnsemble, AbstractKernel
from energydsl.kernel.summed import AbstractSum, Marginal, Target


class Point(NamedTuple):
    """Coordinates, their energy and slopes, and the other sites' configuration."""

    z: Array
    energy: Array
    slope: Any
    x: Configuration


class AbstractPointKernel(AbstractKernel):
    """A kernel whose moves are between points; `variables` are those it moves, None for all."""

    variables: eqx.AbstractVar[tuple[str, ...] | None]

    def __check_init__(self) -> None:
        check_names(self)

    @abc.abstractmethod
    def begin(self, ebm: Target, point: Any, *, key: Array, warmup: int) -> Any:
        """The initial state of a chain."""

    @abc.abstractmethod
    def move(
        self, ebm: Target, point: Any, state: Any, *, random: Any
    ) -> tuple[Any, Any, dict[str, Array]]:
        """One transition by one chain's part of `randoms`: the new point, state and statistics."""

    @abc.abstractmethod
    def at(self, ebm: Target, z: Array, x: Configuration) -> Any:
        """The point at the coordinates z."""

    @abc.abstractmethod
    def enter(self, ebm: Target, x: Configuration) -> Any:
        """The point that corresponds to a configuration."""

    @abc.abstractmethod
    def leave(self, ebm: Target, point: Any) -> Configuration:
        """The configuration that corresponds to a point."""

    @abc.abstractmethod
    def energy_at(self, ebm: Target, point: Any) -> Array:
        """E of the configuration at a point."""

    def randoms(self, key: Array, chains: int, size: int) -> Any:
        """The random part of one move of each chain, with the chains on the first axis.

        By default it is a key for each. A kernel that needs a few numbers per coordinate, of which
        a chain has `size`, draws them for all chains at once, which is much faster.
        """
        return jr.split(key, chains)

    def init(self, ebm: EBM, x: Configuration, *, key: Array, warmup: int) -> Any:
        return self.begin(ebm, self.enter(ebm, x), key=key, warmup=warmup)

    def step(
        self, ebm: EBM, x: Configuration, state: Any, *, key: Array
    ) -> tuple[Configuration, Any, dict[str, Array]]:
        return self._moved(ebm, x, state, key=key)

    def _moved(
        self, ebm: Target, x: Configuration, state: Any, *, key: Array
    ) -> tuple[Configuration, Any, dict[str, Array]]:
        point = self.enter(ebm, x)
        random = jax.tree.map(lambda a: a[0], self.randoms(key, 1, point.z.size))
        point, state, info = self.move(ebm, point, state, random=random)
        return self.leave(ebm, point), state, info

    def ensemble(self, ebm: EBM) -> AbstractEnsemble:
        return PointEnsemble(self)


def check_names(kernel: Any) -> None:
    """Raise TypeError unless the `variables` of a kernel are names, or None."""
    names = kernel.variables
    if names is None:
        return
    if not isinstance(names, tuple | list) or not all(isinstance(n, str) for n in names):
        raise TypeError(
            f"{type(kernel).__name__} got variables={brief(names)}; expected names, such as "
            'variables=("x", "y"). Other settings are given by name: step_size=0.1.'
        )


def check_between(kernel: AbstractKernel, name: str, high: float, expected: str) -> None:
    """Raise ValueError unless a setting of a kernel is a number between 0 and `high`."""
    value = getattr(kernel, name)
    try:
        inside = bool(0 < value < high)
    except TypeError:
        inside = False
    if not inside:
        raise ValueError(f"{type(kernel).__name__} got {name}={brief(value)}; expected {expected}.")


class PointEnsemble(AbstractEnsemble):
    """Chains as points, whose energies and slopes are kept from step to step."""

    kernel: AbstractPointKernel
    sum: AbstractSum | None = None
    """How the finite sites are summed out that are drawn after each move, if there are such."""

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
        if self.sum is None:
            return jax.vmap(one)(points, states, self.kernel.randoms(key, *points.z.shape))
        move_key, draw_key = jr.split(key)
        randoms = self.kernel.randoms(move_key, *points.z.shape)
        (points, states), info = jax.vmap(one)(points, states, randoms)
        # The marginal energy does not depend on the drawn sites, so that the points stay.
        xs = self.sum.draw(ebm, self.configurations(ebm, (points, states)), key=draw_key)
        return (points._replace(x=xs), states), info

    def configurations(self, ebm: EBM, carry: Any) -> Configuration:
        target = self._target(ebm)
        return jax.vmap(lambda point: self.kernel.leave(target, point))(carry[0])

    def energies(self, ebm: EBM, carry: Any) -> Array:
        if self.sum is not None:
            return jax.vmap(ebm.energy)(self.configurations(ebm, carry))
        return jax.vmap(lambda point: self.kernel.energy_at(ebm, point))(carry[0])

    def _target(self, ebm: EBM) -> Target:
        return ebm if self.sum is None else Marginal(ebm, self.sum)
