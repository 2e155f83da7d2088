"""Gibbs with gradients: one site at a time, chosen where the energy is predicted to fall."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array

from energydsl._messages import described
from energydsl.compiler.ebm import EBM
from energydsl.kernel.acceptance import acceptance
from energydsl.kernel.discrete import AbstractDiscreteKernel, Levels
from energydsl.kernel.point import Point


@described
class GibbsWithGradients(AbstractDiscreteKernel):
    r"""Metropolis-Hastings whose proposals for finite sites are led by a gradient.

    A step changes one site. The site i and its level v are drawn with the probability
    $q(i, v \mid x) \propto e^{-d_{iv}(x)/2}$, where $d_{iv}$ is the change of the energy that one
    derivative predicts. Then the Metropolis test makes the stationary distribution exact. Labels
    may change to any other label; sites with more than two ordered levels go one level up or down.

    A step computes one gradient, whatever the number of sites. It is meant for energies that are
    no sums of small factors, such as networks: a Gibbs sweep computes these once for each site.

    Args:
        variables: names of the variables to move; by default every free finite one.

    Source: Grathwohl, Swersky, Hashemi, Duvenaud & Maddison (2021), ICML, PMLR 139, 3831-3841,
    algorithm 1.
    """

    variables: tuple[str, ...] | None = None

    def merit(self, ebm: EBM) -> str:
        return "every free site is finite, and a step computes one gradient to change one site"

    def begin(self, ebm: EBM, point: Point, *, key: Array, warmup: int) -> None:
        return None

    def move(
        self, ebm: EBM, point: Point, state: None, *, random: Array
    ) -> tuple[Point, None, dict[str, Array]]:
        pick_key, accept_key = jr.split(random)
        table = _Moves(self.space(ebm))
        forth = table.log_probs(point)
        chosen = jr.categorical(pick_key, forth)
        site = table.site[chosen]
        z = point.z.at[site].set(table.level[chosen])
        new = self.at(ebm, z, point.x)

        back = table.log_probs(new)[table.first[site] + point.z[site]]
        rate = acceptance(point.energy, new.energy, back - forth[chosen])
        taken = jr.uniform(accept_key) < rate
        point = jax.tree.map(lambda a, b: jnp.where(taken, a, b), new, point)
        return point, None, {"acceptance_rate": rate}


class _Moves:
    """All changes of one site, in one list: the levels of the first site, then of the second."""

    def __init__(self, space: Levels) -> None:
        counts = [
            (len(space.values[v.name]), v.domain.ordered, len(e.numbers))
            for v, e in zip(space.variables, space.events, strict=True)
        ]
        levels = np.concatenate([np.full(sites, count) for count, _, sites in counts])
        stepwise = np.concatenate(
            [np.full(sites, ordered and count > 2) for count, ordered, sites in counts]
        )
        ends = np.cumsum(levels)
        self.first = jnp.asarray(ends - levels, jnp.int32)
        """The number of each site's first change."""
        self.site = jnp.asarray(np.repeat(np.arange(len(levels)), levels), jnp.int32)
        """The site of each change."""
        self.level = jnp.asarray(np.arange(ends[-1]) - np.repeat(ends - levels, levels), jnp.int32)
        """The new level of each change."""
        self.stepwise = jnp.asarray(np.repeat(stepwise, levels))
        """Whether the site of each change goes one level up or down."""

    def log_probs(self, point: Point) -> Array:
        """The log-probability with which each change is proposed."""
        gap = jnp.abs(self.level - point.z[self.site])
        possible = jnp.where(self.stepwise, gap == 1, gap > 0)
        change = jnp.concatenate([slope.ravel() for slope in point.slope])
        return jax.nn.log_softmax(jnp.where(possible, -change / 2, -jnp.inf))
