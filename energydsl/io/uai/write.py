"""A discrete model as a UAI file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

import numpy as np

from energydsl.analysis.structure import Structure
from energydsl.io.tabulate import Site, Tabulated, described, free_sites, tabulated
from energydsl.language.model import Model
from energydsl.run.files import write_whole

FARTHEST = 700.0
"""The largest absolute energy of an entry; float64 holds exp(-E) up to here."""

MAX_COPIES = 100
"""The most functions whose product is one table."""


def write_uai(model: Model, path: str | PathLike[str]) -> list[Site]:
    r"""Write a discrete model as a Markov network in the UAI format.

    Each factor becomes a function with the table $\phi = e^{-E}$ over its free sites; an infinite
    energy is a potential of 0. The functions' product is $e^{-E(x)}$, so that the file has the
    energies and the log Z of the model: factors without a free site are written as a constant. A
    table with energies beyond $\pm 700$, whose potentials float64 does not hold, is written as
    several equal functions with the product $\phi$.

    The file's variables are the model's free sites, and their levels count from 0 in the order of
    the domain's values: for spins, 0 is -1 and 1 is +1. Clamped sites have their evidence.

    Args:
        model: a model whose free sites are all finite, and whose factors have few free sites each.
        path: the file, usually with the ending ``.uai``. It is written atomically.

    Returns:
        For each variable of the file, by its number, the name of the model's variable and the index
        of the site there.

    Raises:
        OSError: the file cannot be written.
        TypeError: `model` is not a `Model`, or its values are not known inside a JAX
            transformation.
        ValueError: a free site has no finite list of levels, no site is free, tables would have
            too many entries, or an energy is NaN, -inf or too large.
    """
    structure, tables = tabulated(model, "write_uai")
    for part in tables:
        _check_energies(structure, part)
    write_whole(Path(path), _text(structure, tables).encode())
    return free_sites(structure)


def _check_energies(structure: Structure, part: Tabulated) -> None:
    """Refuse energies that no potential represents."""
    wrong = ~(part.energies > -np.inf)
    largest = MAX_COPIES * FARTHEST
    wrong |= np.isfinite(part.energies) & (np.abs(part.energies) > largest)
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0])
        raise ValueError(
            f"write_uai got the energy {part.energies[at]:.6g} in a factor of "
            f"{described(structure, part.scopes[at[0]])}; expected a number within "
            f"+-{largest:g}, or inf for a state that is forbidden."
        )


def _text(structure: Structure, tables: list[Tabulated]) -> str:
    number = np.cumsum(structure.free) - 1
    scopes, contents = [], []
    for scope, energies in _functions(tables):
        scopes.append(" ".join(map(str, (len(scope), *number[scope].tolist()))))
        potentials = np.exp(-energies).ravel().tolist()
        contents.append(f"{len(potentials)}\n {' '.join(map(repr, potentials))}\n")
    levels = structure.levels[structure.free].tolist()
    head = ["MARKOV", str(len(levels)), " ".join(map(str, levels)), str(len(scopes)), *scopes]
    return "\n".join([*head, "", *contents])


def _functions(tables: list[Tabulated]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The scope and the energies of each function that is written."""
    constant = 0.0
    for scopes, energies in tables:
        if not scopes.shape[1]:
            constant += energies.sum()
            continue
        for scope, energy in zip(scopes, energies, strict=True):
            yield from _copies(scope, energy)
    if constant:
        yield from _copies(np.zeros(0, int), np.asarray(constant))


def _copies(scope: np.ndarray, energy: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Equal functions whose energies add up to `energy`, each within what float64 holds."""
    largest = np.abs(energy[np.isfinite(energy)]).max(initial=0.0)
    count = max(math.ceil(largest / FARTHEST), 1)
    yield from [(scope, energy / count)] * count
