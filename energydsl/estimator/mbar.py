"""The multistate Bennett acceptance ratio: log Z from draws at all temperatures together."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import expit, logsumexp

from energydsl._messages import described
from energydsl.estimator.base import check_settings
from energydsl.estimator.tempered import AbstractTempered, Tempered
from energydsl.normalizer.log_z import LEAST_ESS, LogZ

TOLERANCE = 1e-8
"""How closely, relative to its number of draws, the weights of each rung must add up to it."""

MOST_STEPS = 200
"""The most steps of Newton's method, or of the fixed point where those do not help."""

ROUNDING = 1e-12
"""The relative rounding error of a sum over all draws."""

LEAST_OVERLAP = 0.06
"""The overlap of neighbours below which their difference cannot be trusted: an entry of 0.03 in
the overlap matrix of both, where equal distributions have 0.5."""


@described
class MBAR(AbstractTempered):
    r"""The multistate Bennett acceptance ratio with any kernel, along the path of `AIS`.

    Chains begin with exact draws from the base and pass through a ladder of temperatures to the
    model, and back; at each one they move `warmup` times, and then draw `draws` times. A first pass
    finds the ladder, with the rungs closest where $g = E - E_\text{base}$ varies most. With $N_k$
    draws at $\beta_k$, the free energies $f_k = -\log Z_k$ solve
    $e^{-f_k} = \sum_n \frac{e^{-\beta_k g_n}}{\sum_l N_l e^{f_l - \beta_l g_n}}$,
    a sum over the draws of all rungs. With one step in $\beta$ this is bridge sampling by the best
    bridge. The model's Z is the same sum at $\beta = 1$ over the states that the model allows, so
    that states forbidden by tables, which have a finite energy along the path, and infinite
    energies of functions need no further care.

    The equations are solved in float64 by Newton's method, until each rung's weights add up to its
    $N_k$ within 1e-8 of it. The standard error is the jackknife estimate over chains, of which each
    has passed through every rung; for each chain left out, the equations are solved by one step of
    Newton's method. `ess` is the effective number of chains in the sum for Z. `doubts` says where
    neighbouring rungs hardly overlap, and where chains lag behind the temperatures, so that they
    differ on the two ways. The solution
    takes about `temperatures`² · `draws` · `chains` operations a step.

    Args:
        kernel: any kernel that updates every free site; by default the applicable one with the
            cheapest steps, such as Gibbs or Langevin.
        chains: the number of independent chains.
        temperatures: the number of steps in $\beta$.
        warmup: transitions at each temperature before the draws, on each way.
        draws: draws of each chain at each temperature, on each way.

    Raises:
        ValueError: a count below one (two for `chains`, zero for `warmup`); a kernel that leaves
            out a free site; or a temperature at which every draw has an infinite energy.

    Source: Shirts & Chodera (2008), J. Chem. Phys. 129, 124105, equation (11); Meng & Wong (1996),
    Statistica Sinica 6, 831-860, for two states; Klimovich, Shirts & Mobley (2015), J. Comput.
    Aided Mol. Des. 29, 397-411, for the least overlap.
    """

    def __check_init__(self) -> None:
        check_settings(self, chains=2, temperatures=1, warmup=0, draws=1)

    def concluded(self, tempered: Tempered) -> LogZ:
        return joined(tempered)


def joined(tempered: Tempered) -> LogZ:
    """MBAR over the rungs of some draws."""
    lacking = tempered.lacks()
    if lacking is not None:
        return LogZ.none(lacking)
    chains, betas = _chains(tempered), tempered.betas
    logs, sums, solved = _solve(chains, betas, _first_guess(tempered))
    with np.errstate(divide="ignore", invalid="ignore"):
        value, without = _log_z(sums, tempered.log_base + logs[0])
    ess = float(1 / (sums.shares**2).sum())
    found = LogZ.from_jackknife(value, without, ess)
    doubts = _doubts(ess, len(chains), _overlaps(tempered, logs), betas)
    if not solved:
        doubts.append(f"the equations were not solved in {MOST_STEPS} steps")
    return found.doubted(*doubts, *tempered.unsettled())


class _Chain(NamedTuple):
    """The draws of one chain at all rungs."""

    gaps: np.ndarray
    """(draw,)"""
    allowed: np.ndarray
    """(draw,): whether the model allows the state."""
    counts: np.ndarray
    """(rung,): how many of the draws are those of each rung."""


def _chains(tempered: Tempered) -> list[_Chain]:
    kept = tempered.kept
    return [
        _Chain(tempered.gaps[:, c][on], tempered.allowed[:, c][on], on.sum(axis=1))
        for c, on in enumerate(np.moveaxis(kept, 1, 0))
    ]


def _first_guess(tempered: Tempered) -> np.ndarray:
    r"""$f_k + \log N_k$ by the trapezium, from mean gaps."""
    finite = np.isfinite(tempered.gaps)
    gaps = np.where(finite, tempered.gaps, 0.0)
    means = gaps.sum(axis=(1, 2)) / finite.sum(axis=(1, 2))
    steps = np.diff(tempered.betas) * (means[1:] + means[:-1]) / 2
    return np.concatenate([[0.0], np.cumsum(steps)]) + np.log(tempered.kept.sum(axis=(1, 2)))


def _shares(chain: _Chain, betas: np.ndarray, logs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""The probability of each rung given a draw, $p_{nl} \propto e^{a_l - \beta_l g_n}$.

    Returns:
        The probabilities, (draw, rung), and the log of what they are divided by, (draw,).
    """
    with np.errstate(invalid="ignore"):
        reduced = np.where(betas == 0, 0.0, betas * chain.gaps[:, None])
    terms = logs - reduced
    most = terms.max(axis=1, keepdims=True)
    shares = np.exp(terms - most)
    totals = shares.sum(axis=1, keepdims=True)
    return shares / totals, (most + np.log(totals))[:, 0]


class _Sums(NamedTuple):
    r"""Sums over the draws of each chain at $a_l = f_l + \log N_l$.

    The equations hold at the minimum of the convex function
    $F(a) = \sum_n \log \sum_l e^{a_l - \beta_l g_n} - \sum_l N_l a_l$, a sum over chains.
    """

    counts: np.ndarray
    """(chain, rung): the number of draws."""
    height: np.ndarray
    """(chain,): of F."""
    expected: np.ndarray
    r"""(chain, rung): the weights of the rungs, $\sum_n p_{nl}$, each of which should be $N_l$."""
    hessian: np.ndarray
    """(chain, rung, rung): of F."""
    log_weights: np.ndarray
    r"""(chain,): the log of $\sum_n e^{-g_n} / \sum_l e^{a_l - \beta_l g_n}$, if allowed."""
    slopes: np.ndarray
    """(chain, rung): minus the derivatives of the log weights."""

    @staticmethod
    def of(chains: list[_Chain], betas: np.ndarray, logs: np.ndarray) -> _Sums:
        parts = [_Sums._of_one(chain, betas, logs) for chain in chains]
        return _Sums(*(np.stack(part) for part in zip(*parts, strict=True)))

    @staticmethod
    def _of_one(chain: _Chain, betas: np.ndarray, logs: np.ndarray) -> tuple[np.ndarray, ...]:
        shares, totals = _shares(chain, betas, logs)
        expected = shares.sum(axis=0)
        hessian = np.diag(expected) - shares.T @ shares
        terms = np.where(chain.allowed, -chain.gaps - totals, -np.inf)
        weight = np.asarray(logsumexp(terms))
        # A chain in forbidden states only has the weight 0, and no slope.
        slopes = np.exp(terms - weight) @ shares if np.isfinite(weight) else np.zeros_like(logs)
        height = np.asarray(totals.sum() - chain.counts @ logs)
        return chain.counts, height, expected, hessian, weight, slopes

    @property
    def gradient(self) -> np.ndarray:
        """(chain, rung): of F."""
        return self.expected - self.counts

    @property
    def log_weight(self) -> float:
        """The log of the sum over all chains."""
        return float(np.asarray(logsumexp(self.log_weights)))

    @property
    def shares(self) -> np.ndarray:
        """The share of each chain in the sum."""
        return np.exp(self.log_weights - self.log_weight)

    def miss(self) -> float:
        """The largest relative error of an equation."""
        return float(np.max(np.abs(self.gradient.sum(axis=0)) / self.counts.sum(axis=0)))


def _solve(
    chains: list[_Chain], betas: np.ndarray, logs: np.ndarray
) -> tuple[np.ndarray, _Sums, bool]:
    """The solution of the equations, the sums there, and whether it was found.

    The first of the logs stays fixed: adding a number to all of them changes nothing.
    """
    sums = _Sums.of(chains, betas, logs)
    for _ in range(MOST_STEPS):
        if sums.miss() < TOLERANCE:
            return logs, sums, True
        gradient, hessian = sums.gradient.sum(axis=0), sums.hessian.sum(axis=0)
        step = np.linalg.lstsq(hessian[1:, 1:], gradient[1:], rcond=None)[0]
        tried = logs - np.append(0.0, step)
        found = _Sums.of(chains, betas, tried)
        height = sums.height.sum()
        lower = found.height.sum() <= height + ROUNDING * abs(height)
        if not (lower and found.miss() < sums.miss() / 2):
            # Far from the solution Newton's step may lead away or nowhere. The fixed point's step
            # always lowers F.
            expected, counts = sums.expected.sum(axis=0), sums.counts.sum(axis=0)
            step = np.log(np.maximum(expected, np.finfo(float).tiny) / counts)
            tried = logs - step + step[0]
            found = _Sums.of(chains, betas, tried)
        logs, sums = tried, found
    return logs, sums, False


def _log_z(sums: _Sums, first: float) -> tuple[float, np.ndarray]:
    """Log Z relative to the base, from all chains and without each chain in turn.

    Without a chain, the gradient at the solution is minus that of the chain, and one step of
    Newton's method leads to the new solution, in which the log weights are linear.
    """
    first += sums.log_weight
    tried = sums.counts[:, 0]
    value = first - np.log(tried.sum())
    slopes, hessian = sums.shares @ sums.slopes, sums.hessian.sum(axis=0)
    without = []
    for c, share in enumerate(sums.shares):
        rest = (slopes - share * sums.slopes[c]) / (1 - share)
        step = np.linalg.lstsq((hessian - sums.hessian[c])[1:, 1:], sums.gradient[c, 1:])[0]
        change = np.log1p(-share) - rest[1:] @ step
        without.append(first + change - np.log(tried.sum() - tried[c]))
    return float(value), np.array(without)


def _overlaps(tempered: Tempered, logs: np.ndarray) -> np.ndarray:
    r"""How far the distributions of neighbouring rungs overlap: 1 if equal, 0 if apart.

    From the draws of both, with the probabilities p and q of the two rungs given a draw:
    $(1 / N_k + 1 / N_{k+1}) \sum_n p_n q_n$.
    """
    kept, overlaps = tempered.kept, []
    for k, step in enumerate(np.diff(tempered.betas)):
        first, second = tempered.gaps[k][kept[k]], tempered.gaps[k + 1][kept[k + 1]]
        upper = expit(logs[k + 1] - logs[k] - step * np.append(first, second))
        overlaps.append((1 / len(first) + 1 / len(second)) * (upper * (1 - upper)).sum())
    return np.array(overlaps)


def _doubts(ess: float, chains: int, overlaps: np.ndarray, betas: np.ndarray) -> list[str]:
    """The doubts that some neighbours hardly overlap, and that few chains have all the weight."""
    doubts, k = [], int(np.argmin(overlaps))
    if overlaps[k] < LEAST_OVERLAP:
        doubts.append(
            f"the draws at beta = {betas[k]:.3g} and {betas[k + 1]:.3g} hardly overlap "
            f"({overlaps[k]:.2g}, where equal distributions have 1), so that their difference is "
            "unsure: take more temperatures"
        )
    if ess < min(LEAST_ESS, chains / 2):
        doubts.append(f"{chains} chains are worth {ess:.2g} of equal weight")
    return doubts
