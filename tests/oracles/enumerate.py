"""The exact law of a small discrete model, by visiting every state; and the test against it."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp, xlogy
from scipy.stats import chi2

MAX_STATES = 2**22


class Law(NamedTuple):
    """All states, one a row, with their probabilities and the log partition function."""

    states: np.ndarray
    probs: np.ndarray
    log_z: float


def exact_law(energy: Callable[[np.ndarray], np.ndarray], levels: Sequence[Sequence]) -> Law:
    """Enumerate a model.

    Args:
        energy: from states, shape (n_states, n_sites), to their energies, shape (n_states,);
            infinity forbids a state.
        levels: the values that each site can take.

    Returns:
        The law; its last site varies fastest.
    """
    n_states = np.prod([float(len(values)) for values in levels])
    if n_states > MAX_STATES:
        raise ValueError(f"exact_law got {n_states:.0f} states; it enumerates up to {MAX_STATES}.")
    grid = np.meshgrid(*levels, indexing="ij")
    states = np.stack([axis.ravel() for axis in grid], axis=-1)
    log_weights = -np.asarray(energy(states), dtype=np.float64)
    log_z = logsumexp(log_weights)
    return Law(states, np.exp(log_weights - log_z), float(log_z))


def exact_draws(states: np.ndarray, probs: np.ndarray, n: int, seed: int) -> np.ndarray:
    """`n` independent draws, one a row."""
    return states[np.random.default_rng(seed).choice(len(states), size=n, p=probs)]


def count_states(draws: np.ndarray, states: np.ndarray) -> np.ndarray:
    """How often each state occurs; a draw that is no state is an error."""
    seen, counts = np.unique(draws, axis=0, return_counts=True)
    row = {tuple(state): i for i, state in enumerate(states.tolist())}
    strangers = [state for state in map(tuple, seen.tolist()) if state not in row]
    if strangers:
        raise ValueError(f"{len(strangers)} draws are no states of the law: {strangers[:3]}")
    total = np.zeros(len(states), dtype=np.int64)
    total[[row[state] for state in map(tuple, seen.tolist())]] = counts
    return total


def chisquare_pvalue(counts: np.ndarray, probs: np.ndarray, n: int) -> float:
    """Probability that `n` independent draws from `probs` fit no better than these counts.

    States are pooled, the rarest with the next rarest, until each pool expects 50 draws. The
    statistic is the likelihood ratio, whose far tail is the truer one: for a rare pool against
    the rest, at a level of 1e-6, it raises 0.9e-6 false alarms where Pearson's raises 4e-6
    (69e-6 with the customary pools of 5).
    """
    counts, probs = np.asarray(counts), np.asarray(probs, dtype=np.float64)
    if counts.sum() != n:
        raise ValueError(f"chisquare_pvalue got {counts.sum()} counts for {n} draws.")
    if counts[probs == 0].any():
        return 0.0
    seen, expected = _pool(counts, n * probs / probs.sum(), least=50)
    if len(seen) < 2:
        raise ValueError(f"chisquare_pvalue got {n} draws: too few for two pools that expect 50.")
    statistic = 2 * xlogy(seen, seen / expected).sum()
    return float(chi2.sf(max(statistic, 0.0), len(seen) - 1))  # rounding can leave -1e-13


def _pool(counts, expected, least):
    """Sum neighbours in order of expectation until each pool expects at least `least`."""
    order = np.argsort(expected, kind="stable")
    starts, total = [0], 0.0
    for position, value in enumerate(expected[order]):
        if total >= least:
            starts.append(position)
            total = 0.0
        total += value
    if total < least and len(starts) > 1:
        starts.pop()
    return np.add.reduceat(counts[order], starts), np.add.reduceat(expected[order], starts)
