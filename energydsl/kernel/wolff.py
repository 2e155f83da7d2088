"""Wolff: the cluster of one site is shifted."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import jax.random as jr
from jax import Array

from energydsl._messages import described
from energydsl.compiler.ebm import EBM
from energydsl.kernel.clusters import AbstractClusterKernel


@described
class Wolff(AbstractClusterKernel):
    r"""Wolff's algorithm: the cluster of a random site is moved to another level.

    The models and the bonds are those of `SwendsenWang`. A site is drawn at random, and for its
    cluster C another level, all equally likely, which is accepted with probability
    $\min(1, e^{-\Delta})$, where $\Delta$ is the change of $\sum_{i \in C} f_i$. Without fields
    each step moves a cluster, and large clusters more often than small ones.

    The clusters of all sites are found at once, in parallel, so that a step takes as long as one of
    `SwendsenWang`. Where clusters are small, it changes little.

    Statistics of a step: `cluster_size`, the number of sites in C, and `acceptance_rate`.

    Raises:
        TypeError: the finite free sites are coupled in other ways than by pairs.
        ValueError: the present values are not those of a Potts model, or are frustrated.

    Source: Wolff (1989), Physical Review Letters 62, 361-364.
    """

    def shifts(
        self, costs: Array, roots: Array, levels: Array, *, keys: Array
    ) -> tuple[Array, dict[str, Array]]:
        def one(costs: Array, roots: Array, key: Array) -> tuple[Array, dict[str, Array]]:
            seed_key, shift_key, accept_key = jr.split(key, 3)
            seed = jr.randint(seed_key, (), 0, len(roots))
            inside = roots == roots[seed]
            total = jnp.sum(jnp.where(inside[:, None], costs, 0.0), axis=0)
            shift = jr.randint(shift_key, (), 1, levels[seed])
            # From a forbidden level to another one there is no rate.
            rate = jnp.exp(jnp.minimum(0.0, jnp.nan_to_num(total[0] - total[shift], nan=0.0)))
            taken = jr.uniform(accept_key) < rate
            info = {"cluster_size": jnp.sum(inside), "acceptance_rate": rate}
            return jnp.where(inside & taken, shift, 0), info

        return jax.vmap(one)(costs, roots, keys)

    def merit(self, ebm: EBM) -> str:
        return "the cluster of a random site moves as one, which is mostly a large one"

    def __str__(self) -> str:
        return "Wolff()"
