"""Kernels: Markov transitions, one per file."""

from energydsl.compiler.recommendation import SAMPLERS
from energydsl.kernel.base import AbstractEnsemble as AbstractEnsemble
from energydsl.kernel.base import AbstractKernel as AbstractKernel
from energydsl.kernel.cycle import Cycle as Cycle
from energydsl.kernel.exact_draws import ExactDraws as ExactDraws
from energydsl.kernel.gibbs import Gibbs as Gibbs
from energydsl.kernel.langevin import Langevin as Langevin
from energydsl.kernel.metropolis import MetropolisHastings as MetropolisHastings
from energydsl.kernel.nuts import NUTS as NUTS

# If no kernel is given, `sample` uses the first that applies.
SAMPLERS[:] = (
    NUTS(),
    Gibbs(),
    NUTS(summed=True),
    Cycle(Gibbs(), NUTS()),
    ExactDraws(),
    Langevin(),
    Cycle(Gibbs(), Langevin()),
    MetropolisHastings(),
)
