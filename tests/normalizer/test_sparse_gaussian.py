"""Gaussian integrals by sparse matrices, against NumPy's dense ones."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats

import energydsl as ed
from energydsl.normalizer import evaluate
from energydsl.normalizer.evaluate import draw, log_partition_of, marginals_of, mode_of, prepare
from tests.normalizer.rules import applies, chosen, memory, plans, reason, value

FALSE_ALARM = 1e-6
DRAWS = 4000
ROWS, COLUMNS, STEPS = 7, 13, 70
SITES = ROWS * COLUMNS + STEPS
HELD = {20: 0.5, 21: -1.5, 120: 2.0}
"""Evidence: in the middle of the grid, and within the chain, which it cuts."""

RNG = np.random.default_rng(3)
PULL = np.float32(RNG.normal(size=SITES))
JOIN = np.float32(RNG.normal(size=(ROWS, COLUMNS - 1)))
X, Y = ed.real("x", (ROWS, COLUMNS)), ed.real("y", STEPS)


def model(stiff, weight):
    """A grid with its own couplings along the rows, and a chain that has two neighbours ahead."""
    grid = (
        1.5 * (X**2).sum()
        + 0.5 * stiff * ((X[1:] - X[:-1]) ** 2).sum()
        + 0.25 * (JOIN * X[:, 1:] * X[:, :-1]).sum()
        - (PULL[: ROWS * COLUMNS].reshape(ROWS, COLUMNS) * X).sum()
    )
    chain = (Y**2).sum() + weight * (Y[2:] * Y[:-2]).sum() + (0.5 * Y[1:] * Y[:-1]).sum()
    return ed.Model(grid + chain - PULL[ROWS * COLUMNS :] @ Y + 3.0)


def oracle(stiff, weight, held=()):
    """A, b and c of the free sites, with a row and a column for each."""
    a, c = np.zeros((SITES, SITES)), 3.0
    number = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)

    def pair(i, j, coupling):
        a[i, j] += coupling
        a[j, i] += coupling

    for i in range(ROWS * COLUMNS):
        a[i, i] += 3.0
    for i, j in zip(number[1:].ravel(), number[:-1].ravel(), strict=True):
        a[i, i] += stiff
        a[j, j] += stiff
        pair(i, j, -stiff)
    ends = number[:, 1:].ravel(), number[:, :-1].ravel()
    for i, j, coupling in zip(*ends, JOIN.astype(float).ravel(), strict=True):
        pair(i, j, 0.25 * coupling)
    for i in range(ROWS * COLUMNS, SITES):
        a[i, i] += 2.0
        if i + 1 < SITES:
            pair(i, i + 1, 0.5)
        if i + 2 < SITES:
            pair(i, i + 2, weight)
    b = PULL.astype(float)
    at, values = list(dict(held)), np.array(list(dict(held).values()))
    free = np.setdiff1d(np.arange(SITES), at)
    if at:
        c += values @ a[np.ix_(at, at)] @ values / 2 - b[at] @ values
        b = b - a[:, at] @ values
    return a[np.ix_(free, free)], b[free], c, free


def log_z(a, b, c):
    half = np.linalg.slogdet(a)[1] / 2
    return len(b) / 2 * np.log(2 * np.pi) - half + b @ np.linalg.solve(a, b) / 2 - c


@pytest.fixture(scope="module")
def whole():
    return ed.compile(model(0.75, 0.25))


@pytest.fixture(scope="module")
def clamped():
    held = {X[1, 7]: 0.5, X[1, 8]: -1.5, Y[120 - ROWS * COLUMNS]: 2.0}
    return ed.compile(model(0.75, 0.25).condition(held))


def flat(x):
    return np.concatenate([np.asarray(x["x"]).ravel(), np.asarray(x["y"])])


def test_with_evidence_it_is_the_conditional_one(clamped):
    a, b, c, free = oracle(0.75, 0.25, HELD)
    alone = plans(clamped, "sparse gaussian")
    assert len(clamped.structure.component_sizes) == 2
    found = log_partition_of(clamped.model, alone, np.dtype(np.float64))
    assert float(found) == pytest.approx(log_z(a, b, c), 1e-12)
    mean, covariance = np.linalg.solve(a, b), np.linalg.inv(a)
    laws = marginals_of(clamped.model, alone)
    laws = np.concatenate([laws["x"], laws["y"]])
    np.testing.assert_allclose(laws[free, 0], mean, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(laws[free, 1], np.diag(covariance), rtol=1e-9)
    assert (laws[np.setdiff1d(np.arange(SITES), free)] == 0).all()
    best = flat(clamped.model.complete(mode_of(clamped.model, alone)))
    np.testing.assert_allclose(best[free], mean, atol=1e-6)
    assert [best[i] for i in HELD] == list(HELD.values())


def test_draws_have_its_mean_and_covariance(clamped):
    a, b, _, free = oracle(0.75, 0.25, HELD)
    alone = plans(clamped, "sparse gaussian")
    prepared = prepare(clamped.model, alone)
    drawn = jax.vmap(lambda k: draw(clamped.model, alone, prepared, key=k))
    xs = jax.vmap(clamped.model.complete)(drawn(jr.split(jr.key(0), DRAWS)))
    states = np.concatenate([np.asarray(xs[n]).reshape(DRAWS, -1) for n in ("x", "y")], axis=1)
    z = np.linalg.cholesky(a).T @ (states[:, free] - np.linalg.solve(a, b)).T
    pvalues = [scipy.stats.kstest(row, "norm").pvalue for row in z]
    pvalues.append(scipy.stats.kstest((z**2).sum(0), "chi2", args=(len(z),)).pvalue)
    # 4,000 draws of 157 numbers: the sum of the squares of all correlations is near chi-square.
    r = np.corrcoef(z)[np.triu_indices(len(z), 1)]
    pvalues.append(2 * min(scipy.stats.chi2(len(r)).cdf(DRAWS * (r @ r)), 0.5))
    pvalues.append(2 * min(scipy.stats.chi2(len(r)).sf(DRAWS * (r @ r)), 0.5))
    assert min(pvalues) * len(pvalues) > FALSE_ALARM


def test_log_z_and_its_derivatives_are_those_of_the_closed_form(whole):
    """The first and second derivatives, in couplings, by finite differences of NumPy's log Z."""
    alone = plans(whole, "sparse gaussian")

    def of(p):
        learnt = ed.Model(model(p[0], p[1]).expression)
        return log_partition_of(learnt, alone, np.dtype(np.float64))

    with jax.enable_x64(True):
        p = jnp.array([0.75, 0.25])
        found, slope, bend = jax.jit(lambda p: (of(p), jax.grad(of)(p), jax.hessian(of)(p)))(p)
    assert applies(whole, "sparse gaussian")
    assert float(found) == pytest.approx(log_z(*oracle(0.75, 0.25)[:3]), 1e-12)
    h, unit = 1e-3, np.eye(2)

    def exact(q):
        return log_z(*oracle(*q)[:3])

    q = np.array([0.75, 0.25])
    for i in range(2):
        # Central differences of fourth order: errors near h^4.
        step = [exact(q + k * h * unit[i]) for k in (-2, -1, 1, 2)]
        expected = (step[0] - 8 * step[1] + 8 * step[2] - step[3]) / (12 * h)
        assert slope[i] == pytest.approx(expected, rel=1e-7)
        for j in range(2):
            ends = [exact(q + h * (u * unit[i] + v * unit[j])) for u in (-1, 1) for v in (-1, 1)]
            crossed = (ends[0] - ends[1] - ends[2] + ends[3]) / (4 * h**2)
            assert bend[i, j] == pytest.approx(crossed, rel=1e-4, abs=1e-4)


def test_no_more_memory_is_taken_than_was_predicted():
    """By a grid of 65,536 sites, whose dense matrix would take 34 GB; nothing is run."""
    x, w = ed.real("x", (256, 256)), ed.parameter("w", 1.0)
    across, down = ((x[:, 1:] - x[:, :-1]) ** 2).sum(), ((x[1:] - x[:-1]) ** 2).sum()
    ebm = ed.compile(ed.Model((x**2).sum() + w * across + down))
    assert chosen(ebm) == {"sparse gaussian"}
    taken, alone = memory(ebm), memory(ebm, derivatives=False)
    assert taken < ebm.normalizer.most_bytes < 2 * taken
    assert alone < ebm.normalizer.bytes < 2 * alone
    assert "gaussian: 206 GB of memory" in str(ebm.explain())


def test_the_cheaper_of_both_rules_is_chosen():
    x = ed.real("x", 2000)
    assert chosen(ed.compile(ed.Model((x**2).sum() + (x[1:] * x[:-1]).sum()))) == {
        "sparse gaussian"
    }
    assert chosen(ed.compile(ed.Model((Y**2).sum() + (Y[1:] * Y[:-1]).sum()))) == {"gaussian"}


def test_what_is_not_sparse_or_not_quadratic_is_refused():
    x, p = ed.real("x", 40), ed.positive("p", 70)
    dense = ed.compile(ed.Model(ed.Quadratic(2 * jnp.eye(40), jnp.ones(40))(x)))
    assert reason(dense, "sparse gaussian") == "blocks of 39 sites are not narrow among 40"
    steep = ed.compile(ed.Model((Y**2).sum() + (Y[1:] * Y[:-1]).sum() ** 2))
    assert "not shown to be quadratic" in reason(steep, "sparse gaussian")
    other = ed.compile(ed.Model((p**2).sum() + (p[1:] * p[:-1]).sum()))
    assert reason(other, "sparse gaussian") == "p[0] is not real"


def test_a_precision_that_is_not_positive_definite_is_said_with_a_site():
    """Two sites deep in the chain, of which the pair alone is indefinite."""
    w = ed.parameter("w", np.float32(0.0))
    ebm = ed.compile(
        ed.Model((Y**2).sum() + 0.125 * (Y[1:] * Y[:-1]).sum() + ed.exp(w) * Y[50] * Y[51])
    )
    alone = plans(ebm, "sparse gaussian")
    a = 2 * np.eye(STEPS) + 0.125 * (np.eye(STEPS, k=1) + np.eye(STEPS, k=-1))
    a[50, 51] = a[51, 50] = 1.125
    none = np.zeros(STEPS)
    assert value(ebm, "sparse gaussian") == pytest.approx(log_z(a, none, 0.0), 1e-12)
    bad = ebm.replace(w=np.log(2.5)).model
    assert np.isnan(log_partition_of(bad, alone, np.dtype(np.float64)))
    said = evaluate.trouble(bad, alone)
    assert "not positive definite" in said and ("y[50]" in said or "y[51]" in said)
    endless = ebm.replace(w=1000.0).model
    assert evaluate.trouble(endless, alone) == "a precision is not finite"
