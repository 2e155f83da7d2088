"""How fast a value grows with the real and positive sites."""

from __future__ import annotations

import math

from tests.fuzz.arrays import COMPARISONS
from tests.fuzz.recipe import (
    Apply,
    Binary,
    Density,
    MatMul,
    Node,
    Potential,
    Power,
    Sparse,
    Unary,
    View,
    walk,
)


def degree(root: Node) -> float:
    """A bound on how fast a value grows with the real and positive sites, as a power."""
    done: dict[int, float] = {}
    for node in walk(root):
        below = [done[id(c)] for c in node.args]
        done[id(node)] = _degree(node, below)
    return done[id(root)]


def _degree(node: Node, below: list[float]) -> float:
    top = max(below, default=0.0)
    match node:
        case View(site=site):
            return float(site.domain in ("real", "positive", "positive_definite", "count"))
        case Binary(name="multiply") | MatMul() | Sparse():
            return sum(below)
        case Binary(name="divide"):
            return below[0]
        case Binary(name=name) if name in COMPARISONS:
            return 0.0
        case Binary(name="power_of"):
            return top
        case Power(exponent=k):
            return k * top
        case Unary(name="tanh" | "sin" | "cos"):
            return 0.0
        case Unary(name="exp"):
            return math.inf if top else 0.0
        case Apply(name="neighbours" | "weighted"):
            return 0.0
        case Apply(name="reverse_times_sum"):
            return 2 * top
        case Potential(kind="Quadratic"):
            return 2 * top
        case Potential(kind="Coupling"):
            return sum(below)
        case Potential(kind="Neural"):
            return 0.0
        case Density():
            return 2 * top
    return top
