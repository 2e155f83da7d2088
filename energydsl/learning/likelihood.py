"""The likelihood of data, which says the kind of log Z that it rests on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import numpy as np
from jax import Array, lax

from energydsl._types import Configuration, IntractableError
from energydsl.compiler.ebm import EBM, check_ebm, log_partition
from energydsl.learning.data import check_examples
from energydsl.learning.latent import latent
from energydsl.normalizer import Intractable, error_of
from energydsl.normalizer.log_z import LogZ


@dataclasses.dataclass(frozen=True)
class LogLikelihood:
    """How likely data is under a model, and how well that is known.

    Attributes:
        value: the mean over the examples of log p(v), in nats.
        standard_error: of `value`, as far as it comes from log Z.
        lower: `value` at the upper end of log Z.
        upper: `value` at its lower end.
        kind: of the log Z it rests on: "exact", "quadrature", "estimate" or "bound".
        examples: log p of each example.
    """

    value: float
    standard_error: float
    lower: float
    upper: float
    kind: str
    examples: np.ndarray = dataclasses.field(repr=False)

    def __str__(self) -> str:
        text = f"{self.value:.5g} nats an example, of {len(self.examples):,}"
        if self.kind == "exact":
            return f"{text} (log Z exact)"
        if self.kind == "quadrature":
            return f"{text} (log Z by quadrature, error {self.standard_error:.2g})"
        return (
            f"{text} +- {self.standard_error:.2g} (log Z: {self.kind}; 95 % from {self.lower:.5g} "
            f"to {self.upper:.5g})"
        )


def log_likelihood(
    ebm: EBM, data: Mapping[str, Any] | Any, *, log_z: LogZ | None = None
) -> LogLikelihood:
    r"""Mean of $\log p(v) = -F(v) - \log Z$ over examples, latents summed out.

    Args:
        ebm: the model.
        data: for each free variable that is not latent, its values, examples first; or the array
            of the only one.
        log_z: what `estimate_log_partition` returned, where no exact rule applies; its kind and
            its error become the result's.

    Raises:
        IntractableError: log Z or F(v) has no exact rule and no `log_z` was given.
        ValueError, TypeError: data that does not fit the variables, or is empty.
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
