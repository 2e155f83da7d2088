"""Chains on a ladder of temperatures: what both estimates from their draws have in common."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.special import gammaln, logsumexp, ndtr

import energydsl as ed
from energydsl.estimator.mbar import joined
from energydsl.estimator.tempered import Tempered, _stay
from energydsl.estimator.thermodynamic import integrated
from tests.estimator import ladders
from tests.estimator.models import gas, glass, mixed, one_site, potts, slow, states, wells

ESTIMATES = pytest.mark.parametrize("estimate", [integrated, joined], ids=lambda f: f.__name__)
METHODS = pytest.mark.parametrize("method", [ed.ThermodynamicIntegration, ed.MBAR])
SHORT = {"chains": 32, "temperatures": 16, "warmup": 8, "draws": 16}


def run(model, kernel=None, key=0, **sizes):
    return Tempered.run(ed.compile(model), kernel, **SHORT | sizes, key=jr.key(key))


@pytest.mark.parametrize("kind", [gas, mixed, *map(slow, (glass, potts, wells, one_site))])
def test_both_agree_with_exact_values(kind):
    model, exact = kind(np.random.default_rng(0))
    drawn = run(model, chains=64)
    for found in (integrated(drawn), joined(drawn)):
        assert abs(found.value - exact) < 6 * found.standard_error
        assert found.standard_error < 0.05 and found.kind == "estimate" and found.doubts == ()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [glass, gas, potts, mixed, wells], ids=lambda k: k.__name__)
def test_intervals_cover_ninety_in_a_hundred(kind):
    covered = np.zeros(2, int)
    for seed in range(100):
        model, exact = kind(np.random.default_rng(seed))
        drawn = run(model, key=seed, warmup=16, draws=24)
        both = integrated(drawn), joined(drawn)
        covered += [found.lower <= exact <= found.upper for found in both]
    assert covered.min() >= 90


@ESTIMATES
def test_intervals_cover_where_draws_are_independent(estimate):
    """Of 200 ladders, 173 or more are covered with a probability of 1 - 1e-6, if nominally 95 %."""
    covered = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        drawn, exact = ladders.exponential(rng, np.linspace(0, 1, 7), chains=20, draws=20)
        found = estimate(drawn)
        covered += found.lower <= exact <= found.upper
    assert covered >= 173


@pytest.mark.slow
def test_constrained_and_clamped_variables():
    """A gamma, a truncated normal and a Dirichlet density, without their normalizers."""
    p, u, q = ed.positive("p"), ed.interval("u", low=-1.0, high=2.0), ed.simplex("q", (2, 3))
    powers, seen = np.array([1.0, 2.0, 3.0]), np.array([0.2, 0.3, 0.5])
    model = ed.Model(2 * p - 2 * ed.log(p) + 0.5 * u**2 - (ed.log(q) * powers).sum())
    drawn = run(model.condition({q[0]: seen}))
    exact = np.log(2 / 2**3) + np.log(np.sqrt(2 * np.pi) * (ndtr(2.0) - ndtr(-1.0)))
    exact += gammaln(powers + 1).sum() - gammaln((powers + 1).sum()) + powers @ np.log(seen)
    for found in (integrated(drawn), joined(drawn)):
        assert abs(found.value - exact) < 5 * found.standard_error
        assert found.standard_error < 0.1


def test_forbidden_states_and_infinite_energies():
    """A function forbids a quarter of the base's draws, and a table an eighth more of them."""
    a = ed.binary("a", 3)
    never = ed.Table(log_potential=np.array([[0, 0], [0, -np.inf]]))(a[1], a[2])
    clash = ed.apply(lambda a: jnp.where(a[0] + a[1] > 1, jnp.inf, a[0]), a)
    drawn = run(ed.Model(never + clash), ed.MetropolisHastings())
    # Of 1,024 draws, within five standard errors.
    assert abs(np.isinf(drawn.gaps[0]).mean() - 1 / 4) < 5 * np.sqrt(1 / 4 * 3 / 4 / 1024)
    assert abs(drawn.allowed[0].mean() - 5 / 8) < 5 * np.sqrt(5 / 8 * 3 / 8 / 1024)
    for found in (integrated(drawn), joined(drawn)):
        assert abs(found.value - np.log(3 + 2 * np.exp(-1))) < 5 * found.standard_error
        assert found.standard_error < 0.05 and found.doubts == ()


def test_no_estimate_is_said():
    a = ed.binary("a", 2)
    never = ed.apply(lambda a: jnp.where(a.sum() >= 0, jnp.inf, 0.0), a)
    with pytest.raises(
        ValueError, match=r"MBAR found no estimate: all 64 draws at beta = 0 are in states of inf"
    ):
        ed.estimate_log_partition(
            ed.compile(ed.Model(never)),
            ed.MBAR(ed.MetropolisHastings(), chains=16, temperatures=2, draws=2),
            key=jr.key(0),
        )


@ESTIMATES
def test_draws_without_an_estimate(estimate):
    rng = np.random.default_rng(0)
    drawn, _ = ladders.normal(rng, [0.0, 0.25, 1.0], chains=2, draws=2)
    drawn.gaps[1, 0, 1] = np.nan
    assert estimate(drawn).doubts == ("a draw at beta = 0.25 has the energy nan",)
    drawn.gaps[1, 0, 1] = -np.inf
    assert "the energy -inf" in estimate(drawn).doubts[0] and np.isnan(estimate(drawn).value)
    drawn.gaps[1] = np.inf
    assert "all 4 draws at beta = 0.25 are in states of infinite" in estimate(drawn).doubts[0]
    drawn.gaps[1], drawn.allowed[-1] = 2.0, False
    assert estimate(drawn).doubts == (
        "all 4 draws at beta = 1 are in states that the model forbids",
    )


@ESTIMATES
def test_forbidden_and_infinite_draws_by_hand(estimate):
    """The base is allowed to one half; the model to three quarters of the path's last rung."""
    rng = np.random.default_rng(1)
    drawn, exact = ladders.normal(rng, np.linspace(0, 1, 5), chains=50, draws=200)
    drawn.gaps[0, rng.random(drawn.gaps.shape[1:]) < 0.5] = np.inf
    lost = rng.random(drawn.gaps.shape) < 0.25
    # Chains at a temperature that are in states of infinite energy show nothing of it.
    drawn.gaps[1:, :5] = np.inf
    drawn = Tempered(drawn.betas, drawn.gaps, ~lost & np.isfinite(drawn.gaps), 2.0)
    found = estimate(drawn)
    expected = 2.0 + exact + np.log(0.5) + np.log(0.75)
    assert abs(found.value - expected) < 5 * found.standard_error
    assert found.standard_error < 0.02


@ESTIMATES
def test_few_chains_in_allowed_states_are_a_doubt(estimate):
    drawn, _ = ladders.normal(np.random.default_rng(0), [0.0, 0.5, 1.0], draws=10)
    drawn.allowed[:, 3:] = False
    found = estimate(drawn)
    assert found.ess == pytest.approx(3.0, rel=0.1)
    assert any("40 chains" in doubt for doubt in found.doubts)


@ESTIMATES
def test_lag_is_a_doubt(estimate):
    drawn, _ = ladders.normal(np.random.default_rng(0), np.linspace(0, 1, 9))
    assert estimate(drawn).doubts == ()
    half = drawn.gaps.shape[2] // 2
    drawn.gaps[1:, :, :half] += 0.2
    drawn.gaps[1:, :, half:] -= 0.2
    (doubt,) = estimate(drawn).doubts
    # The rung at 0 has draws from the base, so that 0.4 counts along 15 of 16 parts.
    assert "on the way up log Z is lower by 0.3" in doubt and "longer warmup" in doubt


@pytest.mark.slow
def test_chains_that_lag_are_said_to():
    n, field = 60, 3.0
    model = ed.Model(-field * ed.spin("s", n).sum())
    walk = ed.MetropolisHastings()
    assert "lag behind" in str(integrated(run(model, walk, temperatures=8, warmup=0, draws=4)))


def test_the_ladder_is_closest_where_the_gap_varies_most():
    drawn, _ = ladders.exponential(np.random.default_rng(0), np.linspace(0, 1, 9), rate=0.1)
    betas = drawn.ladder(20)
    assert betas[0] == 0 and betas[-1] == 1 and len(betas) == 21 and (np.diff(betas) > 0).all()
    # Nine tenths of the steps are those of the standard deviation 1 / (rate + beta), the
    # trapezium of which at nine betas is what the ladder knows.
    knots = np.linspace(0, 1, 9)
    areas = np.diff(knots) / 2 * (1 / (0.1 + knots[1:]) + 1 / (0.1 + knots[:-1]))
    first = 0.9 * areas[0] / areas.sum() + 0.1 / 8
    assert abs(np.mean(betas <= 1 / 8) - first) < 1 / 20
    still = Tempered(knots, np.ones((9, 4, 4)), np.ones((9, 4, 4), bool), 0.0)
    np.testing.assert_allclose(still.ladder(4), np.linspace(0, 1, 5), atol=1e-12)


def test_rungs_have_the_energies_of_their_temperatures():
    """Means of the gaps of three spins in fields against enumeration, at every rung."""
    fields, x = np.array([0.5, -1.0, 2.0]), states(*[(-1, 1)] * 3)
    drawn = run(
        ed.Model(-(jnp.asarray(fields) * ed.spin("s", 3)).sum()), chains=200, temperatures=3
    )
    energies = -(x @ fields)
    assert drawn.gaps.shape == (4, 200, 32) and drawn.log_base == pytest.approx(3 * np.log(2))
    for beta, gaps in zip(drawn.betas, drawn.gaps, strict=True):
        law = np.exp(-beta * energies - logsumexp(-beta * energies))
        means = gaps.mean(axis=1)
        # Five standard errors, over independent chains.
        assert abs(means.mean() - law @ energies) < 5 * means.std(ddof=1) / np.sqrt(200)
        assert means.std(ddof=1) < 1


def test_chains_go_on_from_rung_to_rung_and_their_warmup_is_left_out():
    """A step of Metropolis changes one of thirty spins, so that few steps do not get far."""
    model, walk = ed.Model(-2.0 * ed.spin("s", 30).sum()), ed.MetropolisHastings()
    once = run(model, walk, temperatures=1, warmup=24, draws=1)
    assert once.gaps.shape == (2, 32, 2) and -50 < once.gaps[1, :, 0].mean() < -20
    often = run(model, walk, temperatures=16, warmup=24, draws=1)
    assert often.gaps[-1].mean() < -50


def test_same_key_same_draws_and_no_recompilation():
    rng = np.random.default_rng(0)
    first, second = (mixed(rng)[0] for _ in range(2))
    drawn = run(first, temperatures=4)
    before = _stay._cached._cache_size()
    np.testing.assert_array_equal(run(first, temperatures=4).gaps, drawn.gaps)
    others = run(first, temperatures=4, key=1), run(second, temperatures=4)
    for other in (*others, run(first, temperatures=9)):
        assert (other.gaps[1:5] == drawn.gaps[1:]).mean() < 0.01
    assert _stay._cached._cache_size() == before
    # No two chains, rungs or draws share their random numbers.
    rows = drawn.gaps.reshape(-1, drawn.gaps.shape[2]), drawn.gaps.reshape(5, -1)
    for row in (*rows, np.swapaxes(drawn.gaps, 1, 2).reshape(-1, drawn.gaps.shape[1])):
        assert len(np.unique(row, axis=0)) == len(row)


@METHODS
def test_rounds_have_twice_the_temperatures(method):
    assert method(temperatures=5).doubled() == method(temperatures=10)


def test_an_estimate_in_a_given_time():
    method = ed.ThermodynamicIntegration(**SHORT | {"temperatures": 2})
    model, exact = one_site(np.random.default_rng(0))
    found = ed.estimate_log_partition(ed.compile(model), method, key=jr.key(0), seconds=0.01)
    assert abs(found.value - exact) < 5 * found.standard_error and found.kind == "estimate"


@METHODS
def test_mistakes_are_said(method, untyped):
    with pytest.raises(ValueError, match="got chains=1; expected a whole number of at least 2"):
        method(chains=1)
    with pytest.raises(ValueError, match=r"got draws=0\.5; expected a whole number of at least 1"):
        method(draws=0.5)
    with pytest.raises(ValueError, match="got temperatures=0; expected"):
        method(temperatures=0)
    with pytest.raises(ValueError, match="got warmup=-1; expected"):
        method(warmup=-1)
    with pytest.raises(ValueError, match=r"Langevin.* leaves out 6 free sites"):
        model, _ = glass(np.random.default_rng(0))
        ed.estimate_log_partition(ed.compile(model), method(ed.Langevin()), key=jr.key(0))
