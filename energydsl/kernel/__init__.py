"""Kernels: Markov transitions, one per file."""

from energydsl.compiler.recommendation import SAMPLERS
from energydsl.kernel.base import AbstractEnsemble as AbstractEnsemble
from energydsl.kernel.base import AbstractKernel as AbstractKernel
from energydsl.kernel.coupling_from_the_past import CouplingFromThePast as CouplingFromThePast
from energydsl.kernel.cycle import Cycle as Cycle
from energydsl.kernel.discrete_langevin import DiscreteLangevin as DiscreteLangevin
from energydsl.kernel.exact_draws import ExactDraws as ExactDraws
from energydsl.kernel.gibbs import Gibbs as Gibbs
from energydsl.kernel.gibbs_with_gradients import GibbsWithGradients as GibbsWithGradients
from energydsl.kernel.hessian_langevin import HessianLangevin as HessianLangevin
from energydsl.kernel.hmc import HMC as HMC
from energydsl.kernel.langevin import Langevin as Langevin
from energydsl.kernel.metropolis import MetropolisHastings as MetropolisHastings
from energydsl.kernel.mixture import Mixture as Mixture
from energydsl.kernel.nuts import NUTS as NUTS
from energydsl.kernel.replica_exchange import ReplicaExchange as ReplicaExchange
from energydsl.kernel.simulated_annealing import SimulatedAnnealing as SimulatedAnnealing
from energydsl.kernel.slice import Slice as Slice
from energydsl.kernel.swendsen_wang import SwendsenWang as SwendsenWang
from energydsl.kernel.wolff import Wolff as Wolff

# If no kernel is given, `sample` uses the first that applies. Gibbs comes before the cluster
# kernels, whose steps take ten times as long: no structure tells whether correlations are long.
SAMPLERS[:] = (
    NUTS(),
    Gibbs(),
    NUTS(summed=True),
    Cycle(Gibbs(), NUTS()),
    ExactDraws(),
    SwendsenWang(),
    Wolff(),
    CouplingFromThePast(),
    DiscreteLangevin(),
    GibbsWithGradients(),
    HMC(),
    Langevin(),
    HessianLangevin(),
    Slice(),
    Cycle(Gibbs(), Langevin()),
    Cycle(Gibbs(), Slice()),
    MetropolisHastings(),
)
