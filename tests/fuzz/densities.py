"""Log-densities by name, from SciPy; their NumPyro namesakes stand in the models."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.stats as st
from scipy.special import gammaln, xlogy


class Family(NamedTuple):
    """On which domain, the trailing axes that an event of each operand takes, and the formula.

    `parameters` says what each must be: "any", "positive", or numbers one a level ("levels").
    """

    domain: str
    parameters: tuple[str, ...]
    event_ndims: tuple[int, ...]
    log_density: Callable[..., np.ndarray]


def _bernoulli(x, logits):
    return x * logits - np.logaddexp(logits, 0.0)


def _categorical(x, logits):
    logits = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    shape = np.broadcast_shapes(x.shape, logits.shape[:-1])
    logits = np.broadcast_to(logits, (*shape, logits.shape[-1]))
    at = np.broadcast_to(x, shape).astype(int)[..., None]
    return np.take_along_axis(logits, at, -1)[..., 0]


def _dirichlet(x, concentration):
    constant = gammaln(concentration.sum(-1)) - gammaln(concentration).sum(-1)
    return constant + xlogy(concentration - 1, x).sum(-1)


FAMILIES = {
    "Normal": Family("real", ("any", "positive"), (0, 0, 0), st.norm.logpdf),
    "Laplace": Family("real", ("any", "positive"), (0, 0, 0), st.laplace.logpdf),
    "Cauchy": Family("real", ("any", "positive"), (0, 0, 0), st.cauchy.logpdf),
    "Logistic": Family("real", ("any", "positive"), (0, 0, 0), st.logistic.logpdf),
    "StudentT": Family(
        "real",
        ("positive", "any", "positive"),
        (0, 0, 0, 0),
        lambda x, df, loc, scale: st.t.logpdf(x, df, loc, scale),
    ),
    "Gamma": Family(
        "positive",
        ("positive", "positive"),
        (0, 0, 0),
        lambda x, a, rate: st.gamma.logpdf(x, a, scale=1 / rate),
    ),
    "Exponential": Family(
        "positive", ("positive",), (0, 0), lambda x, rate: st.expon.logpdf(x, scale=1 / rate)
    ),
    "HalfNormal": Family(
        "positive", ("positive",), (0, 0), lambda x, scale: st.halfnorm.logpdf(x, scale=scale)
    ),
    "LogNormal": Family(
        "positive",
        ("any", "positive"),
        (0, 0, 0),
        lambda x, loc, scale: st.norm.logpdf(np.log(x), loc, scale) - np.log(x),
    ),
    "Beta": Family("unit", ("positive", "positive"), (0, 0, 0), st.beta.logpdf),
    "Dirichlet": Family("simplex", ("levels",), (1, 1), _dirichlet),
    "BernoulliLogits": Family("binary", ("any",), (0, 0), _bernoulli),
    "CategoricalLogits": Family("categorical", ("levels",), (0, 1), _categorical),
    "Poisson": Family("count", ("positive",), (0, 0), st.poisson.logpmf),
}
