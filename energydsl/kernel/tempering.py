r"""Tempered models, $p_T(x) \propto e^{-E(x)/T}$, for kernels that move chains at several $T$."""

from __future__ import annotations

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax import Array

from energydsl._messages import brief
from energydsl._types import Configuration
from energydsl.analysis.value_checks import no_growth
from energydsl.compiler.compile import compile as compile_model
from energydsl.compiler.ebm import EBM
from energydsl.kernel.base import AbstractEnsemble, AbstractKernel
from energydsl.kernel.gibbs import GibbsEnsemble
from energydsl.sweep import AbstractSweep


class Tempered(eqx.Module):
    r"""The EBMs of $\beta E$ for all $\beta = 1/T$, compiled once with beta as a parameter."""

    scaled: EBM

    def __init__(self, ebm: EBM) -> None:
        # No rule for log Z is needed.
        self.scaled = compile_model(jnp.ones(()) * ebm.model, budget=0)

    def at(self, ebm: EBM, beta: Array) -> EBM:
        """The EBM of beta E, with the present parameters of the EBM of E."""
        return eqx.tree_at(lambda e: e.model, self.scaled, beta * ebm.model)


class AbstractRungs(eqx.Module):
    """How the chains at several temperatures are moved.

    Configurations, energies and states have the rungs of the ladder on the first axis and the
    chains on the second.
    """

    @abc.abstractmethod
    def start(self, ebm: EBM, betas: Array, xs: Configuration, *, key: Array, warmup: int) -> Any:
        """The adapted quantities of each rung at the beginning."""

    @abc.abstractmethod
    def load(self, ebm: EBM) -> Any:
        """Tables that depend only on the EBM's parameters."""

    @abc.abstractmethod
    def advance(
        self, ebm: EBM, tables: Any, betas: Array, state: Any, xs: Configuration, *, key: Array
    ) -> tuple[Any, Configuration, Array, dict[str, Array]]:
        """One transition of every chain.

        Returns:
            The new state and configurations, the energies E, not multiplied by beta, and the
            statistics of the first rung, with the chains on the first axis.
        """


class MappedRungs(AbstractRungs):
    """Rungs of any kernel: its ensemble at the EBM of beta E, vectorised over beta."""

    tempered: Tempered
    inner: AbstractEnsemble

    def start(self, ebm: EBM, betas: Array, xs: Configuration, *, key: Array, warmup: int) -> Any:
        def one(beta: Array, xs: Configuration, key: Array) -> Any:
            return self.inner.start(self.tempered.at(ebm, beta), xs, key=key, warmup=warmup)

        return jax.vmap(one)(betas, xs, jr.split(key, len(betas)))

    def load(self, ebm: EBM) -> None:
        # The ensemble's own tables depend on the temperatures, which may change.
        return None

    def advance(
        self, ebm: EBM, tables: None, betas: Array, state: Any, xs: Configuration, *, key: Array
    ) -> tuple[Any, Configuration, Array, dict[str, Array]]:
        def one(beta: Array, state: Any, xs: Configuration, key: Array) -> Any:
            at = self.tempered.at(ebm, beta)
            carry = self.inner.place(at, state, xs)
            carry, info = self.inner.advance(at, self.inner.load(at), carry, key=key)
            energies = self.inner.energies(at, carry) / beta
            return carry, self.inner.configurations(at, carry), energies, info

        moved = jax.vmap(one)(betas, state, xs, jr.split(key, len(betas)))
        state, xs, energies, info = moved
        return state, xs, energies, jax.tree.map(lambda a: a[0], info)


class SweptRungs(AbstractRungs):
    """Rungs of Gibbs on sites of finitely many levels: all chains in one sweep.

    The conditional of such a site is determined by energies, which are multiplied by beta.
    """

    sweep: AbstractSweep

    def start(self, ebm: EBM, betas: Array, xs: Configuration, *, key: Array, warmup: int) -> None:
        return None

    def load(self, ebm: EBM) -> Any:
        return self.sweep.load(ebm.structure, ebm.model)

    def advance(
        self, ebm: EBM, tables: Any, betas: Array, state: None, xs: Configuration, *, key: Array
    ) -> tuple[None, Configuration, Array, dict[str, Array]]:
        shape = next(iter(xs.values())).shape[:2]
        packed = self.sweep.pack(jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), xs))
        each = jnp.repeat(betas, shape[1])
        packed = self.sweep.sweep(ebm.structure, tables, packed, key=key, betas=each)
        energies = self.sweep.energies(ebm.structure, ebm.model, packed).reshape(shape)
        flat = self.sweep.unpack(packed)
        return None, jax.tree.map(lambda a: a.reshape(*shape, *a.shape[1:]), flat), energies, {}


def rungs_of(kernel: AbstractKernel, ebm: EBM) -> AbstractRungs:
    """The cheapest way to move chains at several temperatures by a kernel."""
    alone = kernel.ensemble(ebm)
    if isinstance(alone, GibbsEnsemble) and _all_finite(ebm):
        return SweptRungs(alone.sweep)
    tempered = Tempered(ebm)
    return MappedRungs(tempered, kernel.ensemble(tempered.scaled))


def at_any_temperature(ebm: EBM) -> EBM:
    """An EBM that tells which sites a kernel moves at any temperature.

    The conditional of a real site may be of a known family at T = 1 only; that of a finite one is
    known at every temperature.
    """
    return ebm if _all_finite(ebm) else Tempered(ebm).scaled


def _all_finite(ebm: EBM) -> bool:
    return all(v.domain.levels is not None for v in ebm.structure.skeleton.free)


def check_hot(ebm: EBM, temperature: float, owner: str) -> None:
    """Raise ValueError if exp(-E/T) is found to have no finite integral."""
    lost = no_growth(ebm.structure, (1 / temperature) * ebm.model)
    if lost is not None:
        raise ValueError(
            f"{owner} got the temperature {temperature:g}, for which E is divided by it, and then "
            f"{lost}. Choose a lower temperature."
        )


def check_temperature(value: Any, name: str, owner: str) -> float:
    """The temperature as a number; raises ValueError unless it is above 0 and finite."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = jnp.nan
    if not 0 < number < jnp.inf:
        raise ValueError(f"{owner} got {name}={brief(value)}; expected a finite number above 0.")
    return number


def check_inner(kernel: object, owner: str) -> None:
    """Raise TypeError or ValueError unless a kernel can be run at several temperatures."""
    if not isinstance(kernel, AbstractKernel):
        raise TypeError(
            f"{owner} got {brief(kernel)}; expected a kernel, such as {owner}(ed.Gibbs(), ...)."
        )
    if kernel.independent:
        raise ValueError(
            f"{owner} got {kernel}, whose draws are independent, so that higher temperatures would "
            "not help it. Use it alone, or give another kernel, such as ed.Gibbs()."
        )
