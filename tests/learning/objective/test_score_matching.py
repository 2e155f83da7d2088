"""Score matching on every continuous domain, beside formulas and integrals in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.flatten_util import ravel_pytree
from scipy.special import expit, softmax

import energydsl as ed
from energydsl.learning.moving import moving_of
from tests.learning.objective.losses import loss_of, slope

FALSE_ALARM = 1e-6  # chance that a correct objective fails one of these tests
KEY = jax.random.key(0)


def gamma(shape, rate):
    x = ed.positive("x")
    a, b = ed.parameter("a", shape), ed.parameter("b", rate)
    return ed.Model(b * x - (a - 1) * ed.log(x))


def beta(a, b):
    x = ed.interval("x", low=-1.0, high=3.0)
    a, b, u = ed.parameter("a", a), ed.parameter("b", b), (x + 1) / 4
    return ed.Model(-(a - 1) * ed.log(u) - (b - 1) * ed.log(1 - u))


def dirichlet(*powers):
    x = ed.simplex("x", len(powers))
    return ed.Model(-(ed.parameter("a", np.array(powers)) - 1) @ ed.log(x))


def test_on_positive_numbers_it_is_hyvarinen_s_formula():
    """With the weight x**2: mean of x**2 s**2 / 2 + 2 x s + x**2 s', and 1/2 without parameters."""
    x = np.random.default_rng(0).gamma(1.7, 0.5, 30)
    s, bend = 0.8 / x - 2.0, -0.8 / x**2
    expected = np.mean(x**2 * s**2 / 2 + 2 * x * s + x**2 * bend) + 0.5
    data = {"x": x.astype(np.float32)}
    value, _ = slope(ed.compile(gamma(1.8, 2.0)), ed.ScoreMatching("explicit"), data)
    assert value == pytest.approx(expected, rel=1e-5)


def test_in_an_interval_it_is_that_of_the_logit():
    """U = -a log u - b log(1 - u) with the logit's derivative u (1 - u)."""
    u = np.random.default_rng(0).beta(0.7, 2.0, 30)
    a, b = 1.3, 0.4
    expected = np.mean((b * u - a * (1 - u)) ** 2 / 2 - (a + b) * u * (1 - u))
    data = {"x": (4 * u - 1).astype(np.float32)}
    value, _ = slope(ed.compile(beta(a, b)), ed.ScoreMatching("explicit"), data)
    assert value == pytest.approx(expected, rel=1e-5)


def populations():
    """A model at its true parameters, data on a grid in some coordinates, and their weights."""
    z = np.linspace(-90, 5, 600)
    for shape in (0.4, 1.0):  # a density with a pole at 0, and one that does not vanish there
        yield (
            f"gamma {shape}",
            lambda a=shape: gamma(a, 1.5),
            np.exp(z),
            shape * z - 1.5 * np.exp(z),
        )
    z = np.linspace(-35, 35, 600)
    u = expit(z)
    yield "interval", lambda: beta(0.9, 1.0), 4 * u - 1, 0.9 * np.log(u) + np.log1p(-u)
    z = np.linspace(-30, 12, 61)
    logits = np.stack([*np.meshgrid(z, z), np.zeros((61, 61))], axis=-1).reshape(-1, 3)
    x = softmax(logits, axis=1)
    yield "simplex", lambda: dirichlet(1.0, 2.5, 1.5), x, np.log(x) @ [1.0, 2.5, 1.5]


@pytest.mark.parametrize(
    "declare, grid, log_weights",
    [
        pytest.param(*case, id=name, marks=[pytest.mark.slow] * (name in ("gamma 1.0", "simplex")))
        for name, *case in populations()
    ],
)
def test_the_mean_loss_has_its_minimum_at_the_truth(declare, grid, log_weights):
    """Its gradient over the true density, an integral in float64, is 0 there, not elsewhere.

    Trapezoids are exact for such integrands, up to the tails, which weigh less than 1e-9.
    """
    with jax.enable_x64(True):
        ebm, objective = ed.compile(declare()), ed.ScoreMatching("explicit")

        def gradient(moving):
            def one(x):
                return jax.grad(loss_of(ebm, objective, {"x": x[None]}))(moving)

            each = jax.jit(jax.vmap(one))(jnp.asarray(grid))
            weights = softmax(log_weights)
            return np.concatenate([weights @ a.reshape(len(a), -1) for a in jax.tree.leaves(each)])

        moving = moving_of(ebm, objective)
        at_truth, elsewhere = gradient(moving), gradient(jax.tree.map(lambda a: 1.2 * a, moving))
    assert np.abs(at_truth).max() < 1e-6
    assert np.abs(elsewhere).max() > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("method", ["explicit", "sliced"])
def test_the_error_falls_as_the_root_of_the_data(method):
    """Of a gamma density that is not 0 at 0, whose loss is quadratic: one Newton step solves it.

    40 fits of each size: sqrt(n) times the error has mean 0 and one spread at all sizes.
    """
    ebm, objective, fits = ed.compile(gamma(1.0, 1.5)), ed.ScoreMatching(method), 40
    truth, unravel = ravel_pytree(moving_of(ebm, objective))

    @jax.jit
    @jax.vmap
    def error(data):
        def loss(flat):
            return loss_of(ebm, objective, {"x": data})(unravel(flat))

        return jnp.linalg.solve(jax.hessian(loss)(truth), -jax.grad(loss)(truth))

    rng = np.random.default_rng(0)
    scaled = {}
    for n in (400, 1600, 6400):
        data = rng.gamma(1.0, 1 / 1.5, (fits, n)).astype(np.float32)
        scaled[n] = np.sqrt(n) * np.asarray(error(data), float)
    for n in (1600, 6400):
        t = scaled[n].mean(0) / (scaled[n].std(0, ddof=1) / np.sqrt(fits))
        assert (np.abs(t) < scipy.stats.t.isf(FALSE_ALARM / 16, fits - 1)).all(), (n, t)
        ratio = scaled[n].var(0, ddof=1) / scaled[400].var(0, ddof=1)
        ends = scipy.stats.f.ppf([FALSE_ALARM / 16, 1 - FALSE_ALARM / 16], fits - 1, fits - 1)
        assert (ends[0] < ratio).all() and (ratio < ends[1]).all(), (n, ratio)


def test_the_mean_over_all_directions_is_the_trace():
    """In three dimensions there are eight directions, of which opposite ones agree."""
    y = ed.real("y", 3)
    w = ed.parameter("w", np.array([0.3, -0.5, 0.8], np.float32))
    ebm = ed.compile(ed.Model((y**4).sum() + w[0] * y[0] * y[1] ** 2 + w[1] * y[1] * y[2] ** 2))
    data = {"y": np.random.default_rng(0).normal(size=(1, 3)).astype(np.float32)}
    explicit, _ = slope(ebm, ed.ScoreMatching("explicit"), data)
    loss = loss_of(ebm, ed.ScoreMatching("sliced"), data)
    moving = moving_of(ebm, ed.ScoreMatching())
    each = jax.vmap(lambda key: loss(moving, key))(jax.random.split(KEY, 200))
    # A direction is left out with probability 4 * (3/4)**200 = 4e-25.
    values = np.unique(np.round(np.asarray(each, float), 3))
    assert len(values) == 4
    assert values.mean() == pytest.approx(explicit, rel=1e-4)


def test_noise_is_added_in_the_coordinates():
    x = np.random.default_rng(0).gamma(1.7, 0.5, 30).astype(np.float32)
    noise = np.array(jax.random.normal(KEY, (30, 1)))[:, 0]
    at = x * np.exp(0.3 * noise)
    expected = np.mean((2.0 * at - 1.8 - noise / 0.3) ** 2 / 2)
    value, _ = slope(ed.compile(gamma(1.8, 2.0)), ed.ScoreMatching(noise=0.3), {"x": x})
    assert value == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("method", ["explicit", "sliced", "denoising"])
def test_clamped_sites_have_no_coordinates(method):
    """The loss is that of the other sites alone, for any data of the clamped one."""
    y, k = ed.positive("y", 3), ed.parameter("k", 1.5)
    model = ed.Model(k * y.sum() + y[0] * y[1] * y[2] - ed.log(y).sum())
    held = ed.compile(model.condition({y[1]: 0.7}))
    p = ed.positive("p", 2)
    rest = ed.compile(ed.Model(k * p.sum() + 0.7 * p[0] * p[1] - ed.log(p).sum()))
    values = np.random.default_rng(0).gamma(2.0, 1.0, (5, 3)).astype(np.float32)
    found, slopes = slope(held, ed.ScoreMatching(method), {"y": values})
    expected, theirs = slope(rest, ed.ScoreMatching(method), {"p": values[:, [0, 2]]})
    assert found == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(slopes[0], theirs[0], rtol=1e-5)


def test_inputs_enter_each_example():
    """E = e^(w x) y has U = e^(w x) y - log y."""
    x, y = ed.real("x", given=True), ed.positive("y")
    ebm = ed.compile(ed.Model(ed.exp(ed.parameter("w", 0.7) * x) * y))
    rng = np.random.default_rng(3)
    data = {"x": rng.normal(size=6).astype(np.float32), "y": rng.gamma(1, 1, 6).astype(np.float32)}
    rate = np.exp(0.7 * data["x"]) * data["y"]
    for method in ("explicit", "sliced"):
        _, history = ed.fit(
            ebm, ed.ScoreMatching(method), data, key=KEY, steps=1, progress=False
        )  # fmt: skip
        assert history["loss"][0] == pytest.approx(np.mean((rate - 1) ** 2 / 2 - rate), rel=1e-5)


def test_latents_are_summed_out():
    """F = -log(e^-v + e^(-2v - c)): second differences of U in log v."""
    v, h = ed.positive("v"), ed.binary("h", latent=True)
    ebm = ed.compile(ed.Model(v * (1 + h) + ed.parameter("c", 0.3) * h))
    data = np.random.default_rng(0).gamma(1.0, 1.0, 8)

    def potential(z):
        return -np.logaddexp(-np.exp(z), -2 * np.exp(z) - 0.3) - z

    z, d = np.log(data), 1e-4
    rise = (potential(z + d) - potential(z - d)) / (2 * d)
    bend = (potential(z + d) - 2 * potential(z) + potential(z - d)) / d**2
    value, _ = slope(ebm, ed.ScoreMatching("explicit"), {"v": data.astype(np.float32)})
    assert value == pytest.approx(np.mean(rise**2 / 2 - bend), rel=1e-5)


def test_examples_at_the_boundary_are_refused():
    ends = np.array([0.5, 3.0, 1.0, -1.0])
    with pytest.raises(ValueError, match=r"interval\(low=-1.0, high=3.0\), and 2 of 4.*example 1"):
        ed.fit(ed.compile(beta(2.0, 2.0)), ed.ScoreMatching(), ends, key=KEY)
    corner = np.array([[0.2, 0.3, 0.5], [0.0, 0.4, 0.6]])
    with pytest.raises(ValueError, match=r"inside simplex, and 1 of 2 .*example 1"):
        ed.fit(ed.compile(dirichlet(1.0, 2.0, 2.0)), ed.ScoreMatching(), corner, key=KEY)
