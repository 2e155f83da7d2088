"""The contract of a sweep: one visit to every site it draws, in a representation of its own.

A lowering is a file of this folder: it looks at a structure and answers with a sweep (a pytree
whose index arrays enter compiled code as arguments) or with the reason why it does not apply.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterable
from typing import Any, ClassVar

import equinox as eqx
import numpy as np
from jax import Array

from energydsl._types import Configuration, Refusal
from energydsl.analysis.conditional import AbstractConditional, conditional_for
from energydsl.analysis.structure import Structure
from energydsl.language.model import Model
from energydsl.language.variable import Variable


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """Sites of one variable that do not interact, to be drawn at once."""

    variable: Variable
    sites: np.ndarray


class AbstractSweep(eqx.Module):
    """How sites are visited. Chains move together; see `pack`."""

    lowering: ClassVar[str]
    """The word for it in `explain`."""

    drawn: eqx.AbstractVar[tuple[str, ...]]
    """The variables whose free sites it visits; the state holds every free variable."""

    note: eqx.AbstractVar[str]
    """What was chosen inside the lowering, in a few words."""

    @abc.abstractmethod
    def load(self, structure: Structure, model: Model) -> Any:
        """What the parameters and the evidence contribute: computed once, used by every sweep."""

    @abc.abstractmethod
    def pack(self, x: Configuration) -> Any:
        """A batch of configurations, chains first, in the sweep's own representation."""

    @abc.abstractmethod
    def unpack(self, state: Any) -> Configuration:
        """The way back: a batch of configurations, chains first."""

    @abc.abstractmethod
    def sweep(self, structure: Structure, tables: Any, state: Any, *, key: Array) -> Any:
        """Visit every site of the drawn variables once, in every chain."""


def conditionals(structure: Structure) -> dict[str, AbstractConditional | Refusal]:
    """How the sites of each free variable are drawn, or why Gibbs cannot draw them."""
    return {v.name: _conditional(structure, v) for v in structure.skeleton.free}


def _conditional(structure: Structure, v: Variable) -> AbstractConditional | Refusal:
    degree = structure.degree_in(v)
    law = conditional_for(v.domain, degree)
    if law is not None:
        return law
    if v.domain.real_line:
        return Refusal(
            f"Gibbs cannot draw {v.name!r}: its energy is not shown to be quadratic in single "
            f"sites (degree {degree:g})"
        )
    return Refusal(
        f"Gibbs cannot draw {v.name!r}: a {v.domain.name} site has no conditional of a known family"
    )


def laws_of(structure: Structure, names: Iterable[str]) -> dict[str, AbstractConditional]:
    """The conditionals of variables that have one."""
    known = conditionals(structure)
    return {n: law for n in names if isinstance(law := known[n], AbstractConditional)}


def colour_blocks(structure: Structure) -> list[Block]:
    """The free sites that Gibbs can draw, variable by variable and colour by colour."""
    blocks = []
    drawn = laws_of(structure, [v.name for v in structure.skeleton.free])
    for v in structure.skeleton.free:
        if v.name not in drawn:
            continue
        start = structure.offset[v.name]
        sites = np.flatnonzero(structure.free[start : start + v.size])
        colours = structure.colours[start + sites]
        order = np.argsort(colours, kind="stable")
        ends = np.flatnonzero(np.diff(colours[order])) + 1
        blocks += [Block(v, part) for part in np.split(sites[order], ends)]
    return blocks
