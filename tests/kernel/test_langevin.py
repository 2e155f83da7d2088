"""Langevin dynamics with metrics, schedules and Hessians."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
import scipy.stats

import energydsl as ed
from energydsl.kernel.hessian_langevin import soft_absolute
from tests.kernel.test_invariance import DRAWS, FALSE_ALARM, moved, moved_alone

V, Y, T = ed.real("v"), ed.real("y", 2), ed.positive("t")
FUNNEL = ed.compile(
    ed.Model(
        0.5 * (V - 1) ** 2
        + (0.5 * ed.exp(-V) * (Y - 0.5) ** 2 + 0.5 * V).sum()
        + ed.exp(V) * T * Y[0] ** 2
        - V
        - 2 * ed.log(abs(Y[0]))
    ).condition({Y[0]: 0.8})
)
"""v is normal, y[1] given v is normal, t given v is exponential; y[0] is clamped."""


def funnel_draws():
    """The clamped y[0] weighs v by exp(-v/2 - exp(-v) 0.045): drawn by inversion on a grid."""
    grid = np.linspace(-8, 10, 400_001)
    log = -0.5 * (grid - 1) ** 2 - 0.5 * np.exp(-grid) * 0.3**2 - 0.5 * grid
    cdf = np.cumsum(np.exp(log))
    rng = np.random.default_rng(8)
    v = np.interp(rng.random(DRAWS), cdf / cdf[-1], grid)
    y = rng.normal(0.5, np.exp(v / 2))
    t = rng.exponential(1 / (np.exp(v) * 0.8**2))
    xs = {"v": v, "y": np.stack([np.full(DRAWS, 0.8), y], axis=1), "t": t}
    return {n: jnp.asarray(a, float) for n, a in xs.items()}, (grid, cdf / cdf[-1])


DENSE = np.array([[2.0, 0.4, -0.3], [0.4, 1.5, 0.5], [-0.3, 0.5, 0.9]])
KERNELS = {
    "dense metric": ed.Langevin(step_size=0.15, metric=DENSE),
    "diagonal metric": ed.Langevin(step_size=0.15, metric=[3.0, 0.7, 1.3]),
    "schedule": ed.Langevin(step_size=lambda t: 0.5 / (1 + t)),
    "hessian": ed.HessianLangevin(step_size=0.6),
    "HMC": ed.HMC(step_size=0.3, trajectory=0.9),
    "HMC, steps": ed.HMC(step_size=0.3, steps=3),
}


@pytest.fixture(scope="module")
def funnel():
    return funnel_draws()


@pytest.mark.parametrize(
    ("name", "mover"),
    [pytest.param(n, moved, marks=[pytest.mark.slow] * (n in {"schedule", "HMC, steps"}))
     for n in KERNELS]
    + [pytest.param(n, moved_alone, marks=pytest.mark.slow) for n in KERNELS],
)  # fmt: skip
def test_a_law_whose_scales_vary_is_left_invariant(name, mover, funnel):
    xs, (grid, cdf) = funnel
    after = {n: np.asarray(a, float) for n, a in mover(FUNNEL, KERNELS[name], xs).items()}
    assert (after["y"][:, 0] == np.float32(0.8)).all()
    assert np.mean(after["v"] != np.asarray(xs["v"])) > 0.2
    scale = np.exp(after["v"])
    for values, law in [
        (after["v"], lambda v: np.interp(v, grid, cdf)),
        ((after["y"][:, 1] - 0.5) / np.sqrt(scale), scipy.stats.norm.cdf),
        (after["t"] * scale * 0.8**2, scipy.stats.expon.cdf),
    ]:
        assert scipy.stats.kstest(values, law).pvalue > FALSE_ALARM


def variances(h, variance=1.0):
    """Of a normal under unadjusted steps of these sizes."""
    for step in h:
        variance = (1 - step) ** 2 * variance + 2 * step
    return variance


def test_decreasing_steps_lose_the_bias_of_unadjusted_ones():
    """For a standard normal, the chain is a linear recursion whose variance is known."""
    ebm = ed.compile(ed.Model(0.5 * ed.real("y") ** 2))
    schedule = optax.exponential_decay(0.8, 1, 0.7)
    xs = {"y": jnp.asarray(np.random.default_rng(5).normal(size=DRAWS), float)}
    kernel = ed.Langevin(step_size=schedule, adjusted=False)
    for steps in 2, 16:
        after = np.asarray(moved(ebm, kernel, xs, steps=steps)["y"])
        spread = np.sqrt(variances(0.8 * 0.7 ** np.arange(steps)))
        assert scipy.stats.kstest(after, scipy.stats.norm(0, spread).cdf).pvalue > FALSE_ALARM
    early, late = (variances(0.8 * 0.7 ** np.arange(n)) for n in (2, 16))
    assert early > 1.15 and late < early
    run = ed.sample(ebm, kernel, key=jr.key(0), chains=2, warmup=3, draws=4, progress=False)
    np.testing.assert_allclose(
        run.stats["step_size"], np.broadcast_to(0.8 * 0.7 ** np.arange(3, 7), (2, 4)), rtol=1e-5
    )


def test_a_metric_is_a_change_of_coordinates():
    """Steps with a metric are those without, of the same normals in coordinates of equal scale."""
    x = ed.real("x", 3)
    root = np.linalg.inv(np.linalg.cholesky(DENSE)).T
    whitened = ed.compile(ed.Model(0.5 * (x**2).sum()))
    ebm = ed.compile(ed.Model(ed.Quadratic(DENSE)(x)))
    w = np.random.default_rng(0).normal(size=(50, 3))
    plain = moved(whitened, ed.Langevin(step_size=0.7), {"x": jnp.asarray(w, float)})["x"]
    kernel = ed.Langevin(step_size=0.7, metric=DENSE)
    shaped = moved(ebm, kernel, {"x": jnp.asarray(w @ root.T, float)})["x"]
    np.testing.assert_allclose(shaped, np.asarray(plain) @ root.T, atol=1e-4)


@pytest.mark.parametrize("metric", ["diagonal", "dense"])
def test_warmup_finds_the_metric(metric):
    """A normal with scales from 0.01 to 100 (and for "dense", a strong correlation)."""
    x = ed.real("x", 4)
    scale = np.array([0.01, 1.0, 10.0, 100.0])
    inner = np.eye(4)
    if metric == "dense":
        inner[0, 1] = inner[1, 0] = 0.9
    precision = np.linalg.inv(inner * np.outer(scale, scale))
    ebm = ed.compile(ed.Model(ed.Quadratic(precision)(x)))
    chains = ed.sample(
        ebm, ed.Langevin(metric=metric), key=jr.key(0), warmup=3000, draws=1500, progress=False
    )
    draws = chains.draws["x"].reshape(-1, 4) / scale
    np.testing.assert_allclose(draws.std(axis=0), 1.0, rtol=0.3)
    # The last window of warmup has only 50 steps to find the step size.
    assert 0.45 < chains.stats["acceptance_rate"].mean() < 0.8
    last = chains.stats["step_size"]
    assert (last == last[:, :1]).all() and (last > 0.2).all()


def test_the_metric_stays_when_warmup_ends():
    kernel = ed.Langevin(metric="dense")
    x = FUNNEL.start(key=jr.key(0))
    state = kernel.init(FUNNEL, x, key=jr.key(1), warmup=30)
    step = jax.jit(lambda x, state, key: kernel.step(FUNNEL, x, state, key=key)[:2])
    roots = []
    for key in jr.split(jr.key(2), 40):
        x, state = step(x, state, key)
        roots.append((float(state.value), *np.asarray(state.root).ravel().tolist()))
    covariance = state.adaptation.inverse_mass_matrix
    np.testing.assert_allclose(state.root @ state.root.T, covariance, rtol=1e-3, atol=1e-5)
    assert np.abs(np.asarray(covariance) - np.diag(np.diag(covariance))).max() > 1e-3
    assert len(set(roots[:30])) > 20
    assert len(set(roots[29:])) == 1


def test_hessian_steps_need_one_step_size_for_all_scales():
    """Scales of 0.01, 1 and 10, without an adapted metric."""
    x = ed.real("x", 3)
    ebm = ed.compile(ed.Model((0.5 * np.array([1e-2, 1.0, 1e4]) * x**2).sum()))
    kernel = ed.HessianLangevin(floor=1e-3)
    chains = ed.sample(ebm, kernel, key=jr.key(0), warmup=200, draws=1000, progress=False)
    draws = chains.draws["x"] * np.sqrt([1e-2, 1.0, 1e4])
    lagged = (draws[:, 1:] * draws[:, :-1]).mean(axis=(0, 1))
    assert (lagged < 0.7).all()
    np.testing.assert_allclose((draws**2).mean(axis=(0, 1)), 1.0, atol=0.3)


def test_the_metric_of_a_curvature():
    """Betancourt's SoftAbs, in float64 NumPy."""
    values, floor = np.array([-30.0, -2.0, -0.02, 1e-6, 0.0, 0.003, 0.5, 100.0]), 0.5
    ratio = np.where(values == 0, 1e-9, values) / floor
    expected = floor * ratio / np.tanh(ratio)
    np.testing.assert_allclose(soft_absolute(jnp.asarray(values), floor), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"metric": "full"}, ValueError, "metric is 'full'; expected a positive definite matrix"),
        ({"metric": [1.0, -2.0]}, ValueError, r"metric is \[1.0, -2.0\]; expected"),
        ({"metric": [[1.0, 2.0], [2.0, 1.0]]}, ValueError, "expected a positive definite"),
        ({"metric": np.ones((2, 3))}, ValueError, r"shape \(2, 3\); expected"),
        ({"metric": [[1.0, 0.5], [0.0, 1.0]]}, ValueError, "expected a positive definite"),
        ({"metric": np.nan * np.ones(2)}, ValueError, "expected a positive definite"),
        ({"metric": "dense", "adjusted": False}, ValueError, "metric='dense' with adjusted=False"),
        ({"metric": "dense", "step_size": lambda t: 0.1}, ValueError, "'dense' with a schedule"),
        ({"step_size": lambda: 0.1}, TypeError, "which fails for step 0.*optax.polynomial"),
        ({"step_size": lambda t: -0.1}, ValueError, r"returns -0.1 for step 0; .*above 0"),
        ({"step_size": 0}, ValueError, "step_size=0; expected a number above 0"),
        ({"step_size": "a"}, ValueError, "step_size='a'; expected a number above 0"),
    ],
)
def test_settings_are_checked(settings, error, message):
    with pytest.raises(error, match=message):
        ed.Langevin(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"floor": 0.0}, "floor=0.0; expected a curvature above 0"), ({"step_size": -1}, "=-1; exp")],
)
def test_settings_of_second_order_are_checked(settings, message):
    with pytest.raises(ValueError, match=f"HessianLangevin got .*{message}"):
        ed.HessianLangevin(**settings)


def test_a_metric_must_fit_the_coordinates():
    with pytest.raises(ValueError, match=r"shape \(2,\) was given for 3 unconstr.*\(3, 3\)"):
        ed.sample(FUNNEL, ed.Langevin(metric=[1.0, 2.0]), key=jr.key(0))
