"""The log-likelihood of data, with the kind and the error of the log Z that it uses."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import numpy as np
from jax import Array, lax

from energydsl._messages import brief, described
from energydsl._types import Configuration, IntractableError
from energydsl.compiler.ebm import EBM, check_ebm, log_partition
from energydsl.learning.data import check_examples
from energydsl.learning.latent import latent
from energydsl.normalizer import Intractable, error_of
from energydsl.normalizer.log_z import LogZ


@dataclasses.dataclass(frozen=True)
class LogLikelihood:
    """The log-likelihood of data under a model, with the error that comes from log Z.

    Attributes:
        value: the mean of log p(v) over the examples, in nats.
        standard_error: the standard error of log Z, which is that of `value` for given data; NaN
            for proven bounds; infinite where nothing is known of the error.
        lower: `value` for the upper end of log Z's confidence interval.
        upper: `value` for its lower end.
        kind: the kind of log Z, which says what `lower` and `upper` mean: see `LogZ`.
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
    ebm: EBM, data: Mapping[str, Any] | Any, *, log_z: LogZ | None = None
) -> LogLikelihood:
    r"""The mean of $\log p(v) = -F(v) - \log Z$ over examples, with latents summed out.

    Args:
        ebm: the compiled model.
        data: an array for each free variable that is not latent, with the examples on the first
            axis; if there is only one such variable, the array itself.
        log_z: the result of `estimate_log_partition`, if no exact rule applies. Its kind and error
            become those of the log-likelihood.

    Raises:
        IntractableError: there is no exact rule for F(v), or none for log Z and no `log_z`.
        ValueError, TypeError: the data does not fit the variables, or is empty.
    """
    check_ebm(ebm, "log_likelihood")
    examples = check_examples(ebm, data, "log_likelihood")
    if log_z is None:
        if isinstance(ebm.normalizer, Intractable):
            raise IntractableError(
                f"log Z is {ebm.normalizer}. Estimate it: "
                "ed.log_likelihood(ebm, data, log_z=ed.estimate_log_partition(ebm, key=key))."
            )
        z, off = float(log_partition(ebm)), error_of(ebm.model, ebm.normalizer)
        exact = ebm.normalizer.kind == "exact"
        log_z = LogZ.exact(z) if exact else LogZ.quadrature(z, off)
    if not isinstance(log_z, LogZ):
        raise TypeError(
            f"log_likelihood got log_z={brief(log_z)}; expected what ed.estimate_log_partition "
            "returns, or a number that is known to be exact as ed.LogZ.exact(number)."
        )
    energies = np.asarray(_energies(ebm, examples), np.float64)
    mean = float(-energies.mean())
    return LogLikelihood(
        mean - log_z.value,
        log_z.standard_error,
        mean - log_z.upper,
        mean - log_z.lower,
        log_z.kind,
        -energies - log_z.value,
    )


@eqx.filter_jit
def _energies(ebm: EBM, examples: Configuration) -> Array:
    one = ebm.free_energy if latent(ebm) else ebm.energy
    return lax.map(one, examples, batch_size=256)
