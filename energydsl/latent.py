"""What data shows and what it never does: latents, given the rest."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
from jax import Array, lax

from energydsl._types import Configuration
from energydsl.compiler import compile as compile_model
from energydsl.conditional import Gaussian, Linear
from energydsl.ebm import EBM
from energydsl.sweep import Refusal
from energydsl.sweep.base import conditionals
from energydsl.variable import Variable


def visible(ebm: EBM) -> list[Variable]:
    """The free variables that data shows."""
    return [v for v in ebm.structure.skeleton.free if not v.latent]


def latent(ebm: EBM) -> list[Variable]:
    """The free variables that data never shows."""
    return [v for v in ebm.structure.skeleton.free if v.latent]


@dataclasses.dataclass(frozen=True)
class Layer:
    r"""Latents that are independent given what data shows, each with a Linear or Gaussian law.

    Then $E(v, h) = E(v, 0) + \sum_j g_j(h_j)$, and derivatives at h = 0 say all about g.
    """

    ebm: EBM
    laws: dict[str, Linear | Gaussian]

    def slope_energy(self, v: Configuration) -> Array:
        r"""F(v) and its first derivatives in the parameters, cheaply; not its others.

        For linear laws $F = E(v, m) - H$ with $m$ the latents' means and $H$ their entropy, at
        which the two terms' derivatives through $m$ cancel (the envelope theorem).
        """
        means, entropy = {}, jnp.zeros(())
        for name, total in lax.stop_gradient(self._totals(v)).items():
            law = self.laws[name]
            if not isinstance(law, Linear):
                return self.ebm.free_energy(v)
            means[name] = law.mean(total)
            each = law.log_normalizer(total) + total[0] * means[name]
            entropy += jnp.sum(jnp.where(self._mask(name), 0.0, each))
        return self.ebm.energy({**v, **means}) - entropy

    def draw(self, v: Configuration, *, key: Array) -> Configuration:
        """The latents, drawn from their law given v."""
        totals = self._totals(v)
        keys = jr.split(key, len(totals))
        drawn = {
            n: self.laws[n].draw(t, key=k) for (n, t), k in zip(totals.items(), keys, strict=True)
        }
        dtypes = {w.name: w.domain.dtype for w in latent(self.ebm)}
        return {n: a.astype(dtypes[n]) for n, a in drawn.items()}

    def _totals(self, v: Configuration) -> dict[str, Array]:
        """The measures of each latent, as its law reads them."""
        slope = jax.grad(lambda h: self.ebm.energy({**v, **h}))
        zero = self._zero()
        first = slope(zero)
        if all(isinstance(law, Linear) for law in self.laws.values()):
            return {n: s[None] for n, s in first.items()}
        # No two latents interact, so the Hessian is diagonal: one direction shows it.
        second = slope(jax.tree.map(lambda a: a + 1, zero))
        return {
            n: first[n][None]
            if isinstance(law, Linear)
            else jnp.stack([first[n], second[n] - first[n]])
            for n, law in self.laws.items()
        }

    def _zero(self) -> Configuration:
        return {w.name: jnp.zeros(w.shape, w.domain.energy_dtype) for w in latent(self.ebm)}

    def _mask(self, name: str) -> Any:
        skeleton = self.ebm.structure.skeleton
        return next(skeleton.mask(w) for w in latent(self.ebm) if w.name == name)


def latent_layer(ebm: EBM) -> Layer | Refusal:
    """The latents as one layer, or why they are none."""
    structure = ebm.structure
    hidden = structure.of_variables(w.name for w in latent(ebm))
    if structure.crowded or hidden[structure.edges].all(axis=1).any():
        return Refusal("the latents interact, so they are not independent given the data")
    laws = {}
    for name, law in conditionals(structure).items():
        if name not in {w.name for w in latent(ebm)}:
            continue
        if not isinstance(law, Linear | Gaussian):
            return Refusal(f"the energy is neither linear nor quadratic in the latent {name!r}")
        laws[name] = law
    return Layer(ebm, laws)


def given(ebm: EBM, v: Configuration) -> EBM:
    """The EBM of the latents, given what data shows."""
    shown = placed(ebm, v)
    return compile_model(ebm.model.condition(shown), budget=ebm.findings.budget)


def placed(ebm: EBM, x: Configuration) -> Configuration:
    """Values of some variables, evidence in its place."""
    masks = {v.name: ebm.structure.skeleton.mask(v) for v in ebm.model.variables}
    held = ebm.model.evidence
    return {n: jnp.where(masks[n], held[n], a) if masks[n].any() else a for n, a in x.items()}
