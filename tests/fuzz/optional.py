"""Names that the package may not have yet, each asked for here and nowhere else.

The fuzzer was written beside the package, so that a name which was still to come is used from the
day on which it stands; a seed that draws nothing of it means the same model before and after.
"""

from __future__ import annotations

import energydsl as ed

PARAMETER = getattr(ed, "parameter", None)
"""Declares what learns. Without it, every array in an expression learns."""

MARGINALS = getattr(ed, "marginals", None)
MODE = getattr(ed, "map_configuration", None)
EXACT_DRAWS = getattr(ed, "ExactDraws", None)


def has(domain: str) -> bool:
    """Whether variables of a domain can be declared."""
    return hasattr(ed, domain)


def learnt(name: str, array):
    """An array that learning moves."""
    return array if PARAMETER is None else PARAMETER(name, array)


def marginal_probabilities(ebm, name: str):
    """The exact marginals of a finite variable, its levels on the last axis, as an array."""
    return MARGINALS(ebm)[name].probabilities


def mode(ebm):
    """A configuration of highest probability, and whether it is proven to be one."""
    found = MODE(ebm)
    return getattr(found, "configuration", found), getattr(found, "proven", True)
