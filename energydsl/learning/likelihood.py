"""The log-likelihood of data, with the kind and the error of the log Z that it uses."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.random as jr
import numpy as np
from jax import Array, lax
from scipy.special import logsumexp

from energydsl._messages import brief, described
from energydsl._types import Configuration, IntractableError, check_key
from energydsl.compiler.ebm import EBM, check_compiled, log_partition, log_partitions
from energydsl.learning.data import check_examples, count_of, split
from energydsl.learning.guide import at_data, check_guide, log_weights
from energydsl.learning.shown import bytes_of, energy_shown
from energydsl.normalizer import Intractable, error_of
from energydsl.normalizer.log_z import LogZ

BATCH_BYTES, MOST = 2**26, 256
"""The memory that examples which are computed at once may take, and the most of them."""


@dataclasses.dataclass(frozen=True)
class LogLikelihood:
    """The log-likelihood of data under a model, with the error that comes from log Z.

    Attributes:
        value: the mean of log p(v) over the examples, in nats.
        standard_error: the standard error of log Z, which is that of `value` for given data; NaN
            for proven bounds; infinite where nothing is known of the error.
        lower: `value` for the upper end of log Z's confidence interval.
        upper: `value` for its lower end.
        kind: the kind of log Z, which says what `lower` and `upper` mean: see `LogZ`. Of a result
            with a guide it is "bound": the expectation of `value` is at most the log-likelihood.
            `standard_error` is then that of the guide's draws, `lower` lies 1.96 of these below
            `value`, and `upper` is infinite.
        examples: log p of each example.
    """

    value: float
    standard_error: float
    lower: float
    upper: float
    kind: str
    examples: np.ndarray = dataclasses.field(repr=False)

    def __str__(self) -> str:
        text = f"{self.value:.5g} nats per example, mean of {len(self.examples):,}"
        if self.kind == "bound":
            return f"at least {text}, +- {self.standard_error:.2g} (a bound by draws of the guide)"
        if self.kind == "exact":
            return f"{text} (log Z exact)"
        if self.kind == "quadrature":
            return f"{text} (log Z by quadrature, error {self.standard_error:.2g})"
        span = f"from {self.lower:.5g} to {self.upper:.5g}"
        if math.isnan(self.standard_error):
            return f"{text} (log Z: {self.kind}; {span})"
        if math.isinf(self.standard_error):
            return f"{text} (log Z: {self.kind}, error unknown)"
        return f"{text} +- {self.standard_error:.2g} (log Z: {self.kind}; 95 % {span})"


@described
def log_likelihood(
    ebm: EBM,
    data: Mapping[str, Any] | Any,
    *,
    log_z: LogZ | None = None,
    guide: EBM | None = None,
    samples: int = 100,
    key: Array | None = None,
) -> LogLikelihood:
    r"""The mean of $\log p(v) = -F(v) - \log Z$ over examples, with latents summed out.

    Args:
        ebm: the compiled model.
        data: an array for each free variable that is not latent, inputs included, with the examples
            on the first axis; if there is only one such variable, the array itself. Given inputs x,
            the result is that of $\log p(v \mid x)$.
        log_z: the result of `estimate_log_partition`, if no exact rule applies. Its kind and error
            become those of the log-likelihood.
        guide: a model of the latents given the data, such as ``history.guide`` of
            `energydsl.Variational`. With $z_k$ drawn from it, the result is the mean of
            $\log \tfrac1K \sum_k p(v, z_k) / q(z_k \mid v)$, whose expectation is a lower bound
            of the log-likelihood that rises with K (Burda et al. 2016, theorem 1).
        samples: K, the number of draws of the guide for each example.
        key: a `jax.random.key` for these draws.

    Raises:
        IntractableError: there is no exact rule for F(v), or none for log Z and no `log_z`.
        ValueError, TypeError: the data does not fit the variables, or is empty; or the guide does
            not fit the model.
    """
    check_compiled(ebm, "log_likelihood")
    examples = check_examples(ebm, data, "log_likelihood")
    inputs, _ = split(ebm, examples)
    if guide is not None:
        if log_z is not None:
            raise TypeError(
                "log_likelihood got log_z and guide; a bound by a guide needs exact log Z, which "
                "the EBM has itself. Leave log_z out."
            )
        check_key(key, "log_likelihood", ebm)
        return _bound(ebm, guide, examples, inputs, samples, key)
    if inputs and log_z is not None:
        raise TypeError(
            "log_likelihood got log_z and data with inputs; every example has a log Z of its own, "
            "so one number does not serve. Leave log_z out if log Z is exact, or estimate it for "
            "one input: ed.estimate_log_partition(ebm.given(...), key=key)."
        )
    if log_z is None:
        log_z, each = _exact(ebm, inputs)
    elif isinstance(log_z, LogZ):
        each = np.asarray(log_z.value)
    else:
        raise TypeError(
            f"log_likelihood got log_z={brief(log_z)}; expected what ed.estimate_log_partition "
            "returns, or a number that is known to be exact as ed.LogZ.exact(number)."
        )
    each_bytes = bytes_of(ebm, {n: a[0] for n, a in examples.items()})
    together = int(np.clip(BATCH_BYTES // max(each_bytes, 1), 1, MOST))
    energies = np.asarray(_energies(ebm, examples, together), np.float64)
    mean = float(-energies.mean())
    return LogLikelihood(
        mean - log_z.value,
        log_z.standard_error,
        mean - log_z.upper,
        mean - log_z.lower,
        log_z.kind,
        -energies - each,
    )


def _bound(
    ebm: EBM, guide: EBM, examples: Configuration, inputs: Configuration, samples: int, key: Any
) -> LogLikelihood:
    """The bound by draws of a guide, with the error that comes from their number."""
    check_compiled(guide, "log_likelihood(guide=...)")
    if not isinstance(samples, int) or samples < 2:
        raise ValueError(
            f"log_likelihood got samples={brief(samples)}; expected a whole number of at least 2."
        )
    check_guide(ebm, guide)
    log_z, each = _exact(ebm, inputs)
    logs = np.asarray(_guided(ebm, guide, examples, samples, key), np.float64)
    bounds = np.asarray(logsumexp(logs, axis=1)) - math.log(samples) - each
    shares = np.exp(logs - logs.max(axis=1, keepdims=True))
    spread = shares.var(axis=1, ddof=1) / samples / shares.mean(axis=1) ** 2
    error = math.hypot(math.sqrt(spread.sum()) / len(bounds), log_z.standard_error)
    mean = float(bounds.mean())
    return LogLikelihood(mean, error, mean - 1.96 * error, math.inf, "bound", bounds)


@eqx.filter_jit
def _guided(ebm: EBM, guide: EBM, examples: Configuration, samples: int, key: Array) -> Array:
    """Log weights, (example, draw)."""

    def one(example: tuple[Configuration, Array]) -> Array:
        inputs, v = split(ebm, example[0])
        at = ebm.given(inputs)
        return log_weights(at, at_data(at, guide, v), v, samples, key=example[1]).logs

    keys = jr.split(key, count_of(examples))
    return lax.map(one, (examples, keys), batch_size=16)


def _exact(ebm: EBM, inputs: Configuration) -> tuple[LogZ, np.ndarray]:
    """Log Z, averaged over examples, and its value for each; without inputs all have one value.

    If it is computed by quadrature, the mean of the errors is a bound of the error of the mean.
    """
    if isinstance(ebm.normalizer, Intractable):
        raise IntractableError(
            f"log Z is {ebm.normalizer}. Estimate it: "
            "ed.log_likelihood(ebm, data, log_z=ed.estimate_log_partition(ebm, key=key))."
        )
    if inputs:
        each = log_partitions(ebm, ebm.normalizer, inputs)
        models = [ebm.given({n: a[i] for n, a in inputs.items()}).model for i in range(len(each))]
    else:
        each, models = np.asarray(log_partition(ebm)), [ebm.model]
    if ebm.normalizer.kind == "exact":
        return LogZ.exact(float(each.mean())), each
    off = float(np.mean([error_of(model, ebm.normalizer) for model in models]))
    return LogZ.quadrature(float(each.mean()), off), each


@eqx.filter_jit
def _energies(ebm: EBM, examples: Configuration, together: int) -> Array:
    return lax.map(energy_shown(ebm), examples, batch_size=together)
