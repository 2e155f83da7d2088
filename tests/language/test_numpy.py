"""NumPy's functions build expressions; JAX's, which cannot, are answered in a sentence."""

import math
import operator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

import energydsl as ed
from energydsl.language.expression import FUNCTIONS

RNG = np.random.default_rng(11)
X, Y = RNG.uniform(0.2, 2.0, (2, 3)).astype(np.float32)
M = RNG.uniform(0.2, 2.0, (3, 3)).astype(np.float32)
A = RNG.normal(size=(3, 3)).astype(np.float32)
x, y, m = ed.real("x", 3), ed.real("y", 3), ed.real("m", (3, 3))
WEIGHTS = RNG.normal(size=(9, 9))

FORMULAE = [
    "np.exp(x)", "np.log(x) + np.log1p(x)", "np.sqrt(x) * np.tanh(y)", "np.abs(-x)", "np.expm1(x)",
    "np.sin(x) - np.cos(x) + np.sinh(x) + np.cosh(x) + np.arctan(x)", "np.sign(x - 1)",
    "np.add(x, y) + np.subtract(a[0], y) * np.multiply(x, a[1]) / np.divide(y, x)",
    "np.negative(x) + np.positive(y)", "np.power(x, 3)", "np.power(x, y)", "np.float32(2) ** x",
    "np.square(x) + np.reciprocal(y)", "np.maximum(x, 1) + np.minimum(1, y)", "np.logaddexp(x, y)",
    "2.0 * np.equal(x, x) + np.greater(x, y)", "a[0] < x", "a[0] == x", "np.float64(1.5) >= x",
    "np.where(x > 1, x, y)", "np.where((x > 1) & (y > 1), x, 0.0)",
    "np.logical_and(x > 1, y > 1)", "np.logical_or(x > 1, y > 1)",
    "np.logical_xor(x > 1, y > 1)", "np.logical_not(x > 1)",
    "np.bitwise_and(x > 1, y > 1)", "np.bitwise_or(x > 1, y > 1)", "np.invert(x > 1)",
    "np.bitwise_xor(x > 1, y > 1)", "2.0 * np.not_equal(x, y) + np.less(x, y)",
    "2.0 * np.less_equal(x, y) - np.greater_equal(x, y)",
    "np.clip(m, 0.5, 1.2)", "np.clip(x, None, 1.0)", "np.clip(x, 1.0, a_max=None)",
    "np.sum(m)", "np.sum(m, axis=0)", "np.mean(m, 1)", "np.max(m, axis=1)", "np.min(m)",
    "np.amin(m) + np.amax(m)",
    "np.var(m)", "np.var(m, axis=0)", "np.trace(m)",
    "np.cumsum(m)", "np.cumsum(m, axis=0)", "np.diff(m)", "np.diff(m, axis=0)", "np.diff(x, n=2)",
    "np.dot(x, y)", "np.dot(a, x)", "np.dot(m, a)", "np.dot(2.0, x)", "np.inner(x, y)",
    "np.inner(m, m)", "np.outer(x, y)", "np.matmul(a, m)", "a @ x", "x @ a", "a * m",
    "a[:, None] @ m", "np.stack([a, -a]) @ x", "np.reshape(m, (3, 1, 3)) @ a[:, :2]",
    "np.convolve(x, np.array([1.0, 2.0]))", "np.convolve(x, np.array([1.0, 2.0]), 'same')",
    "np.roll(m, 1)", "np.roll(m, 1, axis=1)", "np.roll(x, -1)", "np.take(m, np.array([8, 2]))",
    "np.take(m, np.array([2, 0, 0]), axis=1)", "np.transpose(m)", "np.transpose(m, (1, 0))",
    "np.reshape(x, (3, 1))", "np.ravel(m)", "np.squeeze(m[:1])", "np.array(2.0) * x",
]  # fmt: skip


@pytest.mark.parametrize("formula", FORMULAE)
def test_numpys_functions_build_expressions(formula):
    wide = {"x": X.astype(float), "y": Y.astype(float), "m": M.astype(float)}
    expected = np.asarray(eval(formula, {"np": np, "a": A.astype(float), **wide}), float)
    expression = eval(formula, {"np": np, "a": A, "x": x, "y": y, "m": m})
    assert isinstance(expression, ed.Expression)
    assert expression.shape == expected.shape
    weights = WEIGHTS.ravel()[: expected.size].reshape(expected.shape)
    model = ed.Model((weights * expression).sum() + 0 * (x.sum() + y.sum() + m.sum()))
    energy = model.energy({"x": X, "y": Y, "m": M})
    # The sum of at most nine numbers below 100 in float32.
    np.testing.assert_allclose(energy, (weights * expected).sum(), rtol=1e-5, atol=1e-4)


def test_every_function_in_the_table_is_tried():
    tried = " ".join(FORMULAE)
    words = set(tried.replace("(", " ").replace(".", " ").split())
    by_operator = {"absolute": "abs"}
    names = {by_operator.get(f.__name__, f.__name__) for f in FUNCTIONS}
    assert names - words == {"shape", "ndim", "size"}
    assert (np.shape(m), np.ndim(m), np.size(m)) == ((3, 3), 2, 9)


def test_a_loop_may_add_to_an_array():
    total = np.zeros(3)
    for view in (x, y):
        total += view**2
    assert str(total) == "f32[3] + x**2 + y**2"


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
@pytest.mark.parametrize("symbol", [operator.add, operator.mul, operator.pow, operator.matmul])
def test_arrays_on_the_left_leave_the_operation_to_the_view(array, symbol):
    expression = symbol(array(M), x)
    energy = ed.Model(expression.sum()).energy({"x": X})
    np.testing.assert_allclose(energy, symbol(M, X).sum(), rtol=1e-5)


NETWORK = eqx.nn.MLP(3, "scalar", 4, 1, key=jax.random.key(0))
MESSAGES = [
    ("np.sort(x)", TypeError, r"sort .* got x; .*ed.apply\(lambda a: jnp.sort\(a\), x\)"),
    ("np.stack([x, y])", TypeError, r"ed.apply\(lambda a, b: jnp.stack\(\[a, b\]\), x, y\)"),
    ("np.einsum('i,ij,j', x, A, y)", TypeError, r"jnp.einsum\('i,ij,j', a, array, b\), x, y\)"),
    ("np.linalg.norm(x)", TypeError, r"jnp.linalg.norm\(a\), x\)"),
    ("np.fft.fft(x)", TypeError, r"jnp.fft.fft\(a\), x\)"),
    ("scipy.special.expit(x)", TypeError, r"jax.scipy.special.expit\(a\), x\)"),
    ("np.add.reduce(x)", TypeError, "reduce of NumPy or SciPy got x"),
    ("np.sum(m, keepdims=True)", TypeError, r"np.sum .* 'keepdims'.* It takes \(a, axis=None\)"),
    ("np.exp(x, dtype=float)", TypeError, "np.exp of an expression .* 'dtype'"),
    ("np.exp(x, out=np.zeros(3))", TypeError, "np.exp of an expression .* 'out'"),
    ("np.logical_and(x, y)", TypeError, r"& got x; expected conditions.*\(x > 0\) & \(y > 0\)"),
    ("x & y", TypeError, "& got x; expected conditions"),
    ("(x > 0) | y", TypeError, r"\| got y; expected conditions"),
    ("~x", TypeError, "~ got x; expected conditions"),
    ("x > 0 & y", TypeError, "& got 0; expected conditions, each in brackets"),
    ("0 < x < 1", TypeError, r"write \(0 < x\) & \(x < 1\)"),
    ("x > 0 and y > 0", TypeError, r"for `and`, `or`, `not` write &, \|, ~"),
    ("math.exp(x[0])", TypeError, r"x\[0\]> is no number.*Write np.exp\(x\)"),
    ("float(x[0])", TypeError, "leave out float"),
    ("int(x[0])", TypeError, "is no number"),
    ("round(x[0])", TypeError, "is no number"),
    ("np.asarray(x)", TypeError, "is no array"),
    ("A[ed.categorical('k', levels=3)]", TypeError, r"ed.take\(array, k\) for array\[k\]"),
    ("jnp.asarray(A)[ed.categorical('k', levels=3)]", ValueError, r"ed.take\(array, k\)"),
    *[
        (line, ValueError, f"JAX got {got}.*np.exp.*ed.apply.*ed.Neural")
        for line, got in (
            ("jnp.exp(x)", "x,"),
            ("jnp.sum(x)", "x,"),
            ("jnp.dot(A, x)", "x,"),
            ("jnp.where(x > 0, x, y)", "x > 0,"),
            ("jnp.asarray(x)", "x,"),
            ("jax.nn.relu(x)", "x,"),
            ("jax.scipy.special.logsumexp(x)", "x,"),
            ("NETWORK(x)", ""),
            ("jax.vmap(NETWORK)(m)", "m,"),
            ("jax.grad(jnp.sum)(x)", "x,"),
        )
    ],
]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "error", "message"), MESSAGES, ids=[line for line, *_ in MESSAGES]
)
def test_what_builds_no_expression_is_told_what_to_write(untyped, line, error, message):
    with pytest.raises(error, match=message) as raised:
        eval(line, globals() | {"scipy": scipy, "math": math})
    assert "Error interpreting argument" not in str(raised.value)


def test_views_look_like_no_array_to_other_libraries():
    assert not hasattr(x, "__jax_array__")
    assert not eqx.is_array_like(x)
