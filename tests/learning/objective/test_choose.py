"""Every kind of model with every objective: it learns, or the refusal names those that do."""

import re

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpy.ma as ma
import pytest

import energydsl as ed
from energydsl.learning.data import check_examples
from energydsl.learning.objective.choose import OBJECTIVES, check_applies

KEY = jr.key(0)
RNG = np.random.default_rng(0)


def spins(n=3):
    s, J = ed.spin("s", n), ed.parameter("J", 0.1)
    return ed.Model(J * (s[1:] * s[:-1]).sum()), {"s": RNG.choice([-1, 1], (8, n))}


def rbm():
    x, h = ed.binary("x", 3), ed.binary("h", 2, latent=True)
    W = ed.parameter("W", RNG.normal(size=(3, 2)))
    return ed.Model(-(x @ W @ h)), {"x": RNG.integers(0, 2, (8, 3))}


def coupled_latents():
    """With a budget too small for a sum over latents that act on each other."""
    x, h = ed.binary("x", 3), ed.binary("h", 12, latent=True)
    i, j = np.triu_indices(12, 1)
    W, u = ed.parameter("W", 0.1 * RNG.normal(size=(3, 12))), ed.parameter("u", np.zeros(66))
    return ed.Model(-(x @ W @ h) - (u * h[i] * h[j]).sum()), {"x": RNG.integers(0, 2, (8, 3))}


def labels():
    c, t = ed.categorical("c", 3, levels=3), ed.parameter("t", np.zeros((3, 3)))
    return ed.Model(ed.Table(t)(c[:-1], c[1:]).sum()), {"c": RNG.integers(0, 3, (8, 3))}


def quadratic():
    y, A = ed.real("y", 2), ed.parameter("A", np.eye(2))
    return ed.Model(0.5 * (y @ A @ y)), {"y": RNG.normal(size=(8, 2))}


def neural():
    y = ed.real("y", 2)
    network = eqx.nn.MLP(2, "scalar", 4, 1, activation=jnp.tanh, key=jr.key(0))
    return ed.Model(ed.Neural(network)(y) + 0.5 * (y**2).sum()), {"y": RNG.normal(size=(8, 2))}


def positive():
    t, a = ed.positive("t"), ed.parameter("a", 2.0)
    return ed.Model(t - (a - 1) * ed.log(t)), {"t": RNG.gamma(2, 1, 8)}


def mixed():
    """Spins and reals together."""
    s, y, w = ed.spin("s", 2), ed.real("y"), ed.parameter("w", 0.3)
    energy = y**2 / 2 - w * y * s.sum()
    return ed.Model(energy), {"s": RNG.choice([-1, 1], (8, 2)), "y": RNG.normal(size=8)}


def counts():
    n, r = ed.count("n"), ed.parameter("r", 1.0)
    return ed.Model(r * n), {"n": RNG.poisson(2.0, 8)}


def with_inputs():
    x, y = ed.real("x", 2, given=True), ed.spin("y", 2)
    w = ed.parameter("w", np.zeros((2, 2)))
    return ed.Model(-(x @ w @ y)), {"x": RNG.normal(size=(8, 2)), "y": RNG.choice([-1, 1], (8, 2))}


def with_gaps():
    model, data = labels()
    return model, {"c": ma.array(data["c"], mask=RNG.random((8, 3)) < 0.3)}


MODELS = (
    spins, rbm, coupled_latents, labels, quadratic, neural, positive, mixed, counts, with_inputs,
    with_gaps,
)  # fmt: skip

REFUSES = {
    "spins": {"ScoreMatching"},
    "rbm": {"PseudoLikelihood", "RatioMatching", "ScoreMatching"},
    "coupled_latents": {
        "MaximumLikelihood", "PseudoLikelihood", "RatioMatching", "ScoreMatching",
        "NoiseContrastive",
    },
    "labels": {"ScoreMatching"},
    "quadratic": {"RatioMatching"},
    "neural": {"MaximumLikelihood", "PseudoLikelihood", "RatioMatching"},
    "positive": {"PseudoLikelihood", "RatioMatching"},
    "mixed": {"RatioMatching", "ScoreMatching"},
    "counts": {"PseudoLikelihood", "RatioMatching", "ScoreMatching", "NoiseContrastive"},
    "with_inputs": {"ScoreMatching", "NoiseContrastive"},
    "with_gaps": {"PseudoLikelihood", "RatioMatching", "ScoreMatching", "NoiseContrastive"},
}  # fmt: skip
"""The objectives that do not fit each model."""


def refusal(ebm, kind, data):
    """The message if an objective is refused."""
    try:
        check_applies(kind(), ebm, check_examples(ebm, data, "fit"))
    except TypeError as error:
        return str(error)
    return None


QUICK = (coupled_latents, with_inputs, with_gaps)
CASES = [
    pytest.param(f, id=f.__name__, marks=[pytest.mark.slow] * (f not in QUICK)) for f in MODELS
]


@pytest.mark.parametrize("declare", CASES)
def test_a_refusal_names_the_objectives_that_apply(declare):
    model, data = declare()
    ebm = ed.compile(model, budget=6)
    said = {kind.__name__: refusal(ebm, kind, data) for kind in OBJECTIVES}
    refused = {name: text for name, text in said.items() if text is not None}
    assert set(refused) == REFUSES[declare.__name__]
    applies = [name for name in said if name not in refused]
    for name, text in refused.items():
        assert text.startswith(name), text
        if declare is counts and name == "NoiseContrastive":
            assert "noise=dist.Poisson" in text  # a setting of its own makes it fit
        else:
            assert re.findall(r"(\w+)\(\)", text.rpartition("Use ")[2]) == applies, text


@pytest.mark.slow
@pytest.mark.parametrize("declare", MODELS, ids=lambda f: f.__name__)
def test_each_objective_that_applies_learns_by_changing_one_word(declare):
    model, data = declare()
    ebm = ed.compile(model, budget=6)
    for kind in OBJECTIVES:
        if kind.__name__ not in REFUSES[declare.__name__]:
            _, history = ed.fit(ebm, kind(), data, key=KEY, steps=2, progress=False)
            assert np.isfinite(history["loss"]).all() and len(history["loss"]) == 2


def test_refusals_say_why():
    model, data = rbm()
    with pytest.raises(TypeError) as error:
        ed.fit(ed.compile(model), ed.PseudoLikelihood(), data, key=KEY)
    assert str(error.value) == (
        "PseudoLikelihood predicts each site from all others, and data does not show ['h']. "
        "Use MaximumLikelihood(), NoiseContrastive() or ContrastiveDivergence()."
    )


def test_errors_of_settings_name_no_other_objective():
    model, data = spins()
    with pytest.raises(TypeError, match=r"expected one such as ed.Gibbs\(\)\.$"):
        ed.fit(ed.compile(model), ed.ContrastiveDivergence(kernel="gibbs"), data, key=KEY)


class Narrow(ed.AbstractObjective):
    """An objective of a user, whose refusal is a plain TypeError."""

    def check(self, ebm, data):
        raise TypeError("Narrow fits nothing.")

    def init(self, ebm, data, *, key):
        return None

    def loss(self, ebm, batch, state, *, key):
        return jnp.zeros(()), (None, {})


def test_a_user_s_refusal_is_left_as_it_is():
    model, data = spins()
    with pytest.raises(TypeError, match=r"^Narrow fits nothing\.$"):
        ed.fit(ed.compile(model), Narrow(), data, key=KEY)
