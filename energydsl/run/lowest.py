"""The configuration of lowest energy that the chains of a kernel see."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax import Array, lax

from energydsl._messages import brief, described
from energydsl._types import Configuration, check_key
from energydsl.compiler.ebm import EBM, check_ebm
from energydsl.compiler.start import starts
from energydsl.kernel.base import AbstractEnsemble, AbstractKernel, check_covered
from energydsl.run.limits import check_counts

CHUNK = 1024
"""The most steps of one call of the compiled program, after which Ctrl-C is heard."""


@described
def lowest_seen(
    ebm: EBM, kernel: AbstractKernel, *, key: Array, steps: int = 1000, chains: int = 32
) -> tuple[Configuration, float]:
    """The configuration of lowest energy that chains see, as a search for a mode.

    All steps are warmup, so that `SimulatedAnnealing` cools during the whole search. Nothing is
    proven of the result: there may be configurations of lower energy.

    Args:
        ebm: the compiled model.
        kernel: the kernel, such as ``ed.SimulatedAnnealing(ed.Gibbs(), hottest=5.0, final=0.1)``.
        key: a `jax.random.key`; the same key gives the same result.
        steps: the number of steps of each chain.
        chains: the number of chains.

    Returns:
        The configuration, and its energy.

    Raises:
        TypeError, ValueError: the kernel does not fit the model, or a count is invalid.
    """
    check_ebm(ebm, "lowest_seen")
    check_key(key, "lowest_seen", ebm)
    if not isinstance(kernel, AbstractKernel):
        raise TypeError(
            f"lowest_seen got the kernel {brief(kernel)}; expected one such as "
            "ed.SimulatedAnnealing(ed.Gibbs(), hottest=5.0, final=0.1)."
        )
    check_counts("lowest_seen", 1, steps=steps, chains=chains)
    check_covered(ebm, kernel)
    start_key, init_key, step_key = jr.split(key, 3)
    ensemble, xs = kernel.ensemble(ebm), starts(ebm, chains, key=start_key)
    carry, best = _begin(ebm, ensemble, xs, init_key, steps)
    for first in range(0, steps, CHUNK):
        numbers = jnp.asarray([first, min(first + CHUNK, steps)])
        carry, best = _searched(ebm, ensemble, carry, best, step_key, numbers)
    least, seen = best
    winner = int(jnp.argmin(least))
    return {n: a[winner] for n, a in seen.items()}, float(least[winner])


Best = tuple[Array, Configuration]
"""The least energy of each chain, and the configuration that has it."""


@eqx.filter_jit
def _begin(
    ebm: EBM, ensemble: AbstractEnsemble, xs: Configuration, key: Array, steps: int
) -> tuple[Any, Best]:
    return ensemble.start(ebm, xs, key=key, warmup=steps), (jax.vmap(ebm.energy)(xs), xs)


@eqx.filter_jit
def _searched(
    ebm: EBM, ensemble: AbstractEnsemble, carry: Any, best: Best, key: Array, numbers: Array
) -> tuple[Any, Best]:
    tables = ensemble.load(ebm)

    def step(t: Array, loop: tuple[Any, Best]) -> tuple[Any, Best]:
        carry, best = loop
        carry, _ = ensemble.advance(ebm, tables, carry, key=jr.fold_in(key, t))
        now = ensemble.energies(ebm, carry), ensemble.configurations(ebm, carry)
        # An energy of NaN is never lower.
        lower = now[0] < best[0]
        return carry, jax.tree.map(
            lambda a, b: jnp.where(lower.reshape(-1, *(1,) * (a.ndim - 1)), a, b), now, best
        )

    return lax.fori_loop(numbers[0], numbers[1], step, (carry, best))
