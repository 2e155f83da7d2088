"""The Metropolis test of a proposal, also where states are forbidden."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from energydsl.analysis.evaluation import with_finite
from energydsl.compiler.ebm import EBM

FORBIDDEN = 2.0**100
"""The finite energy used for forbidden states: a power of 2, so that multiples are exact."""


def finite(ebm: EBM) -> EBM:
    """The EBM with `FORBIDDEN` in place of infinity, so that chains can leave forbidden states.

    A state with k forbidden factors then has an energy of about k * FORBIDDEN, so that moves to
    fewer forbidden factors are accepted, and moves to more are rejected.
    """
    return with_finite(ebm, FORBIDDEN)


def acceptance(old: Array, new: Array, log_q: Array) -> Array:
    """The probability with which a move between these energies is accepted.

    A state of infinite energy has probability 0, so that any move away from it is accepted, even
    to another such state. A proposal with an energy of NaN or minus infinity is rejected: such
    energies result from rounding at the boundary of the support.
    """
    log_ratio = old - new + log_q
    rate = jnp.exp(jnp.minimum(jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio), 0.0))
    legal = (new > -jnp.inf) & ~jnp.isnan(log_q)
    return jnp.where(legal, jnp.where(jnp.isfinite(old), rate, 1.0), 0.0)
