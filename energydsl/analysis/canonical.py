"""NumPyro's exponential families with their energies written as sums of their statistics.

NumPyro's own `log_prob` has guards against values outside the support, which hide that it is
linear in log x and the like. Here x is always inside the support.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.nn import softplus
from jax.scipy.special import betaln, gammaln, i0e, multigammaln

from energydsl.language.potential.family import Family


class Canonical(NamedTuple):
    """Minus the log-density of a family, with its parameters by name."""

    names: tuple[str, ...]
    form: Callable[..., Array]

    def energy(self, x: Array, *parameters: Array) -> Array:
        return self.form(x, **dict(zip(self.names, parameters, strict=True)))


def canonical(function: Any) -> Any:
    """The same energy in the form of an exponential family, where that is known."""
    if not isinstance(function, Family):
        return function
    form = FORMS.get(function.family)
    return function if form is None else Canonical(function.names, form)


def _gamma(x: Array, concentration: Array, rate: Array) -> Array:
    k = concentration
    return (1 - k) * jnp.log(x) + rate * x - k * jnp.log(rate) + gammaln(k)


def _inverse_gamma(x: Array, concentration: Array, rate: Array) -> Array:
    k = concentration
    return (k + 1) * jnp.log(x) + rate / x - k * jnp.log(rate) + gammaln(k)


def _beta(x: Array, concentration1: Array, concentration0: Array) -> Array:
    a, b = concentration1, concentration0
    return (1 - a) * jnp.log(x) + (1 - b) * jnp.log1p(-x) + betaln(a, b)


def _dirichlet(x: Array, concentration: Array) -> Array:
    a = concentration
    return jnp.sum((1 - a) * jnp.log(x)) + jnp.sum(gammaln(a)) - gammaln(jnp.sum(a))


def _von_mises(x: Array, loc: Array, concentration: Array) -> Array:
    k = concentration
    return jnp.log(2 * jnp.pi) + jnp.log(i0e(k)) + k - k * jnp.cos(x - loc)


def _negative_binomial(x: Array, r: Array, rise: Array, rest: Array) -> Array:
    """The energy that rises by `rise` with each count; `rest` is that of all of the r failures."""
    return gammaln(x + 1) - gammaln(x + r) + gammaln(r) + x * rise + r * rest


def _gamma_poisson(x: Array, concentration: Array, rate: Array) -> Array:
    return _negative_binomial(x, concentration, jnp.log1p(rate), jnp.log1p(1 / rate))


def _poisson(x: Array, rate: Array) -> Array:
    return gammaln(x + 1) - x * jnp.log(rate) + rate


def _wishart(
    x: Array,
    concentration: Array,
    scale_matrix: Array | None = None,
    rate_matrix: Array | None = None,
    scale_tril: Array | None = None,
) -> Array:
    if scale_tril is not None:
        scale_matrix = scale_tril @ scale_tril.T
    rate = jnp.linalg.inv(scale_matrix) if rate_matrix is None else rate_matrix
    n, d = concentration / 2, x.shape[-1]
    log_rate = jnp.linalg.slogdet(rate / 2)[1]
    power = (d + 1) / 2 - n
    return (
        power * jnp.linalg.slogdet(x)[1] + jnp.sum(rate * x) / 2 - n * log_rate + multigammaln(n, d)
    )


FORMS: dict[Any, Callable[..., Array]] = {
    dist.Beta: _beta,
    dist.Chi2: lambda x, df: _gamma(x, df / 2, jnp.asarray(0.5)),
    dist.Dirichlet: _dirichlet,
    dist.Exponential: lambda x, rate: rate * x - jnp.log(rate),
    dist.Gamma: _gamma,
    dist.GammaPoisson: _gamma_poisson,
    dist.GeometricLogits: lambda x, logits: x * softplus(logits) + softplus(-logits),
    dist.GeometricProbs: lambda x, probs: -x * jnp.log1p(-probs) - jnp.log(probs),
    dist.InverseGamma: _inverse_gamma,
    dist.NegativeBinomial2: lambda x, mean, concentration: _gamma_poisson(
        x, concentration, concentration / mean
    ),
    dist.NegativeBinomialLogits: lambda x, total_count, logits: _negative_binomial(
        x, total_count, softplus(-logits), softplus(logits)
    ),
    dist.NegativeBinomialProbs: lambda x, total_count, probs: _negative_binomial(
        x, total_count, -jnp.log(probs), -jnp.log1p(-probs)
    ),
    dist.Poisson: _poisson,
    dist.VonMises: _von_mises,
    dist.Wishart: _wishart,
}
"""For each family, its energy as a function of x and of its parameters by name."""
