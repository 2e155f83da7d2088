"""Slice sampling of single sites."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats

import energydsl as ed
from tests.kernel.test_invariance import DRAWS, FALSE_ALARM, moved, moved_alone
from tests.oracles.enumerate import chisquare_pvalue

X, T, U, S = (
    ed.real("x", 2),
    ed.positive("t", 3),
    ed.interval("u", low=-1.0, high=3.0),
    ed.spin("s"),
)


def joined(x):
    return x[0] ** 4 - x[0] + (x[1] - 0.5 * x[0] ** 2) ** 4 / 2


MODEL = ed.Model(
    ed.apply(joined, X)
    + (ed.exp(X[1]) * T**1.5).sum()
    - 4 / 3 * X[1]
    + 1.5 * ed.cos(3 * U)
    + 0.5 * S * U
).condition({T[1]: 0.9})
EBM = ed.compile(MODEL)
"""x[0] and x[1] given it have quartic energies; exp(x[1]) t^1.5 is Gamma(2/3); u is bimodal. The
clamped t[1] weighs x[1] by a Poisson-like factor, which draws take by rejection."""


def inverted(log_density, low, high, rng):
    grid = np.linspace(low, high, 200_001)
    cdf = np.cumsum(np.exp(log_density(grid)))
    return np.interp(rng.random(4 * DRAWS), cdf / cdf[-1], grid)


def exact_draws():
    rng = np.random.default_rng(12)
    first = inverted(lambda x: -(x**4) + x, -3, 3, rng)
    second = 0.5 * first**2 + inverted(lambda r: -(r**4) / 2, -4, 4, rng)
    kept = rng.random(4 * DRAWS) < np.exp(-np.exp(second) * 0.9**1.5)
    # Two free sites of t contribute exp(-4/3 x[1]), which the model cancels.
    x = np.stack([first, second], axis=1)[kept][:DRAWS]
    assert len(x) == DRAWS
    t = (rng.gamma(2 / 3, size=(DRAWS, 3)) / np.exp(x[:, 1:])) ** (2 / 3)
    t[:, 1] = 0.9
    grid = np.linspace(-1, 3, 4001)
    weight = np.exp(-1.5 * np.cos(3 * grid) - 0.5 * np.array([[-1], [1]]) * grid)
    s = np.where(rng.random(DRAWS) < weight[1].sum() / weight.sum(), 1, -1)
    cdf = np.cumsum(weight, axis=1) / weight.sum(axis=1, keepdims=True)
    rank = rng.random(DRAWS)
    u = np.where(s > 0, np.interp(rank, cdf[1], grid), np.interp(rank, cdf[0], grid))
    xs = {"x": x, "t": t, "u": u}
    return {n: jnp.asarray(a, float) for n, a in xs.items()} | {"s": jnp.asarray(s, jnp.int8)}


@pytest.fixture(scope="module")
def draws():
    return exact_draws()


@pytest.mark.parametrize(
    ("kernel", "mover"),
    [
        pytest.param(ed.Cycle(ed.Gibbs(), ed.Slice()), moved, id="with Gibbs"),
        pytest.param(
            ed.Cycle(ed.Gibbs(), ed.Slice(width=0.3, most=5)), moved, id="narrow",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ed.Cycle(ed.Gibbs(), ed.Slice()), moved_alone, id="alone", marks=pytest.mark.slow
        ),
    ],
)  # fmt: skip
def test_the_law_is_left_invariant(kernel, mover, draws):
    """The law of each function is that of independent exact draws: a two-sample test."""
    after = {n: np.asarray(a, float) for n, a in mover(EBM, kernel, draws, steps=2).items()}
    before = {n: np.asarray(a, float) for n, a in draws.items()}
    assert (after["t"][:, 1] == np.float32(0.9)).all()
    for name, free in (("x", [0, 1]), ("t", [0, 2])):
        assert ((after[name] != before[name]).mean(axis=0)[free] > 0.99).all()
    assert np.mean(after["s"] != before["s"]) > 0.1
    gamma = scipy.stats.gamma(2 / 3).cdf
    for k in (0, 2):
        values = np.exp(after["x"][:, 1]) * after["t"][:, k] ** 1.5
        assert scipy.stats.kstest(values, gamma).pvalue > FALSE_ALARM
    for function in (
        lambda x: x["x"][:, 0],
        lambda x: x["x"][:, 1],
        lambda x: x["x"] @ [1.0, -2.0],
        lambda x: x["u"] * x["s"],
        lambda x: x["t"][:, 2],
    ):
        assert scipy.stats.ks_2samp(function(after), function(before)).pvalue > FALSE_ALARM
    grid = np.linspace(-1, 3, 4001)
    weight = np.exp(-1.5 * np.cos(3 * grid) - 0.5 * np.array([[-1], [1]]) * grid)
    cells = np.add.reduceat(weight, np.arange(0, 4001, 500), axis=1).ravel()
    place = np.clip(((after["u"] + 1) / 4 * 4000).round().astype(int) // 500, 0, 8)
    seen = np.bincount(place + 9 * (after["s"] > 0), minlength=18)
    assert chisquare_pvalue(seen, cells / cells.sum(), DRAWS) > FALSE_ALARM


def test_both_modes_are_visited():
    """A slice spans the well between two modes, where steps of gradients take long."""
    y = ed.real("y")
    ebm = ed.compile(ed.Model((y**2 - 9) ** 2 / 8 + 0.3 * y))
    chains = ed.sample(
        ebm, ed.Slice(width=8.0), key=jr.key(0), warmup=20, draws=2000, progress=False
    )
    up = (chains.draws["y"] > 0).mean(axis=1)
    assert ((up > 0.02) & (up < 0.9)).all()


def test_it_says_what_gibbs_would_draw_exactly():
    ebm = ed.compile(ed.Model((X**4).sum() + T.sum()))
    said = ed.Slice().applies(ebm)
    assert (
        said == "slice steps move every free site, with nothing to tune; Gibbs would draw t exactly"
    )
    mixed = EBM.explain().as_dict()
    assert "Cycle(Gibbs, Slice)" in mixed["samplers"]
    assert "single real, positive and interval" in mixed["samplers_refused"]["Slice"]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"width": 0.0}, ValueError, "Slice got width=0.0; expected a number above 0"),
        ({"most": 0}, ValueError, "Slice got most=0; expected a whole number of at least 1"),
        ({"most": 2.5}, ValueError, "most=2.5"),
        ({"variables": "x"}, TypeError, "Slice got variables='x'; expected names"),
    ],
)
def test_settings_are_checked(settings, error, message):
    with pytest.raises(error, match=message):
        ed.Slice(**settings)


@pytest.mark.parametrize(
    ("kernel", "error", "message"),
    [
        (ed.Slice(), ValueError, r"leaves out 1 free sites, s first: it moves single real"),
        (ed.Slice(variables=("s",)), TypeError, "cannot move 's', which is spin"),
        (ed.Slice(variables=("z",)), ValueError, "'z' is no free variable; the free"),
        (ed.Slice(variables=("x",)), ValueError, "leaves out .*names only x"),
    ],
)
def test_what_cannot_be_moved_is_said(kernel, error, message):
    with pytest.raises(error, match=message):
        ed.sample(EBM, kernel, key=jr.key(0))
