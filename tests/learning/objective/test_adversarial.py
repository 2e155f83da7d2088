"""An energy and its generator, against closed forms of Gaussians and sums over states."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

import energydsl as ed
from energydsl.learning.moving import moved, moving_of

NORMAL = ed.LogDensity(dist.Normal)
X = ed.real("x", 2)
DATA = np.random.default_rng(0).normal([1.5, -0.5], [0.6, 1.2], (2000, 2)).astype(np.float32)


def energy():
    a, b = ed.parameter("a", np.array([1.0, 0.7])), ed.parameter("b", np.array([0.4, -0.3]))
    return ed.compile(ed.Model((a * X**2).sum() / 2 - b @ X))


def generator(mean=(0.3, 0.2), scale=(0.1, -0.4)):
    m, s = ed.parameter("m", np.array(mean)), ed.parameter("s", np.array(scale))
    return ed.compile(ed.Model(NORMAL(X, m, ed.exp(s))))


def slopes_of(ebm, objective, batch, keys):
    """The losses, and their gradients in the arrays of both models, for each key."""

    def loss(moving, key):
        learning, own = moved(ebm, objective, moving)
        return own.loss(learning, batch, None, key=key)[0]

    moving = moving_of(ebm, objective)

    @eqx.filter_jit
    def each(keys):
        return jax.lax.map(lambda k: jax.value_and_grad(loss)(moving, k), keys, batch_size=100)

    return each(keys)


def test_each_of_the_two_follows_its_own_term():
    """Mean gradients of 2,000 keys; false alarm below 1e-7 for each of nine numbers."""
    a, b = np.array([1.0, 0.7]), np.array([0.4, -0.3])
    m, s = np.array([0.3, 0.2]), np.exp([0.1, -0.4])
    ebm, objective = energy(), ed.Adversarial(generator(), samples=5)
    losses, slopes = slopes_of(ebm, objective, {"x": jnp.asarray(DATA)}, jr.split(jr.key(0), 2000))
    second, drawn = (DATA**2).mean(axis=0), m**2 + s**2
    ups, downs = a @ second / 2 - b @ DATA.mean(axis=0), a @ drawn / 2 - b @ m
    found = [losses, *jax.tree.leaves(slopes)]
    expected = [
        ups - downs,
        (second - drawn) / 2,
        m - DATA.mean(axis=0),
        a * m - b,
        a * s**2 - 1,
    ]
    assert len(found) == len(expected)
    for numbers, wanted in zip(found, expected, strict=True):
        error = np.std(numbers, axis=0) / np.sqrt(len(numbers))
        assert (np.abs(np.mean(numbers, axis=0) - wanted) < 5.5 * error + 1e-5).all()


def test_draws_that_are_differentiable_need_no_score_function():
    """x1 has the deviation exp(c x0), so that E x1^2 / 2 = exp(2 c^2) / 2 and log q has the mean of
    its entropy, whatever c: the slope in c is 2 c exp(2 c^2). False alarm below 1e-7."""
    c, b = 0.3, ed.parameter("b", np.array(2.0))
    ebm = ed.compile(ed.Model(b * X[0] + (X**2).sum() / 2))
    scale = ed.exp(ed.parameter("c", np.array(c)) * X[0])
    funnel = ed.compile(ed.Model(NORMAL(X[0], 0.0, 1.0) + NORMAL(X[1], 0.0, scale)))
    objective = ed.Adversarial(funnel, samples=5)
    _, slopes = slopes_of(ebm, objective, {"x": jnp.asarray(DATA)}, jr.split(jr.key(2), 2000))
    (found,) = jax.tree.leaves(slopes.own)
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found) - 2 * c * np.exp(2 * c**2)) < 5.5 * error


@pytest.mark.slow
def test_the_energy_is_that_of_the_data_and_the_generator_follows():
    rate = optax.cosine_decay_schedule(0.03, 3000)
    learnt, history = ed.fit(
        energy(), ed.Adversarial(generator(), samples=100), DATA, key=jr.key(0), steps=3000,
        optimizer=optax.adam(rate),
    )  # fmt: skip
    a, b = (np.asarray(learnt.parameters[n]) for n in "ab")
    np.testing.assert_allclose(b / a, DATA.mean(axis=0), atol=0.05)
    np.testing.assert_allclose(1 / a, DATA.var(axis=0), rtol=0.1)
    np.testing.assert_allclose(history.generator.parameters["m"], b / a, atol=0.05)
    log_z = float(ed.log_partition(learnt))
    bound = history["log_z_bound"][-100:]
    assert log_z - 0.02 < bound.mean() < log_z + 6 * bound.std() / 10


def test_a_generator_of_spins_learns_by_the_score_function():
    s = ed.spin("s", 3)
    ebm = ed.compile(ed.Model(-ed.parameter("J", np.array(0.5)) * s[0] * s[1] - 0.3 * s.sum()))
    pairs = ed.compile(
        ed.Model(-ed.parameter("K", np.array(0.2)) * s[0] * s[2] - ed.parameter("h", 0.1) * s.sum())
    )
    states = jnp.array(np.stack(np.meshgrid(*3 * [[-1, 1]]), -1).reshape(-1, 3))
    objective = ed.Adversarial(pairs, samples=3)

    def divergence(moving):
        learning, own = moved(ebm, objective, moving)
        logs = -jax.vmap(lambda x: own.generator.energy({"s": x}))(states)
        logs -= jax.nn.logsumexp(logs)
        energies = jax.vmap(lambda x: learning.energy({"s": x}))(states)
        return jnp.sum(jnp.exp(logs) * (energies + logs))

    batch = {"s": states[:2]}
    _, slopes = slopes_of(ebm, objective, batch, jr.split(jr.key(1), 2000))
    expected = jax.grad(divergence)(moving_of(ebm, objective))
    for found, wanted in zip(
        jax.tree.leaves(slopes.own), jax.tree.leaves(expected.own), strict=True
    ):
        error = np.std(found) / np.sqrt(len(found))
        assert abs(np.mean(found) - wanted) < 5.5 * error


@pytest.mark.parametrize(
    ("generator", "error", "message"),
    [
        (lambda: 3, TypeError, "expected a model"),
        (lambda: ed.Model(NORMAL(ed.real("y", 2), 0.0, 1.0)), ValueError, r"variables \['y'\]"),
        (lambda: ed.Model(NORMAL(ed.real("x", 3), 0.0, 1.0)), ValueError, "expected the same"),
        (lambda: ed.Model(NORMAL(X, ed.real("u", 2, given=True), 1.0)), ValueError, r"\['u'\]"),
        (lambda: ed.Model(ed.apply(lambda x: (x**4).sum(), X)), TypeError, "exact draws"),
    ],
    ids=["no model", "another name", "another shape", "inputs", "no draws"],
)
def test_a_generator_that_does_not_fit_is_refused(generator, error, message):
    with pytest.raises(error, match=message):
        ed.fit(energy(), ed.Adversarial(generator()), DATA, key=jr.key(0))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="samples=1"):
        ed.Adversarial(generator(), samples=1)
    z = ed.real("z", 2, latent=True)
    hidden = ed.compile(ed.Model(NORMAL(z, 0.0, 1.0) + NORMAL(X, ed.parameter("W", 1.0) * z, 1.0)))
    with pytest.raises(TypeError, match=r"not show \['z'\]. Use MaximumLikelihood"):
        ed.fit(hidden, ed.Adversarial(generator()), DATA, key=jr.key(0))
    u = ed.real("u", 2, given=True)
    given = ed.compile(ed.Model(NORMAL(X, ed.parameter("w", 1.0) * u, 1.0)))
    with pytest.raises(TypeError, match="data with inputs"):
        ed.fit(given, ed.Adversarial(generator()), {"x": DATA, "u": DATA}, key=jr.key(0))
    _, history = ed.fit(energy(), ed.MaximumLikelihood(), DATA, key=jr.key(0), steps=1)
    with pytest.raises(AttributeError, match=r"by ed\.Adversarial\(generator\)"):
        _ = history.generator
