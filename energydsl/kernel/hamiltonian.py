"""The base class of kernels that follow Hamiltonian dynamics, by NumPyro's implementation."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
from jax import Array
from numpyro.infer.hmc import hmc
from numpyro.infer.util import ParamInfo

from energydsl._types import Configuration
from energydsl.kernel.gradient import AbstractGradientKernel
from energydsl.kernel.point import Point
from energydsl.kernel.summed import Target


class HamiltonianState(eqx.Module):
    """NumPyro's state of adaptation of one chain, and the length of its warmup."""

    steps: Array
    adaptation: Any
    key: Array
    warmup: int = eqx.field(static=True)


class AbstractHamiltonianKernel(AbstractGradientKernel):
    """A kernel by NumPyro, whose warmup adapts the step size and the mass matrix."""

    step_size: eqx.AbstractVar[float]
    target: eqx.AbstractVar[float]
    dense_mass: eqx.AbstractVar[bool]

    @property
    @abc.abstractmethod
    def algorithm(self) -> str:
        """The name of NumPyro's algorithm."""

    @abc.abstractmethod
    def settings(self) -> dict[str, Any]:
        """The settings of the algorithm that determine the length of trajectories."""

    def begin(self, ebm: Target, point: Point, *, key: Array, warmup: int) -> HamiltonianState:
        state, _ = self._numpyro(ebm, point, key, warmup)
        return HamiltonianState(state.i, state.adapt_state, state.rng_key, warmup)

    def travel(
        self, ebm: Target, point: Point, state: HamiltonianState, *, key: Array, **changes: Any
    ) -> tuple[Point, HamiltonianState, Any]:
        """One transition: the new point and state, and NumPyro's state, which has statistics.

        `changes` are fields of NumPyro's state that hold for this transition.
        """
        # NumPyro sets up its adaptation in `init`; the rest of the initial state is replaced.
        blank, sample = self._numpyro(ebm, point, key, state.warmup)
        start = blank._replace(i=state.steps, adapt_state=state.adaptation, rng_key=key, **changes)
        new = sample(start, (ebm, point.x))
        moved = Point(new.z, new.potential_energy, new.z_grad, point.x)
        return moved, HamiltonianState(new.i, new.adapt_state, new.rng_key, state.warmup), new

    def _numpyro(
        self, ebm: Target, point: Point, key: Array, warmup: int
    ) -> tuple[Any, Callable[..., Any]]:
        """NumPyro's state at a point, and its transition."""
        init, sample = hmc(potential_fn_gen=self._potential, algo=self.algorithm)
        start = ParamInfo(point.z, point.energy, point.slope)
        state = init(
            start,
            warmup,
            step_size=self.step_size,
            target_accept_prob=self.target,
            dense_mass=self.dense_mass,
            model_args=(ebm, point.x),
            rng_key=key,
            **self.settings(),
        )
        return state, lambda state, arguments: sample(state, arguments, {})

    def _potential(self, ebm: Target, x: Configuration) -> Callable[[Array], Array]:
        space = self.space(ebm)
        return lambda z: space.potential(ebm.energy, z, x)


def statistics(new: Any) -> dict[str, Array]:
    """The statistics of a transition from NumPyro's state after it."""
    return {
        "acceptance_rate": new.accept_prob,
        "step_size": new.adapt_state.step_size,
        "n_steps": new.num_steps,
        "diverging": new.diverging,
        "hamiltonian": new.energy,
    }
