import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energydsl as ed
from tests.normalizer.rules import applies, chosen, reason, value


def precision(n, seed=0):
    # In float32, so that the oracle sees the numbers that the model holds.
    root = np.random.default_rng(seed).normal(size=(n, n))
    return (root @ root.T + np.eye(n)).astype(np.float32).astype(np.float64)


def closed_form(a, b, c=0.0):
    a = (a + a.T) / 2
    n = len(b)
    log_det = np.linalg.slogdet(a)[1]
    return n / 2 * np.log(2 * np.pi) - log_det / 2 + b @ np.linalg.solve(a, b) / 2 - c


@pytest.mark.parametrize("n", [1, 2, 7, 60])
def test_log_z_is_the_closed_form(n):
    a, b = precision(n), np.linspace(-1, 1, n).astype(np.float32).astype(float)
    x = ed.real("x", n)
    ebm = ed.compile(ed.Model(ed.Quadratic(jnp.asarray(a), jnp.asarray(b))(x)))
    assert chosen(ebm) == {"gaussian"}
    assert ed.log_partition(ebm) == pytest.approx(closed_form(a, b), rel=1e-9)


def test_components_of_many_sizes_add():
    a, b = precision(3), np.array([1.0, 0.5, -2.0])
    x, y, z = ed.real("x", 3), ed.real("y", 5), ed.real("z", (2, 2))
    model = ed.Model(
        ed.Quadratic(jnp.asarray(a), jnp.asarray(b))(x)
        + (2 * (y - 1) ** 2).sum()
        + (z**2).sum()
        + (z[:, 0] * z[:, 1]).sum()
        + 3.0
    )
    pair = np.array([[2.0, 1.0], [1.0, 2.0]])
    expected = (
        closed_form(a, b) + 5 * np.log(2 * np.pi / 4) / 2 + 2 * closed_form(pair, np.zeros(2)) - 3
    )
    ebm = ed.compile(model)
    assert chosen(ebm) == {"gaussian"}
    assert ed.log_partition(ebm) == pytest.approx(expected, rel=1e-9)


def test_clamped_sites_are_constants():
    a, b = precision(4), np.array([1.0, 0.5, -2.0, 0.25])
    x = ed.real("x", 4)
    held = np.array([0.5, -1.5])
    model = ed.Model(ed.Quadratic(jnp.asarray(a), jnp.asarray(b))(x)).condition({x[:2]: held})
    free = b[2:] - a[2:, :2] @ held
    constant = held @ a[:2, :2] @ held / 2 - b[:2] @ held
    ebm = ed.compile(model)
    expected = closed_form(a[2:, 2:], free, constant)
    assert ed.log_partition(ebm) == pytest.approx(expected, rel=1e-9)


def test_quadratic_given_the_clamped_spins():
    s, x = ed.spin("s", 3), ed.real("x", 2)
    model = ed.Model((x**2).sum() + (s.sum() * x[0] * x[1]))
    held = model.condition(s=np.array([1, -1, 1]))
    ebm = ed.compile(held)
    assert chosen(ebm) == {"gaussian"}
    pair = np.array([[2.0, 1.0], [1.0, 2.0]])
    assert ed.log_partition(ebm) == pytest.approx(closed_form(pair, np.zeros(2)), rel=1e-9)


def test_gradient_is_the_mean():
    a, b = precision(3), np.array([1.0, 0.5, -2.0])
    x = ed.real("x", 3)

    def log_z(b):
        return ed.log_partition(ed.compile(ed.Model(ed.Quadratic(jnp.asarray(a), b)(x))))

    mean = jax.grad(log_z)(jnp.asarray(b))
    assert np.allclose(mean, np.linalg.solve(a, b), rtol=1e-5)


def test_it_agrees_with_quadrature():
    a, b = precision(2), np.array([1.0, -2.0])
    x = ed.real("x", 2)
    ebm = ed.compile(ed.Model(ed.Quadratic(jnp.asarray(a), jnp.asarray(b))(x)))
    assert value(ebm, "quadrature") == pytest.approx(value(ebm, "gaussian"), rel=1e-9)


def test_what_is_not_quadratic_or_not_real_is_refused():
    x, p = ed.real("x", 2), ed.positive("p")
    ebm = ed.compile(ed.Model((x**2).sum() + (x[0] * x[1]) ** 2))
    assert not applies(ebm, "gaussian")
    assert "not shown to be quadratic" in reason(ebm, "gaussian")
    ebm = ed.compile(ed.Model(p**2))
    assert "p is not real" in reason(ebm, "gaussian")


def test_a_precision_that_is_not_positive_definite_is_said():
    x = ed.real("x", 2)
    w = ed.parameter("w", 0.5)
    ebm = ed.compile(ed.Model((x**2).sum() / 2 + w * x[0] * x[1]))

    def at(value):
        return ebm.replace(w=value)

    assert np.isfinite(ed.log_partition(at(0.9)))
    with pytest.raises(ValueError, match="not positive definite"):
        ed.log_partition(at(1.1))
    assert np.isnan(jax.jit(lambda v: ed.log_partition(at(v)))(1.1))
