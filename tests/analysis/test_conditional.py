"""Laws of single sites: which is taken, what it says at forbidden levels and far from 0."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats

import energydsl as ed
from energydsl._types import Refusal
from energydsl.analysis.conditional import CONDITIONALS, conditional_for
from energydsl.analysis.conditional.exponential import ExponentialConditional
from energydsl.analysis.layer import sum_out
from energydsl.sweep.dense import DenseLayer, DenseSweep
from tests.oracles.enumerate import chisquare_pvalue

FALSE_ALARM = 1e-6  # chance that correct code fails one of these tests


def law_of(energy):
    structure = ed.compile(ed.Model(energy)).structure
    return conditional_for(structure, structure.variables[0])


@pytest.mark.parametrize(
    ("energy", "kind"),
    [
        (lambda: ed.spin("s", 3).sum(), "SlopeConditional"),
        (lambda: (ed.integer("n", 3, low=0, high=4) ** 2).sum(), "CurveConditional"),
        (lambda: (ed.integer("n", 3, low=0, high=4) ** 3).sum(), "LevelConditional"),
        (lambda: (ed.integer("n", 3, low=0, high=4097) ** 2).sum(), "LevelConditional"),
        (lambda: ed.Table(jnp.arange(3.0))(ed.categorical("c", levels=3)), "LevelConditional"),
        (lambda: (ed.real("x", 2) ** 2).sum(), "GaussianConditional"),
        (lambda: ed.positive("p", 2).sum(), "ExponentialConditional"),
    ],
    ids=["spin", "integer", "cubic integer", "far integer", "label", "real", "positive"],
)
def test_the_first_kind_that_is_exact_is_taken(energy, kind):
    law = law_of(energy())
    assert type(law).__name__ == kind
    assert type(law) in CONDITIONALS


@pytest.mark.parametrize(
    ("energy", "reason"),
    [
        (lambda: (ed.real("x", 2) ** 4).sum(), r"not shown to be quadratic.*degree 4"),
        (lambda: (ed.positive("p", 2) ** 3).sum(), r"not shown to be linear.*degree 3"),
        (lambda: -ed.log(ed.simplex("w", 3)).sum(), "a simplex site has no conditional of a known"),
    ],
    ids=["real", "positive", "simplex"],
)
def test_a_law_of_no_known_family_is_refused_with_the_reason(energy, reason):
    law = law_of(energy())
    assert isinstance(law, Refusal)
    assert re.search(reason, law.reason)


def forbidding(table):
    a, b = ed.categorical("a", levels=3), ed.categorical("b", levels=3)
    return ed.compile(ed.Model(ed.Table(log_potential=jnp.asarray(table, float))(a, b)))


def test_a_forbidden_level_has_probability_zero():
    table = np.zeros((3, 3))
    table[0, 1] = -np.inf
    law = forbidding(table).conditional("a", {"a": 1, "b": 1})
    np.testing.assert_allclose(law.probs, [0, 0.5, 0.5], rtol=1e-6)
    np.testing.assert_allclose(
        law.log_prob(jnp.arange(3)), [-np.inf, np.log(0.5), np.log(0.5)], rtol=1e-6
    )


def test_a_site_whose_levels_are_all_forbidden_is_named():
    table = np.zeros((3, 3))
    table[:, 1] = -np.inf
    with pytest.raises(ValueError, match="conditional of a has no level that is allowed"):
        forbidding(table).conditional("a", {"a": 1, "b": 1})


LOW, HIGH = -3, 9
DRAWS = 20_000


def levels_drawn(*numbers):
    """How often each level of one site is drawn, given its slope and perhaps its curvature."""
    n = ed.integer("n", low=LOW, high=HIGH)
    law = law_of(0.1 * n ** len(numbers))
    total = jnp.broadcast_to(jnp.array(numbers, float)[:, None], (len(numbers), DRAWS))
    drawn = np.asarray(_drawn(law, total, jr.key(0)))
    return np.bincount(drawn - LOW, minlength=HIGH - LOW + 1)


def probabilities(slope, curvature=0.0):
    v = np.arange(LOW, HIGH + 1)
    weights = np.exp(-slope * v - curvature * v**2 / 2)
    return weights / weights.sum()


_drawn = eqx.filter_jit(lambda law, total, key: law.draw(total, key=key))


@pytest.mark.parametrize("slope", [-1.7, -1e-3, 0.0, 1e-38, 0.4, 2.3])
def test_levels_of_a_linear_energy_are_drawn_by_inversion(slope):
    counts = levels_drawn(slope)
    assert chisquare_pvalue(counts, probabilities(slope), DRAWS) > FALSE_ALARM


@pytest.mark.parametrize("slope", [-3.0, 0.0, 0.35, 2.0])
@pytest.mark.parametrize("curvature", [-0.3, 0.0, 1e-6, 0.15, 0.9])
def test_levels_of_a_quadratic_energy_are_drawn_from_the_best_outwards(slope, curvature):
    counts = levels_drawn(slope, curvature)
    assert chisquare_pvalue(counts, probabilities(slope, curvature), DRAWS) > FALSE_ALARM


def test_tails_are_drawn_as_often_as_they_are_probable():
    """Levels more than 3.5 standard deviations away, 4.7e-4 of a wide law, by their number."""
    law = law_of(0.1 * ed.integer("n", low=0, high=255) ** 2)
    count, width = 400_000, 20.0
    numbers = jnp.array([-128 / width**2, 1 / width**2])
    drawn = _drawn(law, jnp.broadcast_to(numbers[:, None], (2, count)), jr.key(4))
    weights = np.exp(-((np.arange(256) - 128.0) ** 2) / (2 * width**2))
    far = np.abs(np.arange(256) - 128) > 3.5 * width
    share = weights[far].sum() / weights.sum()
    found = int((np.abs(np.asarray(drawn) - 128) > 3.5 * width).sum())
    assert scipy.stats.binomtest(found, count, share).pvalue > FALSE_ALARM


def test_both_ends_of_a_concave_energy_are_drawn():
    """Levels between them are less probable than the numbers that are left out of tails."""
    counts = levels_drawn(12.01, -4.0)
    assert chisquare_pvalue(counts, probabilities(12.01, -4.0), DRAWS) > FALSE_ALARM


@pytest.mark.parametrize(
    ("numbers", "level"),
    [
        ((400.0,), LOW),
        ((-400.0,), HIGH),
        ((np.inf,), LOW),
        ((-np.inf,), HIGH),
        ((-180.0, 60.0), 3),
        ((500.0, 20.0), LOW),
        ((-500.0, 20.0), HIGH),
        ((0.0, -20.0), HIGH),
        ((50.0, -20.0), HIGH),
        ((70.0, -20.0), LOW),
    ],
)
def test_levels_far_more_probable_than_all_others_are_drawn(numbers, level):
    assert levels_drawn(*numbers)[level - LOW] == DRAWS


def test_levels_far_from_zero_keep_their_width():
    """Pixels near 4,000 with a precision of 0.02: a slope of 80 at 0, of which 2 matter."""
    n = ed.integer("n", low=3800, high=4096)
    law = law_of(0.01 * (n - 3977) ** 2)
    total = jnp.broadcast_to(jnp.array([-0.02 * 3977, 0.02])[:, None], (2, DRAWS))
    drawn = np.asarray(_drawn(law, total, jr.key(2)))
    weights = np.exp(-0.01 * (np.arange(3800, 4097) - 3977.0) ** 2)
    counts = np.bincount(drawn - 3800, minlength=297)
    assert chisquare_pvalue(counts, weights / weights.sum(), DRAWS) > FALSE_ALARM


def test_many_levels_are_drawn_without_a_table_of_them():
    sites = 10_000
    for degree in (1, 2):
        law = law_of(0.1 * ed.integer("n", low=0, high=255) ** degree)
        drawn = jax.jit(lambda total, key, law=law: law.draw(total, key=key))
        compiled = drawn.lower(jnp.zeros((degree, sites)), jr.key(0)).compile()
        used = compiled.memory_analysis()
        assert used is not None
        assert used.temp_size_in_bytes < 20 * 4 * sites  # The table has 256 * 4 bytes a site.


def test_exponential_sites_are_drawn_by_their_rates():
    """The rate of p[0] given p[1], and of p[1] given p[0]: b + c p."""
    p = ed.positive("p", 2)
    ebm = ed.compile(ed.Model(2.0 * p[0] + 0.5 * p[1] + 3.0 * p[0] * p[1]))
    x = {"p": jnp.array([0.4, 0.2])}
    np.testing.assert_allclose(ebm.conditional("p", x).rate, [2.6, 1.7], rtol=1e-6)
    law = ExponentialConditional(p.variable.domain)
    draws = np.asarray(law.draw(jnp.full((1, 20_000), 2.6), key=jr.key(0)))
    assert scipy.stats.kstest(draws, scipy.stats.expon(scale=1 / 2.6).cdf).pvalue > FALSE_ALARM
    assert (draws > 0).all()
    np.testing.assert_allclose(law.log_normalizer(jnp.array([[2.6]])), -np.log([2.6]), rtol=1e-6)
    assert np.isnan(law.draw(jnp.array([[-1.0]]), key=jr.key(0))).all()


def test_an_exponential_site_whose_energy_falls_is_refused():
    p, s = ed.positive("p"), ed.spin("s")
    ebm = ed.compile(ed.Model(p * s))
    with pytest.raises(ValueError, match="conditional of p has no finite integral"):
        ebm.conditional("p", {"p": 1.0, "s": -1})


OFFSET, PRECISION = 12345.67, 0.37
WEIGHTS = np.array([[0.3, -0.2], [0.1, 0.4], [-0.5, 0.2]])


def far_from_zero():
    """A Gaussian-binary RBM about a mean of 12,345.67."""
    v, h = ed.real("v", 3), ed.binary("h", 2, latent=True)
    energy = (PRECISION * (v - OFFSET) ** 2 / 2).sum() - (v - OFFSET) @ WEIGHTS @ h
    return ed.compile(ed.Model(energy))


def test_a_dense_sweep_far_from_zero_has_the_right_mean_and_width():
    ebm = far_from_zero()
    v, h = ebm.structure.variables
    laws = {u.name: conditional_for(ebm.structure, u) for u in (v, h)}
    sweep = DenseSweep(("v",), "", (DenseLayer(v, laws["v"], None),))
    n = 20_000
    bits = np.random.default_rng(0).integers(0, 2, (n, 2))
    xs = {"v": jnp.full((n, 3), OFFSET), "h": jnp.asarray(bits, jnp.int8)}
    after = np.asarray(sweep.sweep(ebm.structure, ebm.model, xs, key=jr.key(1))["v"], np.float64)
    mean = np.float64(np.float32(OFFSET)) + bits @ WEIGHTS.T / PRECISION
    scaled = (after - mean) * np.sqrt(PRECISION)
    # Rounding to float32 near 12,345 is 0.0005, 3e-4 of the width: the law is seen through it.
    for k in range(3):
        assert scipy.stats.kstest(scaled[:, k], "norm").pvalue > FALSE_ALARM


def test_a_gaussian_summed_out_far_from_zero():
    """-log of the integral over v given h is exact in NumPy: the energy at 0 is 8.5e7."""
    ebm = far_from_zero()
    v = ebm.structure.variables[0]
    layer = {"v": (conditional_for(ebm.structure, v), np.arange(3))}
    for bits in ([0, 0], [1, 0], [1, 1]):
        values = {"v": jnp.zeros(3), "h": jnp.asarray(bits, jnp.int8)}
        free = float(sum_out(ebm.model.energy, values, layer))
        push = WEIGHTS @ bits
        expected = -(push @ push) / (2 * PRECISION) - 1.5 * np.log(2 * np.pi / PRECISION)
        # The offset itself is held to 0.0005, which moves the slope by that times the precision.
        assert free == pytest.approx(expected, abs=2e-3)
