"""What data shows and what it never does: latents, given the rest."""

from __future__ import annotations

import jax.numpy as jnp
import jax.random as jr
from jax import Array, lax

from energydsl._types import Configuration
from energydsl.analysis.conditional import Linear
from energydsl.analysis.layer import Layer, measured
from energydsl.compiler.compile import compile as compile_model
from energydsl.compiler.ebm import EBM
from energydsl.language.variable import Variable


def visible(ebm: EBM) -> list[Variable]:
    """The free variables that data shows."""
    return [v for v in ebm.structure.skeleton.free if not v.latent]


def latent(ebm: EBM) -> list[Variable]:
    """The free variables that data never shows."""
    return [v for v in ebm.structure.skeleton.free if v.latent]


def slope_energy(ebm: EBM, layer: Layer, v: Configuration) -> Array:
    r"""F(v) and its first derivatives in the parameters, cheaply; not its others.

    For linear laws $F = E(v, m) - H$ with $m$ the latents' means and $H$ their entropy, at which
    the two terms' derivatives through $m$ cancel (the envelope theorem).
    """
    if not layer:
        return ebm.energy(v)
    if not all(isinstance(law, Linear) for law, _ in layer.values()):
        return ebm.free_energy(v)
    means, entropy = {}, jnp.zeros(())
    for name, total in lax.stop_gradient(_totals(ebm, layer, v)).items():
        law, _ = layer[name]
        assert isinstance(law, Linear)
        means[name] = law.mean(total)
        entropy += jnp.sum(law.log_normalizer(total) + total[0] * means[name])
    return ebm.energy({**v, **_spread(ebm, layer, means)}) - entropy


def draw_latents(ebm: EBM, layer: Layer, v: Configuration, *, key: Array) -> Configuration:
    """The latents, drawn from their law given v."""
    totals = _totals(ebm, layer, v)
    keys = jr.split(key, len(totals))
    drawn = {n: layer[n][0].draw(t, key=k) for (n, t), k in zip(totals.items(), keys, strict=True)}
    return _spread(ebm, layer, drawn)


def given(ebm: EBM, v: Configuration) -> EBM:
    """The EBM of the latents, given what data shows."""
    findings, held = ebm.findings, ebm.model.condition(ebm.model.placed(v))
    budget = findings.budget
    return compile_model(held, budget=budget.terms, memory=budget.memory, rules=findings.rules)


def _totals(ebm: EBM, layer: Layer, v: Configuration) -> dict[str, Array]:
    blank = {w.name: jnp.zeros(w.shape, w.domain.energy_dtype) for w in latent(ebm)}
    return measured(ebm.energy, {**v, **blank}, layer)[1]


def _spread(ebm: EBM, layer: Layer, parts: dict[str, Array]) -> Configuration:
    """Values of the layer's sites as whole arrays; what is clamped gets its value elsewhere."""
    whole = {}
    for w in latent(ebm):
        part, where = parts[w.name], layer[w.name][1]
        flat = part if len(where) == w.size else jnp.zeros(w.size, part.dtype).at[where].set(part)
        whole[w.name] = flat.reshape(w.shape)
    return whole
