"""LogZ: a value of log Z with its error and the kind of method that gave it."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.special import logsumexp, stdtrit


@dataclasses.dataclass(frozen=True)
class LogZ:
    """A value of log Z with its error.

    Attributes:
        value: log Z, or an estimate of it, depending on `kind`.
        standard_error: the standard error of `value` in nats; for a quadrature, its estimated
            numerical error.
        lower: the lower end of the 95 % confidence interval; for a quadrature, `value` minus its
            error.
        upper: the upper end of that interval.
        kind: "exact", "quadrature" (numerical integration), "estimate" or "bound" (then log Z lies
            between `lower` and `upper`).
        ess: the effective number of independent weights behind an estimate.
    """

    value: float
    standard_error: float
    lower: float
    upper: float
    kind: str
    ess: float

    @staticmethod
    def exact(value: float) -> LogZ:
        """An exact value, apart from rounding."""
        return LogZ(value, 0.0, value, value, "exact", np.inf)

    @staticmethod
    def quadrature(value: float, error: float) -> LogZ:
        """A value by numerical integration, with its estimated error in nats."""
        return LogZ(value, error, value - error, value + error, "quadrature", np.inf)

    @staticmethod
    def from_log_weights(log_weights: np.ndarray) -> LogZ:
        """The log of the mean of independent weights w with expectation Z.

        The standard error is the jackknife estimate over the weights; the interval is Student's t.
        """
        n = len(log_weights)
        value = float(logsumexp(log_weights) - np.log(n))
        if not np.isfinite(value):
            return LogZ(value, np.inf, -np.inf, np.inf, "estimate", 0.0)
        shares = np.exp(log_weights - logsumexp(log_weights))
        ess = float(1 / np.sum(shares**2))
        with np.errstate(divide="ignore"):
            without = value + np.log1p(-shares) + np.log(n / (n - 1))
        error = float(np.sqrt((n - 1) * np.mean((without - without.mean()) ** 2)))
        error = error if np.isfinite(error) else np.inf
        half = float(stdtrit(n - 1, 0.975)) * error
        return LogZ(value, error, value - half, value + half, "estimate", ess)

    def __str__(self) -> str:
        if self.kind == "exact":
            return f"log Z = {self.value:.6g} (exact)"
        if self.kind == "quadrature":
            return f"log Z = {self.value:.6g} (by quadrature, error {self.standard_error:.2g})"
        return (
            f"log Z = {self.value:.6g} +- {self.standard_error:.2g} ({self.kind}; 95 % from "
            f"{self.lower:.6g} to {self.upper:.6g}; {self.ess:.3g} effective chains)"
        )
