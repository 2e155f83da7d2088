"""Degrees are upper bounds: nothing passes for a polynomial that is not one."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import energydsl as ed
from energydsl.analysis.degree import degrees
from energydsl.analysis.structure import Structure

VECTOR = jax.ShapeDtypeStruct((3,), np.float32)
MATRIX = jnp.arange(9.0).reshape(3, 3)


@jax.custom_jvp
def disguised(x):
    return x**3


disguised.defjvp(lambda primals, tangents: (disguised(*primals), tangents[0]))


@jax.custom_vjp
def clipped(x):
    return x**3


clipped.defvjp(lambda x: (x**3, None), lambda _, slope: (slope,))


def bound(text, *more):
    """Degrees in u, in v, and jointly, of a scalar function of two vectors."""
    function = eval(f"lambda u, v: {text}")
    found = degrees(lambda u, v: jnp.sum(function(u, v)), [VECTOR, VECTOR], 2)
    return (*found.each, found.total)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.0 + 0 * jnp.ones(3)", (0, 0, 0)),
        ("u", (1, 0, 1)),
        ("u * v", (1, 1, 2)),
        ("u * u * v", (2, 1, 3)),
        ("u**2 + v", (2, 1, 2)),
        ("(u + v)**3", (3, 3, 3)),
        ("u**0 + v**1", (0, 1, 1)),
        ("u @ MATRIX @ v", (1, 1, 2)),
        ("u @ MATRIX @ u", (2, 0, 2)),
        ("jnp.einsum('i,j,k->', u, u, v)", (2, 1, 3)),
        ("jnp.outer(u, v).T.reshape(9)[::2]", (1, 1, 2)),
        ("jnp.concatenate([u, v * v])", (1, 2, 2)),
        ("jnp.stack([u, v * v])", (1, 2, 2)),
        ("sum(jnp.unstack(jnp.tile(u, (2, 1)))) * v", (1, 1, 2)),
        ("u / 3 - v / MATRIX[1]", (1, 1, 1)),
        ("jnp.where(MATRIX[0] > 1, u, v * u)", (1, 1, 2)),
        ("jnp.roll(u, 1) * u[jnp.array([0, 2, 1])]", (2, 0, 2)),
        ("jnp.mean(u) * jnp.cumsum(v)", (1, 1, 2)),
        ("jnp.square(u) * jnp.exp(MATRIX[0])", (2, 0, 2)),
        ("jnp.convolve(u, v)", (1, 1, 2)),
        ("jnp.pad(u, 2) + u.astype(jnp.float16).sum()", (1, 0, 1)),
        ("jax.jit(lambda a: a * a)(u)", (2, 0, 2)),
        ("jax.checkpoint(lambda a: a * a)(u * v)", (2, 2, 4)),
        ("jnp.trace(jnp.outer(u, u)) + v[1]", (2, 1, 2)),
        ("((u - MATRIX[0]) / v)**2 + jnp.log(v)", (2, math.inf, math.inf)),
        ("u @ jnp.diag(jnp.exp(v)) @ u", (2, math.inf, math.inf)),
        ("jnp.where(v > 0, u, u**3)", (3, math.inf, math.inf)),
        ("u[v.astype(int)]", (1, math.inf, math.inf)),
        ("u**0 * jnp.sin(v)", (0, math.inf, math.inf)),
    ],
)
def test_polynomials_are_recognised(text, expected):
    assert bound(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "jnp.exp(u)",
        "jnp.abs(u)",
        "jnp.sqrt(u**2)",
        "jnp.exp(jnp.log(u))",
        "jnp.log(jnp.exp(u))",
        "1 / u",
        "u / u",
        "u**-1",
        "u**0.5",
        "u**2.5",
        "2.0**u",
        "jnp.maximum(u, 0)",
        "jnp.clip(u, -1, 1)",
        "jax.nn.relu(u)",
        "jnp.sign(u) * u",
        "jnp.floor(u)",
        "jnp.round(u)",
        "jnp.mod(u, 2)",
        "u.astype(int)",
        "u.astype(int).astype(float)",
        "u.astype(bool) * 1.0",
        "(u > 0) * u",
        "u == 1",
        "jnp.where(u > 0, u, 0)",
        "jnp.where(u == 0, 1, u)",
        "jnp.where(jnp.isinf(1 / u), 5.0, 0.0)",
        "jnp.where(jnp.isnan(jnp.log(u)), 5.0, 0.0)",
        "jnp.nan_to_num(1 / u)",
        "jnp.max(u)",
        "jnp.sort(u)",
        "jnp.prod(u)",
        "jnp.cumprod(u)",
        "u[jnp.argmax(u)]",
        "MATRIX[u.astype(int)]",
        "jax.lax.dynamic_slice(MATRIX[0], (u[0].astype(int),), (1,))",
        "disguised(u)",
        "clipped(u)",
        "jax.lax.stop_gradient(u)",
        "u * jax.lax.stop_gradient(u)",
        "jax.nn.sigmoid(u)",
        "jnp.logaddexp(u, 0)",
        "jnp.linalg.norm(u)",
        "jnp.linalg.det(jnp.outer(u, u))",
        "jnp.abs(u + 0j)",
        "jnp.fft.fft(u).real",
        "jax.lax.cond(u[0] > 0, lambda: u, lambda: -u)",
        "jax.lax.fori_loop(0, 5, lambda i, a: a * u, u)",
        "jax.lax.scan(lambda a, b: (a * b, a), 1.0, u)[0]",
        "jax.lax.while_loop(lambda a: a[0] < 9, lambda a: a + 1, u)",
        "jax.lax.reduce(u, 1.0, jax.lax.mul, (0,))",
        "jnp.vectorize(lambda a: a if a.dtype == int else jnp.abs(a))(u)",
        "jax.pure_callback(np.abs, VECTOR, u)",
    ],
)
def test_what_is_no_polynomial_is_not_claimed_to_be_one(text):
    in_u, in_v, total = bound(text)
    assert in_u == total == math.inf
    assert in_v == 0
    # A factor of v does not hide it.
    assert bound(f"v.sum() * jnp.sum({text})")[1:] == (1, math.inf)


TERMS = st.recursive(
    st.sampled_from(["u", "v", "MATRIX[1]"]),
    lambda inner: st.builds(
        lambda rule, a, b: rule.format(a=a, b=b),
        st.sampled_from(
            [
                "({a} + {b})",
                "({a} - {b})",
                "({a} * {b})",
                "({a} / (1.5 + MATRIX[2]))",
                "({a} / (3 + {b}))",
                "({a} * jnp.exp(-({b})**2))",
                "jnp.where({b} > 0, {a}, {a}**2)",
                "({a}**2)",
                "({a} @ MATRIX * 0.1)",
                "jnp.sum({a}) * {b}",
                "jnp.dot({a}, {b}) * jnp.ones(3)",
                "jnp.where({a} > {b}, {a}, {b})",
                "jnp.where(MATRIX[0] > 1, {a}, {b})",
                "jnp.cumsum({a})",
                "{a}[::-1]",
                "jnp.abs({a})",
                "jax.lax.stop_gradient({a})",
                "disguised({a})",
                "jnp.concatenate([{a}, {b}])[1:4]",
                "jax.jit(lambda a: a * {b})({a})",
            ]
        ),
        inner,
        inner,
    ),
    max_leaves=6,
)


@settings(deadline=None, max_examples=40)
@given(text=TERMS, seed=st.integers(0, 2**20))
def test_derivatives_up_to_a_claimed_degree_say_all(text, seed):
    """Conditionals read their coefficients off derivatives at zero."""
    function = eval(f"lambda u, v: jnp.sum({text})")
    found = degrees(function, [VECTOR, VECTOR], 2)
    with jax.enable_x64(True):
        u, v, w = (jr.normal(k, 3, np.float64) for k in jr.split(jr.key(seed), 3))
        lines = [
            (found.each[0], lambda t: function(t * w, v)),
            (found.each[1], lambda t: function(u, t * w)),
            (found.total, lambda t: function(t * u, t * v)),
        ]
        for degree, line in lines:
            if degree <= 2:
                zero = jnp.zeros(())
                slope = jax.grad(line)
                taylor = line(zero) + 1.7 * slope(zero) + 1.7**2 / 2 * jax.grad(slope)(zero)
                np.testing.assert_allclose(line(jnp.asarray(1.7)), taylor, rtol=1e-9, atol=1e-9)
            elif degree < 8:
                steps = range(int(degree) + 2)
                signs = [(-1) ** k * math.comb(len(steps) - 1, k) for k in steps]
                values = [float(line(jnp.asarray(0.3 * k))) for k in steps]
                size = max(1, np.abs(np.multiply(signs, values)).max())
                assert abs(np.dot(signs, values)) <= 1e-9 * size


def degree_in_b(energy, b):
    return Structure(ed.Model(energy)).degree_in(b.variable)


def test_the_square_of_a_bit_is_not_linear():
    b = ed.binary("b", 3)
    assert degree_in_b((b * b).sum(), b) == 2
    assert degree_in_b((b**2).sum(), b) == 2
    assert degree_in_b(b @ np.ones((3, 3)) @ b, b) == 2
    assert degree_in_b((b[1:] * b[:-1]).sum(), b) == 1
    # The same site twice in one factor of a batch only.
    assert degree_in_b((b[[0, 1]] * b[[1, 1]]).sum(), b) == 2
    assert degree_in_b((b[[0, 1]] * b[[1, 2]] * b[[1, 0]]).sum(), b) >= 2


def test_models_that_only_look_linear():
    b, c, x = ed.binary("b", 3), ed.categorical("c", 3, levels=3), ed.real("x", 3)
    for energy in (
        ed.where(b > 0, 1.0, 0.0).sum(),
        (b == 1).sum(),
        ed.sqrt(b**2).sum(),
        abs(b).sum(),
        (1 / (1 + b)).sum(),
        ed.Table(np.zeros(2))(b).sum(),
        ed.apply(disguised, b).sum(),
        ed.Neural(eqx.nn.MLP(3, "scalar", 3, 1, key=jr.key(0)))(b),
    ):
        assert degree_in_b(energy, b) == math.inf
    assert degree_in_b((0.3 * c).sum() + (c == 1).sum(), c) == math.inf
    chosen = ed.apply(lambda v: jax.lax.select_n(v, *MATRIX).sum(), c)
    assert degree_in_b(chosen, c) == math.inf
    assert degree_in_b(ed.apply(lambda v: MATRIX[v].sum(), c), c) == math.inf
    assert degree_in_b((x**3 - x**3).sum() + x @ x, x) == 3
    assert degree_in_b((2.0**x).sum(), x) == math.inf
    assert degree_in_b(ed.apply(lambda v: v @ MATRIX @ v, x), x) == 2
    assert not Structure(ed.Model((x**3).sum())).quadratic
    assert not Structure(ed.Model((x[1:] ** 2 * x[:-1]).sum())).quadratic
    assert Structure(ed.Model(ed.apply(lambda v: v @ MATRIX @ v, x))).quadratic


def test_quadratic_needs_every_variable_real():
    x, b, u = ed.real("x", 2), ed.binary("b", 2), ed.interval("u", 2, low=-1, high=1)
    assert Structure(ed.Model(x @ x)).quadratic
    assert not Structure(ed.Model(x @ x + x @ b)).quadratic
    assert Structure(ed.Model(x @ x + x @ b).condition(b=[0, 1])).quadratic
    assert not Structure(ed.Model(u @ u)).quadratic


def test_multilinear_needs_every_finite_site_linear():
    b, s, c = ed.binary("b", 3), ed.spin("s", 3), ed.categorical("c", 3, levels=3)
    assert Structure(ed.Model(b @ MATRIX @ s)).multilinear
    assert not Structure(ed.Model(b @ MATRIX @ s + (b * b).sum())).multilinear
    assert not Structure(ed.Model(b @ MATRIX @ s + (c == 1).sum())).multilinear
    assert not Structure(ed.Model(ed.real("x", 3).sum() * 1.0)).multilinear
