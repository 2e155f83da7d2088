"""The evidence bound: a model and a guide of its latents, learnt together."""

from __future__ import annotations

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax import Array

from energydsl._messages import brief, described
from energydsl._types import Configuration
from energydsl.compiler.ebm import EBM
from energydsl.learning.divergence import LossKind
from energydsl.learning.guide import (
    check_guide,
    compiled,
    evidence_bound,
    log_z_of,
    route_of,
)
from energydsl.learning.latent import frozen, visible
from energydsl.learning.objective.base import AbstractObjective, DoesNotFit
from energydsl.normalizer import Intractable


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

    Without data, all variables of the model are latent and the guide has no inputs. The model stays
    as it is and is distilled into the guide, which minimises $D_\text{KL}(q \Vert p)$. Minus the
    loss is a lower bound of the model's $\log Z$, which need not be known.

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

    guide: EBM = eqx.field(converter=compiled)
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

    @property
    def needs_data(self) -> bool | None:
        return True if self.guide.model.inputs else None

    def check(self, ebm: EBM, data: Configuration) -> None:
        check_guide(ebm, self.guide)
        if not data and (shown := [v.name for v in visible(ebm)]):
            raise ValueError(
                f"Variational got no data of {shown}. Without data, the guide is a distribution of "
                "all variables: declare them with latent=True to distil the model into it."
            )
        if data and isinstance(ebm.normalizer, Intractable):
            raise DoesNotFit(
                f"Variational needs exact log Z, which is {ebm.normalizer}. Give the guide to "
                "ContrastiveDivergence(start='persistent', guide=guide), whose chains stand for it."
            )
        if route_of(ebm, self.guide) == "scores" and self.samples < 2:
            raise ValueError(
                "Variational needs samples=2 or more for this guide, whose draws are not "
                "differentiable: each draw is compared with the others. Give samples=8."
            )

    def init(self, ebm: EBM, data: Configuration, *, key: Array) -> None:
        return None

    def loss(
        self, ebm: EBM, batch: Configuration, state: None, *, key: Array
    ) -> tuple[Array, tuple[None, dict[str, Array]]]:
        def bound(ebm: EBM, v: Configuration, key: Array) -> Array:
            return evidence_bound(ebm, self.guide, v, self.samples, self.importance, key=key)

        if not batch:
            return -bound(frozen(ebm), {}, key), (None, {})
        size = len(next(iter(batch.values())))
        bounds = jax.vmap(lambda v, k: bound(ebm, v, k))(batch, jr.split(key, size))
        return log_z_of(ebm) - jnp.mean(bounds), (None, {})
