"""Score matching: the model's score is fitted to that of the data, without log Z."""

from __future__ import annotations

from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax import Array
from jax.flatten_util import ravel_pytree

from energydsl._messages import described
from energydsl._types import Configuration
from energydsl.compiler.ebm import EBM
from energydsl.learning.divergence import LossKind
from energydsl.learning.latent import latent, visible
from energydsl.learning.objective.base import AbstractObjective
from energydsl.learning.shown import energy_shown, why_not_summed


@described
class ScoreMatching(AbstractObjective):
    r"""Score matching: the score $s = -\nabla F$ of a real model is fitted to that of the data.

    `explicit` minimises $\tfrac12 \lVert s(v) \rVert^2 + \operatorname{tr} \nabla s(v)$. The trace
    is exact and takes one Hessian-vector product per site. `denoising` adds noise to the data and
    minimises $\tfrac12 \lVert s(v + \sigma \xi) + \xi / \sigma \rVert^2$ with standard normal
    $\xi$. It is cheap in any dimension, but learns the distribution of the noisy data, whose
    variances are larger by $\sigma^2$.

    Args:
        method: ``"denoising"`` or ``"explicit"``.
        noise: $\sigma$, in the data's units, for ``"denoising"``.

    Source: explicit: Hyvarinen (2005), JMLR 6, 695-709, theorem 1; denoising: Vincent (2011),
    Neural Computation 23(7), 1661-1674, eq. (9).
    """

    loss_kind: ClassVar[LossKind] = "measure"

    method: Literal["denoising", "explicit"] = "denoising"
    noise: float = eqx.field(default=0.1, converter=float)

    def __check_init__(self) -> None:
        if self.method not in ("denoising", "explicit"):
            raise ValueError(
                f"ScoreMatching got method={self.method!r}; expected 'denoising' or 'explicit'."
            )
        if not self.noise > 0:
            raise ValueError(f"ScoreMatching got noise={self.noise}; expected a number above 0.")

    def check(self, ebm: EBM, data: Configuration) -> None:
        odd = [str(v) for v in visible(ebm) if not v.domain.real_line]
        if odd:
            finite = all(v.domain.levels is not None for v in visible(ebm))
            other = "ContrastiveDivergence()"
            if finite and not latent(ebm):
                other = f"PseudoLikelihood() or {other}"
            raise TypeError(
                f"ScoreMatching needs gradients on all of the real line, which {odd} do not have. "
                f"Use {other}."
            )
        reason = why_not_summed(ebm, data)
        if reason is not None:
            raise TypeError(
                f"ScoreMatching needs the latents summed out exactly. {reason}. "
                "Use ContrastiveDivergence(), which draws them."
            )

    def init(self, ebm: EBM, data: Configuration, *, key: Array) -> None:
        return None

    def loss(
        self, ebm: EBM, batch: Configuration, state: None, *, key: Array
    ) -> tuple[Array, tuple[None, dict[str, Array]]]:
        free = energy_shown(ebm)
        rows = jax.vmap(lambda v: ravel_pytree(v)[0])(batch)
        unravel = ravel_pytree(jax.tree.map(lambda a: a[0], batch))[1]
        slope = jax.grad(lambda z: free(unravel(z)))
        mask = ravel_pytree({v.name: ~ebm.structure.skeleton.mask(v) for v in visible(ebm)})[0]

        def explicit(z: Array) -> Array:
            one = jnp.eye(len(z))
            bend = jax.vmap(lambda e: jax.jvp(slope, (z,), (e,))[1] @ e)(one)
            return 0.5 * jnp.sum(slope(z) ** 2) - jnp.sum(bend)

        def denoising(z: Array, noise: Array) -> Array:
            gap = slope(z + self.noise * noise) - noise / self.noise
            return 0.5 * jnp.sum(jnp.where(mask, gap, 0.0) ** 2)

        if self.method == "explicit":
            return jnp.mean(jax.vmap(explicit)(rows)), (None, {})
        noise = jr.normal(key, rows.shape)
        return jnp.mean(jax.vmap(denoising)(rows, noise)), (None, {})
