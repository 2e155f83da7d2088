"""energydsl: energy-based models on JAX, declared as they are written on paper.

A model is declared, compiled, then normalised, sampled or learnt, and its chains are diagnosed.
"""

import sys
from typing import TYPE_CHECKING, NoReturn

from energydsl import _startup

if sys.version_info < (3, 12):  # noqa: UP036 - pip checks it, but not a source tree
    raise ImportError(
        "energydsl needs Python 3.12 or later; this is Python "
        f"{sys.version_info.major}.{sys.version_info.minor}. Make an environment with a later "
        "one, such as: uv venv --python 3.12"
    )

if _startup.is_command():
    _startup.begin()

# ArviZ, imported first, leaves a lazy NumPyro of which `import numpyro.distributions` would make a
# second, incomplete copy; this form loads the one.
from numpyro import distributions as _distributions  # noqa: F401

from energydsl import _messages
from energydsl import io as io
from energydsl._types import Configuration, IntractableError
from energydsl.compiler.answers import Marginal, Marginals, marginals
from energydsl.compiler.compile import compile
from energydsl.compiler.ebm import EBM, log_partition
from energydsl.compiler.expectation import entropy, expectation
from energydsl.compiler.predict import predict
from energydsl.estimator import (
    AIS,
    MBAR,
    SMC,
    AbstractEstimator,
    BeliefPropagation,
    Bounds,
    Bracket,
    MeanField,
    ReverseAIS,
    ThermodynamicIntegration,
    TreeReweighted,
)
from energydsl.estimator.estimate import estimate_log_partition
from energydsl.io.netcdf import to_netcdf
from energydsl.io.parameters import load, save
from energydsl.kernel import (
    HMC,
    NUTS,
    AbstractKernel,
    CouplingFromThePast,
    Cycle,
    DiscreteLangevin,
    ExactDraws,
    Gibbs,
    GibbsWithGradients,
    HessianLangevin,
    Langevin,
    MetropolisHastings,
    Mixture,
    ReplicaExchange,
    SimulatedAnnealing,
    Slice,
    SwendsenWang,
    Wolff,
)
from energydsl.language.declare import (
    apply,
    arctan,
    binary,
    categorical,
    cos,
    cosh,
    count,
    exp,
    expm1,
    fixed,
    integer,
    interval,
    log,
    log1p,
    logaddexp,
    maximum,
    minimum,
    parameter,
    positive,
    positive_definite,
    real,
    sign,
    simplex,
    sin,
    sinh,
    softplus,
    spin,
    sqrt,
    tanh,
    variable,
)
from energydsl.language.domain import AbstractDomain
from energydsl.language.expression import (
    Expression,
    conv,
    cumsum,
    diff,
    logsumexp,
    roll,
    take,
    where,
)
from energydsl.language.mixture import mixture
from energydsl.language.model import Model
from energydsl.language.potential import (
    AbstractPotential,
    Coupling,
    Linear,
    LogDensity,
    Neural,
    Quadratic,
    Table,
)
from energydsl.learning.bias import bias_from
from energydsl.learning.fit import fit
from energydsl.learning.history import HeldOut, History
from energydsl.learning.likelihood import LogLikelihood, log_likelihood
from energydsl.learning.objective import (
    AbstractObjective,
    Adversarial,
    ContrastiveDivergence,
    MaximumEntropy,
    MaximumLikelihood,
    NoiseContrastive,
    PseudoLikelihood,
    RatioMatching,
    ScoreMatching,
    Variational,
)
from energydsl.learning.start import AbstractStart, Buffer, Noisy
from energydsl.mode.base import Mode
from energydsl.mode.choose import map_configuration
from energydsl.normalizer import (
    AbstractPlan,
    AbstractRule,
    Exact,
    Intractable,
    Numerical,
    Offer,
)
from energydsl.normalizer.log_z import LogZ
from energydsl.reporting.arviz_tree import to_arviz
from energydsl.reporting.diagnose import Diagnosis, Finding, diagnose
from energydsl.reporting.plot import animate_samples, plot_energy, plot_history, plot_samples
from energydsl.reporting.report import report
from energydsl.run.lost import Lost
from energydsl.run.lowest import lowest_seen
from energydsl.run.moments import Moments, RunningMoments
from energydsl.run.predictive import predictive
from energydsl.run.sampling import Chains, sample

__all__ = [
    "AIS",
    "EBM",
    "HMC",
    "MBAR",
    "NUTS",
    "SMC",
    "AbstractDomain",
    "AbstractEstimator",
    "AbstractKernel",
    "AbstractObjective",
    "AbstractPlan",
    "AbstractPotential",
    "AbstractRule",
    "AbstractStart",
    "Adversarial",
    "BeliefPropagation",
    "Bounds",
    "Bracket",
    "Buffer",
    "Chains",
    "Configuration",
    "ContrastiveDivergence",
    "Coupling",
    "CouplingFromThePast",
    "Cycle",
    "Diagnosis",
    "DiscreteLangevin",
    "Exact",
    "ExactDraws",
    "Expression",
    "Finding",
    "Gibbs",
    "GibbsWithGradients",
    "HeldOut",
    "HessianLangevin",
    "History",
    "Intractable",
    "IntractableError",
    "Langevin",
    "Linear",
    "LogDensity",
    "LogLikelihood",
    "LogZ",
    "Lost",
    "Marginal",
    "Marginals",
    "MaximumEntropy",
    "MaximumLikelihood",
    "MeanField",
    "MetropolisHastings",
    "Mixture",
    "Mode",
    "Model",
    "Moments",
    "Neural",
    "NoiseContrastive",
    "Noisy",
    "Numerical",
    "Offer",
    "PseudoLikelihood",
    "Quadratic",
    "RatioMatching",
    "ReplicaExchange",
    "ReverseAIS",
    "RunningMoments",
    "ScoreMatching",
    "SimulatedAnnealing",
    "Slice",
    "SwendsenWang",
    "Table",
    "ThermodynamicIntegration",
    "TreeReweighted",
    "Variational",
    "Wolff",
    "animate_samples",
    "apply",
    "arctan",
    "bias_from",
    "binary",
    "categorical",
    "compile",
    "conv",
    "cos",
    "cosh",
    "count",
    "cumsum",
    "diagnose",
    "diff",
    "entropy",
    "estimate_log_partition",
    "exp",
    "expectation",
    "expm1",
    "fit",
    "fixed",
    "integer",
    "interval",
    "load",
    "log",
    "log1p",
    "log_likelihood",
    "log_partition",
    "logaddexp",
    "logsumexp",
    "lowest_seen",
    "map_configuration",
    "marginals",
    "maximum",
    "minimum",
    "mixture",
    "parameter",
    "plot_energy",
    "plot_history",
    "plot_samples",
    "positive",
    "positive_definite",
    "predict",
    "predictive",
    "real",
    "report",
    "roll",
    "sample",
    "save",
    "sign",
    "simplex",
    "sin",
    "sinh",
    "softplus",
    "spin",
    "sqrt",
    "take",
    "tanh",
    "to_arviz",
    "to_netcdf",
    "variable",
    "where",
]


def __dir__() -> list[str]:
    return [*__all__, "io"]


if not TYPE_CHECKING:

    def __getattr__(name: str) -> NoReturn:
        raise AttributeError(_messages.absent(name, __all__))
