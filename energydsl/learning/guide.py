"""Guides: directed models of latent variables given data, beside the model that they stand for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import jax.random as jr
from jax import Array, lax
from jax.scipy.special import logsumexp

from energydsl._messages import brief
from energydsl._types import Configuration, Refusal
from energydsl.analysis.conditional import conditional_for
from energydsl.analysis.layer import latent_layer
from energydsl.compiler.compile import compile as compile_model
from energydsl.compiler.ebm import EBM, log_partition
from energydsl.language.model import Model
from energydsl.language.variable import Variable
from energydsl.learning.latent import frozen, latent, moments_of, totals_of, visible
from energydsl.normalizer import Intractable
from energydsl.normalizer.base import Normalizer, Planned
from energydsl.normalizer.directed import DirectedPlan
from energydsl.normalizer.evaluate import draw, prepare

Route = Literal["means", "paths", "scores"]
"""How the gradient of an expectation under a guide is had: at the guide's means, where that is
exact; through draws that are differentiable; or by the score function."""


def compiled(given: object) -> EBM:
    """A guide or a generator as an EBM, compiled if it is a model.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(given, Model):
        return compile_model(given)
    if not isinstance(given, EBM):
        raise TypeError(
            f"Got the guide or generator {brief(given)}; expected a model of its variables, such "
            "as ed.Model(ed.LogDensity(dist.Normal)(z, mean, deviation))."
        )
    return given


def check_guide(ebm: EBM, guide: EBM) -> None:
    """Raise TypeError or ValueError unless a guide is a distribution of a model's latents.

    Its free variables must be the model's latent ones, and its inputs variables that data show.
    """
    if not latent(ebm):
        raise TypeError(
            "A guide needs a model with latent variables, which it infers. Declare them with "
            "latent=True; without any, use MaximumLikelihood(), or ContrastiveDivergence() alone."
        )
    if shown := [v.name for v in visible(guide)]:
        raise ValueError(
            f"The guide is to be a model of latents alone, and {shown} are not latent. Declare "
            "what it is given with given=True, and use the model's own latent variables."
        )
    _check_same("guide", latent(guide), "latent", latent(ebm))
    seen = [*visible(ebm), *ebm.model.inputs]
    inputs = {v.name for v in guide.model.inputs}
    if unknown := sorted(inputs - {v.name for v in seen}):
        raise ValueError(
            f"The guide has the inputs {unknown}, which data do not show; expected some of "
            f"{sorted(v.name for v in seen)}."
        )
    named = [v for v in seen if v.name in inputs]
    _check_same("guide", guide.model.inputs, "visible", named)
    _check_exact("guide", guide)


def check_generator(ebm: EBM, generator: EBM) -> None:
    """Raise TypeError or ValueError unless a generator is a distribution of what data show."""
    if given := [v.name for v in generator.model.inputs]:
        raise ValueError(f"The generator has the inputs {given}; expected a model without any.")
    free = generator.structure.skeleton.free
    _check_same("generator", free, "visible", visible(ebm))
    _check_exact("generator", generator)


def _check_same(
    role: str, own: Sequence[Variable], kind: str, expected: Sequence[Variable]
) -> None:
    """Raise ValueError unless two models have variables of the same names, shapes and domains."""
    mine, theirs = {v.name: v for v in own}, {v.name: v for v in expected}
    if mine.keys() != theirs.keys():
        raise ValueError(
            f"The {role} has the {kind} variables {sorted(mine)}, and the model {sorted(theirs)}; "
            "expected the same."
        )
    for name, v in mine.items():
        if (v.shape, v.domain) != (theirs[name].shape, theirs[name].domain):
            raise ValueError(
                f"The {role} has {v}, and the model {theirs[name]}; expected the same."
            )


def _check_exact(role: str, model: EBM) -> None:
    if isinstance(_draws(model), Intractable):
        raise TypeError(
            f"The {role} needs exact log Z and exact draws: {_draws(model)}. Write it by "
            "normalised densities: ed.LogDensity(dist.Normal)(z, mean, deviation)."
        )


def route_of(ebm: EBM, guide: EBM) -> Route:
    """The way to the gradient with the least noise."""
    layer = latent_layer(guide.structure)
    alone = not isinstance(layer, Refusal) and all(a.derivatives == 1 for a, _ in layer.values())
    laws = [conditional_for(ebm.structure, w) for w in latent(ebm)]
    if alone and all(not isinstance(law, Refusal) and law.derivatives == 1 for law in laws):
        return "means"
    return "scores" if _directed(guide) is None else "paths"


def at_data(ebm: EBM, guide: EBM, v: Configuration) -> EBM:
    """The guide given one example, and the model's own inputs."""
    known = {**ebm.model.evidence, **v}
    return guide.given({w.name: known[w.name] for w in guide.model.inputs})


def bound_by_means(ebm: EBM, guide: EBM, v: Configuration) -> Array:
    r"""$E_q[-E(v, z)] + H(q)$ for independent latents in which the energy is linear.

    The mean energy is then the energy at the means.
    """
    layer = latent_layer(guide.structure)
    assert not isinstance(layer, Refusal)
    means, entropy = moments_of(guide, layer, totals_of(guide, layer, {}))
    return entropy - ebm.model.energy_anywhere({**ebm.model.blank(), **v, **means})


@dataclasses.dataclass(frozen=True)
class Draws:
    r"""Draws x of a guide or a generator q, with $\log w = -E(x) - \log q(x)$ of each."""

    values: Configuration
    logs: Array
    log_q: Array
    differentiable: bool
    """Whether draws are differentiable functions of q's parameters, and no constants."""

    def bound(self, importance: bool = False) -> Array:
        """The mean of log w, or the log of the mean w, with its gradient in all parameters."""
        value = joined(self.logs, importance)
        return value if self.differentiable else value + score_term(self, importance)


def log_weights(ebm: EBM, guide: EBM, v: Configuration, samples: int, *, key: Array) -> Draws:
    r"""$\log w = -E(v, z) - \log q(z)$ of draws z from the guide, and $\log q(z)$.

    The mean of w is an unbiased estimate of $e^{-F(v)}$.
    """
    plan, keys = _directed(guide), jr.split(key, samples)
    if plan is None:
        plans = _draws(guide)
        assert isinstance(plans, Planned)
        still = frozen(guide).model
        kept = prepare(still, plans)
        zs = jax.vmap(lambda k: draw(still, plans, kept, key=k))(keys)
    else:
        zs = jax.vmap(lambda k: plan.draw_prepared(guide.model, None, key=k))(keys)
    zs = {w.name: zs[w.name] for w in guide.structure.skeleton.free}
    log_q = jax.vmap(lambda z: -guide.energy(z))(zs) - log_z_of(guide)
    energies = jax.vmap(lambda z: ebm.energy({**v, **z}))(zs)
    return Draws(zs, -energies - log_q, log_q, plan is not None)


def joined(logs: Array, importance: bool = False) -> Array:
    """The bound from the log weights of all draws: their mean, or the log of the mean weight."""
    return logsumexp(logs) - jnp.log(len(logs)) if importance else jnp.mean(logs)


def score_term(drawn: Draws, importance: bool = False) -> Array:
    """Zero, with the gradient of the bound that constant draws leave out.

    Each draw is compared with the others, which are its baseline.
    """
    logs = drawn.logs
    others = [jnp.delete(logs, k, assume_unique_indices=True) for k in range(len(logs))]
    rest = jnp.stack([joined(o, importance) for o in others])
    gain = lax.stop_gradient(joined(logs, importance) - rest)
    return jnp.sum(gain * (drawn.log_q - lax.stop_gradient(drawn.log_q)))


def evidence_bound(
    ebm: EBM,
    guide: EBM,
    v: Configuration,
    samples: int = 1,
    importance: bool = False,
    *,
    key: Array,
) -> Array:
    r"""The bound $\mathbb{E}_q[-E(v, z) - \log q(z \mid v)]$ of $-F(v)$, for one example."""
    at = at_data(ebm, guide, v)
    if route_of(ebm, guide) == "means" and not importance:
        return bound_by_means(ebm, at, v)
    return log_weights(ebm, at, v, samples, key=key).bound(importance)


def log_z_of(ebm: EBM) -> Array:
    """Log Z; without any work for a model of normalised densities, whose log Z is 0."""
    if _only_directed(ebm.normalizer) is not None:
        return jnp.zeros(())
    return jnp.asarray(log_partition(ebm))


def _draws(guide: EBM) -> Normalizer:
    return guide.conclusions.survey.choose("draw")


def _directed(guide: EBM) -> DirectedPlan | None:
    """The plan of ancestral draws, if these are differentiable functions of the parameters."""
    plan = _only_directed(_draws(guide))
    return plan if plan is not None and plan.differentiable else None


def _only_directed(plans: Normalizer) -> DirectedPlan | None:
    """The plan of a model that is a product of normalised conditional densities alone."""
    if isinstance(plans, Intractable) or plans.held or len(plans.plans) != 1:
        return None
    (plan,) = plans.plans
    if isinstance(plan, DirectedPlan) and not plan.structure.partial:
        return plan
    return None
