"""Networks of tables: their text in the UAI format, and their law by visiting every state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Tables(NamedTuple):
    """A network: the cardinality of each variable, and functions as pairs of scope and table."""

    cards: Sequence[int]
    functions: Sequence[tuple[Sequence[int], np.ndarray]]


class NetworkLaw(NamedTuple):
    """Log Z, the probabilities of each variable's levels, and the joint probabilities of all."""

    log_z: float
    marginals: list[np.ndarray]
    joint: np.ndarray


def text(network: Tables, header: str = "MARKOV") -> str:
    """The network as a UAI file."""
    head = [header, str(len(network.cards)), " ".join(map(str, network.cards))]
    scopes = [" ".join(map(str, (len(s), *s))) for s, _ in network.functions]
    tables = [
        f"{t.size}\n" + "\n".join(" ".join(map(repr, row)) for row in np.atleast_2d(t).tolist())
        if t.ndim < 3
        else f"{t.size}\n{' '.join(map(repr, t.ravel().tolist()))}"
        for _, t in network.functions
    ]
    return "\n".join([*head, str(len(scopes)), *scopes, "", *tables]) + "\n"


def states(cards: Sequence[int]) -> np.ndarray:
    """All configurations, one a row."""
    return np.indices(cards).reshape(len(cards), -1).T


def potential(network: Tables) -> np.ndarray:
    """The product of all tables at every configuration."""
    rows, product = states(network.cards), 1.0
    for scope, table in network.functions:
        product = product * table[tuple(rows[:, i] for i in scope)]
    return np.broadcast_to(product, len(rows))


def law(network: Tables, given: Mapping[int, int] | None = None) -> NetworkLaw:
    """The law given some levels, by enumeration."""
    rows, weights = states(network.cards), potential(network).copy()
    for i, level in (given or {}).items():
        weights[rows[:, i] != level] = 0.0
    joint = weights / weights.sum()
    marginals = [np.bincount(rows[:, i], joint, card) for i, card in enumerate(network.cards)]
    return NetworkLaw(float(np.log(weights.sum())), marginals, joint)


def parsed(written: str) -> Tables:
    """The network of a UAI file, read word by word."""
    words = iter(written.split())
    assert next(words) == "MARKOV"
    cards = [int(next(words)) for _ in range(int(next(words)))]
    scopes = [[int(next(words)) for _ in range(int(next(words)))] for _ in range(int(next(words)))]
    tables = []
    for scope in scopes:
        numbers = [float(next(words)) for _ in range(int(next(words)))]
        tables.append(np.array(numbers).reshape([cards[i] for i in scope]))
    assert not list(words)
    return Tables(cards, list(zip(scopes, tables, strict=True)))
