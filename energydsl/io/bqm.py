"""Binary quadratic models of dimod, D-Wave's library."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from energydsl.analysis.structure import Structure
from energydsl.io.tabulate import Tabulated, described, tabulated
from energydsl.language.declare import binary, spin
from energydsl.language.domain.finite import Spin
from energydsl.language.model import Model

NAMES = {"SPIN": ("s", spin), "BINARY": ("x", binary)}
"""The model's variable for each of dimod's kinds of variables."""

ROUNDINGS = 8
"""The number of roundings, of a table's largest energy, below which a coefficient counts as 0."""


def from_bqm(bqm: Any) -> Model:
    r"""The model of a dimod binary quadratic model.

    $$E(s) = c + \sum_i h_i s_i + \sum_{ij} J_{ij} s_i s_j$$

    Its variable is the spin variable ``s`` or the binary variable ``x``, whose sites are the
    variables of the BQM, in the order of ``bqm.linear``.

    Args:
        bqm: a ``dimod.BinaryQuadraticModel``; its attributes ``linear``, ``quadratic``, ``offset``
            and ``vartype`` are read.

    Raises:
        TypeError: it has no such attributes.
        ValueError: it has no variables, or variables of another kind than spins and bits.
    """
    try:
        linear, quadratic = bqm.linear, bqm.quadratic
        kind, offset = bqm.vartype, float(bqm.offset)
    except AttributeError as error:
        raise TypeError(
            f"from_bqm got {type(bqm).__name__} without the attribute {error.name!r}; expected a "
            "dimod.BinaryQuadraticModel."
        ) from None
    kind = getattr(kind, "name", kind)
    if kind not in NAMES:
        raise ValueError(f"from_bqm got variables of the kind {kind}; expected SPIN or BINARY.")
    if not linear:
        raise ValueError("from_bqm got a BQM without variables; expected at least one.")
    name, declare = NAMES[kind]
    sites = declare(name, len(linear))
    number = {label: i for i, label in enumerate(linear)}
    energy = offset + (np.array(list(linear.values()), float) * sites).sum()
    if quadratic:
        ends = np.array([[number[label] for label in pair] for pair in quadratic])
        weights = np.array(list(quadratic.values()), float)
        energy = energy + (weights * sites[ends[:, 0]] * sites[ends[:, 1]]).sum()
    return Model(energy)


def to_bqm(model: Model) -> Any:
    """A dimod binary quadratic model with the energies of a model.

    Its variables are the free sites, labelled by their names, such as ``s[3, 4]``; clamped sites
    have their evidence. They are spins if all free sites are; otherwise they are the indices 0 and
    1 of the sites' two levels. Coefficients that are 0 but for the rounding of the model's energies
    are left out.

    Args:
        model: a model whose free sites have two levels each, and whose factors are at most
            quadratic in them.

    Returns:
        A ``dimod.BinaryQuadraticModel``.

    Raises:
        ImportError: dimod is not installed.
        TypeError: `model` is not a `Model`, or its values are not known inside a JAX
            transformation.
        ValueError: a free site has not two levels, a factor is not quadratic, or an energy is not
            finite.
    """
    try:
        dimod = importlib.import_module("dimod")
    except ModuleNotFoundError:
        raise ImportError(
            "to_bqm needs dimod, which is not installed: pip install dimod."
        ) from None
    structure, tables = tabulated(model, "to_bqm")
    _check_levels(structure)
    spins = all(isinstance(v.domain, Spin) for v in structure.skeleton.free)
    biases = _biases(structure, tables, spins)
    offset = biases.pop((), 0.0)
    names = {int(site): structure.describe(int(site)) for site in np.flatnonzero(structure.free)}
    linear = {name: biases.pop((site,), 0.0) for site, name in names.items()}
    quadratic = {(names[a], names[b]): bias for (a, b), bias in biases.items()}
    kind = "SPIN" if spins else "BINARY"
    return dimod.BinaryQuadraticModel(linear, quadratic, offset, kind)


def _check_levels(structure: Structure) -> None:
    many = structure.free & (structure.levels != 2)
    if many.any():
        site = int(np.argmax(many))
        raise ValueError(
            f"to_bqm got {structure.describe(site)} with {structure.levels[site]} levels; expected "
            "free sites of two levels each, such as spins and bits."
        )


def _biases(
    structure: Structure, tables: Sequence[Tabulated], spins: bool
) -> dict[tuple[int, ...], float]:
    """The coefficient of each product of at most two sites, in the sum of all tables."""
    biases: dict[tuple[int, ...], float] = {}
    for part in tables:
        _check_finite(structure, part)
        terms = _coefficients(part.energies, spins)
        _check_quadratic(structure, part, terms)
        width = part.scopes.shape[1]
        for degree in range(min(width, 2) + 1):
            for places in itertools.combinations(range(width), degree):
                column = terms[(slice(None), *(int(k in places) for k in range(width)))]
                for row in np.flatnonzero(column):
                    sites = tuple(sorted(part.scopes[row, list(places)].tolist()))
                    biases[sites] = biases.get(sites, 0.0) + float(column[row])
    return biases


def _coefficients(energies: np.ndarray, spins: bool) -> np.ndarray:
    """Tables as polynomials: index 1 at an axis stands for a factor of that site."""
    # Tables have JAX's default precision, so their entries cancel only up to its rounding.
    rounding = ROUNDINGS * np.finfo(jnp.zeros(()).dtype).eps
    least, terms = rounding * np.abs(energies).max(initial=0.0), energies
    for axis in range(1, energies.ndim):
        low, high = np.split(terms, 2, axis=axis)
        pair = [(low + high) / 2, (high - low) / 2] if spins else [low, high - low]
        terms = np.concatenate(pair, axis=axis)
    return np.where(np.abs(terms) > least, terms, 0.0)


def _check_finite(structure: Structure, part: Tabulated) -> None:
    wrong = ~np.isfinite(part.energies)
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0])
        raise ValueError(
            f"to_bqm got the energy {part.energies[at]} in a factor of "
            f"{described(structure, part.scopes[at[0]])}; the biases of a BQM are finite. Give "
            "forbidden states a high energy instead."
        )


def _check_quadratic(structure: Structure, part: Tabulated, terms: np.ndarray) -> None:
    degrees = np.indices(terms.shape)[1:].sum(axis=0)
    wrong = (terms != 0) & (degrees > 2)
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0])
        raise ValueError(
            f"to_bqm got a factor of {described(structure, part.scopes[at[0]])} with a term of "
            f"degree {degrees[at]}; a BQM has terms of at most two variables."
        )
