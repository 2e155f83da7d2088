"""Domains: support, dtypes, starts, and what `check` refuses."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats

import energydsl as ed
from energydsl.language.domain import (
    Binary,
    Categorical,
    Count,
    Integer,
    Interval,
    Positive,
    PositiveDefinite,
    Real,
    Simplex,
    Spin,
)

DISCRETE = [Spin(), Binary(), Categorical(1), Categorical(5), Integer(-3, 2), Integer(7, 7)]
CONTINUOUS = [Real(), Positive(), Interval(-0.5, 2.0), Simplex()]
named = pytest.mark.parametrize("domain", [*DISCRETE, *CONTINUOUS], ids=str)


@named
def test_starts_lie_in_the_support(domain):
    shape = (7, 4)
    start = domain.start(shape, key=jr.key(0))
    assert start.shape == shape
    np.testing.assert_array_equal(domain.check(start, shape, "the start"), start)
    if domain.levels is not None and domain.levels > 1:
        assert len(np.unique(start)) > 1


@named
def test_check_gives_the_domains_dtype(domain):
    start = domain.start((3, 2), key=jr.key(0))
    wider = np.asarray(start, np.int64 if domain.discrete else np.float64)
    for given in (start, wider, wider.tolist()):
        assert domain.check(given, (3, 2), "it").dtype == domain.dtype


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [
        (-128, 127, np.int8),
        (0, 127, np.int8),
        (0, 128, np.int16),
        (-129, 0, np.int16),
        (-32768, 32767, np.int16),
        (0, 32768, np.int32),
        (-(2**24), 2**24, np.int32),
        (100, 100, np.int8),
        (-9, -8, np.int8),
    ],
)
def test_integers_are_held_in_the_smallest_dtype_with_both_ends(low, high, dtype):
    assert Integer(low, high).dtype == dtype


@pytest.mark.parametrize("domain", DISCRETE, ids=str)
def test_levels_rise_and_nothing_else_passes(domain):
    levels = domain.values
    assert domain.levels == len(levels)
    assert (np.diff(levels) > 0).all()
    for value in range(-10, 11):
        if value in levels:
            assert domain.check(value, (), "it") == value
        else:
            with pytest.raises(ValueError, match=r"it has a value outside .* expected \{"):
                domain.check(value, (), "it")


@pytest.mark.parametrize("domain", CONTINUOUS, ids=str)
def test_the_bijection_maps_reals_into_the_support(domain):
    transform = domain.transform
    shape = transform.inverse_shape((50, 3))
    inside = transform(3.0 * jr.normal(jr.key(0), shape))
    domain.check(inside, (50, 3), "the image")
    assert Spin().transform is None


@pytest.mark.parametrize(
    ("domain", "given", "error", "message"),
    [
        (Spin(), [1, 1, 1], ValueError, r"it has shape \(3,\); expected \(2,\)"),
        (Spin(), [1, 0], ValueError, r"outside spin in 1 of 2 places, first at \(1,\) \(0\)"),
        (Spin(), [1.0, -1.0], TypeError, r"float64, but spin takes integers.*astype\(int8\)"),
        (Spin(), [True, False], ValueError, "outside spin"),
        (Binary(), [2, 300], ValueError, r"in 2 of 2 places.*expected \{0, 1\}"),
        (Categorical(3), [0, 3], ValueError, r"categorical\(levels=3\).*\{0, 1, 2\}"),
        (Categorical(9), [0, -1], ValueError, r"expected \{0, 1, \.\.\., 8\}"),
        (Integer(-2, 5), [-3, 0], ValueError, r"integer\(low=-2, high=5\)"),
        (Integer(0, 200), [-1, 300], ValueError, "in 2 of 2 places"),
        (Real(), [0.0, np.nan], ValueError, r"it has NaN in 1 of 2 places, first at \(1,\)"),
        (Real(), [0.0, np.inf], ValueError, "expected finite real numbers"),
        (Real(), [0.0, 1e300], ValueError, "expected finite real numbers"),
        (Real(), [0j, 1j], TypeError, "complex128; real takes real numbers"),
        (Real(), ["a", "b"], TypeError, "real takes real numbers"),
        (Positive(), [1.0, 0.0], ValueError, "expected finite numbers above 0"),
        (Positive(), [1.0, 1e-300], ValueError, "expected finite numbers above 0"),
        (Positive(), [1.0, np.inf], ValueError, "expected finite numbers above 0"),
        (Interval(0.0, 1.0), [0.5, 1.1], ValueError, "expected numbers from 0.0 to 1.0"),
        (Simplex(), [0.5, 0.6], ValueError, "vectors with sum 1"),
        (Simplex(), [1.5, -0.5], ValueError, "vectors with sum 1"),
        (Simplex(), [np.nan, 0.5], ValueError, "NaN"),
    ],
)
def test_check_says_what_is_wrong(domain, given, error, message):
    with pytest.raises(error, match=message):
        domain.check(given, (2,), "it")


def test_ends_of_an_interval_belong_to_it():
    domain = Interval(0.1, 0.7)
    np.testing.assert_allclose(domain.check([0.1, 0.7], (2,), "it"), [0.1, 0.7], rtol=1e-6)


def test_under_a_trace_shape_and_dtype_are_checked_and_values_are_not():
    checked = jax.jit(lambda a: Spin().check(a, (2,), "it"))
    np.testing.assert_array_equal(checked(jnp.array([0, 5])), [0, 5])
    with pytest.raises(TypeError, match="takes integers"):
        checked(jnp.array([0.0, 1.0]))
    with pytest.raises(ValueError, match="expected"):
        checked(jnp.array([1, 1, 1]))


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda: ed.categorical("c", levels=0), r"levels=0; expected an integer from 1 to 2\^24"),
        (lambda: Categorical(2.5), r"levels=2.5; expected an integer"),
        (lambda: ed.categorical("c", levels=2**24 + 1), "expected an integer from 1"),
        (lambda: ed.integer("n", low=2, high=1), r"low=2, high=1; .* low <= high"),
        (lambda: Integer(0.5, 3), r"low=0.5"),
        (lambda: ed.integer("n", low=0, high=2**25), r"within \+-2\^24"),
        (lambda: ed.interval("u", low=1.0, high=1.0), "two finite numbers with low < high"),
        (lambda: ed.interval("u", low=0.0, high=np.inf), "two finite numbers"),
        (lambda: ed.interval("u", low=1e6, high=1e6 + 1), "lie 0.062 apart: 16 in all, too few"),
        (lambda: ed.simplex("p", ()), r"shape \(\) is too small for simplex"),
    ],
)
def test_a_domain_refuses_bad_parameters(untyped, declare, message):
    with pytest.raises(ValueError, match=message):
        declare()


def test_numpy_integers_count_levels_too(untyped):
    data = np.array([0, 3, 1])
    assert Categorical(data.max() + 1) == Categorical(4)
    assert str(Categorical(data.max() + 1)) == "categorical(levels=4)"
    assert hash(Integer(np.int8(0), np.int64(3))) == hash(Integer(0, 3))


@dataclasses.dataclass(frozen=True)
class Even(ed.AbstractDomain):
    """{0, 2, .. top}: a domain as a user would write one."""

    top: int

    @property
    def values(self):
        return np.arange(0, self.top + 1, 2)

    @property
    def dtype(self):
        return np.dtype(np.int16)

    @property
    def energy_dtype(self):
        return np.dtype(np.float32)

    @property
    def support(self):
        return f"even numbers from 0 to {self.top}"

    def outside(self, array):
        return np.asarray((array < 0) | (array > self.top) | (array % 2 == 1))

    def start(self, shape, *, key):
        return 2 * jr.randint(key, shape, 0, self.top // 2 + 1, np.int16)


def test_a_domain_of_ones_own_is_declared_like_any_other():
    view = ed.variable("e", Even(6), 3)
    assert str(view.variable) == "e: even(top=6)[3]"
    weights = np.array([0.3, -0.2, 0.1], np.float32)
    model = ed.Model((weights * view).sum() + 0.1 * ed.Table(np.arange(4.0))(view[0]))
    ebm = ed.compile(model)
    tables = weights[:, None] * np.arange(0, 7, 2.0)
    tables[0] += np.float32(0.1) * np.arange(4.0)
    expected = np.log(np.exp(-tables).sum(axis=1)).sum()
    np.testing.assert_allclose(ed.log_partition(ebm), expected, rtol=1e-12)
    with pytest.raises(ValueError, match=r"outside even\(top=6\).*expected even numbers"):
        ebm.check({"e": [0, 1, 2]})


@dataclasses.dataclass(frozen=True)
class Permutation(ed.AbstractDomain):
    """Orders of the last axis: finitely many, but not entry by entry."""

    event_ndim: ClassVar[int] = 1

    @property
    def values(self):
        return np.arange(3)

    @property
    def dtype(self):
        return np.dtype(np.int8)

    @property
    def energy_dtype(self):
        return np.dtype(np.float32)

    @property
    def support(self):
        return "orders of the last axis"

    def outside(self, array):
        return np.any(np.sort(array, axis=-1) != np.arange(array.shape[-1]), axis=-1)

    def start(self, shape, *, key):
        rows = jnp.broadcast_to(jnp.arange(shape[-1], dtype=jnp.int8), shape)
        return jr.permutation(key, rows, axis=-1, independent=True)

    @property
    def move(self):
        def swap(event, *, key):
            pair = jr.choice(key, len(event), (2,), replace=False)
            return event.at[pair].set(event[pair[::-1]]), jnp.zeros(())

        return swap


def test_entries_that_bind_each_other_are_not_counted_one_by_one():
    """A permutation of 3 has 6 values, not 27."""
    order = ed.variable("o", Permutation(), 3)
    ebm = ed.compile(ed.Model((order * np.array([0.1, 0.2, 0.3])).sum()))
    assert isinstance(ebm.normalizer, ed.Intractable)
    assert "o[0] is constrained jointly with the other entries" in ebm.normalizer.reason
    assert "Gibbs" not in next(iter(ebm.explain().as_dict()["samplers"]))
    with pytest.raises(ValueError, match=r"leaves out 3 free sites, o\[0\] first"):
        ed.sample(ebm, ed.Gibbs(), key=jr.key(0))
    with pytest.raises(TypeError, match="Table was called on o, of domain permutation"):
        ed.Table(np.zeros(3))(order)


def test_a_domain_that_nothing_moves_is_said():
    @dataclasses.dataclass(frozen=True)
    class Still(Permutation):
        move = None

    order = ed.variable("o", Still(), 3)
    ebm = ed.compile(ed.Model((order * np.array([0.1, 0.2, 0.3])).sum()))
    with pytest.raises(ValueError, match=r"neither levels nor a transform nor a move.*proposal="):
        ed.sample(ebm, ed.MetropolisHastings(), key=jr.key(0))

    def swap(x, *, key):
        new, log_ratio = Permutation().move(x["o"], key=key)
        return {**x, "o": new}, log_ratio

    # Another kernel of the cycle moves it, and the first one moves the rest.
    both = ed.compile(
        ed.Model((order * np.array([0.1, 0.2, 0.3])).sum() + 0.3 * ed.spin("s").sum())
    )
    kernel = ed.Cycle(ed.MetropolisHastings(), ed.MetropolisHastings(proposal=swap))
    draws = ed.sample(both, kernel, key=jr.key(0), warmup=2, draws=40, progress=False).draws
    assert (np.sort(draws["o"], axis=-1) == np.arange(3)).all()
    assert np.ptp(draws["o"], axis=1).any() and np.ptp(draws["s"], axis=1).any()


@pytest.mark.parametrize("shape", [(6, 2, 2), (2, 2)])
def test_matrices_start_and_are_checked(shape):
    domain = PositiveDefinite()
    start = domain.start(shape, key=jr.key(0))
    np.testing.assert_array_equal(domain.check(start, shape, "the start"), start)
    for wrong in (-np.eye(2), np.array([[1.0, 0.5], [0.0, 1.0]]), np.ones((2, 2))):
        with pytest.raises(ValueError, match="expected symmetric positive definite matrices"):
            domain.check(wrong, (2, 2), "it")
    with pytest.raises(ValueError, match=r"'S' got shape \(2, 3\); matrices are square"):
        ed.positive_definite("S", (2, 3))
    with pytest.raises(ValueError, match="takes the last 2 axes"):
        ed.positive_definite("S", 2)


def test_counts_have_no_upper_end():
    domain = Count()
    assert domain.check([0, 10**6], (2,), "it").dtype == np.int32
    for wrong in (-1, 2**24 + 1, 2**40):
        with pytest.raises(ValueError, match=r"expected \{0, 1, 2, ...\}"):
            domain.check(wrong, (), "it")
    assert domain.levels is None and domain.transform is None and domain.discrete


def test_exact_rules_refuse_counts_with_the_reason():
    n, b, r = ed.count("n", 2), ed.binary("b"), ed.real("r")
    for model in (
        ed.Model((n * n).sum() - n[0] * n[1]),
        ed.Model((n - 3.0 * b).sum() ** 2),
        ed.Model((n[0] - r) ** 2 + (r - n[1]) ** 4),
    ):
        ebm = ed.compile(model)
        assert isinstance(ebm.normalizer, ed.Intractable)
        assert "neither finitely many levels nor real coordinates" in ebm.normalizer.reason
        assert "n[0] has no finite list of levels" in ebm.normalizer.reason
    with pytest.raises(ValueError, match=r"n\[1\] first: no uniform distribution"):
        ed.compile(ed.Model(1.0 * n[0]))


@pytest.mark.parametrize("domain", [*DISCRETE, Count()], ids=str)
def test_starts_of_discrete_domains_have_the_probability_they_say(domain):
    draws = np.asarray(domain.start((40_000,), key=jr.key(3)))
    levels = np.arange(12) if domain.levels is None else domain.values
    said = np.exp(np.asarray(domain.log_start_density(jnp.asarray(levels)), float))
    seen = (draws[:, None] == levels).sum(axis=0)
    if len(levels) == 1:
        assert said == 1.0 and seen == len(draws)
        return
    rest = len(draws) - seen.sum()
    expected = np.append(said, 1 - said.sum()) if rest else said
    seen = np.append(seen, rest) if rest else seen
    pvalue = scipy.stats.chisquare(seen, expected / expected.sum() * len(draws)).pvalue
    assert pvalue > 1e-6  # false alarm


@pytest.mark.parametrize("domain", [Real(), Positive(), Interval(-0.5, 2.0)], ids=str)
def test_starts_of_continuous_domains_have_the_density_they_say(domain):
    """The share of draws below a point is the integral of the density up to it."""
    draws = np.sort(np.asarray(domain.start((20_000,), key=jr.key(4)), float))
    low, high = (float(domain.transform(jnp.array(z))) for z in (-2.0, 2.0))
    grid = np.linspace(low, high, 20_001)
    middle = (grid[1:] + grid[:-1]) / 2
    density = np.exp(np.asarray(domain.log_start_density(jnp.asarray(middle)), float))
    # The trapezoidal rule in float32 is good to about 1e-5, far below the statistic's resolution.
    law = np.append(0.0, np.cumsum(density * np.diff(grid)))
    assert law[-1] == pytest.approx(1.0, abs=1e-4)
    found = scipy.stats.kstest(draws, lambda x: np.interp(x, grid, law / law[-1]))
    assert found.pvalue > 1e-6  # false alarm
    assert domain.log_start_density(domain.transform(jnp.array(2.5))) == -jnp.inf


def test_the_density_of_starts_on_a_simplex_counts_each_event_once():
    domain = Simplex()
    x = domain.start((5, 3), key=jr.key(0))
    z = domain.transform.inv(x)
    expected = -2 * np.log(4.0) - domain.transform.log_abs_det_jacobian(z, x)
    np.testing.assert_allclose(domain.log_start_density(x), expected, rtol=1e-5)
