"""The start that a user names or gives."""

from __future__ import annotations

import numpyro.distributions as dist

from energydsl._messages import brief
from energydsl.compiler.ebm import EBM
from energydsl.learning.start.base import AbstractStart
from energydsl.learning.start.drawn import drawn_from
from energydsl.learning.start.examples import AtExamples
from energydsl.learning.start.noise import AtNoise
from energydsl.learning.start.persistent import Persistent

NAMED = {"data": AtExamples, "persistent": Persistent, "noise": AtNoise}
"""The starts without settings."""


def start_of(
    given: AbstractStart | str | dist.Distribution | dict[str, dist.Distribution] | EBM,
) -> AbstractStart:
    """The start that is given itself, by its name, or by the distributions of its draws.

    Raises:
        TypeError, ValueError: it is none of these.
    """
    if isinstance(given, AbstractStart):
        return given
    if isinstance(given, str) and given in NAMED:
        return NAMED[given]()
    drawn = drawn_from(given)
    if drawn is not None:
        return drawn
    kind = ValueError if isinstance(given, str) else TypeError
    raise kind(
        f"ContrastiveDivergence got start={brief(given)}; expected 'data', 'persistent', 'noise', "
        "ed.Buffer(...), ed.Noisy(...), a NumPyro distribution, or a compiled EBM."
    )
