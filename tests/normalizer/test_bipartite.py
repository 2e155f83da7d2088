import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energydsl as ed
from energydsl.normalizer import log_partition_of
from tests.normalizer.rules import applies, chosen, plans, reason, value


def weights(*shape, seed=0, scale=0.5):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape) * scale, jnp.float32)


def rbm(n, m, left=ed.binary, right=ed.binary):
    x, h = left("x", n), right("h", m)
    return ed.Model(-(x @ weights(n, m) @ h) - weights(n, seed=1) @ x - weights(m, seed=2) @ h)


def chain(n=9):
    s = ed.spin("s", n)
    return ed.Model(-(weights(n - 1) * s[1:] * s[:-1]).sum() - weights(n, seed=1) @ s)


def potts():
    a, b = ed.categorical("a", 3, levels=3), ed.categorical("b", 2, levels=4)
    table = weights(3, 2, 3, 4)
    return ed.Model(ed.Table(table)(a[:, None], b[None, :]).sum())


def forbidden():
    a, b = ed.categorical("a", 3, levels=3), ed.binary("b", 2)
    table = np.zeros((3, 2))
    table[2, 1] = -np.inf
    return ed.Model(ed.Table(log_potential=table)(a[:, None], b[None, :]).sum() + 0.5 * b.sum())


def scattered():
    """Two bipartite parts, an odd cycle and lone sites."""
    s, t, u = ed.spin("s", (2, 3)), ed.integer("t", 3, low=-1, high=2), ed.binary("u", 4)
    cycle = s[0, 0] * s[0, 1] + s[0, 1] * s[0, 2] + s[0, 2] * s[0, 0]
    return ed.Model(
        cycle
        - 0.5 * s[1, 0] * s[1, 1]
        - 0.3 * t[0] * t[1] ** 2
        + 0.1 * t[1]
        + 0.2 * u.sum()
        + 0.4 * s[1, 2] * t[2]
    )


CASES = {
    "rbm": lambda: rbm(6, 4),
    "spins beside integers": lambda: rbm(
        4, 3, ed.spin, lambda n, k: ed.integer(n, k, low=-1, high=1)
    ),
    "chain": chain,
    "potts": potts,
    "forbidden": forbidden,
    "clamped": lambda: rbm(6, 4).condition({ed.binary("x", 6)[:2]: np.array([1, 0])}),
}


@pytest.mark.parametrize("name", CASES)
def test_it_equals_enumeration(name):
    ebm = ed.compile(CASES[name]())
    assert chosen(ebm) == {"bipartite"}
    assert value(ebm, "bipartite") == pytest.approx(value(ebm, "enumeration"), rel=1e-9)


def test_components_are_chosen_one_by_one():
    ebm = ed.compile(scattered())
    assert chosen(ebm) == {"bipartite", "enumeration", "independent"}
    assert ed.log_partition(ebm) == pytest.approx(value(ebm, "enumeration"), rel=1e-9)


def mixed():
    s, x = ed.spin("s", 4), ed.real("x", 3)
    width = jnp.asarray([1.0, 2.0, 0.5])
    return ed.Model((width * x**2).sum() / 2 - s @ weights(4, 3) @ x - weights(4, seed=1) @ s)


def mixed_closed_form(model):
    """Sum over spins of Gaussian integrals."""
    grid = np.stack(np.meshgrid(*[[-1, 1]] * 4, indexing="ij"), -1).reshape(-1, 4)
    width, field = np.array([1.0, 2.0, 0.5]), np.asarray(weights(4, seed=1), float)
    pull = grid @ np.asarray(weights(4, 3), float)
    logs = grid @ field + (pull**2 / (2 * width) + np.log(2 * np.pi / width) / 2).sum(1)
    return np.logaddexp.reduce(logs)


def test_real_sites_are_integrated_given_the_finite_layer():
    ebm = ed.compile(mixed())
    assert chosen(ebm) == {"bipartite"}
    assert ed.log_partition(ebm) == pytest.approx(mixed_closed_form(mixed()), rel=1e-9)


def test_what_is_not_zero_at_zero_factor_by_factor():
    s, x, lone = ed.spin("s", 3), ed.real("x", 3), ed.spin("lone")
    ebm = ed.compile(ed.Model(((x - 0.5 * s) ** 2).sum() + 0.3 * lone))
    expected = 3 * np.log(2 * np.sqrt(np.pi)) + np.logaddexp(0.3, -0.3)
    assert chosen(ebm) == {"bipartite", "independent"}
    assert ed.log_partition(ebm) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("model", [rbm(4, 3), scattered(), mixed()])
def test_inside_jit_it_is_the_same(model):
    ebm = ed.compile(model)
    assert eqx.filter_jit(ed.log_partition)(ebm) == pytest.approx(
        float(ed.log_partition(ebm)), rel=1e-6
    )


def test_real_sites_factor_by_factor():
    lone = ed.spin("lone", 2)
    ebm = ed.compile(mixed() + ed.Model(0.0 * lone.sum()))
    expected = mixed_closed_form(mixed()) + 2 * np.log(2)
    assert ed.log_partition(ebm) == pytest.approx(expected, rel=1e-9)


def test_an_energy_that_does_not_rise_is_said():
    s, x = ed.spin("s", 2), ed.real("x", 2)
    ebm = ed.compile(ed.Model((x**2).sum() + 2 * (s * x**2).sum()))
    assert chosen(ebm) == {"bipartite"}
    with pytest.raises(ValueError, match="does not rise in every direction"):
        ed.log_partition(ebm)


def test_gradients_are_those_of_enumeration():
    x, h = ed.binary("x", 5), ed.spin("h", 3)

    def log_z(w, name):
        ebm = ed.compile(ed.Model(-(x @ w @ h) - 0.3 * x.sum()))
        return value_of(ebm, name)

    def value_of(ebm, name):
        return log_partition_of(ebm.model, plans(ebm, name), np.dtype(np.float32))

    slopes = [jax.grad(log_z)(weights(5, 3), name) for name in ("bipartite", "enumeration")]
    assert np.allclose(*slopes, rtol=1e-6, atol=1e-7)


def test_odd_cycles_and_large_layers_are_refused():
    s = ed.spin("s", 3)
    ebm = ed.compile(ed.Model(s[0] * s[1] + s[1] * s[2] + s[2] * s[0]))
    assert not applies(ebm, "bipartite") and "odd cycle" in reason(ebm, "bipartite")
    ebm = ed.compile(rbm(30, 25))
    assert "2^25 states" in reason(ebm, "bipartite")
    x = ed.real("x", 2)
    ebm = ed.compile(ed.Model((x**4).sum() + x[0] * x[1]))
    assert "no layer is finite" in reason(ebm, "bipartite")


def test_an_rbm_of_64_by_16():
    ebm = ed.compile(rbm(64, 16))
    log_z = ed.log_partition(ebm)
    hidden = (np.arange(2**16)[:, None] >> np.arange(16)) & 1
    w, b, c = (np.asarray(a, float) for a in ebm.model.slots)
    fields = np.logaddexp(0, hidden @ w.T + b).sum(1) + hidden @ c
    assert log_z == pytest.approx(np.logaddexp.reduce(fields), rel=1e-9)


def test_states_that_leave_no_level_do_not_spoil_derivatives():
    """Five bits that are all 1: most states of one layer forbid every level of the other."""
    same = ed.Table(log_potential=np.array([[-np.inf, -np.inf], [-np.inf, 3.0]]))
    a, w = ed.binary("a", 5), ed.parameter("w", np.zeros(5))
    ebm = ed.compile(ed.Model(same(a[1:], a[:-1]).sum() - (w * a).sum()))
    assert chosen(ebm) == {"bipartite"}
    slope = jax.grad(lambda w: ed.log_partition(ebm.replace(w=w)))(jnp.zeros(5))
    np.testing.assert_array_equal(slope, np.ones(5))
    np.testing.assert_array_equal(ed.marginals(ebm)["a"].mean, np.ones(5))
