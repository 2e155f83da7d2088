"""Swendsen-Wang: every cluster of bonded sites is shifted."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from energydsl._messages import described
from energydsl.analysis.conditional.levels import drawn_level
from energydsl.analysis.uniform import uniform
from energydsl.compiler.ebm import EBM
from energydsl.kernel.clusters import AbstractClusterKernel


@described
class SwendsenWang(AbstractClusterKernel):
    r"""Swendsen-Wang: sites are bonded into clusters, each of which draws its level anew.

    For Ising and Potts models on any graph, $E = \sum_i f_i(x_i) - \sum_{ij} J_{ij} [x_i = x_j]$,
    with any couplings and fields. Each step bonds the sites of a pair with probability
    $1 - e^{-J_{ij}}$ if their levels are equal, and then draws the level of each cluster C with
    probability proportional to $e^{-\sum_{i \in C} f_i(x)}$. Without fields, all levels are equally
    likely. A field thus acts as a ghost spin would to which all sites are coupled, summed over its
    bonds. Clamped sites, and sites that other kernels move, act as fields.

    A coupling of two spins, or bits, may be negative: it bonds unequal ones, which are flipped
    together. Couplings must not be frustrated: around each cycle, an even number of them must be
    negative. In frustrated models clusters would join nearly all sites at temperatures at which
    single sites still move freely, so that flips would change little. This is determined from the
    present values before a run. If learning leads to frustrated couplings later, the draws remain
    right. If it makes sites of more than two levels favour unequal levels, it ends with an error.

    Statistics of a step: `clusters`, their number, single sites included.

    Raises:
        TypeError: the finite free sites are coupled in other ways than by pairs.
        ValueError: the present values are not those of a Potts model, or are frustrated.

    Source: Swendsen & Wang (1987), Physical Review Letters 58, 86-88; Edwards & Sokal (1988),
    Physical Review D 38, 2009-2012.
    """

    def shifts(
        self, costs: Array, roots: Array, levels: Array, *, keys: Array
    ) -> tuple[Array, dict[str, Array]]:
        sites, most = costs.shape[1:]
        heights = jax.vmap(lambda key: uniform(key, (sites,)))(keys)

        def one(costs: Array, roots: Array, height: Array) -> tuple[Array, Array]:
            total = jnp.zeros((most, sites)).at[:, roots].add(costs.T)
            return drawn_level(total, height)[roots], jnp.sum(roots == jnp.arange(sites))

        shifts, count = jax.vmap(one)(costs, roots, heights)
        return shifts, {"clusters": count}

    def merit(self, ebm: EBM) -> str:
        return "clusters move as one, so that it mixes near and below critical temperatures too"

    def __str__(self) -> str:
        return "SwendsenWang()"
