"""The No-U-Turn sampler, by NumPyro's implementation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import Array
from numpyro.infer.hmc import hmc
from numpyro.infer.util import ParamInfo

from energydsl._messages import brief, described
from energydsl._types import Configuration
from energydsl.compiler.ebm import EBM
from energydsl.kernel.gradient import AbstractGradientKernel, Point, check_between
from energydsl.kernel.summed import Target


class NUTSState(eqx.Module):
    """NumPyro's state of adaptation of one chain, and the length of its warmup."""

    steps: Array
    adaptation: Any
    key: Array
    warmup: int = eqx.field(static=True)


@described
class NUTS(AbstractGradientKernel):
    """The No-U-Turn sampler for the free continuous sites, in unconstrained coordinates.

    Warmup adapts the step size (dual averaging) and the mass matrix (Welford, in windows).

    Args:
        step_size: the initial step size.
        target: the acceptance rate that warmup aims at.
        dense_mass: whether to adapt a full mass matrix instead of a diagonal one.
        max_tree_depth: the largest tree depth; a trajectory has at most 2^depth - 1 steps.
        variables: names of the variables to move; by default every free continuous one.
        summed: whether the free sites with finitely many levels, such as the labels of a mixture,
            are summed out exactly and drawn given the others after each move.

    Source: Hoffman & Gelman (2014), JMLR 15, 1593-1623; NumPyro's `numpyro.infer.hmc`.
    """

    step_size: float = 1.0
    target: float = 0.8
    dense_mass: bool = False
    max_tree_depth: int = 10
    variables: tuple[str, ...] | None = None

    def __check_init__(self) -> None:
        check_between(self, "step_size", math.inf, "a number above 0")
        check_between(self, "target", 1.0, "a rate between 0 and 1")
        if not isinstance(self.max_tree_depth, int) or self.max_tree_depth < 1:
            raise ValueError(
                f"NUTS got max_tree_depth={brief(self.max_tree_depth)}; expected a whole number of "
                "at least 1."
            )

    def merit(self, ebm: EBM) -> str:
        return "every free site is continuous"

    def effort(self, ebm: EBM) -> float:
        return 2.0**self.max_tree_depth

    def begin(self, ebm: Target, point: Point, *, key: Array, warmup: int) -> NUTSState:
        state, _ = self._numpyro(ebm, point, key, warmup)
        return NUTSState(state.i, state.adapt_state, state.rng_key, warmup)

    def move(
        self, ebm: Target, point: Point, state: NUTSState, *, random: Array
    ) -> tuple[Point, NUTSState, dict[str, Array]]:
        # NumPyro sets up its adaptation in `init`; the rest of the initial state is replaced.
        blank, sample = self._numpyro(ebm, point, random, state.warmup)
        new = sample(
            blank._replace(i=state.steps, adapt_state=state.adaptation, rng_key=random),
            (ebm, point.x),
        )
        info = {
            "acceptance_rate": new.accept_prob,
            "step_size": new.adapt_state.step_size,
            "n_steps": new.num_steps,
            "tree_depth": jnp.ceil(jnp.log2(new.num_steps + 1.0)).astype(int),
            "diverging": new.diverging,
            "hamiltonian": new.energy,
        }
        moved = Point(new.z, new.potential_energy, new.z_grad, point.x)
        return moved, NUTSState(new.i, new.adapt_state, new.rng_key, state.warmup), info

    def _numpyro(
        self, ebm: Target, point: Point, key: Array, warmup: int
    ) -> tuple[Any, Callable[..., Any]]:
        """NumPyro's state at a point, and its transition."""
        init, sample = hmc(potential_fn_gen=self._potential, algo="NUTS")
        start = ParamInfo(point.z, point.energy, point.slope)
        state = init(
            start,
            warmup,
            step_size=self.step_size,
            target_accept_prob=self.target,
            dense_mass=self.dense_mass,
            max_tree_depth=self.max_tree_depth,
            model_args=(ebm, point.x),
            rng_key=key,
        )
        return state, lambda state, arguments: sample(state, arguments, {})

    def _potential(self, ebm: Target, x: Configuration) -> Callable[[Array], Array]:
        space = self._space(ebm)
        return lambda z: space.potential(ebm.energy, z, x)
