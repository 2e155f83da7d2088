"""Thermodynamic integration: log Z from mean energies along a ladder of temperatures."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from energydsl._messages import described
from energydsl.estimator.base import check_settings
from energydsl.estimator.tempered import AbstractTempered, Tempered
from energydsl.normalizer.log_z import LEAST_ESS, LogZ


@described
class ThermodynamicIntegration(AbstractTempered):
    r"""Thermodynamic integration with any kernel, along the path of `AIS`.

    $\log Z - \log Z_\text{base} = -\int_0^1 \mathbb{E}_\beta[g]\,d\beta$ with
    $g = E - E_\text{base}$. Chains begin with exact draws from the base and pass through a ladder
    of temperatures to the model, and back; at each one they move `warmup` times, and then draw
    `draws` times. Since
    $\frac{d}{d\beta} \mathbb{E}_\beta[g] = -\operatorname{Var}_\beta[g]$, the integral over a step
    of length $h$ from $a$ to $b$ is, up to a term in $h^5$,
    $\frac{h}{2} (\mathbb{E}_a[g] + \mathbb{E}_b[g])
    + \frac{h^2}{12} (\operatorname{Var}_b[g] - \operatorname{Var}_a[g])$. A first pass of the
    chains finds the ladder, with the rungs closest where $g$ varies most.

    The standard error joins the jackknife estimate over chains, of which each has passed through
    every rung, with the error of the integral: a third of the change when every other rung is left
    out. That is right if the error falls as $h^2$, and too large if it falls faster. Where it is
    the larger of the two, `doubts` says so. Chains that lag behind the temperatures give different
    integrals on the two ways; `doubts` says this, too.

    States that tables forbid have a finite energy along the path, as for `AIS`, and log Z has
    a term for the share of draws at $\beta = 1$ that the model allows. Where a function makes the
    energy infinite, $\mathbb{E}_0[g]$ is infinite; the path then begins at the base restricted to
    the states of finite energy, whose log Z is that of the base plus the log of their share.

    Args:
        kernel: any kernel that updates every free site; by default the applicable one with the
            cheapest steps, such as Gibbs or Langevin.
        chains: the number of independent chains.
        temperatures: the number of steps in $\beta$.
        warmup: transitions at each temperature before the draws, on each way.
        draws: draws of each chain at each temperature, on each way.

    Raises:
        ValueError: a count below one (two for `chains` and `temperatures`, zero for `warmup`); a
            kernel that leaves out a free site; or a temperature at which every draw has an infinite
            energy.

    Source: Gelman & Meng (1998), Statistical Science 13(2), 163-185; Friel, Hurn & Wyse (2014),
    Statistics and Computing 24, 709-723, for the correction by variances.
    """

    def __check_init__(self) -> None:
        check_settings(self, chains=2, temperatures=2, warmup=0, draws=1)

    def concluded(self, tempered: Tempered) -> LogZ:
        return integrated(tempered)


def integrated(tempered: Tempered) -> LogZ:
    """Thermodynamic integration over the ladder of some draws."""
    lacking = tempered.lacks()
    if lacking is not None:
        return LogZ.none(lacking)
    moments = _Moments.of(tempered)
    ess = moments.effective()
    value = float(moments.together().log_z(tempered))
    with np.errstate(divide="ignore", invalid="ignore"):
        without = moments.without_each().log_z(tempered)
    rungs = len(tempered.betas)
    coarse = np.unique(np.append(np.arange(0, rungs, 2), rungs - 1))
    change = value - float(moments.together().log_z(tempered, coarse))
    found = LogZ.from_jackknife(value, without, ess, abs(change) / 3)
    return found.doubted(*_doubts(found, change, ess, tempered), *tempered.unsettled())


class _Moments(NamedTuple):
    """Counts and sums of powers of the finite gaps, (rung, ...), and counts of allowed draws."""

    count: np.ndarray
    first: np.ndarray
    second: np.ndarray
    tried: np.ndarray
    """The number of draws from the base."""
    allowed: np.ndarray
    """How many of the finite draws at the last rung the model allows."""

    @staticmethod
    def of(tempered: Tempered) -> _Moments:
        """The sums over each chain's draws, with the chains on the last axis."""
        finite = np.isfinite(tempered.gaps)
        gaps = np.where(finite, tempered.gaps, 0.0)
        tried = np.full(gaps.shape[1], gaps.shape[2])
        allowed = (finite & tempered.allowed)[-1].sum(axis=1)
        return _Moments(finite.sum(axis=2), gaps.sum(axis=2), (gaps**2).sum(axis=2), tried, allowed)

    def together(self) -> _Moments:
        """The sums over all chains."""
        return _Moments(*(part.sum(axis=-1) for part in self))

    def without_each(self) -> _Moments:
        """The sums over all chains but one, which is left out in turn."""
        return _Moments(*(part.sum(axis=-1, keepdims=True) - part for part in self))

    def log_z(self, tempered: Tempered, rungs: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Log Z by the corrected trapezium over some rungs of the ladder."""
        means = self.first / self.count
        variances = (self.second / self.count - means**2)[rungs]
        means, h = means[rungs], np.diff(tempered.betas[rungs])
        areas = h @ (means[1:] + means[:-1]) / 2 + h**2 @ (variances[1:] - variances[:-1]) / 12
        ends = np.log(self.count[0] / self.tried) + np.log(self.allowed / self.count[-1])
        return np.asarray(tempered.log_base + ends - areas)

    def effective(self) -> float:
        """The effective number of chains, at the rung and the end where it is least."""
        counts = np.vstack([self.count, self.allowed])
        return float(np.min(counts.sum(axis=1) ** 2 / (counts**2).sum(axis=1)))


def _doubts(found: LogZ, change: float, ess: float, tempered: Tempered) -> list[str]:
    """The doubts that the ladder is too coarse, and that too few chains are in allowed states."""
    doubts, chains = [], tempered.gaps.shape[1]
    if 2 * (change / 3) ** 2 > found.standard_error**2:
        doubts.append(
            f"the ladder of {len(tempered.betas) - 1} temperatures is too coarse: without every "
            f"other one log Z differs by {abs(change):.2g}"
        )
    if ess < min(LEAST_ESS, chains / 2):
        doubts.append(
            f"at some temperature the draws in states of finite energy are those of only {ess:.2g} "
            f"of {chains} chains"
        )
    return doubts
