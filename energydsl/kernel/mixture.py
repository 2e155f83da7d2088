"""A mixture of kernels, of which each step uses one at random."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array, lax
from jaxtyping import Float, Int

from energydsl._messages import brief
from energydsl._types import Configuration
from energydsl.compiler.ebm import EBM
from energydsl.kernel.base import AbstractEnsemble, AbstractKernel
from energydsl.kernel.joint import AbstractJointKernel, check_kernels, together

Info = dict[str, Array]


class Mixture(AbstractJointKernel):
    r"""A kernel whose step is a step of one of several kernels, chosen at random.

    Each kernel leaves the distribution invariant, and therefore also the mixture
    $\sum_k w_k K_k$, because the weights do not depend on the configuration. It reaches all
    configurations only if the kernels together update every free site. A step costs what the
    chosen kernel costs: all chains of a run make the same choice, which is independent of their
    configurations. During warmup each step uses all kernels in turn, as in `Cycle`, so that each
    adapts in every step of warmup.

    Statistics: ``chosen``, the number of the kernel, -1 during warmup; and those of all kernels,
    which are NaN, or False, where the kernel was not chosen.

    Args:
        *kernels: at least one; together they must update every free site.
        weights: the probability of each kernel, up to a common factor; equal by default.

    Raises:
        TypeError: an argument that is not a kernel.
        ValueError: no kernels, or weights that are not one positive number for each.

    Source: Tierney (1994), Annals of Statistics 22(4), 1701-1728, section 2.4.
    """

    kernels: tuple[AbstractKernel, ...]
    weights: tuple[float, ...] = eqx.field(static=True)

    def __init__(self, *kernels: AbstractKernel, weights: Sequence[float] | None = None) -> None:
        check_kernels(kernels, "Mixture")
        self.kernels = kernels
        self.weights = _checked(weights, len(kernels))

    def moves(self, ebm: EBM) -> np.ndarray:
        return np.any([kernel.moves(ebm) for kernel in self.kernels], axis=0)

    def reason(self, ebm: EBM) -> str:
        return "; ".join(f"{k}: {k.reason(ebm)}" for k in self.kernels)

    @property
    def name(self) -> str:
        return f"Mixture({', '.join(kernel.name for kernel in self.kernels)})"

    def merit(self, ebm: EBM) -> str:
        return f"{' and '.join(k.name for k in self.kernels)} together move every free site"

    def effort(self, ebm: EBM) -> float:
        kernels, weights = self._busy(ebm)
        return float(sum(w * k.effort(ebm) for k, w in zip(kernels, weights, strict=True)))

    def ensemble(self, ebm: EBM) -> AbstractEnsemble:
        kernels, weights = self._busy(ebm)
        return MixtureEnsemble(tuple(k.ensemble(ebm) for k in kernels), jnp.asarray(weights, float))

    def _busy(self, ebm: EBM) -> tuple[list[AbstractKernel], np.ndarray]:
        """The kernels that update some site, with their probabilities."""
        pairs = zip(self.kernels, self.weights, strict=True)
        busy = [(kernel, weight) for kernel, weight in pairs if kernel.moves(ebm).any()]
        weights = np.array([weight for _, weight in busy])
        return [kernel for kernel, _ in busy], weights / weights.sum()

    def __str__(self) -> str:
        pairs = zip(self.weights, self.kernels, strict=True)
        return f"Mixture({', '.join(f'{weight:.3g} {kernel}' for weight, kernel in pairs)})"


class Mixed(eqx.Module):
    """The chains' configurations, and the carry of each kernel's ensemble."""

    xs: Configuration
    carries: tuple[Any, ...]
    steps: Int[Array, ""]
    warmup: Int[Array, ""]


class MixtureEnsemble(AbstractEnsemble):
    """The ensembles of all kernels, of which a step advances one."""

    parts: tuple[AbstractEnsemble, ...]
    weights: Float[Array, " kernel"]

    def start(self, ebm: EBM, xs: Configuration, *, key: Array, warmup: int) -> Mixed:
        keys = jr.split(key, len(self.parts))
        carries = tuple(
            part.start(ebm, xs, key=k, warmup=warmup)
            for part, k in zip(self.parts, keys, strict=True)
        )
        return Mixed(xs, carries, jnp.asarray(0), jnp.asarray(warmup))

    def refresh(self, ebm: EBM, carry: Mixed) -> Mixed:
        # Each ensemble is placed anew before it moves.
        return carry

    def place(self, ebm: EBM, carry: Mixed, xs: Configuration) -> Mixed:
        return dataclasses.replace(carry, xs=xs)

    def load(self, ebm: EBM) -> tuple[Any, ...]:
        return tuple(part.load(ebm) for part in self.parts)

    def advance(
        self, ebm: EBM, tables: tuple[Any, ...], carry: Mixed, *, key: Array
    ) -> tuple[Mixed, Info]:
        choice_key, *keys = jr.split(key, len(self.parts) + 1)

        def moved(number: int, carry: Mixed) -> tuple[Mixed, Info]:
            part, carries = self.parts[number], list(carry.carries)
            old = part.place(ebm, carries[number], carry.xs)
            carries[number], info = part.advance(ebm, tables[number], old, key=keys[number])
            xs = part.configurations(ebm, carries[number])
            new = dataclasses.replace(carry, xs=xs, carries=tuple(carries))
            return new, jax.tree.map(_maskable, info)

        every = range(len(self.parts))
        blank = [
            jax.tree.map(_blank, jax.eval_shape(lambda c, n=n: moved(n, c)[1], carry))
            for n in every
        ]

        def one(number: int, carry: Mixed) -> tuple[Mixed, Info]:
            carry, info = moved(number, carry)
            return carry, together([info if n == number else blank[n] for n in every])

        def all_in_turn(carry: Mixed) -> tuple[Mixed, Info]:
            said = []
            for number in every:
                carry, info = moved(number, carry)
                said.append(info)
            return carry, together(said)

        warm = carry.steps < carry.warmup
        chosen = jnp.where(warm, -1, jr.choice(choice_key, len(self.parts), p=self.weights))
        branches = [all_in_turn, *(lambda c, n=n: one(n, c) for n in every)]
        carry, info = lax.switch(chosen + 1, branches, carry)
        count = len(next(iter(carry.xs.values())))
        new = dataclasses.replace(carry, steps=carry.steps + 1)
        return new, {"chosen": jnp.full(count, chosen)} | info

    def configurations(self, ebm: EBM, carry: Mixed) -> Configuration:
        return carry.xs

    def energies(self, ebm: EBM, carry: Mixed) -> Array:
        return jax.vmap(ebm.energy)(carry.xs)


def _maskable(values: Array) -> Array:
    """Statistics in a dtype that has a value for "not chosen": False, or NaN."""
    return values if values.dtype == bool else values.astype(float)


def _blank(shape: jax.ShapeDtypeStruct) -> Array:
    return jnp.full(shape.shape, False if shape.dtype == bool else jnp.nan, shape.dtype)


def _checked(weights: Any, count: int) -> tuple[float, ...]:
    """The weights as probabilities."""
    if weights is None:
        return (1 / count,) * count
    try:
        given = np.asarray(weights, float)
    except (TypeError, ValueError):
        given = np.array([np.nan])
    if given.shape != (count,) or not (np.isfinite(given) & (given > 0)).all():
        raise ValueError(
            f"Mixture got weights={brief(weights)}; expected {count} positive numbers, one for "
            "each kernel."
        )
    return tuple(float(w) for w in given / given.sum())
