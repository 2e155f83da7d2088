"""Claims about an expression's values hold wherever it is evaluated."""

import jax.random as jr
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpyro.distributions import constraints

import energydsl as ed
from energydsl.language.expression import as_expression, variables_of
from energydsl.language.expression.range import domain_in, lies_in, range_of
from energydsl.language.expression.tree import fold

VIEWS = {
    "x": ed.real("x"),
    "t": ed.positive("t"),
    "u": ed.interval("u", low=0.0, high=2.0),
    "v": ed.interval("v", low=-1.0, high=1.0),
    "b": ed.binary("b"),
    "s": ed.spin("s"),
    "n": ed.integer("n", low=1, high=3),
    "c": ed.categorical("c", levels=3),
    "p": ed.simplex("p", 3),
    "q": ed.simplex("p", 3)[1],
    "w": as_expression(np.float32(-0.7)),
}
RULES = [
    "({a} + {b})", "({a} - {b})", "({a} * {b})", "({a} / {b})", "ed.exp(0.1 * ed.tanh({a}))",
    "ed.log({a})", "ed.sqrt({a})", "ed.softplus({a})", "ed.maximum({a}, {b})", "(-{a})",
    "ed.minimum({a}, {b})", "({a}**2)", "({a}**-1)", "({a}**0.5)", "abs({a})",
    "({a}**ed.tanh({b}))", "ed.sin({a})", "ed.cosh(0.1 * {a})", "ed.arctan({a})", "ed.sign({a})",
    "ed.exp({a})", "(1 / (1 + ed.exp({a})))", "(q * p).sum()", "ed.log1p(abs({a}))", "({a}**3)",
    "ed.where({a} > {b}, {a}, {b})", "ed.logaddexp({a}, {b})", "(p * {a}).sum()", "(p / {a})[0]",
    "ed.Table(np.array([-1.0, 2.0]))(b)",
]  # fmt: skip
LEAVES = sorted(set(VIEWS) - {"p"})
TEXTS = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.builds(
        lambda rule, a, b: rule.format(a=a, b=b), st.sampled_from(RULES), inner, inner
    ),
    max_leaves=4,
)


def value(model, key):
    """The expression at a random point, in float64."""
    keys = jr.split(key, len(model.variables) or 1)
    drawn = {
        v.name: v.domain.start(v.shape, key=k) for v, k in zip(model.variables, keys, strict=False)
    }
    return float(model.energy(drawn))


@settings(deadline=None, max_examples=150)
@given(text=TEXTS, seed=st.integers(0, 2**20))
def test_what_is_claimed_holds(text, seed):
    expression = eval(text, {"ed": ed, "np": np, **VIEWS})
    if not variables_of(expression):
        return
    finite, positive, unit, nonnegative = (lies_in(expression, c) for c in (
        constraints.real, constraints.positive, constraints.unit_interval, constraints.nonnegative
    ))  # fmt: skip
    assert finite or not (positive or unit or nonnegative)
    if finite:
        model = ed.Model(expression)
        values = np.array([value(model, k) for k in jr.split(jr.key(seed), 6)])
        assert np.isfinite(values).all()
        assert (values > 0).all() or not positive
        assert (values >= 0).all() or not nonnegative
        assert ((values >= 0) & (values <= 1)).all() or not unit
        low, high = fold(expression, range_of).within
        slack = 1e-6 * (1 + np.abs(values))
        assert ((low - slack <= values) & (values <= high + slack)).all()


@pytest.mark.parametrize(
    "text",
    ["t", "n", "u", "q", "ed.exp(x)", "ed.softplus(x - t)", "ed.sqrt(t / n)", "t**x",
     "n * ed.exp(x)", "(p * t).sum()", "p[::-1]", "ed.maximum(t, u)", "2 * t", "0.5 + t / 3"],
)  # fmt: skip
def test_scales_that_are_recognised(text):
    assert lies_in(eval(text, {"ed": ed, **VIEWS}), constraints.positive)


@pytest.mark.parametrize(
    "text",
    ["1 / (1 + ed.exp(-x))", "0.5 + 0.5 * ed.tanh(x)", "u / 2", "v**2", "abs(v)", "b", "1 - b",
     "p", "0.1 * ed.maximum(n, c)", "ed.exp(-t)", "t / (1 + t)", "ed.exp(x) / (1 + ed.exp(x))",
     "ed.where(x > t, 0.2, u / 2)", "q * b", "(x > 0) & (t > 1)", "ed.sin(x)**2",
     "(q + u + b + 0 * x).sum() / 4", "0.5 * (1 + s)", "-s * 0.5 + 0.5"],
)  # fmt: skip
def test_probabilities(text):
    """Those that interval arithmetic cannot bound are not claimed: it takes x in e^x / (1 + e^x)
    at its two places for two variables."""
    unseen = {"t / (1 + t)", "ed.exp(x) / (1 + ed.exp(x))"}
    claimed = lies_in(eval(text, {"ed": ed, **VIEWS}), constraints.unit_interval)
    assert claimed == (text not in unseen)


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [("n**-1", 1 / 3, 1), ("2 - u", 0, 2), ("v * u", -2, 2), ("abs(v - 2)", 1, 3), ("v**3", -1, 1),
     ("ed.where(x > 0, u, v)", -1, 2), ("-u", -2, 0), ("(n * q).sum() - 1", -1, 2), ("1 / (v - 2)",
      -1, -1 / 3), ("ed.maximum(u, v)", 0, 2), ("ed.minimum(u, v)", -1, 1), ("ed.softplus(x)", 0,
      np.inf), ("(p * u).sum()", 0, 6), ("abs(v - 0.5)", 0, 1.5)],
)  # fmt: skip
def test_bounds(text, low, high):
    found = fold(eval(text, {"ed": ed, **VIEWS}), range_of).within
    np.testing.assert_allclose(found, (low, high), rtol=1e-12)


@pytest.mark.parametrize(
    "text", ["1 - u", "0.6 + 0.5 * ed.tanh(x)", "1 / ed.exp(x)", "2 * b", "w * b", "x * b", "v"]
)
def test_what_need_not_be_a_probability(text):
    assert not lies_in(eval(text, {"ed": ed, **VIEWS}), constraints.unit_interval)


@pytest.mark.parametrize(
    "text", ["x", "v", "b", "s", "c", "w * t", "t - u", "x * x", "abs(x)", "-2 * t"]
)
def test_scales_that_are_not(text):
    assert not lies_in(eval(text, {"ed": ed, **VIEWS}), constraints.positive)


@pytest.mark.parametrize(
    "text", ["1 / x", "1 / b", "ed.log(u - 1)", "ed.sqrt(x)", "x**0.5", "b**-1"]
)
def test_means_that_may_not_be_finite(text):
    assert not lies_in(eval(text, {"ed": ed, **VIEWS}), constraints.real)


def test_domains_in_constraints():
    inside = [
        (constraints.positive, "tun"),
        (constraints.unit_interval, "b"),
        (constraints.real, "xtuvbsnc"),
        (constraints.nonnegative_integer, "bnc"),
    ]
    for constraint, names in inside:
        for name in "xtuvbsnc":
            domain = VIEWS[name].variable.domain
            assert domain_in(domain, constraint) == (name in names), (name, constraint)
    unit = ed.interval("unit", low=0.0, high=1.0).variable.domain
    assert domain_in(unit, constraints.unit_interval)
    assert not domain_in(VIEWS["p"].variable.domain, constraints.unit_interval)
    assert lies_in(VIEWS["p"], constraints.simplex)
    assert not lies_in(VIEWS["p"][::-1], constraints.simplex)
