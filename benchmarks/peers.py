"""Other libraries' exact inference on a network, each in a process of its own with a time limit.

Run as `python -m benchmarks.peers NAME FILE`, where FILE holds a pickled network; it prints the
seconds of the first and of later calls, and what was computed: log Z, or the law of one variable.
"""

from __future__ import annotations

import json
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from benchmarks.networks import Network

SECONDS = 60.0
"""The time after which a peer is given up."""

REPEATS = 3


class Told(NamedTuple):
    """What a peer took, and what it computed."""

    first: float
    again: float
    log_z: float | None = None
    law: list[float] | None = None


def ask(name: str, network: Network) -> Told | str:
    """What a peer says of a network, or why it says nothing."""
    with tempfile.NamedTemporaryFile(suffix=".pickle") as file:
        pickle.dump(network, file)
        file.flush()
        command = [sys.executable, "-m", "benchmarks.peers", name, file.name]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            return f"over {SECONDS:.0f} s"
    if done.returncode:
        return done.stderr.strip().splitlines()[-1][:60] if done.stderr.strip() else "killed"
    return Told(**json.loads(done.stdout.splitlines()[-1]))


def first_free(network: Network) -> int:
    """The variable whose law is asked for."""
    return next(i for i in range(len(network.cards)) if i not in network.evidence)


def agrum(network: Network) -> Callable[[], dict]:
    """pyAgrum: the law of one variable by Shafer and Shenoy's message passing."""
    import pyagrum

    model = pyagrum.MarkovRandomField()
    for i, card in enumerate(network.cards):
        model.add(pyagrum.RangeVariable(f"v{i}", "", 0, card - 1))
    for scope, table in _merged(network):
        factor = model.addFactor([f"v{i}" for i in scope])
        axes = [scope.index(int(name[1:])) for name in reversed(factor.names)]
        factor[:] = np.ascontiguousarray(table.transpose(axes))
    target = f"v{first_free(network)}"

    def run() -> dict:
        inference = pyagrum.ShaferShenoyMRFInference(model)
        inference.setEvidence({f"v{i}": level for i, level in network.evidence.items()})
        inference.setTargets({target})
        inference.makeInference()
        return {"law": inference.posterior(target).toarray().tolist()}

    return run


def pgmpy(network: Network) -> Callable[[], dict]:
    """pgmpy: the law of one variable by variable elimination, not normalised: its sum is Z."""
    from pgmpy.factors.discrete import DiscreteFactor
    from pgmpy.inference import VariableElimination
    from pgmpy.models import DiscreteMarkovNetwork

    model = DiscreteMarkovNetwork()
    model.add_nodes_from([f"v{i}" for i in range(len(network.cards))])
    for scope, table in zip(network.scopes, network.tables, strict=True):
        names = [f"v{i}" for i in scope]
        model.add_edges_from([(a, b) for k, a in enumerate(names) for b in names[k + 1 :]])
        model.add_factors(DiscreteFactor(names, table.shape, table))
    evidence = {f"v{i}": level for i, level in network.evidence.items()}
    inference = VariableElimination(model)

    def run() -> dict:
        asked = [f"v{first_free(network)}"]
        found = inference.query(asked, evidence, elimination_order="MinFill", show_progress=False)
        return {"log_z": float(np.log(found.values.sum()))}

    return run


def dwave(network: Network) -> Callable[[], dict]:
    """dwave-samplers: log Z of spins by a tree decomposition, with one draw."""
    import dimod
    from dwave.samplers import TreeDecompositionSampler

    model, shift = dimod.BinaryQuadraticModel("BINARY"), 0.0
    model.add_variables_from(dict.fromkeys(range(len(network.cards)), 0.0))
    for scope, table in zip(network.scopes, network.tables, strict=True):
        e = -np.log(table)
        shift += e.ravel()[0]
        if len(scope) == 1:
            model.add_linear(scope[0], e[1] - e[0])
        else:
            model.add_linear(scope[0], e[1, 0] - e[0, 0])
            model.add_linear(scope[1], e[0, 1] - e[0, 0])
            model.add_quadratic(*scope, e[1, 1] - e[1, 0] - e[0, 1] + e[0, 0])
    sampler = TreeDecompositionSampler()

    def run() -> dict:
        info = sampler.sample(model, num_reads=1, marginals=True, beta=1.0).info
        return {"log_z": float(info["log_partition_function"]) - shift}

    return run


PEERS = {"pyAgrum": agrum, "pgmpy": pgmpy, "dwave-samplers": dwave}


def applies(name: str, network: Network) -> bool:
    """Whether a peer takes such a network: dwave-samplers only knows pairs of binary variables."""
    pairs = all(len(scope) <= 2 for scope in network.scopes) and set(network.cards) == {2}
    return name != "dwave-samplers" or (pairs and not network.evidence)


def _merged(network: Network) -> list[tuple[tuple[int, ...], np.ndarray]]:
    """Tables with one for each set of variables, as pyAgrum has them."""
    found: dict[tuple[int, ...], np.ndarray] = {}
    for scope, table in zip(network.scopes, network.tables, strict=True):
        key = tuple(sorted(scope))
        table = table.transpose([scope.index(i) for i in key])
        found[key] = found.get(key, 1.0) * table
    return list(found.items())


def main(name: str, path: str) -> None:
    with open(path, "rb") as file:
        network = pickle.load(file)
    began = time.perf_counter()
    run = PEERS[name](network)
    answer = run()
    seconds = [time.perf_counter() - began]
    for _ in range(REPEATS):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"first": seconds[0], "again": statistics.median(seconds[1:]), **answer}))


if __name__ == "__main__":
    main(*sys.argv[1:])
