"""log Z = 0: normalised densities, each of sites of its own given sites that come before."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl.analysis import graph
from energydsl.analysis.factor import Factor
from energydsl.analysis.joint_states import owners
from energydsl.analysis.structure import Structure, repeats
from energydsl.language.model import Model
from energydsl.normalizer.base import AbstractRule

MAX_ARROWS = 5_000_000
"""Pairs of a site and one that it is given, of a batch: beyond it nothing is claimed."""


class Expert(AbstractRule):
    r"""$\log Z_c = \log \int \prod_k q_k(x_k \mid x_{<k})\,dx_c = 0$: a directed model.

    Each density is used with weight one, and its support is its variable's domain
    (`AbstractPotential.normalised`); each site is drawn by exactly one, none that is clamped given
    one that is free, and no site comes, by way of others, before itself.

    Source: Koller & Friedman (2009), Probabilistic Graphical Models, 3.2.
    """

    name: ClassVar[str] = "normalised"

    def costs(self, structure: Structure, budget: int) -> np.ndarray:
        return np.where(_fits(structure), 1.0, np.inf)

    def reason(self, structure: Structure, component: int, budget: int) -> str:
        return "it is not normalised densities alone, each given those before"

    def bytes(self, structure: Structure, components: np.ndarray) -> float:
        return 0.0

    def log_partition(self, structure: Structure, model: Model, components: np.ndarray) -> Array:
        return jnp.zeros(())


class _Drawn(NamedTuple):
    """For each factor of a batch of densities, the sites that it draws and those it is given."""

    sites: np.ndarray
    given: np.ndarray


def _fits(structure: Structure) -> np.ndarray:
    """For each component, whether it is a directed model of normalised densities."""
    everything = np.arange(len(structure.component_sizes))
    fits = np.ones(len(everything), bool)
    times, arrows = np.zeros(structure.sites, int), [np.zeros((0, 2), np.int32)]
    for factor in structure.factors:
        owner = owners(structure, factor, everything)
        drawn = _drawn(structure, factor)
        if drawn is None:
            fits[owner[owner >= 0]] = False
            continue
        fits[owner[~structure.free[drawn.sites].all(axis=1) & (owner >= 0)]] = False
        np.add.at(times, drawn.sites, 1)
        arrows.append(_arrows(drawn))
    free = structure.free
    fits[structure.component_of[free & (times != 1)]] = False
    listed = np.concatenate(arrows)
    listed = listed[free[listed].all(axis=1)]
    fits[structure.component_of[graph.on_cycles(structure.sites, listed)]] = False
    return fits


def _drawn(structure: Structure, factor: Factor) -> _Drawn | None:
    """What a batch of densities draws; None of factors that are no such thing."""
    normalised = getattr(structure.function(factor), "normalised", None)
    if normalised is None:
        return None
    leaf, *others = factor.sites.values()
    own = structure.numbers(leaf)
    if repeats(own) or not normalised(leaf.variable.domain, leaf.index.shape[1:]):
        return None
    given = np.concatenate([own[:, :0], *(structure.numbers(other) for other in others)], axis=1)
    return _Drawn(own, given) if own.size * given.shape[1] <= MAX_ARROWS else None


def _arrows(drawn: _Drawn) -> np.ndarray:
    """Pairs of a site and one that is drawn given it."""
    shape = (len(drawn.sites), drawn.given.shape[1], drawn.sites.shape[1])
    tails = np.broadcast_to(drawn.given[:, :, None], shape)
    heads = np.broadcast_to(drawn.sites[:, None, :], shape)
    return np.stack([tails.ravel(), heads.ravel()], axis=1)
