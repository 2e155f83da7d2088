"""Score matching: the model's score is fitted to that of the data, without log Z."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax import Array

from energydsl._messages import described
from energydsl._types import Configuration
from energydsl.compiler.ebm import EBM
from energydsl.learning.divergence import LossKind
from energydsl.learning.latent import visible
from energydsl.learning.objective.base import AbstractObjective, DoesNotFit
from energydsl.learning.shown import check_inside, coordinates_shown, energy_shown, why_not_summed

Method = Literal["denoising", "explicit", "sliced"]

Slope = Callable[[Array], Array]
"""The gradient of the potential energy U in the coordinates z, which is minus the score."""


@described
class ScoreMatching(AbstractObjective):
    r"""Score matching: the score $s = -\nabla_z U$ of a model is fitted to that of the data.

    For real variables, $z$ is the data $v$ and $U$ is the energy, or the free energy if there are
    latents. Other continuous variables are $v = T(z)$ in unconstrained coordinates, with
    $U(z) = F(T(z)) - \log \lvert \det T'(z) \rvert$: logarithms of positive numbers, logits in an
    interval, stick-breaking fractions of a probability vector, and the Cholesky factor of a matrix.
    The estimator is consistent on every such domain, since it is score matching of the density of
    $z$, which is positive on the whole space, even if the density of $v$ does not vanish at the
    boundary of its support. For positive numbers it is non-negative score matching, whose weight
    $v^2$ vanishes at 0. The energy must have continuous first derivatives; for `explicit` and
    `sliced` a network of ReLUs, whose slope jumps, is no such energy.

    `explicit` minimises $\tfrac12 \lVert s(z) \rVert^2 + \operatorname{tr} \nabla s(z)$. The trace
    is exact and takes one Hessian-vector product per coordinate. `sliced` replaces it by
    $u^\top \nabla s(z)\, u$ in one random direction $u \in \{-1, 1\}^d$, whose mean is the trace,
    at the cost of one such product. `denoising` adds noise to the coordinates and minimises
    $\tfrac12 \lVert s(z + \sigma \xi) + \xi / \sigma \rVert^2$ with standard normal $\xi$. It is
    cheap in any dimension, but learns the distribution of the noisy data; variances of real
    variables are larger by $\sigma^2$, and positive numbers are multiplied by $e^{\sigma \xi}$.

    Args:
        method: ``"denoising"``, ``"explicit"`` or ``"sliced"``.
        noise: $\sigma$, in the units of $z$ (for real variables, those of the data), for
            ``"denoising"``.

    Source: explicit: Hyvarinen (2005), JMLR 6, 695-709, theorem 1; non-negative: Hyvarinen (2007),
    Computational Statistics & Data Analysis 51(5), 2499-2512; sliced: Song et al.
    (2019), UAI, 574-584, eq. (8), which reduces the variance of eq. (7); denoising: Vincent (2011),
    Neural Computation 23(7), 1661-1674, eq. (9).
    """

    loss_kind: ClassVar[LossKind] = "measure"

    method: Method = "denoising"
    noise: float = eqx.field(default=0.1, converter=float)

    def __check_init__(self) -> None:
        if self.method not in get_args(Method):
            raise ValueError(
                f"ScoreMatching got method={self.method!r}; expected 'denoising', 'explicit' or "
                "'sliced'."
            )
        if not self.noise > 0:
            raise ValueError(f"ScoreMatching got noise={self.noise}; expected a number above 0.")

    def check(self, ebm: EBM, data: Configuration) -> None:
        odd = [str(v) for v in visible(ebm) if v.domain.transform is None]
        if odd:
            raise DoesNotFit(
                f"ScoreMatching needs gradients in all variables that data show; {odd} have none."
            )
        reason = why_not_summed(ebm, data)
        if reason is not None:
            raise DoesNotFit(f"ScoreMatching needs the latents summed out exactly. {reason}.")
        check_inside(ebm, data, "ScoreMatching")

    def init(self, ebm: EBM, data: Configuration, *, key: Array) -> None:
        return None

    def loss(
        self, ebm: EBM, batch: Configuration, state: None, *, key: Array
    ) -> tuple[Array, tuple[None, dict[str, Array]]]:
        free, space = energy_shown(ebm), coordinates_shown(ebm)
        rows = jax.vmap(space.coordinates)(batch)
        match self.method:
            case "denoising":
                random, each = jr.normal(key, rows.shape), self._denoising
            case "sliced":
                random, each = jr.rademacher(key, rows.shape, rows.dtype), _sliced
            case "explicit":
                random, each = jnp.zeros(len(rows)), _explicit

        def one(v: Configuration, z: Array, random: Array) -> Array:
            return each(jax.grad(lambda z: space.potential(free, z, v)), z, random)

        return jnp.mean(jax.vmap(one)(batch, rows, random)), (None, {})

    def _denoising(self, slope: Slope, z: Array, noise: Array) -> Array:
        gap = slope(z + self.noise * noise) - noise / self.noise
        return 0.5 * jnp.sum(gap**2)


def _explicit(slope: Slope, z: Array, _: Array) -> Array:
    bend = jax.vmap(lambda e: _curvature(slope, z, e))(jnp.eye(len(z)))
    return 0.5 * jnp.sum(slope(z) ** 2) - jnp.sum(bend)


def _sliced(slope: Slope, z: Array, direction: Array) -> Array:
    return 0.5 * jnp.sum(slope(z) ** 2) - _curvature(slope, z, direction)


def _curvature(slope: Slope, z: Array, direction: Array) -> Array:
    """The second derivative of U along a direction."""
    return jax.jvp(slope, (z,), (direction,))[1] @ direction
