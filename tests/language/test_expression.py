"""Expressions against NumPy: every operation, every way to index, on random arrays."""

import operator
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import energydsl as ed
from energydsl.language.expression import render

RNG = np.random.default_rng(5)

NUMPY = SimpleNamespace(
    **{n: getattr(np, n) for n in ("exp", "log", "sqrt", "sin", "cos", "tanh", "where", "roll")},
    **{n: getattr(np, n) for n in ("maximum", "minimum", "logaddexp")},
    **{n: getattr(np, n) for n in ("expm1", "log1p", "sinh", "cosh", "arctan", "sign", "take")},
    softplus=lambda x: np.logaddexp(x, 0),
    logsumexp=scipy.special.logsumexp,
    cumsum=np.cumsum,
    diff=lambda x, axis=-1: np.diff(x, axis=axis),
)


def value(expression, **arrays):
    """The array that an expression stands for: the gradient of its weighted sum."""
    model = ed.Model((np.zeros(expression.shape, np.float32) * expression).sum())
    used = {v.name: arrays[v.name] for v in model.variables}
    slopes = eqx.filter_grad(lambda m: m.energy(used))(model)
    return np.asarray(slopes.slots[0])


def random(*shape, low=-2.0, high=2.0):
    return RNG.uniform(low, high, shape).astype(np.float32)


def agree(formula, *views_and_arrays, **options):
    """A formula of (views, module) has the same value on views as on NumPy arrays."""
    views, arrays = zip(*views_and_arrays, strict=True)
    named = {v.variable.name: a for v, a in zip(views, arrays, strict=True)}
    wide = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays]
    expected = formula(*wide, NUMPY)
    expression = formula(*views, ed)
    assert expression.shape == np.shape(expected)
    options = {"rtol": 2e-5, "atol": 2e-5} | options
    np.testing.assert_allclose(value(expression, **named), expected, **options)


def reals(name, *shape, **limits):
    return ed.real(name, shape), random(*shape, **limits)


@pytest.mark.parametrize(
    "formula",
    [
        "x + y",
        "x - y",
        "x * y",
        "x / y",
        "y**x",
        "-x + +y",
        "abs(x) * y",
        "2 + x",
        "2 - x",
        "x - 2",
        "3 * x / 2",
        "2 / y",
        "2**x",
        "x**2 + x**3 + x**0",
        "y**-2 + y**0.5 + y**-1.5",
        "x == y",
        "x != y",
        "x < y",
        "x <= x",
        "x > y",
        "y >= y",
        "x > 0.5",
        "m.exp(x)",
        "m.log(y)",
        "m.sqrt(y)",
        "m.sin(x) * m.cos(y)",
        "m.tanh(x)",
        "m.softplus(x)",
        "m.maximum(x, y) - m.minimum(x, 0.3)",
        "m.logaddexp(x, y)",
        "m.where(x > 0, x, y)",
        "m.where(x > y, 1.0, x * y)",
        "m.where(np.array([True, False, True, False]), x, y)",
        "m.expm1(x) * m.log1p(y)",
        "m.sinh(x) + m.cosh(x) + m.arctan(x) * m.sign(x)",
        "(x > 0) & (y > 1) | (x < -1)",
        "(x > 0) ^ (y > 1)",
        "~(x > 0) & np.array([True, False, True, False])",
        "np.array([True, False, True, False]) | (x > 0)[::-1]",
    ],
)
def test_elementwise_operations(formula):
    agree(eval(f"lambda x, y, m: {formula}"), reals("x", 3, 4), reals("y", 3, 4, low=0.2))


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
@pytest.mark.parametrize(
    "symbol",
    [
        operator.add,
        operator.sub,
        operator.mul,
        operator.truediv,
        operator.pow,
        operator.eq,
        operator.lt,
        operator.ge,
        operator.matmul,
    ],
    ids=lambda f: f.__name__,
)
def test_arrays_stand_on_either_side(array, symbol):
    a = random(4, low=0.5)
    x = reals("x", 4, low=0.5)
    agree(lambda x, m: symbol(a.astype(np.float64) if m is NUMPY else array(a), x), x)
    agree(lambda x, m: symbol(x, a.astype(np.float64) if m is NUMPY else array(a)), x)


@pytest.mark.parametrize(
    "number", [np.float32(1.5), np.float64(1.5), np.int64(3), jnp.float32(1.5)]
)
def test_scalars_of_numpy_and_jax_stand_on_either_side(number):
    x = reals("x", 4, low=0.5)
    agree(lambda x, m: number * x - number, x)
    agree(lambda x, m: x**number, x)


@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_broadcasting_is_numpys(data):
    shapes = data.draw(hnp.mutually_broadcastable_shapes(num_shapes=3, max_dims=3, max_side=3))
    x, y, z = (reals(n, *s) for n, s in zip("xyz", shapes.input_shapes, strict=True))
    agree(lambda x, y, z, m: m.where(x > 0, x * y, y - z), x, y, z)


indices = st.one_of(
    hnp.basic_indices((3, 4, 2), allow_newaxis=True, allow_ellipsis=True),
    hnp.integer_array_indices((3, 4, 2)),
    hnp.arrays(bool, (3, 4, 2)),
    hnp.arrays(bool, (3,)),
    st.tuples(st.sampled_from([slice(None), slice(None, None, -1), 1]), hnp.arrays(bool, (4,))),
    st.tuples(hnp.integer_array_indices((3,)).map(lambda i: i[0]), st.just(slice(None, None, -2))),
)


@settings(deadline=None, max_examples=30)
@given(index=indices, again=st.sampled_from([..., (..., None), (slice(None, None, -1),)]))
def test_indexing_is_numpys(index, again):
    x = reals("x", 3, 4, 2)
    agree(lambda x, m: x[index], x)
    if np.empty((3, 4, 2))[index].ndim:
        agree(lambda x, m: (2 * x)[index][again], x)


def test_each_index_array_serves_its_own_view():
    first, second = np.array([0, 2, 2]), np.array([[1, 0, 0]])
    agree(lambda x, y, m: x[first] * y[second] - x[second], reals("x", 3), reals("y", 2))


@pytest.mark.parametrize(
    "index",
    [
        np.array(1),
        jnp.array(2),
        np.int64(-1),
        [2, 0, 2],
        [],
        ([0, 1], [1, 3]),
        range(2),
        jnp.array([0, 2]),
        jnp.array([True, False, True]),
        (slice(np.int64(1), None), np.int32(2)),
        (..., 0),
        (None, 1, ..., None),
        (np.array([[0], [2]]), np.array([[1, 3]])),
    ],
    ids=str,
)
def test_every_kind_of_index(index):
    plain = jax.tree.map(lambda i: np.asarray(i) if isinstance(i, jax.Array) else i, index)
    agree(lambda x, m: x[plain if m is NUMPY else index], reals("x", 3, 4))


@pytest.mark.parametrize(
    "formula",
    [
        "x.T",
        "x[0].T",
        "x.reshape(4, 6)",
        "x.reshape((2, -1))",
        "x.reshape(-1)[5:11]",
        "m.roll(x, 1, 0)",
        "m.roll(x, -2, 1)",
        "m.roll(x, 7, -1)",
        "x.sum()",
        "x.sum(0)",
        "x.sum(-1)",
        "x.sum((0, 2))",
        "x.sum(axis=(-1, 0))",
        "x.sum(0).sum(0).sum(0)",
        "x.mean()",
        "x.mean(1)",
        "x.mean((0, 1))",
        "x.max()",
        "x.max(0) - x.min((0, 2))[:, None]",
        "x.min(-1)",
        "m.logsumexp(x)",
        "m.logsumexp(2 * x, axis=(1, 2))",
        "m.logsumexp(x, 1)",
        "m.cumsum(x)",
        "m.cumsum(x, 0) * m.cumsum(x, -1)",
        "m.diff(x)",
        "m.diff(x, axis=0)",
        "x.transpose()",
        "x.transpose(1, 2, 0)",
        "x.transpose((0, -1, 1)).transpose(0, 2, 1)",
        "sum(row.sum() for row in x)",
        "sum(x[0, 0])",
        "x[1:, ::-1].T.sum(0).reshape(-1) * 2",
    ],
)
def test_moves_and_sums(formula):
    agree(eval(f"lambda x, m: {formula}"), reals("x", 2, 3, 4))


def test_an_axis_may_be_a_number_of_numpy(untyped):
    agree(lambda x, m: x.sum(np.int64(1)), reals("x", 2, 3))


@pytest.mark.parametrize(
    ("left", "right"),
    [((3,), (3,)), ((3,), (3, 4)), ((2, 3), (3,)), ((2, 3), (3, 4)), ((1, 3), (3, 1))],
)
@pytest.mark.parametrize("kinds", ["view view", "view array", "array view"])
def test_matrix_products(left, right, kinds):
    x, y = reals("x", *left), reals("y", *right)
    if kinds == "view view":
        agree(lambda x, y, m: x @ y, x, y)
    elif kinds == "view array":
        agree(lambda x, m: x @ y[1], x)
    else:
        agree(lambda y, m: x[1] @ y, y)


def test_a_chain_of_products_is_bilinear():
    w = random(3, 4)
    agree(lambda x, y, m: x @ w @ y, reals("x", 3), reals("y", 4))
    agree(lambda x, m: (x @ w) @ (x @ w) + (w.T @ x).sum(), reals("x", 3))


@pytest.mark.parametrize("form", [sp.coo_array, sp.csr_array, sp.csc_matrix, sp.coo_matrix])
def test_a_sparse_matrix_declares_its_stored_entries(form):
    rows, columns, stored = [0, 2, 1, 0], [1, 3, 0, 3], np.array([0.5, -1.0, 0.0, 2.0], np.float32)
    matrix = form(sp.coo_array((stored, (rows, columns)), shape=(3, 4)))
    x, y = ed.real("x", 3), ed.real("y", 4)
    dense = np.zeros((3, 4))
    dense[rows, columns] = stored
    arrays = {"x": random(3), "y": random(4)}
    energy = ed.Model(x @ matrix @ y).energy(arrays)
    np.testing.assert_allclose(energy, arrays["x"] @ dense @ arrays["y"], rtol=1e-5)

    edges = ed.compile(ed.Model(ed.spin("x", 3) @ matrix @ ed.spin("y", 4))).structure.edges
    # A stored zero is an edge, as a zero in a dense matrix is.
    assert {(a, b - 3) for a, b in edges.tolist()} == set(zip(rows, columns, strict=True))


@pytest.mark.parametrize("form", [sp.coo_array, sp.csr_array, sp.csc_matrix, sp.csr_matrix])
def test_a_sparse_matrix_times_a_vector(form):
    dense = np.array([[0, 2.0, 0, -1], [0, 0, 0, 0], [0.5, 1, 3, 0]], np.float32)
    matrix, x, data = form(dense), ed.real("x", 4), random(3)
    arrays = {"x": random(4)}
    squares = np.sum((data - dense @ arrays["x"]) ** 2)
    for energy in (((data - matrix @ x) ** 2).sum(), ((x @ matrix.T - data) ** 2).sum()):
        np.testing.assert_allclose(ed.Model(energy).energy(arrays), squares, rtol=1e-5)

    spins = ed.compile(ed.Model(((matrix @ ed.spin("s", 4)) ** 2).sum())).structure.edges
    # Padding joins no sites: only those of one row interact.
    assert {(a, b) for a, b in spins.tolist()} == {(1, 3), (0, 1), (0, 2), (1, 2)}


def test_a_square_of_a_sparse_product_is_gaussian():
    dense = np.array([[0, 2.0, 0], [0, 0, 0], [0.5, 1, 3], [1, 0, 0], [0, 0, 1.5]])
    x, data = ed.real("x", 3), np.array([1.0, 2, -1, 0.5, 0])
    ebm = ed.compile(ed.Model(((data - sp.csr_array(dense) @ x) ** 2).sum() / 2))
    precision = dense.T @ dense
    mean = np.linalg.solve(precision, dense.T @ data)
    rest = 0.5 * np.sum((data - dense @ mean) ** 2)
    expected = 0.5 * np.linalg.slogdet(2 * np.pi * np.linalg.inv(precision))[1] - rest
    np.testing.assert_allclose(ed.log_partition(ebm), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ("x @ S @ x", ValueError, r"x @ S @ y got S with 4 columns and y of shape \(3,\)"),
        ("S @ x", ValueError, r"shape \(3, 4\) and a view of shape \(3,\)"),
        ("x[None] @ S", ValueError, "expected a vector of 3 elements"),
        ("y * S", TypeError, "stands in products with vectors"),
        ("S.multiply(y)", TypeError, "is no array"),
        ("full @ z", ValueError, "one row has 2000.*Write long rows apart"),
    ],
)
def test_a_sparse_matrix_stands_in_products_with_vectors(wrong, error, message):
    matrix = sp.coo_array(([1.0], ([0], [1])), shape=(3, 4))
    long = sp.csr_array((np.ones(2000), (np.zeros(2000, int), np.arange(2000))), shape=(2000, 2000))
    names = {"x": ed.real("x", 3), "y": ed.real("y", 4), "S": matrix,
             "z": ed.real("z", 2000), "full": long}  # fmt: skip
    with pytest.raises(error, match=message):
        eval(wrong, names)


def test_labels_are_compared_and_counted():
    c = ed.categorical("c", (2, 3), levels=40000)
    labels = np.array([[0, 39999, 2], [1, 39999, 0]])
    arrays = (c, labels)
    agree(lambda c, m: c == 39999, arrays)
    agree(lambda c, m: c[0] == c[1], arrays)
    agree(lambda c, m: c * c / 2, arrays)
    # The square of a label does not fit an int32.
    model = ed.Model((c * c).sum() + c.sum() + c[0, 0] * 1.0)
    energy = model.energy({"c": labels})
    assert energy.dtype == np.float32
    np.testing.assert_allclose(energy, (labels.astype(float) ** 2 + labels).sum(), rtol=1e-6)
    assert ed.Model(c[0, 1]).energy({"c": labels}).dtype == np.float32


def test_apply_runs_any_function_and_may_return_an_array():
    weights = random(3, 3)
    agree(
        lambda x, m: x @ weights if m is NUMPY else ed.apply(lambda v, w: v @ w, x, weights),
        reals("x", 3),
    )
    agree(
        lambda x, m: np.cumsum(x) if m is NUMPY else ed.apply(jnp.cumsum, x),
        reals("x", 4),
    )
    agree(
        lambda x, m: x.max() if m is NUMPY else ed.apply(lambda v: v.max(), x),
        reals("x", 4),
    )


def test_apply_sees_labels_as_integers_and_returns_floats():
    table = jnp.asarray(random(3))
    c = ed.categorical("c", 4, levels=3)
    chosen = ed.apply(lambda c, t: t[c], c, table)
    labels = np.array([2, 0, 1, 1])
    np.testing.assert_allclose(value(chosen, c=labels), table[labels])
    assert ed.Model(ed.apply(lambda c: c.max(), c)).energy({"c": labels}).dtype == np.float32
    assert ed.Model(ed.apply(lambda c: c.max() > 1, c)).energy({"c": labels}) == 1.0


def test_a_shared_part_is_computed_once():
    calls = []

    def counted(v):
        calls.append(v.shape)
        return v.sum()

    part = ed.apply(counted, ed.real("x", 3))
    model = ed.Model(part + part * part + ed.exp(part))
    calls.clear()
    energy = model.energy({"x": np.ones(3)})
    assert len(calls) == 1
    np.testing.assert_allclose(energy, 3 + 9 + np.exp(3), rtol=1e-6)


def test_a_part_used_again_and_again_does_not_explode():
    x = ed.real("x")
    total = x
    for _ in range(40):
        total = total + total
    model = ed.Model(0.0 * x + total)
    np.testing.assert_allclose(jax.jit(model.energy)({"x": np.float32(1.0)}), 2.0**40)
    assert len(str(model)) < 10**6
    with pytest.raises(ValueError, match=r"more than 100,000 pieces at x \+ x .*ed\.apply"):
        ed.compile(model)
    gated = x
    for _ in range(40):
        gated = ed.tanh(gated * ed.exp(gated))
    with pytest.raises(ValueError, match="more than 100,000 pieces"):
        ed.compile(ed.Model(gated))


def test_a_long_sum_meets_no_recursion_limit():
    s = ed.spin("s", 3000)
    total = sum(-0.5 * s[i] * s[i + 1] for i in range(2999))
    model = ed.Model(total)
    np.testing.assert_allclose(model.energy({"s": np.ones(3000)}), -0.5 * 2999)
    assert str(model.expression) == "(f32[2999] * s[int[2999]] * s[int[2999]]).sum()"
    assert str(total).count("s[") == 2 * 2999
    assert render(ed.exp(0.001 * total)).startswith("exp(0.001 * (-0.5 * s[0] * s[1]")


@pytest.mark.parametrize(
    "formula",
    [
        "-0.44 * (s[1:, :] * s[:-1, :]).sum()",
        "-(s * t).sum()",
        "-(s * t)",
        "-s * t",
        "s - (t - s)",
        "s - t - s",
        "s / (t / s)",
        "(s**2)**3",
        "-s**2",
        "(-s)**2",
        "2**(-s)",
        "s**(-0.5)",
        "s**t**s",
        "(s + t) * s",
        "(s + t)[0]",
        "(s < t) == t",
        "s < (t == t)",
        "abs(s - t).sum(0)",
        "exp(-s).sum()",
        "s[None, ..., ::-1].sum((0, 1))",
        "where(s > 0, s, 0)",
        "roll(s, 1, 1)",
        "s.T.reshape(-1)",
        "s.max() + s.T.min(-1).sum()",
        "logsumexp(s) * logsumexp(-s, -1).max()",
        "cumsum(s, -1).T.sum()",
        "s[None].transpose(1, 0, 2)[0]",
        "-(s[0] @ (2 * t[0]))",
        "s[0] * 1e-09",
    ],
)
def test_energies_print_as_they_were_written(formula):
    names = {"s": ed.real("s", (2, 3)), "t": ed.real("t", (2, 3))}
    expression = eval(formula, vars(ed) | names)
    assert str(expression) == formula
    assert formula in repr(expression)


@pytest.mark.parametrize(
    ("formula", "text"),
    [
        ("s[0] @ np.ones((3, 3)) @ t[0]", "s[0] @ f32[3,3] @ t[0]"),
        ("jnp.float32(-0.5) * s", "-0.5 * s"),
        ("s[[0, 1], [1, 2]]", "s[int[2]]"),
        ("s + -0.0", "s + -0.0"),
        ("s.mean(0)", "s.sum(0) / 2"),
        ("ed.apply(jnp.vdot, s, t)", "vdot(s, t)"),
        ("ed.Neural(jnp.vdot)(s, t)", "Neural[vdot](s, t)"),
    ],
)
def test_arrays_print_as_their_shapes(formula, text):
    names = {"s": ed.real("s", (2, 3)), "t": ed.real("t", (2, 3)), "ed": ed, "np": np, "jnp": jnp}
    assert str(eval(formula, names)) == text


@pytest.mark.parametrize(
    "text",
    [
        "((s > 0) | (t > 0)) & (s < t)",
        "(s > 0) | (t > 0) & (s < t)",
        "((s > 0) ^ (t > 0)) & (s < t) | (s > 1)",
        "~((s > 0) | (t > 0)) ^ ~(s < t)",
        "((s > 0) & (t > 0)) * s + t",
    ],
)
def test_conditions_print_with_the_brackets_that_python_needs(text):
    assert str(eval(text, {"s": ed.real("s", 3), "t": ed.real("t", 3)})) == text


leaves = st.sampled_from(["s", "t", "2", "0.5", "(-3)"])
texts = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "<", "==", "@"]), inner).map(
            lambda p: f"({p[0]} {p[1]} {p[2]})"
        ),
        st.tuples(inner, st.sampled_from("&|^"), inner).map(
            lambda p: f"(({p[0]} > 0) {p[1]} ~({p[2]} < t))"
        ),
        inner.map(lambda p: f"(-{p})"),
        inner.map(lambda p: f"({p})**2"),
        inner.map(lambda p: f"2**({p})"),
        inner.map(lambda p: f"abs({p})"),
        inner.map(lambda p: f"where({p} > 0, {p}, t)"),
    ),
    max_leaves=6,
)


@settings(deadline=None, max_examples=80)
@given(text=texts)
def test_what_is_printed_reads_back_as_the_same_expression(text):
    names = {"s": ed.real("s", 3), "t": ed.real("t", 3), "where": ed.where, "abs": abs}
    try:
        expression = eval(text, names)
    except (ValueError, TypeError, ZeroDivisionError):
        return  # @ of numbers, or arithmetic of Python's own
    if not isinstance(expression, ed.Expression):
        return
    again = eval(str(expression), names)
    assert str(again) == str(expression)
    arrays = {"s": random(3, low=0.5), "t": random(3)}
    np.testing.assert_allclose(value(again, **arrays), value(expression, **arrays), rtol=1e-4)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ("s * np.ones(4)", ValueError, r"shapes \(3,\) and \(4,\), which do not broadcast"),
        ("s @ np.ones(4)", ValueError, r"@ got shapes \(3,\) and \(4,\); .*inner sizes"),
        ("s @ np.ones((2, 3, 4))", ValueError, "left one may be a stack of matrices"),
        ("np.ones((2, 4, 2)) @ s", ValueError, r"@ got shapes \(2, 4, 2\) and \(3,\)"),
        ("s @ 2.0", ValueError, r"@ got shapes \(3,\) and \(\)"),
        ("s[3]", IndexError, r"Index 3 does not fit shape \(3,\)"),
        ("s[0, 0]", IndexError, r"does not fit shape \(3,\)"),
        ("s[[0, 5]]", IndexError, r"does not fit shape \(3,\)"),
        ("s[np.ones(2, bool)]", IndexError, "does not fit"),
        ("s[1.5]", IndexError, "does not fit"),
        ("s[s]", TypeError, r"index of s got s, which is spin; .*count from 0.*ed.categorical"),
        ("s.sum(1)", ValueError, "Axis 1 is out of range"),
        ("s.max(1)", ValueError, "Axis 1 is out of range"),
        ("ed.cumsum(s, (0, 0))", ValueError, "given twice"),
        ("ed.logsumexp(s[3:])", ValueError, r"logsumexp got s\[3:\], of shape \(0,\)"),
        ("s.transpose(0, 0)", ValueError, r"transpose got axes \(0, 0\) .* axes once"),
        ("s.sum((0, -1))", ValueError, "given twice"),
        ("s[3:].mean()", ValueError, r"mean got s\[3:\], of shape \(0,\)"),
        ("ed.roll(s, 1, 1)", ValueError, r"axis 1 for an expression of shape \(3,\)"),
        ("bool(s[0] == s[1])", TypeError, "no truth value.*ed.where.*a.shape == b.shape"),
        ("0 < s[0] < 1", TypeError, r"no truth value.*write \(0 < x\) & \(x < 1\)"),
        ("list(s[0])", TypeError, "one element cannot be iterated"),
        ("len(s[0])", TypeError, "no len"),
        ('s * "J"', TypeError, r"got 'J'; expected a view, an array or a number"),
        ("s * None", TypeError, "got None"),
        ("s * 1j", TypeError, "complex128; expected real numbers"),
        ('s * np.array(["a"] * 3)', TypeError, "expected real numbers"),
        ("s * np.nan", ValueError, "has nan; expected finite"),
        ("s * np.array([0, np.inf, 0])", ValueError, r"shape \(3,\) has inf at \(1,\)"),
        ("s * 1e300", ValueError, "has inf; expected finite"),
        ('s ** float("nan")', ValueError, "An exponent is nan"),
        ("np.asarray(s)", TypeError, "is no array"),
        ("ed.apply(lambda v: (v, v), s)", TypeError, "returned tuple; expected one array"),
        ("ed.apply(lambda v: v * 1j, s)", TypeError, "complex64; expected one array"),
        ("ed.apply(lambda v: None, s)", TypeError, "returned NoneType"),
    ],
)
def test_a_mistake_is_caught_where_it_is_written(untyped, wrong, error, message):
    with pytest.raises(error, match=message):
        eval(wrong, globals() | {"s": ed.spin("s", 3)})


def test_half_precision_parameters_are_taken():
    s = ed.spin("s", 3)
    model = ed.Model((jnp.array([0.5, 1, 2], jnp.bfloat16) * s).sum())
    assert model.energy({"s": np.ones(3)}) == 3.5
