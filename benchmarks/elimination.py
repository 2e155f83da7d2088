"""Exact log Z by elimination beside a tensor contraction in NumPy, with cotengra's best order.

The peer's order is searched for by cotengra; the contraction itself is NumPy's, in plain numbers
and not in their logarithms. Times of the first call include planning and compiling, or the search.
"""

import statistics
import time

import cotengra
import networkx
import numpy as np

import energydsl as ed
from benchmarks.measure import Row, in_turn, limit

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
