"""Visible and latent variables, and draws of the latents given the visible ones."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax import Array, lax

from energydsl._types import Configuration
from energydsl.analysis.layer import IndependentSites, measured
from energydsl.compiler.ebm import EBM
from energydsl.language.variable import Variable


def visible(ebm: EBM) -> list[Variable]:
    """The visible variables: those free variables that are not latent."""
    return [v for v in ebm.structure.skeleton.free if not v.latent]


def latent(ebm: EBM) -> list[Variable]:
    """The latent free variables."""
    return [v for v in ebm.structure.skeleton.free if v.latent]


def frozen(ebm: EBM) -> EBM:
    """The same EBM, with gradients stopped."""
    return jax.tree.map(lambda a: lax.stop_gradient(a) if eqx.is_array(a) else a, ebm)


def slope_energy(ebm: EBM, layer: IndependentSites, v: Configuration) -> Array:
    r"""The free energy F(v), correct up to first derivatives in the parameters.

    If the energy is linear in the latents, $F = E(v, m) - H$ with the latents' means $m$ and their
    entropy $H$. The derivatives of both terms with respect to $m$ cancel (the envelope theorem), so
    $m$ is treated as a constant.
    """
    if not layer:
        return ebm.energy(v)
    if any(law.derivatives > 1 for law, _ in layer.values()):
        return ebm.free_energy(v)
    means, entropy = moments_of(ebm, layer, lax.stop_gradient(totals_of(ebm, layer, v)))
    return ebm.model.energy_anywhere({**v, **means}) - entropy


def moments_of(
    ebm: EBM, layer: IndependentSites, totals: dict[str, Array]
) -> tuple[Configuration, Array]:
    """The means of latents in which the energy is linear, and their entropy."""
    means, entropy = {}, jnp.zeros(())
    for name, total in totals.items():
        law, _ = layer[name]
        means[name] = law.mean(total)
        entropy += jnp.sum(law.log_normalizer(total) + total[0] * means[name])
    return _spread(ebm, layer, means), entropy


def draw_latents(
    ebm: EBM, layer: IndependentSites, v: Configuration, *, key: Array
) -> Configuration:
    """A draw of the latents from their conditional distribution given v."""
    totals = totals_of(ebm, layer, v)
    keys = jr.split(key, len(totals))
    drawn = {n: layer[n][0].draw(t, key=k) for (n, t), k in zip(totals.items(), keys, strict=True)}
    return _spread(ebm, layer, drawn)


def totals_of(ebm: EBM, layer: IndependentSites, v: Configuration) -> dict[str, Array]:
    """The numbers that determine the conditional distribution of each latent given v."""
    blank = {w.name: jnp.zeros(w.shape, w.domain.energy_dtype) for w in latent(ebm)}
    return measured(ebm.model.energy_anywhere, {**v, **blank}, layer)[1]


def _spread(ebm: EBM, layer: IndependentSites, parts: dict[str, Array]) -> Configuration:
    """The layer's values as whole arrays; the values of clamped sites are filled in elsewhere."""
    whole = {}
    for w in latent(ebm):
        part, where = parts[w.name], layer[w.name][1]
        flat = part if len(where) == w.size else jnp.zeros(w.size, part.dtype).at[where].set(part)
        whole[w.name] = flat.reshape(w.shape)
    return whole
