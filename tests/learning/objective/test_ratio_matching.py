"""Ratio matching beside its formula, and its minimum over an enumerated law."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energydsl as ed
from energydsl.learning.moving import moving_of
from tests.learning.objective.losses import loss_of, slope
from tests.oracles.enumerate import exact_law

KEY = jax.random.key(0)
RNG = np.random.default_rng(5)
EDGES = np.array([(0, 1), (1, 2), (0, 3), (2, 3), (1, 3)])
COUPLINGS = RNG.normal(0, 0.7, 5).astype(np.float32)
OWN, PAIR = RNG.normal(size=(3, 3)), RNG.normal(size=(3, 3))


def magnet():
    """Spins with a field, whose conditionals follow from one gradient."""
    s, J = ed.spin("x", 4), ed.parameter("J", COUPLINGS)
    i, j = EDGES.T
    return ed.Model(-(J * s[i] * s[j]).sum() - ed.parameter("b", 0.4) * s.sum())


def magnet_energy(s):
    return -(s[:, EDGES[:, 0]] * s[:, EDGES[:, 1]]) @ COUPLINGS - 0.4 * s.sum(1)


def labels():
    """A chain of labels, whose conditionals are gathered from tables."""
    c = ed.categorical("x", 3, levels=3)
    own, pair = ed.parameter("own", OWN), ed.parameter("pair", PAIR)
    return ed.Model(ed.Table(own)(c).sum(), ed.Table(pair)(c[:-1], c[1:]).sum())


def labels_energy(c):
    return OWN[np.arange(3), c].sum(1) + PAIR[c[:, :-1], c[:, 1:]].sum(1)


CASES = [
    pytest.param(magnet, magnet_energy, [(-1, 1)] * 4, id="magnet"),
    pytest.param(labels, labels_energy, [(0, 1, 2)] * 3, id="labels"),
]


def score(law, x, sites):
    """Half the Brier score of the conditionals of these sites at one state."""
    total = 0.0
    for t in sites:
        others = np.delete(law.states, t, axis=1) == np.delete(x, t)
        alike = others.all(axis=1)
        probs = law.probs[alike] / law.probs[alike].sum()
        total += ((probs - (law.states[alike, t] == x[t])) ** 2).sum() / 2
    return total


@pytest.mark.parametrize("declare, energy, levels", CASES)
def test_it_is_the_brier_score_of_every_conditional(declare, energy, levels):
    law = exact_law(energy, levels)
    rows = np.random.default_rng(0).choice(len(law.states), 6)
    data = law.states[rows].astype(np.int8)
    expected = np.mean([score(law, x, range(len(levels))) for x in data])
    value, _ = slope(ed.compile(declare()), ed.RatioMatching(), {"x": data})
    assert value == pytest.approx(expected, rel=1e-5)


def test_of_two_levels_it_is_hyvarinen_s_formula():
    """The sum over flips of g(p(x) / p(x flipped))**2, where g(u) = 1 / (1 + u)."""
    law = exact_law(magnet_energy, [(-1, 1)] * 4)
    data = law.states[[3, 8, 14]]
    expected = 0.0
    for x in data:
        flips = np.where(np.eye(4, dtype=bool), -x, x)
        ratio = np.exp(magnet_energy(flips) - magnet_energy(x[None]))
        expected += (1 / (1 + ratio) ** 2).sum() / 3
    value, _ = slope(ed.compile(magnet()), ed.RatioMatching(), {"x": data.astype(np.int8)})
    assert value == pytest.approx(expected, rel=1e-5)


def test_clamped_sites_are_not_predicted():
    """Whatever data show of the clamped site, it is held at -1."""
    s = ed.spin("x", 4)
    ebm = ed.compile(magnet().condition({s[2]: -1}))
    law = exact_law(magnet_energy, [(-1, 1)] * 4)
    data = law.states[[3, 8, 14]].astype(np.int8)
    held = np.where(np.arange(4) == 2, -1, data)
    expected = np.mean([score(law, x, [0, 1, 3]) for x in held])
    value, _ = slope(ebm, ed.RatioMatching(), {"x": data})
    assert value == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("objective", [ed.RatioMatching(), ed.PseudoLikelihood()], ids=str)
@pytest.mark.parametrize("declare, energy, levels", CASES)
def test_the_mean_loss_has_its_minimum_at_the_truth(declare, energy, levels, objective):
    """Its gradient under the enumerated law is 0 there, up to rounding, and not elsewhere."""
    law, ebm = exact_law(energy, levels), ed.compile(declare())
    states, weights = jnp.asarray(law.states, jnp.int8), jnp.asarray(law.probs, jnp.float32)

    @jax.jit
    def gradient(moving):
        each = jax.vmap(lambda x: jax.grad(loss_of(ebm, objective, {"x": x[None]}))(moving))(states)
        return [jnp.tensordot(weights, a, 1) for a in jax.tree.leaves(each)]

    moving = moving_of(ebm, objective)
    assert max(np.abs(g).max() for g in gradient(moving)) < 1e-6
    moved = jax.tree.map(lambda a: 1.2 * a, moving)
    assert max(np.abs(g).max() for g in gradient(moved)) > 1e-2
