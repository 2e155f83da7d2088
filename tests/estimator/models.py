"""Small random models of every kind, with log Z by enumeration in NumPy."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

import energydsl as ed


def states(*levels):
    return np.array(list(itertools.product(*levels)), float)


def numbers(rng, *shape, scale=1.0):
    """Normal numbers that float32 holds exactly."""
    return (rng.normal(size=shape) * scale).astype(np.float32).astype(float)


def glass(rng, n=6, scale=0.6):
    """Spins, each coupled to each."""
    w, b = np.triu(numbers(rng, n, n, scale=scale), 1), numbers(rng, n)
    s, x = ed.spin("s", n), states(*[(-1, 1)] * n)
    energy = -np.einsum("ki,ij,kj->k", x, w, x) - x @ b
    return ed.Model(-(s @ jnp.asarray(w) @ s) - jnp.asarray(b) @ s), logsumexp(-energy)


def gas(rng, n=3):
    """Particles on a lattice of which no two are neighbours, with an uneven field."""
    field = numbers(rng, n, n)
    g, x = ed.binary("g", (n, n)), states(*[(0, 1)] * n**2).reshape(-1, n, n)
    pair = ed.Table(log_potential=np.array([[0, 0], [0, -np.inf]]))
    model = ed.Model(
        pair(g[1:], g[:-1]).sum() + pair(g[:, 1:], g[:, :-1]).sum() - (jnp.asarray(field) * g).sum()
    )
    clash = (x[:, 1:] * x[:, :-1]).sum((1, 2)) + (x[:, :, 1:] * x[:, :, :-1]).sum((1, 2))
    return model, logsumexp(np.where(clash > 0, -np.inf, (x * field).sum((1, 2))))


def potts(rng):
    """A ring of four labels with three levels, one with five, and a spin held at -1."""
    first, second = numbers(rng, 3, 3), numbers(rng, 3, 5)
    c, d, s = ed.categorical("c", 4, levels=3), ed.categorical("d", levels=5), ed.spin("s", 2)
    model = ed.Model(
        ed.Table(log_potential=first)(c, ed.roll(c, 1)).sum()
        + ed.Table(log_potential=second)(c[0], d)
        + 0.7 * s[0] * s[1]
    )
    x = states(*[range(3)] * 4, range(5)).astype(int)
    logs = first[x[:, :4], np.roll(x[:, :4], 1, axis=1)].sum(1) + second[x[:, 0], x[:, 4]]
    # The free spin beside the one at -1: log 2 cosh 0.7.
    return model.condition({s[0]: -1}), logsumexp(logs) + np.log(2 * np.cosh(0.7))


def mixed(rng):
    """Spins that shift two normal numbers: log Z = log 2 pi + that of spins with couplings A A'."""
    a = numbers(rng, 4, 2, scale=0.5)
    s, r = ed.spin("s", 4), ed.real("r", 2)
    model = ed.Model((r**2).sum() / 2 - (s @ jnp.asarray(a) @ r))
    x = states(*[(-1, 1)] * 4)
    return model, np.log(2 * np.pi) + logsumexp(((x @ a) ** 2).sum(1) / 2)


def wells(rng):
    """Two real numbers in wells of fourth degree: log Z by the trapezium, exact for such tails."""
    tilt, curve = numbers(rng, 2), float(np.float32(rng.uniform(0.1, 2)))
    r, axis = ed.real("r", 2), np.linspace(-6, 6, 1201)
    model = ed.Model(
        jnp.asarray(tilt) @ r + 0.3 * (r**4).sum() - curve * (r**2).sum() + r[0] * r[1]
    )
    one = 0.3 * axis**4 - curve * axis**2 + np.multiply.outer(tilt, axis)
    energy = one[0][:, None] + one[1] + np.outer(axis, axis)
    return model, logsumexp(-energy) + 2 * np.log(axis[1] - axis[0])


def one_site(rng):
    weights = numbers(rng, 4)
    model = ed.Model(ed.Table(log_potential=weights)(ed.categorical("c", levels=4)))
    return model, logsumexp(weights)


def slow(kind):
    """A kind of model that only the slow tests try."""
    return pytest.param(kind, marks=pytest.mark.slow)
