"""Small Ising and Potts models, asymmetric on purpose, with their energies written in NumPy."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import energydsl as ed

RNG = np.random.default_rng(11)
SPIN, BIT = (-1, 1), (0, 1)
EDGES = np.array([[0, 1], [1, 2], [0, 2], [2, 3], [3, 4]])
"""A triangle with a tail."""


class Case(NamedTuple):
    """A model with its energy as a function of states (n, sites), clamped sites included."""

    name: str
    model: ed.Model
    energy: Callable[[np.ndarray], np.ndarray]
    levels: list[tuple[int, ...]]


def spins() -> Case:
    """Distinct couplings and fields, one coupling of 0, and one clamped site."""
    s, w, h = ed.spin("s", 5), np.array([0.9, 0.2, 0.6, 0.0, 1.3]), RNG.normal(size=5) / 2
    i, j = EDGES.T
    model = ed.Model(-(w * s[i] * s[j]).sum() - (h * s).sum()).condition({s[2]: -1})

    def energy(x):
        return -(x[:, i] * x[:, j]) @ w - x @ h

    return Case("spins", model, energy, [SPIN, SPIN, (-1,), SPIN, SPIN])


def pulled() -> Case:
    """Fields of both signs against couplings: the states that chains reach early are special."""
    s, w, h = ed.spin("s", (1, 4)), np.array([0.9, 0.7, 0.8]), np.array([0.9, -0.3, 0.2, -0.8])
    model = ed.Model(-(w * s[0, 1:] * s[0, :-1]).sum() - (h * s).sum())

    def energy(x):
        return -(x[:, 1:] * x[:, :-1]) @ w - x @ h

    return Case("pulled", model, energy, [SPIN] * 4)


def opposed() -> Case:
    """Two variables of unequal shapes; couplings of both signs, none frustrated; two components."""
    s, b = ed.spin("s", 3), ed.binary("b", 2)
    model = ed.Model(
        -0.8 * s[0] * s[1] + 0.7 * s[1] * s[2] + 0.5 * s[0] * s[2] - 1.4 * s[2] * b[0]
        + 0.9 * b[1] + 0.3 * s[0]
    )  # fmt: skip

    def energy(x):
        a, c, d, e, f = x.T
        return (
            -0.8 * a * c + 0.7 * c * d + 0.5 * a * d - 1.4 * d * e + 0.9 * f + 0.3 * a
        )  # fmt: skip

    return Case("opposed", model, energy, [SPIN] * 3 + [BIT] * 2)


def potts() -> Case:
    """Three labels; distinct couplings and fields, a forbidden label, a clamped site."""
    c, w = ed.categorical("c", (5,), levels=3), np.array([0.8, 1.5, 0.3, 0.0, 1.1])
    fields = RNG.normal(size=(5, 3))
    fields[0, 1] = np.inf
    i, j = EDGES.T
    tables = [ed.Table(f)(c[k]) for k, f in enumerate(fields)]
    model = ed.Model(-(w * (c[i] == c[j])).sum(), *tables).condition({c[3]: 2})

    def energy(x):
        return fields[np.arange(5), x].sum(1) - (x[:, i] == x[:, j]) @ w

    return Case("potts", model, energy, [(0, 1, 2)] * 3 + [(2,), (0, 1, 2)])


def mixture() -> Case:
    """Sites of two, three and four levels in one model, with a table of a pair."""
    s, c = ed.spin("s", 2), ed.categorical("c", (2,), levels=3)
    n, d = ed.integer("n", 2, low=3, high=4), ed.categorical("d", levels=4)
    rows, columns = RNG.normal(size=(2, 3))
    table = rows[:, None] + columns - 1.2 * np.eye(3)
    model = ed.Model(
        -0.6 * s[0] * s[1] - 0.2 * s[0] + ed.Table(table)(c[0], c[1]) - 0.7 * (n[0] - 3) * n[1]
        + ed.Table([0.3, 1.0, -0.4, 0.0])(d)
    )  # fmt: skip

    def energy(x):
        a, b, k, m, p, q, e = x.T
        own = np.array([0.3, 1.0, -0.4, 0.0])[e]
        return -0.6 * a * b - 0.2 * a + table[k, m] - 0.7 * (p - 3) * q + own

    levels = [SPIN] * 2 + [(0, 1, 2)] * 2 + [(3, 4)] * 2 + [(0, 1, 2, 3)]
    return Case("mixture", model, energy, levels)


TWO_LEVELS = [spins(), pulled(), opposed()]
CASES = [*TWO_LEVELS, potts(), mixture()]
