"""Which samplers apply to a model, the recommended one first, and why."""

from __future__ import annotations

import numpy as np

from energydsl.analysis.structure import Structure
from energydsl.sweep import AbstractSweep


def samplers(structure: Structure, sweep: AbstractSweep | None) -> dict[str, str]:
    """Kernels that move every free site, by name, each with the reason for or against it."""
    drawn = structure.of_variables(sweep.drawn if sweep is not None else ())
    smooth = structure.of_variables(
        v.name for v in structure.variables if v.domain.transform is not None
    )
    free = structure.free
    found: dict[str, str] = {}
    if not (free & ~smooth).any():
        found["NUTS"] = "every free site is continuous"
    if not (free & ~drawn).any():
        found["Gibbs"] = "every free site has a conditional that is drawn exactly"
    if not found and not (free & ~(smooth | drawn)).any():
        found["Cycle(Gibbs, NUTS)"] = "Gibbs draws the finite sites, NUTS moves the rest"
    if not (free & ~smooth).any():
        found["Langevin"] = "every free site is continuous, and a step is one gradient"
    elif np.any(free & smooth):
        found["Cycle(Gibbs, Langevin)"] = "Gibbs draws the finite sites, Langevin moves the rest"
    found["MetropolisHastings"] = "any site, but one proposal a variable and step: slow"
    return found
