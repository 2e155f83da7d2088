"""Small models with their energies written a second time, in NumPy, from the paper's formula."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import energydsl as ed

RNG = np.random.default_rng(7)


class Case(NamedTuple):
    """A model, and what it should be: `energy` takes states (n, sites), variables in order."""

    name: str
    model: ed.Model
    energy: Callable[[np.ndarray], np.ndarray]
    levels: Sequence[Sequence[int]]
    lowering: str


SPIN, BIT = (-1, 1), (0, 1)


def _open_lattice() -> Case:
    rows, columns = RNG.normal(size=(1, 3)), RNG.normal(size=(2, 2))
    field = RNG.normal(size=(2, 3))
    s = ed.spin("s", (2, 3))
    model = ed.Model(
        (rows * s[1:] * s[:-1]).sum() + (columns * s[:, 1:] * s[:, :-1]).sum() + (field * s).sum()
    )

    def energy(states):
        x = states.reshape(-1, 2, 3)
        return (
            (rows * x[:, 1:] * x[:, :-1]).sum((1, 2))
            + (columns * x[:, :, 1:] * x[:, :, :-1]).sum((1, 2))
            + (field * x).sum((1, 2))
        )

    return Case("open lattice", model, energy, [SPIN] * 6, "lattice")


def _torus() -> Case:
    s = ed.spin("s", (4, 2))
    model = ed.Model(
        -0.3 * (s * ed.roll(s, 1, 0)).sum() - 0.2 * (s * ed.roll(s, 1, 1)).sum() + 0.1 * s.sum()
    )

    def energy(states):
        x = states.reshape(-1, 4, 2)
        pairs = 0.3 * x * np.roll(x, 1, 1) + 0.2 * x * np.roll(x, 1, 2) - 0.1 * x
        return -pairs.sum((1, 2))

    return Case("torus", model, energy, [SPIN] * 8, "packed")


def _diagonals() -> Case:
    s = ed.binary("s", (3, 3))
    model = ed.Model(
        -0.8 * (s[1:, 1:] * s[:-1, :-1]).sum()
        + 0.5 * (s[1:, :] * s[:-1, :]).sum()
        - 0.4 * (s[:, 1:] * s[:, :-1]).sum()
    )

    def energy(states):
        x = states.reshape(-1, 3, 3)
        return (
            -0.8 * (x[:, 1:, 1:] * x[:, :-1, :-1]).sum((1, 2))
            + 0.5 * (x[:, 1:] * x[:, :-1]).sum((1, 2))
            - 0.4 * (x[:, :, 1:] * x[:, :, :-1]).sum((1, 2))
        )

    return Case("triangular lattice", model, energy, [BIT] * 9, "lattice")


def _plaquettes() -> Case:
    s = ed.spin("s", (3, 3))
    model = ed.Model(0.6 * (s[1:, 1:] * s[:-1, 1:] * s[1:, :-1] * s[:-1, :-1]).sum())

    def energy(states):
        x = states.reshape(-1, 3, 3)
        faces = x[:, 1:, 1:] * x[:, :-1, 1:] * x[:, 1:, :-1] * x[:, :-1, :-1]
        return 0.6 * faces.sum((1, 2))

    return Case("plaquettes", model, energy, [SPIN] * 9, "lattice")


def _potts() -> Case:
    field = RNG.normal(size=(4, 3))
    c = ed.categorical("c", 4, levels=3)
    model = ed.Model(-0.9 * (c[1:] == c[:-1]).sum() + ed.Table(field)(c).sum())

    def energy(states):
        return -0.9 * (states[:, 1:] == states[:, :-1]).sum(1) + field[np.arange(4), states].sum(1)

    return Case("Potts chain", model, energy, [(0, 1, 2)] * 4, "lattice")


def _integers() -> Case:
    n = ed.integer("n", 3, low=-1, high=2)
    model = ed.Model(0.3 * ((n[1:] - n[:-1]) ** 2).sum() - 0.2 * n.sum())

    def energy(states):
        return 0.3 * ((states[:, 1:] - states[:, :-1]) ** 2).sum(1) - 0.2 * states.sum(1)

    return Case("integer chain", model, energy, [(-1, 0, 1, 2)] * 3, "lattice")


def _two_layers() -> Case:
    s, t = ed.spin("s", (2, 2)), ed.binary("t", (2, 2))
    model = ed.Model(-0.7 * (s * t).sum() - 0.5 * (s[1:] * t[:-1]).sum() + 0.3 * t.sum())

    def energy(states):
        x, y = states[:, :4].reshape(-1, 2, 2), states[:, 4:].reshape(-1, 2, 2)
        return (
            -0.7 * (x * y).sum((1, 2))
            - 0.5 * (x[:, 1:] * y[:, :-1]).sum((1, 2))
            + 0.3 * y.sum((1, 2))
        )

    return Case("two layers", model, energy, [SPIN] * 4 + [BIT] * 4, "lattice")


def _irregular() -> Case:
    left, right = np.array([0, 0, 1, 2, 3, 4]), np.array([1, 2, 2, 3, 4, 0])
    weights, trio = RNG.normal(size=6), 0.8
    tables = RNG.normal(size=(2, 2, 3))
    tables[0, 1, 2] = np.inf
    s, c = ed.spin("s", 5), ed.categorical("c", 2, levels=3)
    model = ed.Model(
        (weights * s[left] * s[right]).sum()
        + trio * s[0] * s[2] * s[4]
        + ed.Table(tables)(s[[1, 3]], c).sum()
    )

    def energy(states):
        x, y = states[:, :5], states[:, 5:]
        pairs = (weights * x[:, left] * x[:, right]).sum(1)
        up = (x[:, [1, 3]] + 1) // 2
        entries = tables[0, up[:, 0], y[:, 0]] + tables[1, up[:, 1], y[:, 1]]
        return pairs + trio * x[:, 0] * x[:, 2] * x[:, 4] + entries

    return Case("irregular graph", model, energy, [SPIN] * 5 + [(0, 1, 2)] * 2, "gather")


def _complete() -> Case:
    weights = RNG.normal(size=(10, 10)) / 3
    x = ed.binary("x", 10)
    model = ed.Model(-(x @ weights @ x))

    def energy(states):
        return -np.einsum("ni,ij,nj->n", states, weights, states)

    return Case("Boltzmann machine", model, energy, [BIT] * 10, "gather")


def _network() -> Case:
    network = eqx.nn.MLP(4, "scalar", 8, 1, key=jax.random.key(3))
    x = ed.binary("x", 4)
    model = ed.Model(4.0 * ed.Neural(network)(x) + 0.3 * x[0] * x[1])
    first, last = (np.asarray(layer.weight, np.float64) for layer in network.layers)
    b1, b2 = (np.asarray(layer.bias, np.float64) for layer in network.layers)

    def energy(states):
        hidden = np.maximum(states @ first.T + b1, 0)
        return 4.0 * (hidden @ last.T + b2)[:, 0] + 0.3 * states[:, 0] * states[:, 1]

    return Case("network", model, energy, [BIT] * 4, "gather")


def _rbm() -> Case:
    weights, b, c = RNG.normal(size=(5, 4)), RNG.normal(size=5), RNG.normal(size=4)
    x, h = ed.binary("x", 5), ed.spin("h", 4, latent=True)
    model = ed.Model(-(x @ weights @ h) - b @ x - c @ h)

    def energy(states):
        v, z = states[:, :5], states[:, 5:]
        return -np.einsum("ni,ij,nj->n", v, weights, z) - v @ b - z @ c

    return Case("RBM", model, energy, [BIT] * 5 + [SPIN] * 4, "gather")


def _function() -> Case:
    x, a = ed.spin("x", 3), ed.binary("a", 2)
    model = ed.Model(
        ed.apply(lambda x, a: jnp.sin(x.sum() + 2 * a[0]), x, a) + (0.5 * a.sum() - x[0]) ** 2
    )

    def energy(states):
        x, a = states[:, :3], states[:, 3:]
        return np.sin(x.sum(1) + 2 * a[:, 0]) + (0.5 * a.sum(1) - x[:, 0]) ** 2

    return Case("opaque function", model, energy, [SPIN] * 3 + [BIT] * 2, "gather")


CASES = [
    _open_lattice(),
    _torus(),
    _diagonals(),
    _plaquettes(),
    _potts(),
    _integers(),
    _two_layers(),
    _irregular(),
    _complete(),
    _network(),
    _rbm(),
    _function(),
]


def _ring(side: int) -> Case:
    """Every bond has a coupling of its own, so that a shift the wrong way changes the law."""
    weights = RNG.normal(size=side)
    s = ed.spin("s", side)

    def energy(states):
        return (weights * states * np.roll(states, 1, axis=1)).sum(1)

    model = ed.Model((weights * s * ed.roll(s, 1, 0)).sum())
    return Case(f"ring of {side}", model, energy, [SPIN] * side, "lattice")


def _homogeneous_ring() -> Case:
    """Neighbours at distances 1 and 2, on either side of which the offsets differ in sign."""
    x = ed.binary("x", 9)

    def energy(states):
        near = (states * np.roll(states, 1, axis=1)).sum(1)
        return 0.7 * near - 1.1 * (states * np.roll(states, 2, axis=1)).sum(1) + 0.4 * states.sum(1)

    pairs = 0.7 * (x * ed.roll(x, 1, 0)).sum() - 1.1 * (x * ed.roll(x, 2, 0)).sum()
    return Case("ring of equal sites", ed.Model(pairs + 0.4 * x.sum()), energy, [BIT] * 9, "packed")


def _homogeneous_torus() -> Case:
    """Sides that differ, each with a coupling of its own, one of them in two terms."""
    s = ed.spin("s", (2, 6))

    def energy(states):
        x = states.reshape(-1, 2, 6)
        along = (x * np.roll(x, 1, 2)).sum((1, 2))
        return 0.4 * along - 0.3 * (x * np.roll(x, 1, 1)).sum((1, 2)) + 0.15 * x.sum((1, 2))

    along = ed.roll(s, 1, 1)
    model = ed.Model(
        0.7 * (s * along).sum()
        - 0.3 * (along * s).sum()
        - 0.3 * (s * ed.roll(s, 1, 0)).sum()
        + 0.15 * s.sum()
    )
    return Case("torus of equal sites", model, energy, [SPIN] * 12, "packed")


def _path() -> Case:
    weights, farther = RNG.normal(size=4), RNG.normal(size=3)
    s = ed.spin("s", 5)

    def energy(states):
        near = (weights * states[:, 1:] * states[:, :-1]).sum(1)
        return near + (farther * states[:, 2:] * states[:, :-2]).sum(1)

    model = ed.Model((weights * s[1:] * s[:-1]).sum() + (farther * s[2:] * s[:-2]).sum())
    return Case("path of 5", model, energy, [SPIN] * 5, "lattice")


def _unequal_colours() -> Case:
    """Nine sites that all interact, and two that see only the first: colours of 1, 2 or 3 sites."""
    i, j = np.array([*zip(*np.triu_indices(9, 1), strict=True), (9, 0), (10, 0)]).T
    weights = RNG.normal(size=len(i))
    x = ed.binary("x", 11)

    def energy(states):
        return (weights * states[:, i] * states[:, j]).sum(1)

    model = ed.Model((weights * x[i] * x[j]).sum())
    return Case("nine colours", model, energy, [BIT] * 11, "gather")


ONE_SWEEP = [
    _ring(6),
    _ring(9),
    _homogeneous_ring(),
    _homogeneous_torus(),
    _path(),
    _unequal_colours(),
]
"""Cases of one lowering each: shifts over more than two sites, and blocks that are padded."""


def pack(model: ed.Model, states: np.ndarray) -> dict[str, jnp.ndarray]:
    """States (n, sites) as a batch of configurations."""
    xs, start = {}, 0
    for v in model.variables:
        part = states[:, start : start + v.size]
        xs[v.name] = jnp.asarray(part.reshape(-1, *v.shape), v.domain.dtype)
        start += v.size
    return xs


def unpack(model: ed.Model, xs: dict[str, jnp.ndarray]) -> np.ndarray:
    """The way back."""
    parts = [np.asarray(xs[v.name]).reshape(-1, v.size) for v in model.variables]
    return np.concatenate(parts, axis=1).astype(int)
