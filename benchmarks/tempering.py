"""Replica exchange on spin glasses of known ground states, compared with dwave's annealing.

The glasses of Edwards and Anderson have 512 spins on a square lattice, with couplings of +1 and -1.
Their ground states are proven by elimination, which a width of 16 allows. Both sides are judged by
the time after which a ground state was seen with a probability of 99 %: runs of t seconds that
succeed with the probability p are repeated log(1 - 0.99) / log(1 - p) times. Annealing is given the
best of several lengths.
"""

import math
import time
from collections.abc import Callable

import dimod
import jax.random as jr
import numpy as np
from dwave.samplers import SimulatedAnnealingSampler

import energydsl as ed
from benchmarks.measure import Row

SHAPE, GLASSES = (16, 32), 3
COLDEST, HOTTEST, REPLICAS = 0.3, 1.8, 16
STEPS, CHAINS, RUNS = 1500, 4, 16
SWEEPS = {5_000: 48, 20_000: 16}
"""Lengths of annealing, each with the number of runs that judge it."""


def rows() -> list[Row]:
    """Seconds to a ground state, summed over the glasses."""
    ours, theirs = np.sum([_compare(seed) for seed in range(GLASSES)], axis=0)
    return [
        Row(
            f"ground states of {GLASSES} glasses of 512 spins",
            f"{ours:.2f} s",
            f"{theirs:.2f} s (dwave)",
            f"{theirs / ours:.1f} x: {'ok' if ours < theirs else 'MISSED'}",
        )
    ]


def _compare(seed: int) -> tuple[float, float]:
    """The seconds of replica exchange and of annealing on one glass."""
    sites = np.arange(math.prod(SHAPE)).reshape(SHAPE)
    first = np.concatenate([sites[1:].ravel(), sites[:, 1:].ravel()])
    last = np.concatenate([sites[:-1].ravel(), sites[:, :-1].ravel()])
    weights = np.random.default_rng(seed).choice([-1.0, 1.0], len(first))
    s = ed.spin("s", sites.size)
    model = ed.Model(-(weights * s[first] * s[last]).sum())
    ground = ed.map_configuration(ed.compile(model))
    assert ground.proven
    least = ground.energy + 0.5  # energies are whole numbers
    return _exchange(model, least), _annealing(first, last, weights, least)


def _exchange(model: ed.Model, least: float) -> float:
    ebm = ed.compile(model / COLDEST)
    ladder = np.geomspace(1.0, HOTTEST / COLDEST, REPLICAS)
    kernel = ed.ReplicaExchange(ed.Gibbs(), [1.0, *ladder[1:].tolist()])

    def run(seed: int) -> float:
        found = ed.lowest_seen(ebm, kernel, key=jr.key(seed), steps=STEPS, chains=CHAINS)
        return float(found[1]) * COLDEST

    run(-1)  # compiles
    return _expected(lambda: sum(run(k) < least for k in range(RUNS)), RUNS)


def _annealing(first: np.ndarray, last: np.ndarray, weights: np.ndarray, least: float) -> float:
    pairs = zip(first.tolist(), last.tolist(), (-weights).tolist(), strict=True)
    bqm = dimod.BinaryQuadraticModel.from_ising({}, {(a, b): w for a, b, w in pairs})
    sampler = SimulatedAnnealingSampler()

    def successes(sweeps: int, runs: int) -> int:
        found = sampler.sample(bqm, num_reads=runs, num_sweeps=sweeps, seed=1)
        return int((found.record.energy < least).sum())

    return min(_expected(lambda s=s, n=n: successes(s, n), n) for s, n in SWEEPS.items())


def _expected(successes: Callable[[], int], runs: int) -> float:
    """The seconds after which a run has succeeded with a probability of 99 %; at least one run."""
    began = time.perf_counter()
    rate = successes() / runs
    seconds = (time.perf_counter() - began) / runs
    if not rate:
        return math.inf
    return seconds if rate == 1 else seconds * max(1.0, math.log(0.01) / math.log1p(-rate))
