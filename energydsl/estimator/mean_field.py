"""The mean field lower bound, and its marginals."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax.random as jr
import numpy as np
from jax import Array
from scipy.special import logsumexp, xlogy

from energydsl._messages import described
from energydsl.compiler.answers import Marginals
from energydsl.compiler.ebm import EBM
from energydsl.estimator.base import AbstractEstimator, check_settings
from energydsl.estimator.finite import Finite, Group, site_marginals, tabulated
from energydsl.normalizer.log_z import LogZ

PRICE = 12.0
"""The energy of forbidden states in the first stage, where a start may still have them."""

CONVERGED = 1e-9
"""The gain of a sweep, in nats, below which no more sweeps follow."""


@described
class MeanField(AbstractEstimator):
    r"""The mean field lower bound on log Z, for finite sites.

    For every distribution $q(x) = \prod_i q_i(x_i)$ of independent sites
    $$\log Z \ge -\mathbb{E}_q E + H(q).$$
    The right side is increased by coordinate ascent: in turn the sites of each colour of the
    interaction graph get $q_i(l) \propto \exp(-\mathbb{E}_q[E \mid x_i = l])$. It is computed in
    float64 from the tables of all factors and is a bound at every iterate, so that an early stop
    makes it worse and never wrong. The best of several random starts is returned. Where tables
    forbid states, a start is first improved with a finite energy in their place, then rounded to
    one state; only starts whose state is allowed count.

    Args:
        restarts: the number of starts: an even one and random ones.
        sweeps: the most sweeps for each start.

    Raises:
        TypeError: a free site is not finite.
        ValueError: a count below one, tables that are too large, or no start that avoids every
            forbidden state.

    Source: Wainwright & Jordan (2008), Foundations and Trends in Machine Learning 1, 1-305,
    section 5.
    """

    restarts: int = 8
    sweeps: int = 200

    def __check_init__(self) -> None:
        check_settings(self, restarts=1, sweeps=1)

    def estimate(self, ebm: EBM, *, key: Array) -> LogZ:
        model = tabulated(ebm, "MeanField")
        best, _ = self._best(model, key)
        if np.isfinite(best):
            return LogZ.proven(best - model.margin, np.inf, "mean field")
        return LogZ.proven(-np.inf, np.inf, "mean field", (self._forbidden,))

    def marginals(self, ebm: EBM) -> Marginals:
        """The best distribution of independent sites; the random starts are always the same."""
        best, laws = self._best(tabulated(ebm, "MeanField"), jr.key(0))
        if not np.isfinite(best):
            raise ValueError(f"MeanField found no marginals: {self._forbidden}.")
        return site_marginals(ebm, laws, "mean field", ())

    def doubled(self) -> MeanField:
        return dataclasses.replace(self, restarts=2 * self.restarts)

    def _best(self, model: Finite, key: Array) -> tuple[float, np.ndarray]:
        """The best bound, and its distributions, (site, level)."""
        rng = np.random.default_rng(np.asarray(jr.key_data(key)))
        q = _starts(model, self.restarts, rng)
        bounds = _ascended(model, q, self.sweeps)
        return float(bounds.max()), q[np.argmax(bounds)]

    @property
    def _forbidden(self) -> str:
        return f"each of {self.restarts} starts ends in a state that is forbidden"


class _Share(NamedTuple):
    """The factors of a group that contain, at one place, a site of one colour."""

    group: int
    place: int
    rows: np.ndarray


def _starts(model: Finite, count: int, rng: np.random.Generator) -> np.ndarray:
    """Distributions of each site, (start, site, level); levels that a site lacks have 0."""
    known = np.arange(model.levels.max()) < model.levels[:, None]
    weights = rng.gamma(1.0, size=(count, *known.shape)) + 1e-3
    weights[0] = 1.0
    weights *= known
    return weights / weights.sum(axis=2, keepdims=True)


def _ascended(model: Finite, q: np.ndarray, sweeps: int) -> np.ndarray:
    """The bound of each start after coordinate ascent."""
    shares = _shares(model)
    if model.forbids:
        price = PRICE + np.log(sum(len(g.cells) for g in model.groups))
        soft = tuple(
            Group(g.scopes, np.where(np.isneginf(g.cells), -price, g.cells)) for g in model.groups
        )
        _swept(model._replace(groups=soft), shares, q, sweeps)
        # Independent sites cannot avoid forbidden states together; single states can.
        q[:] = np.arange(q.shape[2]) == q.argmax(axis=2)[..., None]
    return _swept(model, shares, q, sweeps)


def _swept(model: Finite, shares: list[list[_Share]], q: np.ndarray, sweeps: int) -> np.ndarray:
    """The bound of each start, whose distributions are improved in place."""
    bound = _bound(model, q)
    for _ in range(sweeps):
        for own in shares:
            _update(model, own, q)
        before, bound = bound, _bound(model, q)
        if not (bound > before + CONVERGED).any():
            break
    return bound


def _shares(model: Finite) -> list[list[_Share]]:
    """For each colour, the factors of its sites."""
    found: list[list[_Share]] = [[] for _ in range(model.colours.max() + 1)]
    for number, group in enumerate(model.groups):
        for place in range(group.scopes.shape[1]):
            colour = model.colours[group.scopes[:, place]]
            for c in np.unique(colour):
                found[c].append(_Share(number, place, np.flatnonzero(colour == c)))
    return [own for own in found if own]


def _update(model: Finite, shares: list[_Share], q: np.ndarray) -> None:
    """The best distributions of the sites of one colour, the others given."""
    field, forbidden = np.zeros(q.shape), np.zeros(q.shape)
    touched = np.zeros(q.shape[1], bool)
    for group, place, rows in shares:
        scopes, cells = model.groups[group].scopes[rows], model.groups[group].cells[rows]
        cells = np.moveaxis(cells, place + 1, 1)
        others = np.delete(scopes, place, axis=1)
        at: Any = (slice(None), scopes[:, place], slice(cells.shape[1]))
        barred = np.isneginf(cells)
        np.add.at(field, at, _mean(np.where(barred, 0.0, cells), q, others))
        if barred.any():
            np.add.at(forbidden, at, _mean(barred.astype(float), (q > 0).astype(float), others))
        touched[scopes[:, place]] = True
    known = np.arange(q.shape[2]) < model.levels[:, None]
    field = np.where((forbidden > 0) | ~known, -np.inf, field)
    total = np.asarray(logsumexp(field, axis=2, keepdims=True))
    better = touched[:, None] & np.isfinite(total)
    new = np.exp(field - np.where(np.isfinite(total), total, 0.0))
    q[:] = np.where(better, new, q)


def _bound(model: Finite, q: np.ndarray) -> np.ndarray:
    """Minus the mean energy, plus the entropy, of each start."""
    total = model.constant - xlogy(q, q).sum(axis=(1, 2))
    for scopes, cells in model.groups:
        barred = np.isneginf(cells)
        total += _mean(np.where(barred, 0.0, cells)[:, None], q, scopes)[..., 0].sum(axis=1)
        if barred.any():
            hit = _mean(barred[:, None].astype(float), (q > 0).astype(float), scopes)
            total = np.where(hit.sum(axis=(1, 2)) > 0, -np.inf, total)
    return total


def _mean(cells: np.ndarray, q: np.ndarray, scopes: np.ndarray) -> np.ndarray:
    """The mean of tables over all but their first level, (start, factor, level).

    The tables are (factor, level, *levels); the sites of `levels` are those of `scopes`, in order.
    """
    mean = np.broadcast_to(cells, (len(q), *cells.shape))
    for place in reversed(range(scopes.shape[1])):
        weights = q[:, scopes[:, place], : mean.shape[-1]]
        mean = np.einsum("rf...l,rfl->rf...", mean, weights)
    return mean
