"""Langevin dynamics: gradient steps with noise, with or without a Metropolis correction."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from energydsl._messages import brief, described
from energydsl._pickling import Portable, rebuilt
from energydsl.compiler.ebm import EBM
from energydsl.kernel.gradient import AbstractGradientKernel, log_to_rate, normals
from energydsl.kernel.metric import Fixed, Windowed, checked, inwards, outwards, root_of
from energydsl.kernel.point import Point, check_between
from energydsl.kernel.summed import Target
from energydsl.kernel.tuning import Scheduled, Tuned


@described
class Langevin(AbstractGradientKernel):
    r"""Langevin step in unconstrained coordinates.

    With a metric G, which is the identity by default, it proposes
    $z' = z - h\, G^{-1} \nabla U(z) + \sqrt{2h}\, G^{-1/2} \xi$. With `adjusted` (MALA), a
    Metropolis test makes the stationary distribution exact, and warmup adapts $h$ by dual averaging
    so that the acceptance rate approaches `target`. Without it (ULA), every step is accepted, $h$
    stays as given, and the stationary distribution has an error of O(h): for a standard normal the
    variance is $1/(1 - h/2)$.

    A schedule as the step size, such as $h_t = a (b + t)^{-\gamma}$ with $\gamma$ above 0 and at
    most 1, makes the error of unadjusted steps vanish with t, the number of steps so far, warmup
    included. The draws are returned without weights, and late draws, which follow small steps,
    resemble each other; the mean weighted by the statistic `step_size` converges faster.

    Args:
        step_size: $h$, in squared units of the unconstrained coordinates; or a function from t
            to it, such as an optax schedule, which is followed as it is.
        adjusted: whether to apply the Metropolis test.
        target: the acceptance rate that warmup aims at.
        metric: G, as a matrix or as the vector of its diagonal, in the order of the unconstrained
            coordinates. $G^{-1}$ is best near the covariance of z, which "diagonal" and "dense"
            have warmup estimate.
        variables: names of the variables to move; by default every free continuous one.
        summed: whether the free sites with finitely many levels, such as the labels of a mixture,
            are summed out exactly and drawn given the others after each move.

    Source: Roberts & Tweedie (1996), Bernoulli 2(4), 341-363, sections 1.4.1 and 1.4.2; the
    target 0.574: Roberts & Rosenthal (1998), JRSS B 60(1), 255-268, theorem 1; with a metric:
    Roberts & Stramer (2002), Methodology and Computing in Applied Probability 4, 337-357;
    decreasing steps: Welling & Teh (2011), ICML, equation 2, and the weights: Teh, Thiery &
    Vollmer (2016), JMLR 17(7), equation 5.
    """

    step_size: float | Callable[[Any], Any] = 0.1
    adjusted: bool = True
    target: float = 0.574
    metric: Any = eqx.field(default=None, converter=checked)
    variables: tuple[str, ...] | None = None

    def __check_init__(self) -> None:
        check_between(self, "target", 1.0, "a rate between 0 and 1")
        expected = "a number above 0"
        if callable(self.step_size):
            _check_schedule(self.step_size)
        else:
            check_between(self, "step_size", math.inf, expected)
        if isinstance(self.metric, str) and (callable(self.step_size) or not self.adjusted):
            raise ValueError(
                f"Langevin got metric={self.metric!r} with "
                f"{'a schedule' if callable(self.step_size) else 'adjusted=False'}; warmup adapts "
                "the metric and the step size together, by the acceptance rate. Give the metric as "
                "an array, or leave adjusted=True and step_size a number."
            )

    def __reduce__(self) -> tuple[Any, ...]:
        step = Portable(self.step_size) if callable(self.step_size) else self.step_size
        rest = self.adjusted, self.target, self.metric, self.variables
        return rebuilt, (partial(Langevin, summed=self.summed), step, *rest)

    def merit(self, ebm: EBM) -> str:
        return "every free site is continuous, and a step computes one gradient"

    def begin(self, ebm: Target, point: Point, *, key: Array, warmup: int) -> Fixed | Windowed:
        adapted = isinstance(self.metric, str)
        root = None if adapted else root_of(self.metric, point.z.size)
        if callable(self.step_size):
            return Fixed(Scheduled(self.step_size, jnp.asarray(0)), root)
        if adapted:
            dense = self.metric == "dense"
            return Windowed.begin(self.step_size, point.z, dense, warmup, key)
        return Fixed(Tuned.begin(self.step_size, warmup if self.adjusted else 0), root)

    def randoms(self, key: Array, chains: int, size: int) -> tuple[Array, Array]:
        """Standard normals, and for the Metropolis test a uniform number."""
        return normals(key, chains, size, int(self.adjusted))

    def move(
        self, ebm: Target, point: Point, state: Fixed | Windowed, *, random: tuple[Array, Array]
    ) -> tuple[Point, Fixed | Windowed, dict[str, Array]]:
        h, root = state.value, state.root
        noise, height = random
        step = jnp.sqrt(2 * h) * noise - h * inwards(root, point.slope)
        new = self.at(ebm, point.z + outwards(root, step), point.x)
        if not self.adjusted:
            return new, state.learn(jnp.ones(()), self.target, new.z), {"step_size": h}

        back = h * inwards(root, new.slope) - step
        gap = (noise @ noise) / 2 - (back @ back) / (4 * h)
        accept = log_to_rate(point.energy - new.energy + gap)
        taken = height[0] < accept
        point = jax.tree.map(lambda a, b: jnp.where(taken, a, b), new, point)
        info = {"acceptance_rate": accept, "step_size": h}
        return point, state.learn(accept, self.target, point.z), info


def _check_schedule(schedule: Callable[[Any], Any]) -> None:
    try:
        first = float(schedule(0))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"Langevin got the step size {brief(schedule)}, which fails for step 0: {error}. A "
            "schedule takes the number of steps and returns a step size, such as "
            "optax.polynomial_schedule(0.1, 1e-4, 0.5, 10_000)."
        ) from None
    if not 0 < first < math.inf:
        raise ValueError(
            f"Langevin got the step size {brief(schedule)}, which returns {first:g} for step 0; "
            "expected a number above 0."
        )
