"""Mean field below and trees above: bounds at every iterate, exact where theory says so."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp

import energydsl as ed
from energydsl.estimator.finite import tabulated
from tests.estimator.models import gas, glass, mixed, one_site, potts

KINDS = (glass, gas, potts, one_site)


def gap(model, exact, method, key=0):
    """By how much the lower bound is below, or the upper bound above, the exact value."""
    found = ed.estimate_log_partition(ed.compile(model), method, key=jr.key(key))
    return exact - found.lower if np.isfinite(found.lower) else found.upper - exact


def held(kinds, count):
    """The bounds enclose the exact value, at the first iterate and at the last."""
    for kind in kinds:
        for seed in range(count):
            model, exact = kind(np.random.default_rng(seed))
            ebm = ed.compile(model)
            early = ed.Bounds(ed.MeanField(1, 1), ed.TreeReweighted(1))
            first = ed.estimate_log_partition(ebm, early, key=jr.key(seed))
            last = ed.estimate_log_partition(ebm, ed.Bounds(), key=jr.key(seed))
            assert first.lower <= exact <= first.upper, (kind, seed)
            assert last.lower <= exact <= last.upper, (kind, seed)
            assert last.upper - last.lower <= first.upper - first.lower + 1e-6
            assert last.kind == "bounds" and last.doubts == ()


def test_bounds_enclose_log_z():
    held(KINDS, 2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [glass, gas, potts, one_site], ids=lambda k: k.__name__)
def test_bounds_enclose_log_z_of_a_hundred_models(kind):
    held([kind], 100)


def test_independent_sites_are_exact_on_both_sides():
    """The margin for rounding is 1e-12 of the terms; the rest is what the stop leaves."""
    model, exact = one_site(np.random.default_rng(0))
    for method in (ed.MeanField(), ed.TreeReweighted()):
        assert 0 < gap(model, exact, method) < 1e-10


def test_trees_are_exact_from_above():
    rng = np.random.default_rng(1)
    w, b = (rng.normal(size=n).astype(np.float32) for n in (8, 9))
    s = ed.spin("s", 9)
    parent = np.array([0, 0, 1, 1, 1, 4, 5, 5])
    model = ed.Model(-(w * s[1:] * s[parent]).sum() - b @ s)
    x = np.array(np.meshgrid(*[(-1.0, 1.0)] * 9)).reshape(9, -1).T
    w, b = w.astype(float), b.astype(float)
    exact = logsumexp((w * x[:, 1:] * x[:, parent]).sum(1) + x @ b)
    assert 0 < gap(model, exact, ed.TreeReweighted(1)) < 1e-9


def test_uneven_tables_on_a_tree_are_exact_whichever_end_is_the_parent():
    """A star about the last site, whose number is the larger one in each pair."""
    rng = np.random.default_rng(2)
    tables = rng.normal(size=(3, 3, 3)).astype(np.float32)
    c = ed.categorical("c", 4, levels=3)
    parts = [ed.Table(log_potential=t)(c[k], c[3]) for k, t in enumerate(tables)]
    exact = logsumexp(logsumexp(tables.astype(float), axis=1).sum(axis=0))
    assert 0 < gap(ed.Model(sum(parts[1:], parts[0])), exact, ed.TreeReweighted(1)) < 1e-9


def test_mean_field_is_the_best_product_of_two_spins():
    """Without a field, below the coupling 1 the even product is best: log Z >= 2 log 2."""
    s = ed.spin("s", 2)
    found = gap(ed.Model(-0.5 * s[0] * s[1]), 2 * np.log(2), ed.MeanField())
    assert abs(found) < 1e-8
    # Above it, m = tanh(2 m): the bound is 2 m^2 + 2 H((1 + m) / 2).
    m = 0.9
    for _ in range(100):
        m = np.tanh(2 * m)
    p = (1 + m) / 2
    best = 2 * m**2 - 2 * (p * np.log(p) + (1 - p) * np.log(1 - p))
    assert abs(gap(ed.Model(-2.0 * s[0] * s[1]), best, ed.MeanField())) < 1e-8


def test_trees_with_equal_shares_reach_the_known_optimum():
    """A ring of three spins in no field: by symmetry log Z of a tree at couplings 3 J / 2."""
    s = ed.spin("s", 3)
    model = ed.Model(-0.4 * (s * ed.roll(s, 1)).sum())
    best = 3 * np.log(2) + 2 * np.log(np.cosh(0.6))
    found = ed.estimate_log_partition(ed.compile(model), ed.TreeReweighted(), key=jr.key(0))
    exact = np.log(2 * np.exp(1.2) + 6 * np.exp(-0.4))
    assert exact < best and abs(found.upper - best) < 1e-6


@pytest.mark.parametrize("couplings", [[0.9, -0.8, 0.05], [1.2, 0.1, -0.2, 0.7, 0.3]])
def test_the_weights_of_trees_reach_the_optimum_on_a_ring(couplings):
    """Without fields, log Z of a tree is known: with any shares of at most 1 that sum to n - 1 the
    bound is n log 2 + sum of share log cosh(J / share)."""
    js = np.array(couplings, np.float32).astype(float)
    n, s = len(js), ed.spin("s", len(js))
    model = ed.Model(-(jnp.asarray(js) * s * ed.roll(s, 1)).sum())

    def bound(share):
        return share @ np.logaddexp(js / share, -js / share) + np.log(2)

    sums = {"type": "eq", "fun": lambda share: share.sum() - (n - 1)}
    even = np.full(n, (n - 1) / n)
    options = {"bounds": [(1e-9, 1)] * n, "constraints": sums, "options": {"ftol": 1e-14}}
    best = minimize(bound, even, **options)
    found = ed.estimate_log_partition(ed.compile(model), ed.TreeReweighted(), key=jr.key(1))
    assert best.success and best.fun < bound(even) - 0.01
    # Each tree keeps a weight of at least 1e-6 divided by their number.
    assert abs(found.upper - best.fun) < 1e-5


def test_more_steps_never_make_the_bound_worse():
    """Each longer search begins as the shorter one, and no stop between breaks the bound."""
    model, exact = gas(np.random.default_rng(3))
    ebm = ed.compile(model)
    uppers = [
        ed.estimate_log_partition(ebm, ed.TreeReweighted(n), key=jr.key(4)).upper
        for n in (1, 2, 5, 10, 11, 20, 25, 60)
    ]
    assert exact < uppers[-1] and (np.diff(uppers) <= 1e-12).all()
    assert uppers[-1] < uppers[0] - 0.05


def test_weights_that_differ_close_much_of_the_gap_of_uneven_couplings():
    """Equal weights leave 3.6 nats, or 2.8 if the best of 200 steps; see `glass` for the exact."""
    model, exact = glass(np.random.default_rng(0), 12, 0.3)
    assert 0 < gap(model, exact, ed.TreeReweighted()) < 2.9


def test_the_division_of_single_sites_improves():
    """Fields that differ make the even division of them a bad one."""
    model, exact = glass(np.random.default_rng(0))
    first, last = (gap(model, exact, ed.TreeReweighted(n)) for n in (1, 200))
    assert 0 < last < first - 0.01


def test_factors_of_three_sites_have_a_lower_bound():
    w = np.random.default_rng(2).normal(size=(2, 3, 2)).astype(np.float32)
    c, d = ed.categorical("c", 2, levels=2), ed.categorical("d", levels=3)
    model = ed.Model(ed.Table(log_potential=w)(c[0], d, c[1]))
    exact = logsumexp(w.astype(float))
    assert 0 < gap(model, exact, ed.MeanField()) < 0.5
    with pytest.raises(TypeError, match="some factor has more than two free sites"):
        gap(model, exact, ed.TreeReweighted())
    # With one site held, pairs are left.
    above = gap(model.condition({c[0]: 1}), logsumexp(w[1].astype(float)), ed.TreeReweighted())
    assert 0 < above < 1e-9


def test_evidence_and_energies_between_held_sites_count():
    s = ed.spin("s", 4)
    model = ed.Model(-0.9 * s[0] * s[1] - 0.3 * s[1] * s[2] - 0.2 * s[3])
    exact = 0.9 + np.log(2 * np.cosh(0.3)) + np.log(2 * np.cosh(0.2))
    clamped = model.condition({s[:2]: np.array([1, 1])})
    for method in (ed.MeanField(), ed.TreeReweighted()):
        # The parameters are of float32.
        assert abs(gap(clamped, exact, method)) < 1e-6


def test_no_state_is_said():
    a = ed.binary("a", 2)
    never = ed.Model(ed.Table(log_potential=np.full((2, 2), -np.inf)).factor(a[0], a[1]))
    for method in (ed.TreeReweighted(), ed.Bounds()):
        with pytest.raises(ValueError, match=r"Every state is forbidden, so that Z = 0"):
            gap(never, 0.0, method)
    with pytest.raises(ValueError, match="each of 8 starts ends in a state that is forbidden"):
        gap(never, 0.0, ed.MeanField())
    bars = ed.Table(log_potential=np.array([[0, -np.inf], [-np.inf, 0]]))
    held = ed.Model(bars(a[0], a[1]) + ed.binary("b")).condition({"a": np.array([0, 1])})
    with pytest.raises(ValueError, match="evidence is forbidden"):
        gap(held, 0.0, ed.MeanField())


def test_one_allowed_state_is_found():
    """Equal neighbours, the first one fixed by its table: no interior product is allowed."""
    a = ed.binary("a", 5)
    same = ed.Table(log_potential=np.array([[-np.inf, -np.inf], [-np.inf, 1.0]]))
    model = ed.Model(same(a[1:], a[:-1]).sum())
    for method in (ed.MeanField(), ed.TreeReweighted()):
        assert abs(gap(model, 4.0, method)) < 1e-10


def test_models_without_tables_are_refused():
    with pytest.raises(TypeError, match=r"needs finite sites; r\[0\] has no finite list"):
        tabulated(ed.compile(mixed(np.random.default_rng(0))[0]), "MeanField")
    n = ed.count("n")
    with pytest.raises(TypeError, match="needs finite sites; n has no finite list"):
        gap(ed.Model(ed.LogDensity(dist.Poisson)(n, 2.0)), 0.0, ed.MeanField())
    s = ed.spin("s", 40)
    wide = ed.Model(ed.apply(lambda s: jnp.tanh(s.sum()), s))
    with pytest.raises(ValueError, match=r"largest table 2\^40; at most"):
        gap(wide, 0.0, ed.MeanField())
