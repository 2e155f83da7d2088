"""LogZ: a value of log Z with its error and the kind of method that gave it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from scipy.special import logsumexp, stdtrit

LEAST_ESS = 10.0
"""The effective number of weights below which an interval is too narrow to be trusted."""


@dataclasses.dataclass(frozen=True)
class LogZ:
    """A value of log Z with its error.

    What `lower` and `upper` mean depends on `kind`:

    ================== ========================================================================
    kind               log Z lies between `lower` and `upper`
    ================== ========================================================================
    "exact"            certainly: both are `value`, which is exact apart from rounding
    "quadrature"       if the estimated error of the numerical integration is right
    "estimate"         with probability 95 %, if the weights have a finite variance and the chains
                       miss no mode: Student's interval, with the jackknife error over the weights
                       or over the chains
    "bracket"          with probability 95 %, whatever the weights' variance and however badly the
                       chains mix: each end is wrong with probability 2.5 % at most, by Markov's
                       inequality. The upper end needs exact draws from the model; without them,
                       `doubts` says so
    "mean field"       certainly: `lower` is proven; `upper` is infinite
    "tree-reweighted"  certainly: `upper` is proven; `lower` is minus infinity
    "bounds"           certainly: both ends are proven
    "Bethe"            always, as they are infinite: how far off `value` is, is not known. It is
                       exact where the factors form trees
    "learnt"           always, as they are infinite: `value` is a number that `NoiseContrastive`
                       learnt with the parameters, and how far off it is, is not known
    ================== ========================================================================

    Attributes:
        value: log Z, or an estimate of it; of proven bounds, the finite one or their middle.
        standard_error: the standard error of `value` in nats; for a quadrature, its estimated
            numerical error; NaN for proven bounds, which have none; infinite where nothing is known
            of the error.
        lower: the lower end.
        upper: the upper end.
        kind: one of the words above.
        ess: the effective number of independent weights or chains behind an estimate; of a
            bracket, the smaller of its two directions; infinite where neither are used.
        doubts: sentences that say why the result cannot be trusted; empty if nothing was noticed.
            That nothing was noticed proves nothing: a mode that no chain visited leaves no trace.
    """

    value: float
    standard_error: float
    lower: float
    upper: float
    kind: str
    ess: float
    doubts: tuple[str, ...] = ()

    @staticmethod
    def exact(value: float) -> LogZ:
        """An exact value, apart from rounding."""
        return LogZ(value, 0.0, value, value, "exact", np.inf)

    @staticmethod
    def learnt(value: float) -> LogZ:
        """A value that was learnt with the model's parameters, of whose error nothing is known."""
        return LogZ(float(value), np.inf, -np.inf, np.inf, "learnt", np.inf)

    @staticmethod
    def quadrature(value: float, error: float) -> LogZ:
        """A value by numerical integration, with its estimated error in nats."""
        return LogZ(value, error, value - error, value + error, "quadrature", np.inf)

    @staticmethod
    def proven(lower: float, upper: float, kind: str, doubts: tuple[str, ...] = ()) -> LogZ:
        """Bounds that hold with certainty; one of them may be infinite."""
        ends = [end for end in (lower, upper) if np.isfinite(end)]
        value = float(np.mean(ends)) if ends else np.nan
        if lower > upper:
            doubts = (*doubts, f"the lower bound exceeds the upper one by {lower - upper:.2g}")
        return LogZ(value, np.nan, lower, upper, kind, np.inf, doubts)

    @staticmethod
    def from_log_weights(log_weights: np.ndarray) -> LogZ:
        """The log of the mean of independent weights w with expectation Z.

        The standard error is the jackknife estimate over the weights; the interval is Student's t.
        """
        n = len(log_weights)
        value = float(logsumexp(log_weights) - np.log(n)) if n > 1 else np.nan
        if not np.isfinite(value):
            zero = int(np.isneginf(log_weights).sum())
            return LogZ.none(f"of {n} weights, {zero} are zero and the others not finite", value)
        shares = np.exp(log_weights - logsumexp(log_weights))
        ess = float(1 / np.sum(shares**2))
        with np.errstate(divide="ignore"):
            without = value + np.log1p(-shares) + np.log(n / (n - 1))
        return LogZ.from_jackknife(value, without, ess).doubted(*_few(ess, n))

    @staticmethod
    def from_jackknife(
        value: float, without: np.ndarray, ess: float, numerical: float = 0.0
    ) -> LogZ:
        r"""An estimate from n independent parts.

        Its standard error is $\sqrt{\tfrac{n-1}{n} \sum_i (v_i - \bar v)^2 + \epsilon^2}$.

        Args:
            value: the estimate from all parts.
            without: $v_i$, the estimate without the i-th part; if one is not finite, the error is
                infinite.
            ess: the effective number of parts.
            numerical: $\epsilon$, a numerical error in nats that all parts have in common.
        """
        n = len(without)
        spread = np.sqrt((n - 1) * np.mean((without - np.mean(without)) ** 2))
        error = float(np.hypot(spread, numerical))
        error = error if np.isfinite(error) else np.inf
        half = float(stdtrit(n - 1, 0.975)) * error
        return LogZ(value, error, value - half, value + half, "estimate", ess)

    @staticmethod
    def none(reason: str, value: float = np.nan) -> LogZ:
        """No estimate, with the reason as its doubt."""
        return LogZ(value, np.inf, -np.inf, np.inf, "estimate", 0.0, (reason,))

    @staticmethod
    def from_log_inverse_weights(log_weights: np.ndarray) -> LogZ:
        """Minus the log of the mean of independent weights w with expectation 1 / Z."""
        found = LogZ.from_log_weights(log_weights)
        ends = {"value": -found.value, "lower": -found.upper, "upper": -found.lower}
        return dataclasses.replace(found, **ends)

    def doubted(self, *doubts: str) -> LogZ:
        """The same with more doubts."""
        return dataclasses.replace(self, doubts=(*self.doubts, *doubts))

    def sharpened(self, other: LogZ) -> LogZ:
        """This result, with the better ends of both where both are proven bounds of one kind."""
        if self.kind != other.kind or not math.isnan(self.standard_error):
            return self
        lower, upper = max(self.lower, other.lower), min(self.upper, other.upper)
        return LogZ.proven(lower, upper, self.kind, self.doubts)

    def __str__(self) -> str:
        text = f"log Z {self._said()}"
        return f"{text}. Doubtful: {'; '.join(self.doubts)}." if self.doubts else text

    def _said(self) -> str:
        span = f"from {self.lower:.6g} to {self.upper:.6g}"
        match self.kind:
            case "exact":
                return f"= {self.value:.6g} (exact)"
            case "quadrature":
                return f"= {self.value:.6g} (by quadrature, error {self.standard_error:.2g})"
            case "mean field":
                return f">= {self.lower:.6g} (mean field, proven)"
            case "tree-reweighted":
                return f"<= {self.upper:.6g} (tree-reweighted, proven)"
            case "bounds":
                return f"{span} (proven bounds)"
            case "Bethe":
                return f"about {self.value:.6g} (Bethe, error unknown)"
            case "learnt":
                return f"about {self.value:.6g} (learnt, error unknown)"
        return (
            f"= {self.value:.6g} +- {self.standard_error:.2g} ({self.kind}; 95 % {span}; "
            f"{self.ess:.3g} effective chains)"
        )


def _few(ess: float, count: int) -> tuple[str, ...]:
    """The doubt that a few weights have nearly all of the sum."""
    if ess >= min(LEAST_ESS, count / 2):
        return ()
    return (
        f"{count} weights are worth {ess:.2g} independent ones, so the value may be far off and "
        "its error too small",
    )
