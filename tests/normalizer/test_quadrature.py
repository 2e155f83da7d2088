import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.integrate
import scipy.special

import energydsl as ed
from tests.normalizer.rules import applies, chosen, reason, value


def log_z(energy):
    ebm = ed.compile(ed.Model(energy))
    assert chosen(ebm) == {"quadrature"}
    return float(ed.log_partition(ebm))


Y = ed.real("y")


def test_a_quartic_is_the_closed_form():
    expected = np.log(scipy.special.gamma(0.25) / 2)
    assert log_z(Y**4) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("at,width", [(50.0, 1e-3), (0.0, 1e-6), (-300.0, 10.0)])
def test_sharp_and_distant_peaks(at, width):
    ebm = ed.compile(ed.Model(ed.LogDensity(dist.Normal(at, width))(Y)))
    assert value(ebm, "quadrature") == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("freedom", [1.0, 2.0, 7.5])
def test_heavy_tails(freedom):
    assert log_z(2.0 * ed.LogDensity(dist.StudentT(freedom, 3.0, 0.125))(Y)) == pytest.approx(
        twice_student(freedom, 0.125), rel=1e-9
    )


def twice_student(v, s):
    """log of the integral of a Student density squared."""
    log_c = scipy.special.gammaln((v + 1) / 2) - scipy.special.gammaln(v / 2)
    log_c -= 0.5 * np.log(v * np.pi)
    return float(2 * log_c + scipy.special.betaln(0.5, v + 0.5) + 0.5 * np.log(v) - np.log(s))


def test_two_modes_far_apart():
    a, b = dist.Normal(-8.0, 0.2), dist.Normal(5.0, 1.0)
    energy = ed.apply(lambda y: -jnp.logaddexp(a.log_prob(y), b.log_prob(y) + 1.0), Y)
    assert log_z(energy) == pytest.approx(np.log1p(np.e), rel=1e-6)


DOMAINS = {
    "gamma": (ed.positive("p"), dist.Gamma(0.3, 2.0)),
    "inverse gamma": (ed.positive("p"), dist.InverseGamma(1.5, 2.0)),
    "beta": (ed.interval("u", low=0.0, high=1.0), dist.Beta(1.5, 2.5)),
    "simplex of two": (ed.simplex("s", 2), dist.Dirichlet(jnp.array([2.0, 3.0]))),
    "simplex of three": (ed.simplex("s", 3), dist.Dirichlet(jnp.array([2.0, 3.0, 1.0]))),
}


@pytest.mark.parametrize("name", DOMAINS)
def test_constrained_domains(name):
    view, q = DOMAINS[name]
    ebm = ed.compile(ed.Model(ed.LogDensity(q)(view)))
    assert value(ebm, "quadrature") == pytest.approx(0.0, abs=1e-9)


def test_a_uniform_interval_is_its_length():
    u = ed.interval("u", low=-1.0, high=3.0)
    assert log_z(jnp.asarray(0.0) * u) == pytest.approx(np.log(4.0), rel=1e-9)


class Moons(eqx.Module):
    """A network with several basins, confined by a bowl."""

    network: eqx.nn.MLP

    def __call__(self, y):
        return 3 * self.network(y) + 0.5 * jnp.sum(y**2)


def moons():
    network = eqx.nn.MLP(2, "scalar", 32, 2, activation=jnp.tanh, key=jr.key(3))
    return Moons(jax.tree.map(lambda a: 2 * a if eqx.is_array(a) else a, network))


def test_a_neural_energy_in_two_dimensions():
    net, y = moons(), ed.real("y", 2)
    found = log_z(ed.Neural(net)(y))
    with jax.enable_x64(True):
        double = jax.tree.map(lambda a: a.astype(float) if eqx.is_array(a) else a, net)
        axis = np.linspace(-9, 9, 601)
        grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
        energies = np.asarray(jax.jit(jax.vmap(double))(grid))
    expected = scipy.special.logsumexp(-energies) + 2 * np.log(axis[1] - axis[0])
    assert found == pytest.approx(expected, rel=1e-9)


def test_many_components_at_once():
    y, p = ed.real("y", 20), ed.positive("p", 3)
    width = np.linspace(0.5, 20.0, 20).astype(np.float32)
    model = (jnp.asarray(width) * y**4).sum() + (p**2).sum()
    expected = np.log(scipy.special.gamma(0.25) / 2) - np.log(width.astype(float)) / 4
    assert log_z(model) == pytest.approx(expected.sum() + 3 * np.log(np.sqrt(np.pi) / 2), rel=1e-9)


def test_a_narrow_ridge():
    y = ed.real("y", 2)
    energy = 5e5 * (y[0] - y[1]) ** 2 + y[0] ** 4
    expected = np.log(np.sqrt(np.pi / 5e5)) + np.log(scipy.special.gamma(0.25) / 2)
    assert log_z(energy) == pytest.approx(expected, rel=1e-9)


def test_the_gradient_is_minus_the_mean():
    y = ed.real("y", 2)

    def of(w):
        energy = (y**4).sum() + w * (y[0] * y[1]) ** 2 - w * y[0]
        return ed.log_partition(ed.compile(ed.Model(energy)))

    w, step = 0.7, 1e-3
    slope = jax.grad(of)(jnp.asarray(w))
    rise = float(of(jnp.asarray(w + step))) - float(of(jnp.asarray(w - step)))
    assert slope == pytest.approx(rise / (2 * step), rel=1e-4)


def test_what_does_not_settle_has_no_value():
    ebm = ed.compile(ed.Model(ed.apply(lambda y: y**2 + jnp.where(y > 0.3, 1.0, 0.0), Y)))
    with pytest.raises(ValueError, match="did not settle"):
        ed.log_partition(ebm)


def test_what_has_no_integral_has_no_value():
    ebm = ed.compile(ed.Model(ed.apply(jnp.tanh, Y)))
    with pytest.raises(ValueError, match="does not fall off"):
        ed.log_partition(ebm)
    assert np.isnan(eqx.filter_jit(ed.log_partition)(ebm))


def test_inside_jit_it_is_the_same():
    y = ed.real("y", 2)
    ebm = ed.compile(ed.Model((y**4).sum() + y[0] * y[1]))
    assert eqx.filter_jit(ed.log_partition)(ebm) == pytest.approx(
        float(ed.log_partition(ebm)), rel=1e-6
    )


def test_three_dimensions_and_discrete_sites_are_refused():
    y = ed.real("y", 3)
    ebm = ed.compile(ed.Model((y**4).sum() + y[0] * y[1] * y[2]))
    assert not applies(ebm, "quadrature") and "3 dimensions" in reason(ebm, "quadrature")
    ebm = ed.compile(ed.Model(Y**4 + ed.spin("s") * Y))
    assert "s is discrete" in reason(ebm, "quadrature")
    assert "budget 2^10" in str(ed.compile(ed.Model(Y**4), budget=10).normalizer)
