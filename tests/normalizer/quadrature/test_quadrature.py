import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
from jax import lax

import energydsl as ed
from energydsl.normalizer.quadrature.rule import ACCEPTED
from tests.normalizer.rules import applies, chosen, integral, reason, value


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


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize(
    "view,q,right",
    [
        (ed.simplex("s", 4), dist.Dirichlet(jnp.array([2.0, 3.0, 1.0, 1.5])), 0.0),
        (ed.positive("p", 3), dist.Gamma(jnp.array([0.5, 2.0, 9.0]), 3.0).to_event(1), 0.0),
    ],
    ids=["simplex", "positive"],
)
def test_constrained_domains_of_three_coordinates(view, q, right):
    ebm = ed.compile(ed.Model(ed.LogDensity(q)(view)))
    found, claimed = integral(ebm)
    assert claimed <= ACCEPTED and abs(found - right) <= claimed


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * (n in ("inverse gamma", "simplex of two")))
     for n in DOMAINS],
)  # fmt: skip
def test_constrained_domains(name):
    view, q = DOMAINS[name]
    ebm = ed.compile(ed.Model(ed.LogDensity(q)(view)))
    assert value(ebm, "quadrature") == pytest.approx(0.0, abs=1e-9)


def test_a_uniform_interval_is_its_length():
    u = ed.interval("u", low=-1.0, high=3.0)
    ebm = ed.compile(ed.Model(jnp.asarray(0.0) * u))
    assert value(ebm, "quadrature") == pytest.approx(np.log(4.0), rel=1e-9)


class Moons(eqx.Module):
    """A network with several basins, confined by a bowl."""

    network: eqx.nn.MLP

    def __call__(self, y):
        return 3 * self.network(y) + 0.5 * jnp.sum(y**2)


def moons():
    network = eqx.nn.MLP(2, "scalar", 32, 2, activation=jnp.tanh, key=jr.key(3))
    return Moons(jax.tree.map(lambda a: 2 * a if eqx.is_array(a) else a, network))


@pytest.mark.slow
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


@pytest.mark.slow
def test_what_does_not_settle_has_no_value():
    ebm = ed.compile(ed.Model(ed.apply(lambda y: y**2 + jnp.sin(1e6 * y), Y)))
    with pytest.raises(ValueError, match=r"estimated error is \S+ relative, more than 1e-06"):
        ed.log_partition(ebm)
    assert integral(ebm)[1] > ACCEPTED


def test_a_jump_has_a_value_and_a_larger_error():
    ebm = ed.compile(ed.Model(ed.apply(lambda y: y**2 + jnp.where(y > 0.3, 1.0, 0.0), Y)))
    erfc = scipy.special.erfc(0.3)
    expected = np.log(np.sqrt(np.pi) * (1 - erfc / 2 + erfc / 2 / np.e))
    found, error = integral(ebm)
    assert error < ACCEPTED
    assert abs(found - expected) < error


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


def test_four_dimensions_are_refused():
    y = ed.real("y", 4)
    ebm = ed.compile(ed.Model((y**4).sum() + y[0] * y[1] * y[2] * y[3]))
    assert not applies(ebm, "quadrature")
    assert reason(ebm, "quadrature").startswith("4 dimensions; at most 3")
    three = ed.real("x", 3)
    beside = ed.compile(ed.Model((three**4).sum() + three[0] * three[1] * three[2] * ed.spin("s")))
    assert reason(beside, "quadrature").startswith("2^21 points, its states counted; budget 2^20")
    assert "budget 2^10" in str(ed.compile(ed.Model(Y**4), budget=10).normalizer)


def check_honest(models, truths, least=1):
    """No error is above its estimate; at least some are accepted."""
    found = np.array([integral(ed.compile(model)) for model in models])
    off, claimed = np.abs(np.expm1(found[:, 0] - truths)), found[:, 1]
    accepted = ~np.isnan(off)
    assert (accepted == (claimed <= ACCEPTED)).all()
    assert accepted.mean() >= least
    assert (off[accepted] <= claimed[accepted]).all(), (off, claimed)


def doubles(rng, low, high, n):
    """Random numbers that float32 holds."""
    return rng.uniform(low, high, n).astype(np.float32).astype(float)


def gauss_and_kink(w, a):
    """log of the integral of exp(-y^2/2 - w|y - a|)."""
    below = scipy.special.log_ndtr(np.stack([-(a + w), a - w]))
    return 0.5 * np.log(2 * np.pi) + w**2 / 2 + np.logaddexp(w * a + below[0], below[1] - w * a)


@pytest.mark.slow
def test_the_error_is_honest_at_kinks():
    rng = np.random.default_rng(0)
    w, a = doubles(rng, 0.2, 4, 40), doubles(rng, -2, 2, 40)
    models = [
        ed.Model(0.5 * Y**2 + jnp.float32(v) * abs(Y - jnp.float32(b)))
        for v, b in zip(w, a, strict=True)
    ]
    check_honest(models, gauss_and_kink(w, a))


def test_the_error_is_honest_in_heavy_tails():
    rng = np.random.default_rng(1)
    v, s, m = doubles(rng, 0.75, 8, 20), doubles(rng, 0.1, 5, 20), doubles(rng, -9, 9, 20)
    parts = [[jnp.float32(x) for x in row] for row in zip(v, s, m, strict=True)]
    models = [ed.Model(v * ed.log(1 + ((Y - m) / s) ** 2)) for v, s, m in parts]
    check_honest(models, np.log(s) + scipy.special.betaln(0.5, v - 0.5))


def test_the_error_is_honest_in_mixtures():
    rng = np.random.default_rng(2)
    far, s, w = doubles(rng, 0, 12, 20), doubles(rng, 0.05, 3, 20), doubles(rng, 0.05, 20, 20)
    parts = [[jnp.float32(x) for x in row] for row in zip(far, s, w, strict=True)]
    models = [
        ed.Model(-ed.log(ed.exp(-0.5 * Y**2) + w * ed.exp(-0.5 * ((Y - m) / s) ** 2)))
        for m, s, w in parts
    ]
    check_honest(models, 0.5 * np.log(2 * np.pi) + np.log1p(w * s))


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
def test_the_error_is_honest_at_tilted_kinks():
    rng, y = np.random.default_rng(3), ed.real("y", 2)
    w, a = doubles(rng, 0.2, 4, 8), doubles(rng, -2, 2, 8)
    turn = rng.uniform(0, np.pi, 8)
    normal = np.stack([np.cos(turn), np.sin(turn)], axis=1).astype(np.float32)
    models = [
        ed.Model(0.5 * (y @ y) + jnp.float32(v) * abs(jnp.asarray(n) @ y - jnp.float32(b)))
        for v, b, n in zip(w, a, normal, strict=True)
    ]
    length = np.linalg.norm(normal.astype(float), axis=1)
    truths = 0.5 * np.log(2 * np.pi) + gauss_and_kink(w * length, a / length)
    check_honest(models, truths, least=0.3)


def log_normal(x, width):
    return -0.5 * (x / width) ** 2 - jnp.log(width) - 0.5 * np.log(2 * np.pi)


def banana(y, width, at):
    return log_normal(y[0] - at, np.sqrt(0.5)) + log_normal(y[1] - y[0] ** 2, width)


def wave(y, width, at):
    return log_normal(y[0] - at, 1.5) + log_normal(y[1] - 2 * jnp.sin(2 * y[0]), width)


def ring(y, width, at):
    r = jnp.sqrt((y[0] - at) ** 2 + y[1] ** 2 + 1e-300)
    return log_normal(r - 3, width) - jnp.log(2 * jnp.pi * jnp.maximum(r, 0.1))


def tilted(y, width, at):
    return log_normal(0.6 * y[0] + 0.8 * y[1] - at, width) + log_normal(0.8 * y[0] - 0.6 * y[1], 1)


RIDGES = [banana, wave, ring, tilted]


class RidgeInHump(eqx.Module):
    """A narrow ridge along a curve inside a broad normal, and a narrow normal that lies apart."""

    number: jax.Array
    width: jax.Array
    at: jax.Array
    spread: jax.Array
    apart: jax.Array
    """Log of its mass, and two thirds of where it is: no number that the model holds is there."""

    def __call__(self, y):
        ridge = lax.switch(self.number, RIDGES, y, self.width, self.at)
        hump = log_normal(y[0], self.spread) + log_normal(y[1], self.spread)
        spot = self.apart[0] + jnp.sum(log_normal(y - 1.5 * self.apart[1:], 0.02))
        return -jnp.logaddexp(jnp.logaddexp(ridge, hump), spot)


def in_a_hump(number, steepness, at, spread, spot=-np.inf):
    arrays = [jnp.float32(a) for a in (1 / np.sqrt(2 * steepness), at, spread)]
    apart = jnp.array([spot, 60.0, -13.0])
    net = RidgeInHump(jnp.asarray(number, jnp.int32), *arrays, apart)
    return integral(ed.compile(ed.Model(ed.Neural(net)(ed.real("y", 2)))))


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize("number", range(len(RIDGES)))
@pytest.mark.parametrize("steepness", [600.0, 9450.0])
def test_the_error_is_honest_at_a_narrow_ridge_inside_a_hump(number, steepness):
    for at, spread in ((0.75, 2.0), (2.75, 4.0)):
        found, claimed = in_a_hump(number, steepness, at, spread)
        assert np.isnan(found) == (claimed > ACCEPTED)
        assert np.isnan(found) or abs(found - np.log(2)) <= claimed
        assert steepness > 1000 or claimed < 1e-6, "cells can do this"


def test_a_narrow_ridge_does_not_hide_a_normal_apart():
    ring_number = RIDGES.index(ring)
    found, claimed = in_a_hump(ring_number, 9450.0, 0.75, 0.1, spot=0.0)
    assert abs(found - np.log(3)) <= claimed <= ACCEPTED


def test_a_peak_narrower_than_numbers_are_apart_is_refused():
    y = ed.real("y", 2)

    def energy(y):
        r = jnp.sqrt((y[0] - 0.7) ** 2 + (y[1] - 0.2) ** 2 + 1e-300)
        return r**2 + jnp.log(r)

    found, claimed = integral(ed.compile(ed.Model(ed.apply(energy, y))))
    assert np.isnan(found) and claimed > ACCEPTED


def bowl(activation, seed):
    network = eqx.nn.MLP(2, "scalar", 12, 2, activation=activation, key=jr.key(seed))
    return Moons(jax.tree.map(lambda a: 1.3 * a if eqx.is_array(a) else a, network))


def on_a_grid(net, half, n):
    """log Z of a function of two coordinates from n x n points, in float64."""
    with jax.enable_x64(True):
        double = jax.tree.map(lambda a: a.astype(float) if eqx.is_array(a) else a, net)
        axis = (np.arange(n) + 0.5) / n * 2 * half - half
        row = jax.jit(lambda a: jax.vmap(lambda b: double(jnp.stack([a, b])))(axis))
        energies = np.stack([np.asarray(row(a)) for a in axis])
    return scipy.special.logsumexp(-energies) + 2 * np.log(2 * half / n)


@pytest.mark.slow
def test_the_error_is_honest_in_networks():
    y, nets = ed.real("y", 2), [bowl(jnp.tanh, seed) for seed in range(6)]
    models = [ed.Model(ed.Neural(net)(y)) for net in nets]
    check_honest(models, [on_a_grid(net, 11.0, 700) for net in nets])


@pytest.mark.slow
def test_rectified_networks_have_a_value():
    y, nets = ed.real("y", 2), [bowl(jax.nn.relu, seed) for seed in range(3)]
    found = [integral(ed.compile(ed.Model(ed.Neural(net)(y)))) for net in nets]
    # The grid's own error is some 1e-6.
    for (v, _), net in zip(found, nets, strict=True):
        assert v == pytest.approx(on_a_grid(net, 9.0, 2000), abs=5e-6)


@pytest.mark.slow
def test_learning_inside_fit_warns_of_nothing():
    network = eqx.nn.MLP(2, "scalar", 16, 2, activation=jnp.tanh, key=jr.key(1))
    y = ed.real("y", 2)
    ebm = ed.compile(ed.Model(ed.Neural(network)(y) + 0.05 * (y @ y)))
    data = jr.normal(jr.key(2), (100, 2))
    options = {"key": jr.key(3), "steps": 20, "progress": False}
    _, history = ed.fit(ebm, ed.MaximumLikelihood(), data, **options)
    assert history.stopped is None and history["loss"][-1] < history["loss"][0]


X, S = ed.real("x", 2), ed.spin("s", 2)
PAIRS = list(itertools.product([-1, 1], repeat=2))


def mixed(weight=0.7):
    network = eqx.nn.MLP(2, "scalar", 16, 2, activation=jnp.tanh, key=jr.key(1))
    experts = ed.LogDensity(dist.Normal(0, 1.5))(X) + 8.0 * ed.Neural(network)(X)
    return network, ed.Model(experts - weight * (X * S).sum() - 0.5 * S[0] * S[1])


@pytest.mark.slow
def test_spins_are_summed_inside_the_integral():
    network, model = mixed()
    ebm = ed.compile(model)
    assert chosen(ebm) == {"quadrature"}
    found = float(ed.log_partition(ebm))
    held = [ed.compile(model.condition(s=np.array(s))) for s in PAIRS]
    parts = [float(ed.log_partition(e)) for e in held]
    assert found == pytest.approx(scipy.special.logsumexp(parts), rel=1e-9)

    def energy(x):
        spins = jnp.asarray(PAIRS, float)
        bonds = float(np.float32(0.7)) * spins @ x + 0.5 * spins[:, 0] * spins[:, 1]
        normal = 0.5 * jnp.sum((x / 1.5) ** 2) + 2 * jnp.log(1.5) + jnp.log(2 * jnp.pi)
        return normal + 8 * network64(x) - jax.nn.logsumexp(bonds)

    with jax.enable_x64(True):
        network64 = jax.tree.map(lambda a: a.astype(float) if eqx.is_array(a) else a, network)
    assert found == pytest.approx(on_a_grid(energy, 14.0, 700), rel=1e-9)


def moments(energy, slope, low=-12.0, high=12.0):
    """log of the integral of the sum over states of exp(-energy), and the mean of the slope."""
    y, weight = np.polynomial.legendre.leggauss(400)
    y, weight = low + (y + 1) * (high - low) / 2, weight * (high - low) / 2
    logs = -energy(y) + np.log(weight)
    law = np.exp(logs - scipy.special.logsumexp(logs))
    return scipy.special.logsumexp(logs), np.sum(law * slope(y))


@pytest.mark.slow
def test_a_real_and_three_categorical_sites_and_their_gradient():
    c, table = ed.categorical("c", 3, levels=3), np.float32([0.25, -1.125, 0.75])

    def of(w):
        field = ed.apply(lambda c: jnp.asarray(table)[c].sum(), c)
        ring = (1.0 * (c[0] == c[1])) + (c[1] == c[2]) + (c[2] == c[0])
        ebm = ed.compile(ed.Model(0.25 * Y**4 - w * Y * field - 0.625 * ring))
        assert chosen(ebm) == {"quadrature"}
        return ed.log_partition(ebm)

    states = np.array(list(itertools.product(range(3), repeat=3)))
    same = (states == np.roll(states, 1, axis=1)).sum(axis=1)
    field = table.astype(float)[states].sum(axis=1)[:, None]
    w = 0.75
    expected, mean = moments(
        lambda y: 0.25 * y**4 - w * y * field - 0.625 * same[:, None], lambda y: y * field
    )
    assert of(w) == pytest.approx(expected, rel=1e-9)
    assert jax.grad(of)(jnp.float32(w)) == pytest.approx(mean, rel=1e-5)


@pytest.mark.slow
def test_other_domains_with_spins_clamped_sites_and_several_components():
    p, u, s = ed.positive("p", 2), ed.interval("u", low=-1.0, high=2.0), ed.spin("s", (3, 2))
    bonds = 0.375 * s[:, 0] * s[:, 1] + 0.25 * s[:, 0]
    energy = (p**2 - 0.5 * p * s[:2].sum(1)).sum() + ed.exp(u) * s[2, 0] - u**2 * s[2, 1]
    model = ed.Model(energy - bonds.sum()).condition({s[1, 1]: 1})
    ebm = ed.compile(model)
    assert chosen(ebm) == {"quadrature"} and len(ebm.structure.component_sizes) == 3
    a, b = np.array(PAIRS, float).T[:, :, None]
    bond = 0.375 * a * b + 0.25 * a
    held = b[:, 0] == 1
    parts = [
        moments(lambda y: y**2 - 0.5 * y * (a + b) - bond, np.zeros_like, 0, 12)[0],
        moments(lambda y: (y**2 - 0.5 * y * (a + b) - bond)[held], np.zeros_like, 0, 12)[0],
        moments(lambda y: np.exp(y) * a - y**2 * b - bond, np.zeros_like, -1, 2)[0],
    ]
    assert float(ed.log_partition(ebm)) == pytest.approx(sum(parts), rel=1e-9)


@pytest.mark.slow
def test_the_gradient_of_a_mixed_model_is_that_of_its_value():
    def of(w):
        return ed.log_partition(ed.compile(mixed(w)[1]))

    step = 1e-3
    low, high = np.float32(0.7 - step), np.float32(0.7 + step)
    rise = float(of(jnp.asarray(high))) - float(of(jnp.asarray(low)))
    slope = jax.grad(of)(jnp.float32(0.7))
    assert slope == pytest.approx(rise / (float(high) - float(low)), rel=1e-4)


def test_a_cheaper_rule_is_preferred_for_mixed_components():
    ebm = ed.compile(ed.Model(0.5 * Y**2 - Y * ed.spin("s", 3).sum()))
    assert applies(ebm, "quadrature") and chosen(ebm) == {"bipartite"}
    assert value(ebm, "quadrature") == pytest.approx(value(ebm, "bipartite"), rel=1e-9)


def test_too_many_states_are_refused_with_the_figures():
    s = ed.spin("s", 6)
    ebm = ed.compile(ed.Model((X**4).sum() + X[0] * X[1] * s.sum() + s[0] * s[1]))
    assert not applies(ebm, "quadrature")
    assert reason(ebm, "quadrature").startswith("2^21 points, its states counted; budget 2^20")
    five = ed.compile(ebm.model.condition({s[5]: 1}))
    assert chosen(five) == {"quadrature"}
    assert "no real site" in reason(ed.compile(ed.Model(s.sum())), "quadrature")


@pytest.mark.slow
def test_forbidden_states_have_no_part_in_the_integral():
    """Where a state is forbidden, its energy is infinite at all real coordinates."""
    b, a = ed.simplex("b", (2,)), ed.integer("a", 3, low=-3, high=-2)
    table = np.float32([[0.4, -np.inf], [-0.2, 0.1], [-np.inf, 0.3]])
    concentration = np.float32([1.7, 1.3])
    energy = ed.LogDensity(dist.Dirichlet)(b, concentration) + 0.3 * b[0] * a.sum()
    for k in range(3):
        energy = energy + ed.Table(log_potential=table[k])(a[k])
    beta = scipy.stats.beta(*map(float, concentration))
    total = 0.0
    for levels in itertools.product(range(2), repeat=3):
        weight = np.exp(sum(float(table[k, level]) for k, level in enumerate(levels)))
        slope = 0.3 * (sum(levels) - 9)
        total += weight * beta.expect(lambda x, slope=slope: np.exp(-slope * x)) if weight else 0.0
    assert log_z(energy) == pytest.approx(np.log(total), rel=1e-6)
