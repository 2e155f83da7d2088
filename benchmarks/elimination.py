"""Exact log Z by elimination beside other libraries.

One is a tensor contraction in NumPy, in plain numbers and not in their logarithms, by the best
order that cotengra finds. The others run in processes of their own, see `peers`: dwave-samplers and
pgmpy compute log Z, pyAgrum the law of one variable. Times of the first call include planning and
compiling, or the search; values are compared before times are.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cotengra
import networkx
import numpy as np

import energydsl as ed
from benchmarks import networks, peers
from benchmarks.measure import Row, in_turn, limit
from benchmarks.networks import Network

PEER = "cotengra + NumPy"


def rows() -> list[Row]:
    found = []
    for side in (8, 12, 16, 20):
        graph = networkx.grid_2d_graph(side, side)
        found += _pair(f"grid {side} x {side} in a field", graph, goal=1.2 if side >= 12 else None)
    found += _pair("3-regular, 100 sites", networkx.random_regular_graph(3, 100, seed=1))
    found += _long("tree, 10^4 sites", *_tree(10_000), levels=2)
    chain = np.arange(100_000)
    found += _long("chain, 10^5 sites of 20 levels", chain[:-1], chain[1:], levels=20)
    for side in (8, 12, 16):
        found += _beside(f"grid {side} x {side}", _glass(networkx.grid_2d_graph(side, side)))
    for count in (60, 100):
        graph = networkx.random_regular_graph(3, count, seed=1)
        found += _beside(f"3-regular, {count} sites", _glass(graph))
    for name, network in SMALL.items():
        found += _beside(f"{name} network", network())
    return found


SMALL: dict[str, Callable[[], Network]] = {
    "pedigree": lambda: networks.pedigree(people=10, loci=6, seed=1),
    "segmentation": lambda: networks.segmentation(regions=120),
    "detection": lambda: networks.detection(parts=30, places=6),
    "dynamic": lambda: networks.dynamic(width=10, slices=30),
}
"""Networks that some other library sums in a few seconds."""


def _glass(graph: networkx.Graph) -> Network:
    """Spins in random fields with random couplings."""
    nodes, rng = {node: k for k, node in enumerate(graph)}, np.random.default_rng(0)
    scopes = [(nodes[a], nodes[b]) for a, b in graph.edges] + [(k,) for k in range(len(nodes))]
    # As float32, in which models hold their numbers, so that the others get the same.
    weights = rng.normal(size=len(scopes)).astype(np.float32).astype(float)
    up = np.array([1.0, -1.0])
    forms = [np.outer(up, up) if len(scope) == 2 else up for scope in scopes]
    tables = [np.exp(w * form) for w, form in zip(weights, forms, strict=True)]
    return Network([2] * len(nodes), scopes, tables, {})


def _beside(name: str, network: Network) -> list[Row]:
    """Each peer that takes a network beside log Z of its file."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        model = ed.io.read_uai(*networks.write(network, Path(folder)))
    ebm = ed.compile(model, budget=26)
    value = float(ed.log_partition(ebm))
    first = time.perf_counter() - began
    again = statistics.median(in_turn({"ours": lambda: ed.log_partition(ebm)})["ours"])
    site = peers.first_free(network)
    card = network.cards[site]
    laws = ed.marginals(ebm)[f"x{card}"].probabilities
    law = laws[sum(other == card for other in network.cards[:site])]
    ours, found = f"{first:.2f} s, then {again * 1e3:.1f} ms", []
    for peer in peers.PEERS:
        if not peers.applies(peer, network):
            continue
        told = peers.ask(peer, network)
        if isinstance(told, str):
            found.append(Row(f"log Z, {name}", ours, f"{peer}: {told}", ""))
            continue
        # Files of probabilities are rounded to float32, each to a relative error of 6e-8.
        apart = 1e-9 * abs(value) + 6e-8 * np.sqrt(len(network.scopes))
        if told.log_z is not None and abs(told.log_z - value) > apart:
            raise RuntimeError(f"{name}: log Z is {value} here and {told.log_z} by {peer}.")
        if told.law is not None and np.abs(np.array(told.law) - law).max() > apart:
            raise RuntimeError(f"{name}: a law is {law} here and {told.law} by {peer}.")
        other = f"{peer}: {told.first:.2f} s, then {told.again * 1e3:.1f} ms"
        found.append(Row(f"log Z, {name}", ours, other, f"x {again / told.again:.2f}"))
    return found


def _pair(name: str, graph: networkx.Graph, goal: float | None = None) -> list[Row]:
    nodes = {node: k for k, node in enumerate(graph)}
    edges = np.array([[nodes[a], nodes[b]] for a, b in graph.edges])
    rng = np.random.default_rng(0)
    weights, fields = (rng.normal(size=n).astype(np.float32) for n in (len(edges), len(nodes)))

    began = time.perf_counter()
    s = ed.spin("s", len(nodes))
    energy = -(weights * s[edges[:, 0]] * s[edges[:, 1]]).sum() - fields @ s
    ebm = ed.compile(ed.Model(energy), budget=26)
    value = float(ed.log_partition(ebm))
    ours = time.perf_counter() - began

    began = time.perf_counter()
    tensors = [np.exp(w * np.array([[1.0, -1.0], [-1.0, 1.0]])) for w in weights.astype(float)]
    tensors += [np.exp(f * np.array([1.0, -1.0])) for f in fields.astype(float)]
    inputs = [tuple(cotengra.get_symbol(k) for k in edge) for edge in edges.tolist()]
    inputs += [(cotengra.get_symbol(k),) for k in range(len(nodes))]
    sizes = {cotengra.get_symbol(k): 2 for k in range(len(nodes))}
    search = cotengra.HyperOptimizer(max_time=10, parallel=False, methods=["greedy"])
    tree = search.search(inputs, (), sizes)
    other = np.log(tree.contract(tensors))
    peer = time.perf_counter() - began
    if abs(value - other) > 1e-9 * abs(other):
        raise RuntimeError(f"{name}: log Z is {value} here and {other} by the contraction.")
    seconds = in_turn(
        {"ours": lambda: ed.log_partition(ebm), "peer": lambda: tree.contract(tensors)}
    )
    again = {who: statistics.median(each) for who, each in seconds.items()}
    ratio = again["ours"] / again["peer"]
    return [
        Row(f"log Z, {name}: first", f"{ours:.2f} s", f"{peer:.2f} s {PEER}", ""),
        Row(
            f"log Z, {name}: again",
            f"{again['ours'] * 1e3:.1f} ms",
            f"{again['peer'] * 1e3:.1f} ms {PEER}",
            f"x {ratio:.2f} " + ("" if goal is None else limit(ratio, goal)),
        ),
    ]


def _tree(count: int) -> tuple[np.ndarray, np.ndarray]:
    edges = np.array(networkx.random_labeled_tree(count, seed=0).edges)
    return edges[:, 0], edges[:, 1]


def _long(name: str, left: np.ndarray, right: np.ndarray, levels: int) -> list[Row]:
    table = np.random.default_rng(1).normal(size=(levels, levels)).astype(np.float32)
    began = time.perf_counter()
    c = ed.categorical("c", max(left.max(), right.max()) + 1, levels=levels)
    ebm = ed.compile(ed.Model(ed.Table(table)(c[left], c[right]).sum()))
    ed.log_partition(ebm)
    first = time.perf_counter() - began
    seconds = in_turn(
        {"log Z": lambda: ed.log_partition(ebm), "marginals": lambda: ed.marginals(ebm)}, repeats=3
    )
    again = {what: statistics.median(each) for what, each in seconds.items()}
    return [
        Row(f"log Z, {name}: first", f"{first:.2f} s", "", ""),
        Row(f"log Z, {name}: again", f"{again['log Z'] * 1e3:.1f} ms", "", ""),
        Row(
            f"all marginals, {name}",
            f"{again['marginals'] * 1e3:.1f} ms",
            "4 x log Z",
            limit(again["marginals"], 4 * again["log Z"]),
        ),
    ]
