"""The No-U-Turn sampler, by NumPyro's implementation."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
from jax import Array

from energydsl._messages import brief, described
from energydsl.compiler.ebm import EBM
from energydsl.kernel.hamiltonian import AbstractHamiltonianKernel, HamiltonianState, statistics
from energydsl.kernel.point import Point, check_between
from energydsl.kernel.summed import Target


@described
class NUTS(AbstractHamiltonianKernel):
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

    @property
    def algorithm(self) -> str:
        return "NUTS"

    def settings(self) -> dict[str, Any]:
        return {"max_tree_depth": self.max_tree_depth}

    def move(
        self, ebm: Target, point: Point, state: HamiltonianState, *, random: Array
    ) -> tuple[Point, HamiltonianState, dict[str, Array]]:
        point, state, new = self.travel(ebm, point, state, key=random)
        depth = jnp.ceil(jnp.log2(new.num_steps + 1.0)).astype(int)
        return point, state, {**statistics(new), "tree_depth": depth}
