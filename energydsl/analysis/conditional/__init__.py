"""Conditional distributions of single sites given all others, each in its own file.

`CONDITIONALS` lists them in the order in which they are tried.
"""

from __future__ import annotations

from energydsl._types import Refusal
from energydsl.analysis.conditional.base import AbstractConditional as AbstractConditional
from energydsl.analysis.conditional.base import derivatives as derivatives
from energydsl.analysis.conditional.beta import BetaConditional
from energydsl.analysis.conditional.curve import CurveConditional
from energydsl.analysis.conditional.exponential import ExponentialConditional
from energydsl.analysis.conditional.gamma import GammaConditional
from energydsl.analysis.conditional.gaussian import GaussianConditional as GaussianConditional
from energydsl.analysis.conditional.levels import AbstractLevels as AbstractLevels
from energydsl.analysis.conditional.levels import LevelConditional
from energydsl.analysis.conditional.levels import log_sum as log_sum
from energydsl.analysis.conditional.poisson import PoissonConditional
from energydsl.analysis.conditional.slope import SlopeConditional
from energydsl.analysis.conditional.truncated_exponential import TruncatedExponentialConditional
from energydsl.analysis.conditional.truncated_normal import TruncatedNormalConditional
from energydsl.analysis.structure import Structure
from energydsl.language.variable import Variable

CONDITIONALS: tuple[type[AbstractConditional], ...] = (
    SlopeConditional,
    GaussianConditional,
    ExponentialConditional,
    CurveConditional,
    TruncatedExponentialConditional,
    TruncatedNormalConditional,
    GammaConditional,
    BetaConditional,
    PoissonConditional,
    LevelConditional,
)
"""The kinds that are tried for the sites of a variable; the first that is exact is used."""


def conditional_for(structure: Structure, variable: Variable) -> AbstractConditional | Refusal:
    """The cheapest exact conditional of the sites of a variable, or why none is known."""
    serving = [kind for kind in CONDITIONALS if kind.serves(variable.domain)]
    reasons = []
    for kind in serving:
        reason = kind.refusal(structure, variable)
        if reason is None:
            return kind(variable.domain)
        reasons.append(reason)
    if not serving:
        return Refusal(f"a {variable.domain.name} site has no conditional of a known family")
    return Refusal("; ".join(reasons))


def conditionals(structure: Structure) -> dict[str, AbstractConditional | Refusal]:
    """For each free variable, the conditional of its sites, or why none is known."""
    return {v.name: conditional_for(structure, v) for v in structure.skeleton.free}
