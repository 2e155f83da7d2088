"""A UAI file as a model."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike

import numpy as np

from energydsl.io.tabulate import Site
from energydsl.io.uai.evidence import Evidence, observed
from energydsl.io.uai.network import Network, cardinalities_of, parse, ranks_of
from energydsl.io.uai.words import Words
from energydsl.language.declare import categorical
from energydsl.language.expression import Expression, as_expression
from energydsl.language.model import Model
from energydsl.language.potential import Table


def read_uai(path: str | PathLike[str], evidence: Evidence | None = None) -> Model:
    r"""The model of a file in the UAI format, a Markov or a Bayesian network.

    $$E(x) = -\sum_f \log \phi_f(x_{S_f}),$$

    where $\phi_f$ is the table of function f and $S_f$ its scope. A potential of 0 is an infinite
    energy. Log Z of a Markov network is that of its tables; of a Bayesian network it is
    $\log P(e)$, and 0 without evidence, as far as the file's tables are rounded.

    The variables of one cardinality c are the sites of one categorical variable named ``x`` and c,
    in the order of their numbers: of variables with 2, 3, 2 and 3 levels, those are ``x2[0]``,
    ``x3[0]``, ``x2[1]`` and ``x3[1]``. `uai_sites` returns that list. A level is an index from 0,
    as in the file. Tables of one shape are one batch of factors.

    Energies have JAX's default precision. For tables in float64, enable it first:
    ``jax.config.update("jax_enable_x64", True)``.

    Args:
        path: the file.
        evidence: a UAI evidence file of one sample (the number of observed variables, then the
            number and the level of each; in the older form a line with the number 1 comes first),
            or a mapping from a variable's number to its level. Observed sites are clamped.

    Raises:
        OSError: a file cannot be read.
        TypeError: a number in the mapping is not a whole one.
        ValueError: a file is malformed, with the line, what was found there and what was expected;
            or the evidence does not fit the variables.

    Source: UAI 2014 Inference Competition, "File formats".
    """
    network = parse(Words(path))
    return model_of(network, observed(evidence, network.cardinalities.tolist()))


def uai_sites(path: str | PathLike[str]) -> list[Site]:
    """The site of `read_uai`'s model for each variable of a UAI file, by the variable's number.

    With ``name, index = uai_sites(path)[i]``, the marginal of variable i is
    ``energydsl.marginals(ebm)[name].probabilities[index]``, and its level in a configuration x is
    ``x[name][index]``.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file does not begin as a UAI file.
    """
    return sites_of(np.array(cardinalities_of(Words(path))))


def sites_of(cardinalities: np.ndarray) -> list[Site]:
    """The site of each variable, from their cardinalities."""
    pairs = zip(cardinalities.tolist(), ranks_of(cardinalities).tolist(), strict=True)
    return [(_name(levels), (rank,)) for levels, rank in pairs]


def model_of(network: Network, given: dict[int, int]) -> Model:
    """The model of a network, with the observed variables clamped."""
    classes, counts = np.unique(network.cardinalities, return_counts=True)
    views = {
        levels: categorical(_name(levels), (count,), levels=levels)
        for levels, count in zip(classes.tolist(), counts.tolist(), strict=True)
    }
    model = Model(*_energies(network, views))
    if not given:
        return model
    numbers, levels = np.array(list(given)), np.array(list(given.values()))
    own, ranks = network.cardinalities[numbers], ranks_of(network.cardinalities)[numbers]
    return model.condition(
        {views[c][ranks[own == c]]: levels[own == c] for c in np.unique(own).tolist()}
    )


def _energies(network: Network, views: Mapping[int, Expression]) -> list[Expression]:
    """The energy of each group of functions, and of variables in no function."""
    ranks, energies, seen = ranks_of(network.cardinalities), [], set()
    for scopes, tables in network.groups():
        with np.errstate(divide="ignore"):
            table = 0.0 - np.log(tables)
        shape = table.shape[1:]
        seen.update(shape)
        if not shape:
            energies.append(_constant(float(table.sum()), views))
            continue
        arguments = [views[c][ranks[scopes[:, k]]] for k, c in enumerate(shape)]
        energies.append(Table(table).factor(*arguments).sum())
    # A table of zeros makes the variables of a class that no function has part of the model.
    unseen = [Table(np.zeros(c))(x).sum() for c, x in views.items() if c not in seen]
    return energies + unseen


def _constant(energy: float, views: Mapping[int, Expression]) -> Expression:
    """A constant; an infinite one is a table of some site, as numbers in energies are finite."""
    if np.isfinite(energy):
        return as_expression(energy)
    levels, view = next(iter(views.items()))
    return Table(np.full(levels, energy)).factor(view[0])


def _name(levels: int) -> str:
    return f"x{levels}"
