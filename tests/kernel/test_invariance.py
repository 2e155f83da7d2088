"""Every kernel leaves a known law invariant: a step from exact draws changes no distribution."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats

import energydsl as ed
from tests.oracles.enumerate import chisquare_pvalue, count_states, exact_draws, exact_law
from tests.sweep.cases import CASES, pack, unpack

FALSE_ALARM = 1e-6  # chance that a correct kernel fails one of these tests
DRAWS = 40_000
STEPS = 3


def moved(ebm, kernel, xs, steps=STEPS, seed=0):
    """Chains a few steps on as the sampling loop moves them, their adaptation frozen."""

    @eqx.filter_jit
    def run(ebm, ensemble, xs, keys):
        tables = ensemble.load(ebm)
        carry = ensemble.start(ebm, xs, key=keys[0], warmup=0)
        for key in keys[1:]:
            carry, _ = ensemble.advance(ebm, tables, carry, key=key)
        return ensemble.configurations(ebm, carry)

    keys = jax.random.split(jax.random.key(seed), steps + 1)
    return run(ebm, kernel.ensemble(ebm), xs, keys)


def moved_alone(ebm, kernel, xs, steps=STEPS, seed=0):
    """The same, each chain by the kernel's own step."""

    def one(ebm, x, key):
        state = kernel.init(ebm, x, key=key, warmup=0)
        for step_key in jax.random.split(key, steps):
            x, state, _ = kernel.step(ebm, x, state, key=step_key)
        return x

    keys = jax.random.split(jax.random.key(seed), len(next(iter(xs.values()))))
    return eqx.filter_jit(eqx.filter_vmap(one, in_axes=(None, 0, 0)))(ebm, xs, keys)


def continuous_laws():
    """Name, model, exact draws, and the laws of some scalar functions of a draw."""
    rng = np.random.default_rng(1)
    y = ed.real("y", 2)
    precision = np.array([[2.0, 0.8], [0.8, 1.0]])
    cov = np.linalg.inv(precision)
    yield (
        "real",
        ed.Model(ed.Quadratic(precision)(y)),
        {"y": rng.multivariate_normal(np.zeros(2), cov, DRAWS)},
        [
            (lambda x: x["y"][:, 0], scipy.stats.norm(0, np.sqrt(cov[0, 0])).cdf),
            (lambda x: x["y"].sum(1), scipy.stats.norm(0, np.sqrt(cov.sum())).cdf),
        ],
    )
    t = ed.positive("t", 2)
    yield (
        "positive",
        ed.Model(ed.LogDensity(dist.Gamma(2.0, 1.5))(t)),
        {"t": rng.gamma(2.0, 1 / 1.5, (DRAWS, 2))},
        [(lambda x: x["t"][:, 0], scipy.stats.gamma(2.0, scale=1 / 1.5).cdf)],
    )
    u = ed.interval("u", low=-1.0, high=3.0)
    yield (
        "interval",
        ed.Model(-2.0 * ed.log(u + 1.0) - ed.log(3.0 - u)),
        {"u": 4 * rng.beta(3, 2, DRAWS) - 1},
        [(lambda x: (x["u"] + 1) / 4, scipy.stats.beta(3, 2).cdf)],
    )
    w = ed.simplex("w", (2, 3))
    yield (
        "simplex",
        ed.Model(ed.LogDensity(dist.Dirichlet(jnp.array([2.0, 3.0, 4.0])))(w)),
        {"w": rng.dirichlet([2, 3, 4], (DRAWS, 2))},
        [(lambda x: x["w"][:, 1, 0], scipy.stats.beta(2, 7).cdf)],
    )


CONTINUOUS = list(continuous_laws())
KERNELS = [
    ed.MetropolisHastings(),
    ed.Langevin(step_size=0.3),
    ed.NUTS(step_size=0.5, max_tree_depth=4),
    ed.HMC(step_size=0.5, trajectory=1.0),
]


def every_law_and_kernel():
    """Gradients take long to compile: by default they are tried where maps are hardest."""
    for law, kernel in itertools.product(CONTINUOUS, KERNELS):
        slow = not isinstance(kernel, ed.MetropolisHastings) and law[0] != "simplex"
        name = f"{law[0]}-{type(kernel).__name__}"
        yield pytest.param(law, kernel, id=name, marks=[pytest.mark.slow] * slow)


@pytest.mark.parametrize(("law", "kernel"), list(every_law_and_kernel()))
def test_continuous_laws(law, kernel):
    _, model, draws, functions = law
    xs = {n: jnp.asarray(a, float) for n, a in draws.items()}
    after = {n: np.asarray(a) for n, a in moved(ed.compile(model), kernel, xs).items()}
    for function, cdf in functions:
        assert scipy.stats.kstest(function(after), cdf).pvalue > FALSE_ALARM
        assert np.mean(function(after) != function(xs)) > 0.2


@pytest.mark.parametrize(
    "name", ["open lattice", "integer chain", "irregular graph"], ids=lambda n: n
)
def test_metropolis_on_discrete_laws(name):
    case = next(c for c in CASES if c.name == name)
    law = exact_law(case.energy, case.levels)
    before = exact_draws(law.states, law.probs, DRAWS, seed=1)
    after = unpack(
        case.model,
        moved(ed.compile(case.model), ed.MetropolisHastings(), pack(case.model, before)),
    )
    assert chisquare_pvalue(count_states(after, law.states), law.probs, DRAWS) > FALSE_ALARM
    assert (after != before).any(1).mean() > 0.2


def mixed_model():
    """Bits h, and y given h normal around a weighted sum: p(h) by summing y out."""
    weights = np.array([1.0, -0.5, 0.7])
    y, h = ed.real("y"), ed.binary("h", 3)
    model = ed.Model(0.5 * (y - (weights * h).sum()) ** 2 + (0.4 * h).sum())
    law = exact_law(lambda s: 0.4 * s.sum(1), [(0, 1)] * 3)
    bits = exact_draws(law.states, law.probs, DRAWS, seed=2)
    reals = bits @ weights + np.random.default_rng(3).normal(size=DRAWS)
    return model, law, weights, {"y": jnp.asarray(reals, float), "h": jnp.asarray(bits, jnp.int8)}


@pytest.mark.parametrize(
    "kernel",
    [
        ed.MetropolisHastings(),
        ed.Cycle(ed.Gibbs(), ed.Langevin(step_size=0.5)),
        ed.Cycle(ed.Gibbs(), ed.NUTS(step_size=0.5, max_tree_depth=3)),
        ed.Cycle(ed.MetropolisHastings(scale=1.0), ed.Langevin(step_size=0.2)),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "mover",
    [pytest.param(moved, id="together"),
     pytest.param(moved_alone, id="alone", marks=pytest.mark.slow)],
)  # fmt: skip
def test_a_mixed_law(kernel, mover):
    model, law, weights, xs = mixed_model()
    after = mover(ed.compile(model), kernel, xs)
    # A law is left invariant by doing nothing, too.
    assert all(np.mean(np.asarray(after[n] != xs[n])) > 0.2 for n in xs)
    bits = np.asarray(after["h"]).astype(int)
    assert chisquare_pvalue(count_states(bits, law.states), law.probs, DRAWS) > FALSE_ALARM
    residual = np.asarray(after["y"]) - bits @ weights
    assert scipy.stats.kstest(residual, "norm").pvalue > FALSE_ALARM


def directed_model():
    """A label and two parents, and normals given them: draws are ancestral."""
    means, probs = np.array([-1.0, 0.5, 2.0]), np.array([0.2, 0.5, 0.3])
    k, mu, tau, x = (
        ed.categorical("k", levels=3),
        ed.real("mu"),
        ed.positive("tau"),
        ed.real("x", 3),
    )
    normal = ed.LogDensity(dist.Normal)
    model = ed.Model(
        ed.LogDensity(dist.CategoricalLogits)(k, np.log(probs))
        + ed.LogDensity(dist.Gamma)(tau, 3.0, 2.0)
        + normal(mu, 0.0, 1.0)
        + normal(x, mu + ed.Table(means)(k), tau)
    )
    rng = np.random.default_rng(4)
    label, centre = rng.choice(3, DRAWS, p=probs), rng.normal(size=DRAWS)
    scale = rng.gamma(3.0, 0.5, DRAWS)
    drawn = rng.normal((centre + means[label])[:, None], scale[:, None], (DRAWS, 3))
    xs = {"k": jnp.asarray(label, jnp.int8), "mu": centre, "tau": scale, "x": drawn}
    return model, probs, means, {n: a if n == "k" else jnp.asarray(a, float) for n, a in xs.items()}


@pytest.mark.parametrize(
    "kernel",
    [
        ed.MetropolisHastings(),
        pytest.param(ed.Cycle(ed.Gibbs(), ed.Langevin(step_size=0.05)), marks=pytest.mark.slow),
        pytest.param(
            ed.Cycle(ed.Gibbs(), ed.NUTS(step_size=0.3, max_tree_depth=3)), marks=pytest.mark.slow
        ),
    ],
    ids=str,
)
def test_a_directed_law(kernel):
    model, probs, means, xs = directed_model()
    after = {n: np.asarray(a) for n, a in moved(ed.compile(model), kernel, xs).items()}
    assert all(np.mean(after[n] != np.asarray(xs[n])) > 0.2 for n in xs)
    assert chisquare_pvalue(np.bincount(after["k"], minlength=3), probs, DRAWS) > FALSE_ALARM
    centre = (after["mu"] + means[after["k"]])[:, None]
    for values, law in [
        (after["mu"], scipy.stats.norm()),
        (after["tau"], scipy.stats.gamma(3.0, scale=0.5)),
        (((after["x"] - centre) / after["tau"][:, None])[:, 1], scipy.stats.norm()),
    ]:
        assert scipy.stats.kstest(values, law.cdf).pvalue > FALSE_ALARM


@pytest.mark.parametrize(
    "broken",
    [
        ed.MetropolisHastings(proposal=lambda x, *, key: ({"t": 1.2 * x["t"]}, jnp.zeros(()))),
        ed.Langevin(step_size=0.3, adjusted=False),
    ],
    ids=["ratio left out", "test left out"],
)
def test_the_statistic_sees_a_wrong_kernel(broken):
    _, model, draws, functions = CONTINUOUS[1]
    xs = {n: jnp.asarray(a, float) for n, a in draws.items()}
    after = {n: np.asarray(a) for n, a in moved(ed.compile(model), broken, xs).items()}
    assert any(scipy.stats.kstest(f(after), cdf).pvalue < FALSE_ALARM for f, cdf in functions)


def test_an_asymmetric_proposal_with_its_density_is_exact():
    def scaled(x, *, key):
        factor = jnp.exp(0.5 * jax.random.normal(key, x["t"].shape))
        return {"t": factor * x["t"]}, jnp.log(factor).sum()

    _, model, draws, functions = CONTINUOUS[1]
    xs = {n: jnp.asarray(a, float) for n, a in draws.items()}
    kernel = ed.MetropolisHastings(proposal=scaled)
    after = {n: np.asarray(a) for n, a in moved(ed.compile(model), kernel, xs).items()}
    assert all(scipy.stats.kstest(f(after), cdf).pvalue > FALSE_ALARM for f, cdf in functions)


def test_the_bias_of_unadjusted_langevin_is_the_one_its_docstring_states():
    """Variance 1/(1 - h/2) for a standard normal: the chain is a linear recursion."""
    y, h = ed.real("y"), 0.4
    ebm = ed.compile(ed.Model(0.5 * y**2))
    stationary = 1 / np.sqrt(1 - h / 2)
    xs = {"y": jnp.asarray(np.random.default_rng(5).normal(0, stationary, DRAWS), float)}
    after = moved(ebm, ed.Langevin(step_size=h, adjusted=False), xs)["y"]
    law = scipy.stats.norm(0, stationary)
    assert scipy.stats.kstest(np.asarray(after), law.cdf).pvalue > FALSE_ALARM
    assert scipy.stats.kstest(np.asarray(after), "norm").pvalue < FALSE_ALARM
