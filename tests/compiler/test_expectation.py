"""Exact means and entropies, against sums over all states and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats
from scipy.special import digamma

import energydsl as ed
from energydsl.compiler import conclusions
from energydsl.normalizer import evaluate
from tests.oracles.enumerate import exact_law

RNG = np.random.default_rng(11)
S, C = ed.spin("s", (2, 3)), ed.categorical("c", 2, levels=3)
FORBIDDEN = np.where(np.eye(3, dtype=bool), -np.inf, np.float32(RNG.normal(size=(3, 3))))
WEIGHTS = np.float32(RNG.normal(size=(3, 2)))
CLOSE = {"rtol": 1e-12, "atol": 1e-12}
"""Both sides are of float64 and sum a few hundred terms of the size of 1."""


def held_spins():
    """Spins of which one is held, beside two labels that are never equal."""
    pair = ed.Table(log_potential=FORBIDDEN)
    energy = -0.5 * (S[1:] * S[:-1]).sum() + (WEIGHTS.T * S).sum() * 0.25
    return ed.Model(energy + pair(C[0], C[1]) + 0.75 * S[0, 0] * (C[0] == 2)).condition(
        {S[1, 2]: -1}
    )


def states_of(levels, energy):
    law = exact_law(energy, levels)
    return law, lambda f: np.einsum("k,k...->...", law.probs, f(law.states))


def held_law():
    def energy(x):
        s, c = x[:, :6].reshape(-1, 2, 3), x[:, 6:].astype(int)
        spins = -0.5 * (s[:, 1] * s[:, 0]).sum(1) + (WEIGHTS.T * s).sum((1, 2)) * 0.25
        forbidden = -FORBIDDEN.astype(float)[c[:, 0], c[:, 1]]
        return spins + forbidden + 0.75 * s[:, 0, 0] * (c[:, 0] == 2)

    return states_of([[-1, 1]] * 5 + [[-1]] + [[0, 1, 2]] * 2, energy)


EBM = ed.compile(held_spins())
LAW, MEAN = held_law()


def s_of(x):
    return x[:, :6].reshape(-1, 2, 3)


FUNCTIONS = {
    "one site": (S[0, 1], lambda x: s_of(x)[:, 0, 1]),
    "a clamped site among others": (S, s_of),
    "pairs in the factors' places": (S[1:] * S[:-1], lambda x: s_of(x)[:, 1:] * s_of(x)[:, :-1]),
    "all pairs of a row": (
        S[0][:, None] * S[0][None, :],
        lambda x: s_of(x)[:, 0, :, None] * s_of(x)[:, 0, None, :],
    ),
    "labels as numbers": (2 * C + 1, lambda x: 2 * x[:, 6:] + 1),
    "truth values": ((C[0] == 1) * (S[0, 0] > 0), lambda x: (x[:, 6] == 1) * (x[:, 0] > 0)),
    "joint states": (
        ed.apply(lambda a, b: jnp.zeros((3, 3)).at[a, b].set(1.0), C[0], C[1]),
        lambda x: (x[:, 6:7, None] == np.arange(3)[:, None]) * (x[:, 7:, None] == np.arange(3)),
    ),
    "a number of no site": (
        ed.parameter("a", np.arange(3.0)) * 2,
        lambda x: np.broadcast_to(2 * np.arange(3.0), (len(x), 3)),
    ),
    "evidence alone": (3 * S[1, 2], lambda x: 3 * x[:, 5]),
    "no elements": (S[:0] * 2, lambda x: s_of(x)[:, :0]),
    "a quotient": (S[0, 0] / (C[0] + 1), lambda x: x[:, 0] / (x[:, 6] + 1)),
}


@pytest.mark.parametrize("case", FUNCTIONS)
def test_means_are_sums_over_all_states(case):
    f, values = FUNCTIONS[case]
    found = ed.expectation(EBM, f)
    assert found.dtype == np.float64 and found.shape == f.shape
    np.testing.assert_allclose(found, MEAN(values), **CLOSE)


def lookup(x):
    return -FORBIDDEN.astype(float)[x[:, 6].astype(int), x[:, 7].astype(int)]


def where_allowed(values):
    """A function of states where they are allowed, and 0 elsewhere."""

    def allowed(x):
        found = values(x)
        return np.where((x[:, 6] == x[:, 7]).reshape(-1, *[1] * (found.ndim - 1)), 0.0, found)

    return allowed


PAIR = ed.Table(log_potential=FORBIDDEN)(C[0], C[1])
INFINITE = {
    "itself": (PAIR, lookup),
    "in a sum of products": (
        2 * PAIR - S[0].sum() * PAIR / 4 + S[0, 0],
        lambda x: 2 * lookup(x) - x[:, :3].sum(1) * lookup(x) / 4 + x[:, 0],
    ),
    "in an array": (
        S[0] * PAIR,
        lambda x: x[:, :3] * lookup(x)[:, None],
    ),
    "a choice": (ed.where(S[0, 0] > 0, 1.0, PAIR), lambda x: np.where(x[:, 0] > 0, 1, lookup(x))),
    "a logarithm": (ed.log((C[0] - C[1]) ** 2), lambda x: np.log((x[:, 6] - x[:, 7]) ** 2)),
    "no number": ((C[0] - C[1]) / (C[0] - C[1]), lambda x: np.ones(len(x))),
}


@pytest.mark.parametrize("case", INFINITE)
def test_a_function_may_be_infinite_at_forbidden_states(case):
    f, values = INFINITE[case]
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = MEAN(where_allowed(values))
    np.testing.assert_allclose(ed.expectation(EBM, f), expected, **CLOSE)


@pytest.mark.parametrize("f", [ed.log(C[0]), 1 / (S[0] - 1), ed.log(C[0] - 5)], ids=str)
def test_a_function_that_is_infinite_elsewhere_has_no_mean(f):
    with pytest.raises(ValueError, match="infinite or NaN in a configuration that the model allow"):
        ed.expectation(EBM, f)


def test_what_is_finite_of_infinite_terms_has_a_mean():
    """The table bars a pair that the model allows; its Boltzmann factor is 0 there."""
    barred = np.float32(RNG.normal(size=(3, 3)))
    barred[0, 1] = np.inf
    f = 2 * ed.exp(-ed.Table(barred)(C[0], C[1])) + ed.maximum(PAIR, 0.5) / 4
    with np.errstate(over="ignore"):
        expected = MEAN(
            where_allowed(
                lambda x: (
                    2 * np.exp(-barred.astype(float)[x[:, 6].astype(int), x[:, 7].astype(int)])
                    + np.maximum(lookup(x), 0.5) / 4
                )
            )
        )
    np.testing.assert_allclose(ed.expectation(EBM, f), expected, **CLOSE)
    with pytest.raises(ValueError, match="infinite or NaN in a configuration"):
        ed.expectation(EBM, ed.Table(barred)(C[0], C[1]) + S[0, 0])
    # Of an array only the elements that are used count.
    mean = MEAN(lambda x: np.log(x[:, 3] + 2))
    np.testing.assert_allclose(
        ed.expectation(EBM, ed.log(S + np.array([[1], [2]]))[1, 0]), mean, **CLOSE
    )


def test_gaussian_moments():
    x = ed.real("x", 3)
    precision = np.array([[2.0, 0.5, 0.0], [0.5, 1.5, -0.25], [0.0, -0.25, 1.0]])
    shift = np.array([1.0, -0.5, 2.0])
    ebm = ed.compile(ed.Model(ed.Quadratic(jnp.asarray(precision), jnp.asarray(shift))(x)))
    covariance = np.linalg.inv(precision)
    mean = covariance @ shift
    np.testing.assert_allclose(ed.expectation(ebm, x), mean, rtol=1e-12)
    second = ed.expectation(ebm, x[:, None] * x[None, :])
    np.testing.assert_allclose(second, covariance + np.outer(mean, mean), rtol=1e-12)
    closed = scipy.stats.multivariate_normal(mean, covariance).entropy()
    np.testing.assert_allclose(ed.entropy(ebm), closed, rtol=1e-12)
    with pytest.raises(ed.IntractableError, match=r"x\*\*4 has no exact value.*x\*\*4 does not"):
        ed.expectation(ebm, x**4)


def test_normals_beside_finite_sites():
    """Given the spin, the number has the mean 0.75 s and the variance 1 / 2."""
    s, x = ed.spin("s"), ed.real("x")
    ebm = ed.compile(ed.Model(x**2 - 1.5 * s * x - 0.25 * s))
    m = np.tanh(0.25)
    found = ed.expectation(ebm, s * x)
    np.testing.assert_allclose([found, ed.expectation(ebm, x)], [0.75, 0.75 * m], rtol=1e-12)
    share = np.array([1 + m, 1 - m]) / 2
    expected = -(share * np.log(share)).sum() + 0.5 * np.log(np.pi * np.e)
    np.testing.assert_allclose(ed.entropy(ebm), expected, rtol=1e-12)


def test_sufficient_statistics_of_exponential_families():
    u, n = ed.interval("u", low=0.0, high=1.0), ed.count("n")
    beta = ed.compile(ed.Model(-2 * ed.log(u) - 1.5 * ed.log(1 - u)))
    np.testing.assert_allclose(ed.expectation(beta, ed.log(u)), digamma(3) - digamma(5.5))
    np.testing.assert_allclose(ed.entropy(beta), scipy.stats.beta(3, 2.5).entropy())
    counts = ed.compile(ed.Model(ed.LogDensity(dist.Poisson)(n, 2.5)))
    np.testing.assert_allclose(ed.expectation(counts, n), 2.5, rtol=1e-12)


def test_pairs_of_a_planar_model_at_once():
    """Without a field no rule but the planar one serves; pairs keep the field zero."""
    q = ed.spin("q", (3, 3))
    down, right = np.float32(RNG.normal(size=(2, 3))), np.float32(RNG.normal(size=(3, 2)))
    model = ed.Model(-(down * q[1:] * q[:-1]).sum() - (right * q[:, 1:] * q[:, :-1]).sum())
    ebm = ed.compile(model, budget=0)
    assert "planar" in str(ebm.normalizer)

    def energy(x):
        x = x.reshape(-1, 3, 3)
        vertical = (down.astype(float) * x[:, 1:] * x[:, :-1]).sum((1, 2))
        return -vertical - (right.astype(float) * x[:, :, 1:] * x[:, :, :-1]).sum((1, 2))

    law, mean = states_of([[-1, 1]] * 9, energy)
    x = law.states.reshape(-1, 3, 3)
    expected = mean(lambda _: x[:, 1:] * x[:, :-1])
    np.testing.assert_allclose(ed.expectation(ebm, q[1:] * q[:-1]), expected, rtol=1e-9)
    expected = -(law.probs * np.log(law.probs)).sum()
    np.testing.assert_allclose(ed.entropy(ebm), expected, rtol=1e-9)


def test_the_budget_and_the_rules_are_those_of_the_model():
    t = ed.spin("t", 30)
    chain = ed.compile(ed.Model(-0.3 * (t[1:] * t[:-1]).sum() - 0.1 * t.sum()), budget=4)
    with pytest.raises(ed.IntractableError, match=r"budget 2\^4, .* must keep a structure"):
        ed.expectation(chain, ed.apply(lambda v: jnp.prod(v), t[::3]))
    dense = ed.compile(ed.Model(t @ jnp.ones((30, 30)) @ t))
    for question in (lambda: ed.expectation(dense, t), lambda: ed.entropy(dense)):
        with pytest.raises(ed.IntractableError, match="log Z is intractable"):
            question()


def test_nothing_is_planned_or_compiled_twice(monkeypatch):
    planned, traced = [], []
    structure, log_partition = conclusions.Structure, evaluate._log_partition
    monkeypatch.setattr(conclusions, "Structure", lambda m: planned.append(m) or structure(m))
    monkeypatch.setattr(
        evaluate, "_log_partition", lambda *a: traced.append(a) or log_partition(*a)
    )
    b = ed.binary("b", 3)
    ebm = ed.compile(ed.Model(ed.parameter("w", np.ones(3)) @ b).condition({b[0]: 1}))
    for w in (0.5, 1.0, -2.0):
        found = ed.expectation(ebm.replace(w=jnp.full(3, w)), b * 2)
        np.testing.assert_allclose(found, [2, *[2 / (1 + np.exp(w))] * 2], rtol=1e-12)
    assert len(planned) == len(traced) == 1
    ed.expectation(ebm, b[0] * 2)
    assert len(planned) == len(traced) == 2


def test_entropy_is_the_sum_over_allowed_states():
    p = LAW.probs[LAW.probs > 0]
    np.testing.assert_allclose(ed.entropy(EBM), -(p * np.log(p)).sum(), **CLOSE)
    same = ed.Table(log_potential=np.array([[-np.inf, -np.inf], [-np.inf, 3.0]]))
    a = ed.binary("a", 5)
    certain = ed.compile(ed.Model(same(a[1:], a[:-1]).sum()))
    np.testing.assert_allclose(ed.entropy(certain), 0.0, atol=1e-12)
    assert ed.entropy(ed.compile(ed.Model(0 * S.sum()))) == pytest.approx(6 * np.log(2), abs=1e-12)


def test_what_has_no_mean_is_said(untyped):
    r = ed.real("r")
    with pytest.raises(TypeError, match="expectation got float; expected an expression"):
        ed.expectation(EBM, 1.0)
    with pytest.raises(TypeError, match="compile it first"):
        ed.entropy(EBM.model)
    with pytest.raises(
        ValueError, match=r"depends on \['r: real\[\]'\]; the model's variables are"
    ):
        ed.expectation(EBM, r * S[0, 0])
    with pytest.raises(ValueError, match="depends on"):
        ed.expectation(EBM, ed.binary("s", (2, 3)))
    same = np.diag([np.inf] * 3)
    never = ed.Table(same)(C[0], C[1]) + ed.Table(np.where(same, 0.0, np.inf))(C[0], C[1])
    nothing = ed.compile(ed.Model(never))
    with pytest.raises(ValueError, match="Every configuration has infinite energy"):
        ed.expectation(nothing, C)
    w = ed.parameter("w", 1.0)
    normal = ed.compile(ed.Model(w * r**2))
    with pytest.raises(ValueError, match=r"cannot be computed: .*positive definite"):
        ed.expectation(normal.replace(w=-1.0), r)
    with pytest.raises(TypeError, match="inside a JAX transformation"):
        jax.jit(lambda v: ed.expectation(normal.replace(w=v), r))(1.0)
