"""The evidence bound: a model and a guide of its latents, learnt together."""

from __future__ import annotations

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax import Array, lax
from jax.scipy.special import logsumexp

from energydsl._messages import brief, described
from energydsl._types import Configuration
from energydsl.compiler.compile import compile as compile_model
from energydsl.compiler.ebm import EBM
from energydsl.language.model import Model
from energydsl.learning.divergence import LossKind
from energydsl.learning.guide import (
    at_data,
    bound_by_means,
    check_guide,
    log_weights,
    log_z_of,
    route_of,
)
from energydsl.learning.objective.base import AbstractObjective, DoesNotFit
from energydsl.normalizer import Intractable


def _compiled(guide: object) -> EBM:
    if isinstance(guide, Model):
        return compile_model(guide)
    if not isinstance(guide, EBM):
        raise TypeError(
            f"Variational got the guide {brief(guide)}; expected a model of the latent variables, "
            "such as ed.Model(ed.LogDensity(dist.Normal)(z, mean, deviation)) with an input x."
        )
    return guide


@described
class Variational(AbstractObjective):
    r"""Minus the evidence bound, $\mathbb{E}_q[E(v, z) + \log q(z \mid v)] + \log Z$.

    It is at least $-\log p(v)$, with equality where the guide $q(z \mid v)$ is the model's
    $p(z \mid v)$. The guide is a second model, of the latent variables z with the data v as inputs,
    and its parameters learn together with the model's: ``history.guide`` is the guide that was
    learnt. With ``importance=True`` the bound is $-\log \tfrac1K \sum_k w_k$ with
    $w_k = p(v, z_k) / q(z_k \mid v)$ for K draws $z_k$, which is tighter.

    The gradient is taken through the draws where the guide is made of densities whose draws are
    differentiable in their parameters, such as Normal, Gamma or flows. For independent binary
    latents or spins in which the model's energy is linear, as in Boltzmann machines, the bound is
    computed exactly (naive mean field). For other guides the gradient is that of the score
    function, with the mean of the other draws as its baseline; it is unbiased and noisier.

    Args:
        guide: the guide, compiled or not. Its variables are the model's latent ones, and its
            inputs, declared with ``given=True``, bear the names of variables that data show.
        samples: K, the number of draws of the guide for each example.
        importance: whether the bound is the importance-weighted one.

    Source: Kingma & Welling (2014), ICLR, eq. (3); importance-weighted: Burda, Grosse &
    Salakhutdinov (2016), ICLR, eq. (8); score function: Mnih & Rezende (2016), ICML; mean field:
    Saul, Jaakkola & Jordan (1996), JAIR 4, 61-76.
    """

    learns: ClassVar[tuple[str, ...]] = ("guide",)
    loss_kind: ClassVar[LossKind] = "measure"

    guide: EBM = eqx.field(converter=_compiled)
    samples: int = 1
    importance: bool = False

    def __check_init__(self) -> None:
        if not isinstance(self.samples, int) or self.samples < 1:
            raise ValueError(
                f"Variational got samples={brief(self.samples)}; expected a whole number of at "
                "least 1."
            )
        if self.importance and self.samples < 2:
            raise ValueError(
                "Variational got importance=True with samples=1, for which the bound is the same "
                "as without; give samples=10 or more."
            )

    def check(self, ebm: EBM, data: Configuration) -> None:
        check_guide(ebm, self.guide)
        if isinstance(ebm.normalizer, Intractable):
            raise DoesNotFit(f"Variational needs exact log Z, which is {ebm.normalizer}.")
        if self._route(ebm) == "scores" and self.samples < 2:
            raise ValueError(
                "Variational needs samples=2 or more for this guide, whose draws are not "
                "differentiable: each draw is compared with the others. Give samples=8."
            )

    def init(self, ebm: EBM, data: Configuration, *, key: Array) -> None:
        return None

    def loss(
        self, ebm: EBM, batch: Configuration, state: None, *, key: Array
    ) -> tuple[Array, tuple[None, dict[str, Array]]]:
        route = self._route(ebm)

        def bound(v: Configuration, key: Array) -> Array:
            guide = at_data(ebm, self.guide, v)
            if route == "means":
                return bound_by_means(ebm, guide, v)
            logs, log_q = log_weights(ebm, guide, v, self.samples, key=key)
            each = self._joined(logs)
            return each if route == "paths" else each + self._score(logs, log_q)

        size = len(next(iter(batch.values())))
        bounds = jax.vmap(bound)(batch, jr.split(key, size))
        return log_z_of(ebm) - jnp.mean(bounds), (None, {})

    def _route(self, ebm: EBM) -> str:
        route = route_of(ebm, self.guide)
        return "scores" if self.importance and route == "means" else route

    def _joined(self, logs: Array, axis: int = -1) -> Array:
        """The bound from the log weights of all draws."""
        count = logs.shape[axis]
        if self.importance:
            return logsumexp(logs, axis=axis) - jnp.log(count)
        return jnp.mean(logs, axis=axis)

    def _score(self, logs: Array, log_q: Array) -> Array:
        """Zero, with the gradient that the draws' distribution contributes."""
        others = jnp.stack(
            [jnp.delete(logs, k, assume_unique_indices=True) for k in range(len(logs))]
        )
        gain = lax.stop_gradient(self._joined(logs) - self._joined(others))
        return jnp.sum(gain * (log_q - lax.stop_gradient(log_q)))
