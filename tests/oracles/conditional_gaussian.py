"""The law of finite sites beside real ones in which the energy is quadratic, state by state."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp
from scipy.stats import norm

from tests.oracles.enumerate import exact_law


class ConditionalGaussianLaw(NamedTuple):
    """All states of the finite sites, one a row, and the normal distribution given each."""

    states: np.ndarray
    logs: np.ndarray  # log of the integral over the real sites
    peaks: np.ndarray  # minus the least energy
    means: np.ndarray
    covariances: np.ndarray

    @property
    def log_z(self) -> float:
        return float(logsumexp(self.logs))

    @property
    def probs(self) -> np.ndarray:
        return np.exp(self.logs - self.log_z)

    def levels(self, site: int, values: Sequence) -> np.ndarray:
        """The probabilities of a finite site's values."""
        return np.array([self.probs[self.states[:, site] == v].sum() for v in values])

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Means and variances of the real sites."""
        mean = self.probs @ self.means
        within = np.diagonal(self.covariances, axis1=1, axis2=2)
        return mean, self.probs @ (within + (self.means - mean) ** 2)

    def cdf(self, site: int) -> Callable[[np.ndarray], np.ndarray]:
        """The distribution function of a real site, a mixture over states."""
        width = np.sqrt(self.covariances[:, site, site])
        return lambda x: norm.cdf((x[:, None] - self.means[:, site]) / width) @ self.probs


def conditional_gaussian_law(
    energy: Callable[[np.ndarray, np.ndarray], float], levels: Sequence[Sequence], reals: int
) -> ConditionalGaussianLaw:
    """Enumerate the finite sites and integrate the real ones in each of their states.

    The coefficients of the quadratic energy are found from its values at 0, at the unit vectors and
    at their sums, which is exact.

    Args:
        energy: from the finite sites' values and the real sites' to the energy; infinity at every
            real value forbids a state.
        levels: the values that each finite site can take.
        reals: the number of real sites.
    """
    states = exact_law(lambda d: np.zeros(len(d)), levels).states
    parts = [_integral(lambda x, d=d: energy(d, x), reals) for d in states]
    return ConditionalGaussianLaw(states, *(np.array(part) for part in zip(*parts, strict=True)))


def _integral(energy, n):
    units, k = np.eye(n), energy(np.zeros(n))
    if k == np.inf:
        return -np.inf, -np.inf, np.zeros(n), np.eye(n)
    up, down = (np.array([energy(sign * e) for e in units]) for sign in (1, -1))
    both = np.array([[energy(e + f) for f in units] for e in units])
    precision = both - up[:, None] - up[None, :] + k
    precision[np.diag_indices(n)] = up + down - 2 * k
    covariance = np.linalg.inv(precision)
    mean = covariance @ (down - up) / 2
    peak = mean @ precision @ mean / 2 - k
    volume = n / 2 * np.log(2 * np.pi) - np.linalg.slogdet(precision)[1] / 2
    return peak + volume, peak, mean, covariance
