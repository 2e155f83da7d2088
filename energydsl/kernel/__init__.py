"""Kernels: Markov transitions, one a file."""

from energydsl.kernel.base import AbstractEnsemble as AbstractEnsemble
from energydsl.kernel.base import AbstractKernel as AbstractKernel
from energydsl.kernel.cycle import Cycle as Cycle
from energydsl.kernel.exact_draws import ExactDraws as ExactDraws
from energydsl.kernel.gibbs import Gibbs as Gibbs
from energydsl.kernel.langevin import Langevin as Langevin
from energydsl.kernel.metropolis import MetropolisHastings as MetropolisHastings
from energydsl.kernel.nuts import NUTS as NUTS
