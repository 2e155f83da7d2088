"""Random search: annealed chains for discrete sites, L-BFGS for continuous ones, in turn."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array, lax

from energydsl._types import Configuration, Refusal
from energydsl.analysis.coordinates import Unconstrained
from energydsl.compiler.compile import compile as compile_model
from energydsl.compiler.ebm import EBM
from energydsl.compiler.start import starts
from energydsl.estimator.finite import Finite
from energydsl.kernel import choose
from energydsl.kernel.base import AbstractEnsemble, AbstractKernel
from energydsl.kernel.gibbs import Gibbs
from energydsl.language.model import Model
from energydsl.mode.base import AbstractMethod, Found, Problem, energy_of
from energydsl.mode.crossover import crossed
from energydsl.mode.descent import descended
from energydsl.mode.diffusion import dual
from energydsl.mode.pairs import Pairs
from energydsl.mode.roof import roof

CHAINS = 16
"""Starts, from each of which the search goes its own way."""

STAGES = 10
"""Stages of annealing; continuous sites are optimised after each of them."""

WORK, STEPS = 2e7, (100, 1000)
"""About so many sites are visited by each chain in a stage, and the fewest and most steps."""

HOT, COLD, ZERO = 0.5, 0.01, 1e-6
"""The first and the last temperature of annealing, and that of the last stage, in units of the mean
range of a site's energies."""


class Search(AbstractMethod):
    """Annealing of the discrete sites, and L-BFGS in the continuous ones, from several starts.

    The bound is roof duality for pairwise models of two levels, dual decomposition for other finite
    models whose factors have tables, and minus infinity for all others.
    """

    name = "search"

    def reason(self, problem: Problem) -> str | None:
        if problem.key is None:
            return "it is random: give key=jax.random.key(0)"
        return None

    def solve(self, problem: Problem) -> Found:
        ebm, key = problem.ebm, problem.key
        assert key is not None
        start_key, key = jr.split(key)
        space = Unconstrained.of(ebm.structure)
        xs = _started(ebm, start_key)
        smooth, rough = bool(space.names), _rough(problem)
        if rough:
            xs = _annealed(problem, space, xs, key)
        else:
            xs = [descended(ebm.model, space, x) for x in xs]
        said = " and ".join(["annealing"] * rough + ["L-BFGS"] * smooth)
        said = f"{said} from {CHAINS} starts"
        if isinstance(problem.tables, Finite):
            return _bounded(problem, problem.tables, xs, said)
        energies = np.array([energy_of(ebm.model, x) for x in xs])
        return Found(xs[int(np.argmin(energies))], np.inf, f"{said}, a local minimum")


def _started(ebm: EBM, key: Array) -> list[Configuration]:
    try:
        return _unstacked(starts(ebm, CHAINS, key=key))
    except ValueError:
        raise ValueError(
            "map_configuration found no configuration of finite energy at which a search could "
            "begin: all of them are forbidden, or nearly all."
        ) from None


def _rough(problem: Problem) -> bool:
    """Whether the part has free sites without unconstrained coordinates."""
    structure = problem.structure
    names = [v.name for v in structure.variables if v.domain.transform is None]
    return bool((structure.of_variables(names) & structure.free).any())


def _annealed(
    problem: Problem, space: Unconstrained, xs: list[Configuration], key: Array
) -> list[Configuration]:
    """The configurations after annealing, with the continuous sites optimised on the way."""
    model = problem.ebm.model
    chains = _Chains(problem.ebm)
    scale = _scale(problem)
    steps = int(np.clip(WORK / problem.ebm.structure.free.sum(), *STEPS))
    ladder = np.geomspace(HOT, COLD, STAGES * steps).reshape(STAGES, steps)
    ladder = np.concatenate([ladder, np.full((1, steps), ZERO)])
    for k, temperatures in enumerate(ladder):
        betas = jnp.asarray(1 / (scale * temperatures), float)
        stacked = jax.tree.map(lambda *a: jnp.stack(a), *xs)
        xs = _unstacked(chains.moved(model, stacked, betas, jr.fold_in(key, k)))
        if space.names:
            xs = [_narrow(descended(model, space, x), x) for x in xs]
    return xs


class _Chains:
    """Chains of a model at any temperature, compiled once."""

    def __init__(self, ebm: EBM) -> None:
        self.mixed = compile_model(_at(ebm.model, jnp.asarray(0.5, float)), budget=0)
        self.ensemble = _kernel(self.mixed).ensemble(self.mixed)

    def moved(self, model: Model, xs: Configuration, betas: Array, key: Array) -> Configuration:
        """The chains after a step at each of these inverse temperatures."""
        return _moved(self.mixed, self.ensemble, model, xs, betas, key)


def _kernel(ebm: EBM) -> AbstractKernel:
    """Gibbs if it draws all discrete sites, else the cheapest kernel that moves every free site."""
    names = [v.name for v in ebm.structure.variables if v.domain.transform is None]
    discrete = ebm.structure.of_variables(names) & ebm.structure.free
    gibbs = Gibbs()
    return gibbs if (gibbs.moves(ebm) >= discrete).all() else choose.cheapest(ebm)


@eqx.filter_jit
def _moved(
    mixed: EBM,
    ensemble: AbstractEnsemble,
    model: Model,
    xs: Configuration,
    betas: Array,
    key: Array,
) -> Configuration:
    def step(carry: object, at: tuple[Array, Array]) -> tuple[object, None]:
        beta, key = at
        ebm = eqx.tree_at(lambda e: e.model, mixed, _at(model, beta))
        carry = ensemble.refresh(ebm, carry)
        return ensemble.advance(ebm, ensemble.load(ebm), carry, key=key)[0], None

    first, key = jr.split(key)
    ebm = eqx.tree_at(lambda e: e.model, mixed, _at(model, betas[0]))
    carry = ensemble.start(ebm, xs, key=first, warmup=0)
    carry, _ = lax.scan(step, carry, (betas, jr.split(key, len(betas))))
    return ensemble.configurations(ebm, carry)


def _at(model: Model, beta: Array) -> Model:
    return beta * model


def _scale(problem: Problem) -> float:
    """The mean, over sites, of the range of the energies of their factors; 1 without tables."""
    if isinstance(problem.tables, Refusal):
        return 1.0
    total = 0.0
    for scopes, cells in problem.tables.groups:
        flat = cells.reshape(len(cells), -1)
        low = np.where(np.isfinite(flat), flat, np.inf).min(axis=1)
        high = np.where(np.isfinite(flat), flat, -np.inf).max(axis=1)
        span = high - low
        total += scopes.shape[1] * span[np.isfinite(span)].sum()
    return float(total / len(problem.tables.levels)) or 1.0


class _Lower(NamedTuple):
    """A lower bound with states that it suggests, and a way to improve others."""

    bound: float
    candidates: list[np.ndarray]


def _bounded(problem: Problem, model: Finite, xs: list[Configuration], said: str) -> Found:
    """The best of some configurations of a finite model, with its bound."""
    states = [problem.states(x) for x in xs]
    known = min(model.energy(s) for s in states)
    lower = _lower(problem, model, states, known)
    best = crossed(model, lower.candidates)
    energy = model.energy(best)
    if np.isinf(energy):
        raise ValueError("No configuration of finite energy was found.")
    excess = energy - lower.bound
    return Found(problem.placed(best), 0.0 if excess <= model.margin else excess, said)


def _lower(problem: Problem, model: Finite, states: list[np.ndarray], known: float) -> _Lower:
    pairs = problem.pairs
    if isinstance(pairs, Pairs) and (pairs.levels == 2).all():
        found = roof(pairs)
        return _Lower(found.bound, [found.improved(s) for s in states])
    bound = dual(model, known)
    return _Lower(bound.bound, [*states, bound.states])


def _unstacked(xs: Configuration) -> list[Configuration]:
    return [{n: a[k] for n, a in xs.items()} for k in range(CHAINS)]


def _narrow(found: Configuration, x: Configuration) -> Configuration:
    """The values in the dtypes of `x`."""
    return {n: jnp.asarray(a, x[n].dtype) for n, a in found.items()}
