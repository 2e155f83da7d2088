"""Small finite models as tables, and their energies by visiting every state."""

import itertools

import numpy as np

from energydsl.estimator.finite import Finite, Group


def finite(levels, factors, colours=None):
    """A model of factors, each a scope and a table of energies."""
    levels = np.asarray(levels)
    groups = tuple(
        Group(np.array([scope]), -np.asarray(table, float)[None]) for scope, table in factors
    )
    colours = np.arange(len(levels)) if colours is None else np.asarray(colours)
    return Finite(levels, colours, groups, 0.0)


def every_energy(levels, factors):
    """All states, and their energies."""
    states = np.array(list(itertools.product(*(range(n) for n in levels))))
    energy = np.zeros(len(states))
    for scope, table in factors:
        energy = energy + np.asarray(table, float)[tuple(states[:, s] for s in scope)]
    return states, energy


def submodular(rng, rows, columns):
    """A submodular table: fields less the volume below and to the left in a positive measure."""
    weight = rng.exponential(size=(rows, columns))
    weight[0], weight[:, 0] = 0, 0
    fields = rng.normal(size=(rows, 1)) + rng.normal(size=columns)
    return fields - weight.cumsum(axis=0).cumsum(axis=1)
