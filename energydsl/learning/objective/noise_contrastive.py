"""Noise-contrastive estimation: data are told from noise, and log Z is learnt as a number."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array, lax
from jax.scipy.special import logsumexp

from energydsl._messages import described
from energydsl._types import Configuration
from energydsl.compiler.ebm import EBM, log_partition
from energydsl.learning.divergence import LossKind
from energydsl.learning.noise import (
    AbstractNoise,
    DistributionNoise,
    FittedNoise,
    ModelNoise,
    check_model,
)
from energydsl.learning.objective.base import AbstractObjective, DoesNotFit
from energydsl.learning.shown import energy_shown, why_not_summed

WEIGHTS = 1000
"""The draws of the noise that give the initial log Z."""

ROWS = 256
"""The number of examples whose densities are computed at once."""


def _number(value: Any) -> Array | None:
    return None if value is None else jnp.asarray(value, float)


@described
class NoiseContrastive(AbstractObjective):
    r"""Noise-contrastive estimation: a classifier learns to tell data from draws of noise.

    The classifier's log-odds of v to come from the data are $g(v) = -F(v) - c - \log \nu p_n(v)$,
    where $F$ is the energy, or the free energy if there are latents, $p_n$ the density of noise,
    $\nu$ the number of draws of noise per example, and c the log Z that is learnt with the
    parameters. The loss is that of logistic regression over examples v and draws of noise
    $\tilde v$, $-\overline{\log \sigma(g(v))} - \nu \overline{\log \sigma(-g(\tilde v))}$.
    It needs neither log Z nor chains, for continuous as for discrete variables. If some parameters
    give the distribution of the data, and the noise has a positive density wherever that has one,
    the estimator is consistent, and c approaches log Z. It is the more accurate, the more the noise
    is like the data and the larger $\nu$ is.

    After learning, ``history.objective.log_z`` is c. Nothing is known of its error:
    ``ed.log_likelihood(learnt, data, log_z=ed.LogZ.learnt(history.objective.log_z))`` says so.

    Args:
        noise: a NumPyro distribution of the variable that data show; a dict of them by name; or a
            compiled model over the same variables with exact log Z and exact draws. By default,
            noise is fitted to the data: a Gaussian with their means and covariance in unconstrained
            coordinates (the logarithms of positive numbers, for example), and independent levels
            of finite sites with their frequencies.
        ratio: $\nu$, the number of draws of noise per example, a whole number.
        log_z: c at the start; by default it is estimated from draws of the noise.

    Source: Gutmann & Hyvarinen (2012), JMLR 13, 307-361, section 2, with $\nu = T_n / T_d$.
    """

    loss_kind: ClassVar[LossKind] = "measure"

    noise: Any = None
    ratio: int = 1
    log_z: Array | None = eqx.field(default=None, converter=_number)

    def __check_init__(self) -> None:
        if not isinstance(self.ratio, int | np.integer) or self.ratio < 1:
            raise ValueError(
                f"NoiseContrastive got ratio={self.ratio!r}; expected a whole number of at least 1."
            )

    def of_one_example(self) -> AbstractObjective:
        raise DoesNotFit(
            "NoiseContrastive learns one log Z, and given inputs every example has its own."
        )

    def check(self, ebm: EBM, data: Configuration) -> None:
        reason = why_not_summed(ebm, data)
        if reason is not None:
            raise DoesNotFit(f"NoiseContrastive needs the latents summed out exactly. {reason}.")
        if self.noise is None:
            FittedNoise.check(ebm, data)
        elif isinstance(self.noise, EBM):
            check_model(self.noise, ebm, data)
        else:
            DistributionNoise.of(self.noise, ebm).check(ebm)
        noise = self._noise(ebm, self.init(ebm, data, key=jr.key(0)))
        log_probs = np.asarray(_mapped(lambda v: noise.log_prob(ebm, v), data))
        if not np.isfinite(log_probs).all():
            first = int(np.argmin(np.isfinite(log_probs)))
            raise ValueError(
                f"NoiseContrastive got noise whose log density at example {first} is "
                f"{log_probs[first]:.4g}; expected a positive density wherever there are data."
            )

    def begin(self, ebm: EBM, data: Configuration, *, key: Array) -> NoiseContrastive:
        if self.log_z is not None:
            return self
        noise = self._noise(ebm, self.init(ebm, data, key=key))
        draws = noise.draws(ebm, WEIGHTS, key=key)
        log_weights = -_mapped(energy_shown(ebm), draws)
        log_weights -= _mapped(lambda v: noise.log_prob(ebm, v), draws)
        log_z = logsumexp(log_weights) - jnp.log(WEIGHTS)
        return dataclasses.replace(self, log_z=jnp.where(jnp.isfinite(log_z), log_z, 0.0))

    def init(self, ebm: EBM, data: Configuration, *, key: Array) -> Any:
        """The noise fitted to the data, or the log Z of a model as noise."""
        if self.noise is None:
            return FittedNoise.to(ebm, data)
        return jnp.asarray(log_partition(self.noise)) if isinstance(self.noise, EBM) else None

    def loss(
        self, ebm: EBM, batch: Configuration, state: Any, *, key: Array
    ) -> tuple[Array, tuple[Any, dict[str, Array]]]:
        assert self.log_z is not None
        noise, free, log_z = self._noise(ebm, state), energy_shown(ebm), self.log_z
        count = self.ratio * len(next(iter(batch.values())))
        draws = lax.stop_gradient(noise.draws(ebm, count, key=key))

        def odds(v: Configuration) -> Array:
            """The log-odds that v comes from the data."""
            return -free(v) - log_z - noise.log_prob(ebm, v) - jnp.log(self.ratio)

        up, down = jax.vmap(odds)(batch), jax.vmap(odds)(draws)
        missed = jnp.mean(jax.nn.softplus(-up)) + self.ratio * jnp.mean(jax.nn.softplus(down))
        return missed, (state, {"log_z": log_z})

    def _noise(self, ebm: EBM, state: Any) -> AbstractNoise:
        if self.noise is None:
            return state
        if isinstance(self.noise, EBM):
            return ModelNoise(self.noise, state)
        return DistributionNoise.of(self.noise, ebm)


def _mapped(function: Any, data: Configuration) -> Array:
    return eqx.filter_jit(lambda rows: lax.map(function, rows, batch_size=ROWS))(data)
