"""Replica exchange: chains at several temperatures, which exchange their configurations."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from energydsl._messages import brief, described
from energydsl._types import Configuration
from energydsl.compiler.ebm import EBM
from energydsl.kernel.base import AbstractEnsemble, AbstractKernel
from energydsl.kernel.joint import AbstractJointKernel
from energydsl.kernel.tempering import (
    AbstractRungs,
    at_any_temperature,
    check_hot,
    check_inner,
    check_temperature,
    rungs_of,
)

REPLICAS = 8
"""The number of temperatures of a ladder that adapts, if none is given."""

FIRST_ROUND = 16
"""The steps after which the ladder is adapted for the first time; each further round has as many
steps as all before it."""

LAST_ROUND = 0.75
"""The share of warmup after which the ladder stays, so that the kernel can still adapt to it."""

LEAST = 1e-3
"""Added to each rate of rejection, so that a ladder without rejections keeps its rungs."""


@described
class ReplicaExchange(AbstractJointKernel):
    r"""Replica exchange (parallel tempering) around any kernel.

    Each chain consists of replicas at the temperatures $1 = T_1 < \dots < T_R$, and replica r has
    the distribution $p_r(x) \propto e^{-E(x)/T_r}$. A step moves every replica once by the kernel,
    and then proposes to exchange the configurations of neighbours, which is accepted with
    $\min(1, e^{(1/T_r - 1/T_{r+1})(E(x_r) - E(x_{r+1}))})$. Even and odd pairs take turns, so that
    configurations travel along the ladder and do not diffuse. The draws are those at $T = 1$. They
    cross barriers of the energy that the kernel alone does not, because at high temperatures these
    are low.

    A ladder from 1 to `hottest` is adapted in warmup such that all neighbours are exchanged equally
    often. Each temperature has an adapted state of the kernel of its own, such as a step size.

    Statistics: ``swap_rate``, the probability with which each pair of neighbours would be exchanged
    at this step, (chain, draw, pair); ``round_trips``, the number of times that some replica has
    gone from the coldest temperature to the hottest and back since the end of warmup; ``ladder``,
    the temperatures; and those of the kernel at $T = 1$.

    Args:
        kernel: a kernel, which must move every free site of the model at each temperature.
        temperatures: increasing temperatures of which the first is 1. They stay as given.
        replicas: the number of temperatures of a ladder that is adapted; 8 by default.
        hottest: the highest temperature of a ladder that is adapted.

    Raises:
        TypeError: the kernel is none.
        ValueError: a ladder of one temperature, or that does not begin at 1 or does not increase;
            or neither, or both, of `temperatures` and `hottest`.

    Source: Geyer (1991), Computing Science and Statistics 23, 156-163; the order of exchanges and
    the adaptation: Syed, Bouchard-Cote, Deligiannidis & Doucet (2022), JRSS B 84(2), 321-350,
    algorithms 1, 2 and 4.
    """

    kernel: AbstractKernel
    temperatures: tuple[float, ...] = eqx.field(static=True)
    """The ladder; where it is adapted, the one with which warmup begins."""
    adaptive: bool = eqx.field(static=True)

    def __init__(
        self,
        kernel: AbstractKernel,
        temperatures: Sequence[float] | None = None,
        *,
        replicas: int | None = None,
        hottest: float | None = None,
    ) -> None:
        check_inner(kernel, "ReplicaExchange")
        self.kernel = kernel
        self.adaptive = temperatures is None
        if temperatures is None:
            self.temperatures = _geometric(REPLICAS if replicas is None else replicas, hottest)
        elif replicas is not None or hottest is not None:
            raise ValueError(
                "ReplicaExchange got temperatures, and replicas or hottest, too. Give either the "
                "temperatures, or hottest=... with a number of replicas for a ladder that adapts."
            )
        else:
            self.temperatures = _ladder(temperatures)

    def moves(self, ebm: EBM) -> np.ndarray:
        return self.kernel.moves(at_any_temperature(ebm))

    def reason(self, ebm: EBM) -> str:
        return self.kernel.reason(at_any_temperature(ebm))

    @property
    def name(self) -> str:
        return f"ReplicaExchange({self.kernel.name})"

    def merit(self, ebm: EBM) -> str:
        return "replicas at higher temperatures cross the barriers between modes"

    def effort(self, ebm: EBM) -> float:
        return len(self.temperatures) * self.kernel.effort(ebm)

    def ensemble(self, ebm: EBM) -> AbstractEnsemble:
        check_hot(ebm, self.temperatures[-1], "ReplicaExchange")
        betas = jnp.asarray([1 / t for t in self.temperatures], float)
        return ReplicaEnsemble(rungs_of(self.kernel, ebm), betas, self.adaptive)

    def __str__(self) -> str:
        count, hottest = len(self.temperatures), self.temperatures[-1]
        return f"ReplicaExchange({self.kernel}, {count} temperatures up to {hottest:g})"


class Replicas(eqx.Module):
    """All replicas of all chains; the rungs of the ladder are the first axis, the coldest first."""

    state: Any
    """What the kernel has adapted, at each rung."""
    xs: Configuration
    energies: Float[Array, "rung chain"]
    betas: Float[Array, " rung"]
    marks: Int[Array, "rung chain"]
    """Where the configuration has been: 1 if it was at the coldest rung, 2 if it was at the hottest
    one afterwards, 0 if it was at neither since warmup."""
    trips: Int[Array, " chain"]
    rejected: Float[Array, " pair"]
    """The sum of the rates of rejection since the ladder was adapted."""
    counted: Int[Array, ""]
    """The number of terms of that sum."""
    steps: Int[Array, ""]
    warmup: Int[Array, ""]


class ReplicaEnsemble(AbstractEnsemble):
    """Chains of which each has a configuration at every rung of a ladder."""

    rungs: AbstractRungs
    betas: Float[Array, " rung"]
    adaptive: bool = eqx.field(static=True)

    def start(self, ebm: EBM, xs: Configuration, *, key: Array, warmup: int) -> Replicas:
        count = len(self.betas)
        xs = jax.tree.map(lambda a: jnp.broadcast_to(a, (count, *a.shape)), xs)
        energies = _energies(ebm, xs)
        return Replicas(
            state=self.rungs.start(ebm, self.betas, xs, key=key, warmup=warmup),
            xs=xs,
            energies=energies,
            betas=self.betas,
            marks=jnp.zeros(energies.shape, jnp.int8),
            trips=jnp.zeros(energies.shape[1], int),
            rejected=jnp.zeros(count - 1),
            counted=jnp.asarray(0),
            steps=jnp.asarray(0),
            warmup=jnp.asarray(warmup),
        )

    def refresh(self, ebm: EBM, carry: Replicas) -> Replicas:
        return dataclasses.replace(carry, energies=_energies(ebm, carry.xs))

    def place(self, ebm: EBM, carry: Replicas, xs: Configuration) -> Replicas:
        """The carry with the coldest replicas at other configurations; the others stay."""
        energies = carry.energies.at[0].set(jax.vmap(ebm.energy)(xs))
        xs = {n: carry.xs[n].at[0].set(a) for n, a in xs.items()}
        return dataclasses.replace(carry, xs=xs, energies=energies)

    def load(self, ebm: EBM) -> Any:
        return self.rungs.load(ebm)

    def advance(
        self, ebm: EBM, tables: Any, carry: Replicas, *, key: Array
    ) -> tuple[Replicas, dict[str, Array]]:
        move_key, swap_key = jr.split(key)
        state, xs, energies, info = self.rungs.advance(
            ebm, tables, carry.betas, carry.state, carry.xs, key=move_key
        )
        rates = swap_rates(carry.betas, energies)
        origin = _origins(rates, carry.steps % 2, key=swap_key)
        marks, trips = _travelled(_taken(carry.marks, origin), carry.trips)
        moved = dataclasses.replace(
            carry,
            state=state,
            xs=jax.tree.map(lambda a: _taken(a, origin), xs),
            energies=_taken(energies, origin),
            # Without marks, no trip ends in warmup.
            marks=jnp.where(carry.steps < carry.warmup, 0, marks),
            trips=trips,
            rejected=carry.rejected + jnp.mean(1 - rates, axis=1),
            counted=carry.counted + 1,
            steps=carry.steps + 1,
        )
        new = _adapted(moved) if self.adaptive else moved
        ladder = jnp.broadcast_to(1 / carry.betas, (rates.shape[1], len(carry.betas)))
        said = {"swap_rate": rates.T, "round_trips": new.trips, "ladder": ladder}
        return new, said | info

    def configurations(self, ebm: EBM, carry: Replicas) -> Configuration:
        return jax.tree.map(lambda a: a[0], carry.xs)

    def energies(self, ebm: EBM, carry: Replicas) -> Array:
        # A replica that is lost helps its chain no more, which the run has to notice.
        return jnp.where(jnp.isnan(carry.energies).any(axis=0), jnp.nan, carry.energies[0])


def _energies(ebm: EBM, xs: Configuration) -> Array:
    return jax.vmap(jax.vmap(ebm.energy))(xs)


def _adapted(carry: Replicas) -> Replicas:
    """The carry with another ladder, if it is due."""
    due = (carry.steps & (carry.steps - 1)) == 0
    due &= (carry.steps >= FIRST_ROUND) & (carry.steps <= LAST_ROUND * carry.warmup)
    other = dataclasses.replace(
        carry,
        betas=equalised(carry.betas, carry.rejected / carry.counted),
        rejected=jnp.zeros_like(carry.rejected),
        counted=jnp.zeros_like(carry.counted),
    )
    return jax.tree.map(lambda a, b: jnp.where(due, a, b), other, carry)


def swap_rates(betas: Array, energies: Array) -> Array:
    """The probability with which each pair of neighbours exchanges, (pair, chain).

    With an energy of NaN, or with two infinite ones, it is 0.
    """
    log_ratio = (betas[:-1] - betas[1:])[:, None] * (energies[:-1] - energies[1:])
    return jnp.exp(jnp.minimum(jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio), 0.0))


def equalised(betas: Array, rejected: Array) -> Array:
    r"""The ladder on which all pairs are rejected equally often, as far as these rates tell.

    To first order, the rate of rejection between two temperatures is the difference of the
    communication barrier $\Lambda$, which is interpolated between the present rungs.

    Source: Syed et al. (2022), algorithm 2.
    """
    barrier = jnp.concatenate([jnp.zeros(1), jnp.cumsum(rejected + LEAST)])
    even = jnp.linspace(0.0, barrier[-1], len(betas))
    return jnp.interp(even, barrier, betas).at[0].set(betas[0]).at[-1].set(betas[-1])


def _origins(rates: Array, parity: Array, *, key: Array) -> Array:
    """The rung from which each configuration comes, (rung, chain), by pairs of one parity."""
    pairs, chains = rates.shape
    proposed = jnp.arange(pairs) % 2 == parity
    taken = (jr.uniform(key, rates.shape) < rates) & proposed[:, None]
    none = jnp.zeros((1, chains), bool)
    up, down = jnp.concatenate([taken, none]), jnp.concatenate([none, taken])
    return jnp.arange(pairs + 1)[:, None] + up - down


def _taken(array: Array, origin: Array) -> Array:
    """The entries of an array, (rung, chain, ...), from other rungs of the same chain."""
    return array[origin, jnp.arange(origin.shape[1])]


def _travelled(marks: Array, trips: Array) -> tuple[Array, Array]:
    """The marks with those of the two ends, and the number of round trips with those that end."""
    trips = trips + (marks[0] == 2)
    hottest = jnp.where(marks[-1] == 1, 2, marks[-1])
    return marks.at[0].set(1).at[-1].set(hottest), trips


def _geometric(replicas: Any, hottest: Any) -> tuple[float, ...]:
    """A geometric ladder from 1 to the hottest temperature."""
    if hottest is None:
        raise ValueError(
            "ReplicaExchange got no temperatures. Give either all, such as temperatures=(1, 1.5, "
            "2.25), or the highest one, such as hottest=5.0, for a ladder that adapts."
        )
    highest = check_temperature(hottest, "hottest", "ReplicaExchange")
    if highest <= 1:
        raise ValueError(f"ReplicaExchange got hottest={brief(hottest)}; expected above 1.")
    if isinstance(replicas, bool) or not isinstance(replicas, int | np.integer) or replicas < 2:
        raise ValueError(
            f"ReplicaExchange got replicas={brief(replicas)}; expected a whole number of at least "
            "2, because with one temperature there is nothing to exchange."
        )
    return (1.0, *(float(t) for t in np.geomspace(1.0, highest, replicas)[1:]))


def _ladder(temperatures: Any) -> tuple[float, ...]:
    """The temperatures as numbers, checked."""
    given = np.asarray(temperatures)
    if given.ndim != 1 or len(given) < 2:
        raise ValueError(
            f"ReplicaExchange got temperatures={brief(temperatures)}; expected at least two, such "
            "as (1, 1.5, 2.25), because with one there is nothing to exchange."
        )
    ladder = tuple(check_temperature(t, "a temperature", "ReplicaExchange") for t in given.tolist())
    if ladder[0] != 1 or any(b <= a for a, b in itertools.pairwise(ladder)):
        raise ValueError(
            f"ReplicaExchange got temperatures={brief(temperatures)}; expected increasing ones, of "
            "which the first is 1, the temperature of the draws."
        )
    return ladder
