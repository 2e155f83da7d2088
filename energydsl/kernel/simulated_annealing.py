"""Simulated annealing: the temperature falls during warmup."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from energydsl._messages import described
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


@described
class SimulatedAnnealing(AbstractJointKernel):
    r"""Simulated annealing around any kernel: warmup lowers the temperature, and it then stays.

    Step t of n steps of warmup moves the chain by the kernel at the temperature
    $T_t = T_h (T_f / T_h)^{t/n}$, with `hottest` $T_h$ and `final` $T_f$; all steps after warmup
    are at $T_f$. They leave $p(x) \propto e^{-E(x)/T_f}$ invariant: with ``final=1`` it is the
    distribution of the model, and otherwise not. The chains do not have this distribution when
    warmup ends unless it was slow enough to keep them in equilibrium: each may have settled in one
    of several modes, and not according to their weights. `ReplicaExchange` corrects that.

    With a low `final` the chains settle in modes, of which `energydsl.lowest_seen` gives the best.

    Statistics: ``temperature``, and those of the kernel.

    Args:
        kernel: a kernel, which must move every free site of the model at each temperature.
        hottest: the temperature at which warmup begins.
        final: the temperature at which it ends.

    Raises:
        TypeError: the kernel is none.
        ValueError: a temperature is not above 0, or `hottest` is not above `final`. When sampling
            begins: there is no warmup.

    Source: Kirkpatrick, Gelatt & Vecchi (1983), Science 220, 671-680.
    """

    kernel: AbstractKernel
    hottest: float = eqx.field(static=True)
    final: float = eqx.field(static=True)

    def __init__(self, kernel: AbstractKernel, *, hottest: float, final: float = 1.0) -> None:
        check_inner(kernel, "SimulatedAnnealing")
        self.kernel = kernel
        self.hottest = check_temperature(hottest, "hottest", "SimulatedAnnealing")
        self.final = check_temperature(final, "final", "SimulatedAnnealing")
        if self.hottest <= self.final:
            raise ValueError(
                f"SimulatedAnnealing got hottest={self.hottest:g} and final={self.final:g}; "
                "expected a temperature that falls."
            )

    def moves(self, ebm: EBM) -> np.ndarray:
        return self.kernel.moves(at_any_temperature(ebm))

    def reason(self, ebm: EBM) -> str:
        return self.kernel.reason(at_any_temperature(ebm))

    @property
    def name(self) -> str:
        return f"SimulatedAnnealing({self.kernel.name})"

    def merit(self, ebm: EBM) -> str:
        return "the temperature falls during warmup, so that chains settle in low modes"

    def effort(self, ebm: EBM) -> float:
        return self.kernel.effort(ebm)

    def ensemble(self, ebm: EBM) -> AbstractEnsemble:
        check_hot(ebm, self.hottest, "SimulatedAnnealing")
        rungs = rungs_of(self.kernel, ebm)
        return AnnealingEnsemble(rungs, jnp.asarray(self.hottest), jnp.asarray(self.final))

    def __str__(self) -> str:
        return f"SimulatedAnnealing({self.kernel}, from {self.hottest:g} to {self.final:g})"


class Cooling(eqx.Module):
    """All chains; `state` is what the kernel has adapted, at one rung."""

    state: Any
    xs: Configuration
    energies: Float[Array, " chain"]
    steps: Int[Array, ""]
    warmup: Int[Array, ""]


class AnnealingEnsemble(AbstractEnsemble):
    """Chains on a single rung, whose temperature changes."""

    rungs: AbstractRungs
    hottest: Float[Array, ""]
    final: Float[Array, ""]

    def start(self, ebm: EBM, xs: Configuration, *, key: Array, warmup: int) -> Cooling:
        if isinstance(warmup, int) and warmup < 1:
            raise ValueError(
                "SimulatedAnnealing lowers the temperature during warmup, and there is none. Give "
                "warmup=..., a number of steps."
            )
        beta = 1 / self.hottest[None]
        state = self.rungs.start(ebm, beta, _rung(xs), key=key, warmup=warmup)
        energies = jax.vmap(ebm.energy)(xs)
        return Cooling(state, xs, energies, jnp.asarray(0), jnp.asarray(warmup))

    def refresh(self, ebm: EBM, carry: Cooling) -> Cooling:
        return self.place(ebm, carry, carry.xs)

    def place(self, ebm: EBM, carry: Cooling, xs: Configuration) -> Cooling:
        return dataclasses.replace(carry, xs=xs, energies=jax.vmap(ebm.energy)(xs))

    def load(self, ebm: EBM) -> Any:
        return self.rungs.load(ebm)

    def advance(
        self, ebm: EBM, tables: Any, carry: Cooling, *, key: Array
    ) -> tuple[Cooling, dict[str, Array]]:
        share = jnp.minimum(carry.steps / carry.warmup, 1.0)
        cooled = self.hottest * (self.final / self.hottest) ** share
        temperature = jnp.where(share < 1, cooled, self.final)
        state, xs, energies, info = self.rungs.advance(
            ebm, tables, 1 / temperature[None], carry.state, _rung(carry.xs), key=key
        )
        xs, energies = jax.tree.map(lambda a: a[0], (xs, energies))
        new = Cooling(state, xs, energies, carry.steps + 1, carry.warmup)
        return new, {"temperature": jnp.broadcast_to(temperature, energies.shape)} | info

    def configurations(self, ebm: EBM, carry: Cooling) -> Configuration:
        return carry.xs

    def energies(self, ebm: EBM, carry: Cooling) -> Array:
        return carry.energies


def _rung(xs: Configuration) -> Configuration:
    return jax.tree.map(lambda a: a[None], xs)
