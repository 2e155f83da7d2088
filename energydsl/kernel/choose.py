"""The kernels that are taken where none is given."""

from __future__ import annotations

from energydsl.compiler.ebm import EBM
from energydsl.compiler.recommendation import samplers
from energydsl.kernel.base import AbstractKernel
from energydsl.kernel.cycle import Cycle
from energydsl.kernel.gibbs import Gibbs
from energydsl.kernel.langevin import Langevin
from energydsl.kernel.metropolis import MetropolisHastings
from energydsl.kernel.nuts import NUTS

KERNELS = {
    "Gibbs": Gibbs(),
    "NUTS": NUTS(),
    "Langevin": Langevin(),
    "Cycle(Gibbs, NUTS)": Cycle(Gibbs(), NUTS()),
    "Cycle(Gibbs, Langevin)": Cycle(Gibbs(), Langevin()),
    "MetropolisHastings": MetropolisHastings(),
}


def choose(ebm: EBM) -> tuple[AbstractKernel, str]:
    """For draws: the first kernel that `EBM.explain` recommends, and why it does."""
    name, reason = next(iter(samplers(ebm.structure, ebm.sweep).items()))
    return KERNELS[name], reason


def cheapest(ebm: EBM) -> AbstractKernel:
    """For annealing and learning: cheap steps that move every free site, a sweep or a gradient."""
    for kernel in (Gibbs(), Langevin(), Cycle(Gibbs(), Langevin())):
        if kernel.moves(ebm)[ebm.structure.free].all():
            return kernel
    return MetropolisHastings()
