r"""A lower bound of the energies of finite models, by dual decomposition.

Any messages $\delta_{fi}(x_i)$ from the factors f to their sites i leave the energy as it is, and
bound it:
$$\min_x E(x) \ge \sum_i \min_{x_i} \Bigl[\theta_i + \sum_f \delta_{fi}\Bigr]
+ \sum_f \min_{x_f} \Bigl[\theta_f - \sum_i \delta_{fi}\Bigr].$$
A step takes the sites of one colour, which share no factor. The energies of each site's levels,
minimised over the rest of each of its factors, are added up and divided evenly. This is the best
that the messages of one site can do, so that the bound never falls.

Source: Globerson & Jaakkola (2007), NeurIPS 20, section 4; Sontag, Globerson & Jaakkola (2011), in
Optimization for Machine Learning, MIT Press, equations (1.5) and (1.17).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from energydsl.estimator.finite import Finite, merged

SWEEPS = 200
"""The most steps for each colour."""

WORK = 4e8
"""The most cells that are read; models with large tables take fewer sweeps."""

GAIN = 1e-7
"""The least gain of a sweep, relative to the bound's distance from the energy that is known."""


class Dual(NamedTuple):
    """A lower bound, and the levels that it suggests."""

    bound: float
    """Infinity if it is shown that every state is forbidden."""
    states: np.ndarray
    """For each site, the level of lowest energy with its messages."""


class _Side(NamedTuple):
    """The factors of a group that have a site of one colour at one place."""

    group: int
    place: int
    rows: np.ndarray
    sites: np.ndarray


def dual(model: Finite, known: float) -> Dual:
    """The bound after some sweeps.

    Args:
        model: the tables of the model.
        known: the energy of some configuration: no bound is above it.
    """
    model = merged(model)
    own, margin = _own(model), model.margin
    groups = [g for g in model.groups if g.scopes.shape[1] > 1]
    messages = [[np.zeros((len(g.cells), n)) for n in g.cells.shape[1:]] for g in groups]
    energies = [-g.cells for g in groups]
    sides = [_sides(model, groups, colour) for colour in np.unique(model.colours)]
    cells = 2 * sum(g.cells.size * g.scopes.shape[1] for g in groups)
    total, bound = own.copy(), -np.inf
    for _ in range(int(np.clip(WORK / max(cells, 1), 5, SWEEPS))):
        for side in sides:
            _step(own, total, energies, messages, side)
        before, bound = bound, _bound(total, energies, messages)
        if np.isposinf(bound) or bound - before <= max(GAIN * (known - bound), margin):
            break
    return Dual(bound, total.argmin(axis=1))


def _own(model: Finite) -> np.ndarray:
    """The energies of single sites, (site, level); infinite at levels that a site lacks."""
    own = np.where(np.arange(model.levels.max()) < model.levels[:, None], 0.0, np.inf)
    for scopes, cells in model.groups:
        if scopes.shape[1] == 1:
            np.add.at(own[:, : cells.shape[1]], scopes[:, 0], -cells)
    return own


def _sides(model: Finite, groups: list, colour: int) -> list[_Side]:
    found = []
    for number, (scopes, _) in enumerate(groups):
        for place, sites in enumerate(scopes.T):
            rows = np.flatnonzero(model.colours[sites] == colour)
            if len(rows):
                found.append(_Side(number, place, rows, sites[rows]))
    return found


def _step(
    own: np.ndarray, total: np.ndarray, energies: list, messages: list, sides: list[_Side]
) -> None:
    """New messages to the sites of one colour, and the energies of their levels with them."""
    shares, count, summed = [], np.ones(len(own)), own.copy()
    for side in sides:
        least = _least(energies[side.group][side.rows], messages[side.group], side)
        shares.append(least)
        np.add.at(summed[:, : least.shape[1]], side.sites, least)
        np.add.at(count, side.sites, 1.0)
    even = summed / count[:, None]
    for side, least in zip(sides, shares, strict=True):
        with np.errstate(invalid="ignore"):
            message = least - even[side.sites, : least.shape[1]]
        # A level that some factor forbids stays forbidden in all of them.
        lost = np.isinf(even[side.sites, : least.shape[1]])
        messages[side.group][side.place][side.rows] = np.where(lost, -np.inf, message)
        total[side.sites] = even[side.sites]


def _least(energies: np.ndarray, messages: list[np.ndarray], side: _Side) -> np.ndarray:
    """The lowest energy of each factor for each level at one place, without that place's message.

    A message of minus infinity makes the energy infinite.
    """
    for place, message in enumerate(messages):
        if place != side.place:
            energies = energies - _along(message[side.rows], place, energies.ndim)
    others = tuple(1 + p for p in range(energies.ndim - 1) if p != side.place)
    return energies.min(axis=others)


def _along(message: np.ndarray, place: int, ndim: int) -> np.ndarray:
    shape = [len(message)] + [1] * (ndim - 1)
    shape[1 + place] = message.shape[1]
    return message.reshape(shape)


def _bound(total: np.ndarray, energies: list, messages: list) -> float:
    """The sum of the lowest energies of all sites and factors."""
    bound = total.min(axis=1).sum()
    for cells, own in zip(energies, messages, strict=True):
        for place, message in enumerate(own):
            cells = cells - _along(message, place, cells.ndim)
        bound += cells.reshape(len(cells), -1).min(axis=1).sum()
    return float(bound)
