"""Conditional Gaussian models against sums, in NumPy, of closed integrals over all states."""

import itertools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import chi2, kstest, norm

import energydsl as ed
from energydsl.analysis import structure as structures
from energydsl.normalizer import Budget, log_partition_of
from energydsl.normalizer.evaluate import draw, marginals_of, mode_of, prepare
from tests.normalizer.rules import applies, chosen, integral, memory, plans, reason, rule, value
from tests.oracles.conditional_gaussian import conditional_gaussian_law
from tests.oracles.enumerate import chisquare_pvalue, count_states

NAME = "conditional gaussian"
FALSE_ALARM = 1e-6
DRAWS = 4000
LEVELS = {"c": [0, 1, 2], "s": [-1, 1], "n": [-1, 0, 1, 2]}
SITES = [("c", 0), ("c", 1), ("s", 0), ("s", 1), ("n", 0)]
REALS = 4


def variables():
    return {
        "c": ed.categorical("c", 2, levels=3),
        "s": ed.spin("s", 2),
        "n": ed.integer("n", 1, low=-1, high=2),
        "x": ed.real("x", REALS),
    }


class Random:
    """A random model with blocks of three sites and of one, and its law by NumPy.

    Precisions, slopes and constants depend on finite sites; diagonals dominate the precisions.
    """

    def __init__(self, seed, zeros=0.0, held=(), still=()):
        self.rng = np.random.default_rng(seed)
        self.views, self.terms, self.numbers = variables(), [], []
        x = self.views["x"]
        for size in (1, 2, 3):
            self.add(lambda x: 1.0, self.table(size, zeros=zeros))
        for i in range(REALS):
            self.add(lambda x, i=i: x[i] ** 2, self.table(1, low=1.5, high=3.0))
            self.add(lambda x, i=i: x[i], self.table(int(self.rng.integers(3))))
        for i, j in ((0, 1), (1, 2)):
            table = self.table(int(self.rng.integers(3)), low=-1.0, high=1.0)
            self.add(lambda x, i=i, j=j: x[i] * x[j], table)
        self.held = {k: self.rng.choice(LEVELS[SITES[k][0]]) for k in held}
        self.still = {k: float(np.float32(self.rng.normal())) for k in still}
        evidence = {self.views[SITES[k][0]][SITES[k][1]]: v for k, v in self.held.items()}
        evidence |= {x[k]: v for k, v in self.still.items()}
        model = ed.Model(sum(self.terms[1:], self.terms[0]))
        self.ebm = ed.compile(model.condition(evidence) if evidence else model)
        self.plan = plans(self.ebm, NAME)
        self.moving = [k for k in range(REALS) if k not in self.still]
        levels = [
            [self.held[k]] if k in self.held else LEVELS[name] for k, (name, _) in enumerate(SITES)
        ]
        self.law = conditional_gaussian_law(self.energy, levels, len(self.moving))

    def table(self, size, low=None, high=None, zeros=0.0):
        """Sites, and a number for each of their joint levels."""
        scope = self.rng.choice(len(SITES), size, replace=False)
        shape = [len(LEVELS[SITES[k][0]]) for k in scope]
        drawn = self.rng.normal(size=shape) if low is None else self.rng.uniform(low, high, shape)
        return scope, np.float32(np.where(self.rng.random(shape) < zeros, np.inf, drawn))

    def add(self, product, table):
        """The term `table(finite sites) * product(real sites)`."""
        scope, numbers = table
        sites = [self.views[SITES[k][0]][SITES[k][1]] for k in scope]
        own = ed.Table(numbers)(*sites) if sites else float(numbers)
        x = self.views["x"]
        self.terms.append(own * product(x))
        self.numbers.append((scope, numbers.astype(float), product))

    def energy(self, d, moved):
        x = np.zeros(REALS)
        x[self.moving] = moved
        x[list(self.still)] = list(self.still.values())
        total = 0.0
        for scope, numbers, product in self.numbers:
            levels = tuple(LEVELS[SITES[k][0]].index(d[k]) for k in scope)
            total += numbers[levels] * product(x)
        return total

    def draws(self, count):
        """Drawn finite sites, (draw, site), and moving real sites, (draw, site)."""
        prepared = prepare(self.ebm.model, self.plan)
        keys = jr.split(jr.key(3), count)
        drawn = jax.vmap(lambda k: draw(self.ebm.model, self.plan, prepared, key=k))(keys)
        whole = jax.vmap(self.ebm.model.complete)(drawn)
        finite = np.stack([np.asarray(whole[name][:, k]) for name, k in SITES], axis=1)
        return finite, np.asarray(whole["x"], float)[:, self.moving]


LAWS = {
    "plain": lambda: Random(0),
    "finite sites clamped": lambda: Random(1, held=(0, 3)),
    "real sites clamped": lambda: Random(2, still=(1,)),
    "forbidden states": lambda: Random(7, zeros=0.25, held=(2,), still=(0,)),
}


SELDOM = "finite sites clamped", "real sites clamped"
"""Laws whose marks the last one has, too; the slow tests have them."""


@pytest.fixture(
    params=[pytest.param(n, marks=[pytest.mark.slow] * (n in SELDOM)) for n in LAWS],
    scope="module",
)
def case(request):
    found = LAWS[request.param]()
    assert np.isfinite(found.law.log_z)
    assert np.isneginf(found.law.logs).any() == (
        "forbidden" in request.param or "all" in request.param
    )
    return found


def test_log_z(case):
    found = float(log_partition_of(case.ebm.model, case.plan, np.dtype(np.float64)))
    assert found == pytest.approx(case.law.log_z, rel=1e-12, abs=1e-12)


def test_marginals(case):
    found = marginals_of(case.ebm.model, case.plan)
    for at, (name, k) in enumerate(SITES):
        expected = 0.0 if at in case.held else case.law.levels(at, LEVELS[name])
        np.testing.assert_allclose(found[name][k], expected, atol=1e-12)
    moments = np.zeros((REALS, 2))
    moments[case.moving] = np.stack(case.law.moments(), axis=1)
    np.testing.assert_allclose(found["x"], moments, atol=1e-12)


def test_a_mode_has_the_highest_density(case):
    found = case.ebm.model.complete(mode_of(case.ebm.model, case.plan))
    best = int(np.argmax(case.law.peaks))
    assert [int(found[name][k]) for name, k in SITES] == case.law.states[best].tolist()
    x = np.asarray(found["x"])[case.moving]
    np.testing.assert_allclose(x, case.law.means[best], rtol=1e-6, atol=1e-7)


def test_draws_are_exact(case):
    finite, x = case.draws(DRAWS)
    counts = count_states(finite, case.law.states)
    assert chisquare_pvalue(counts, case.law.probs, DRAWS) > FALSE_ALARM / 8
    for k in range(len(case.moving)):
        assert kstest(x[:, k], case.law.cdf(k)).pvalue > FALSE_ALARM / 8
    # Whitened by the covariance of its state, a draw is standard normal.
    rows = {tuple(state): k for k, state in enumerate(case.law.states.tolist())}
    state = [rows[tuple(d)] for d in finite.tolist()]
    roots = np.linalg.cholesky(case.law.covariances)[state]
    white = np.linalg.solve(roots, (x - case.law.means[state])[..., None])[..., 0]
    assert kstest(white.ravel(), norm.cdf).pvalue > FALSE_ALARM / 8
    for left, right in itertools.combinations(white.T, 2):
        # The sum of n products is nearly normal with variance n; six pairs share the alarm.
        assert 2 * norm.sf(abs(left @ right) / np.sqrt(DRAWS)) > FALSE_ALARM / 48
    assert kstest((white**2).sum(axis=1), chi2(len(case.moving)).cdf).pvalue > FALSE_ALARM / 8


# Against other rules, and by public functions.


def layers():
    s, x = ed.spin("s", 4), ed.real("x", 3)
    rng = np.random.default_rng(4)
    weight, field = (jnp.asarray(rng.normal(size=size), "f") for size in ((4, 3), 4))
    return ed.Model(
        ((jnp.array([1.0, 2.0, 0.5]) + 0.25 * s[0]) * x**2).sum()
        - s @ ed.parameter("w", weight) @ x
        - field @ s
    )


@pytest.mark.slow
def test_two_layers_are_those_of_the_bipartite_rule():
    ebm = ed.compile(layers())
    by = {name: plans(ebm, name) for name in (NAME, "bipartite")}

    def log_z(weight, name):
        model = ebm.replace(w=weight).model
        return log_partition_of(model, by[name], np.dtype(np.float32))

    assert value(ebm, NAME) == pytest.approx(value(ebm, "bipartite"), rel=1e-12)
    weight = ebm.parameters["w"]
    slopes = [jax.grad(log_z)(weight, name) for name in by]
    np.testing.assert_allclose(*slopes, atol=1e-6)
    bends = [jax.hessian(log_z)(weight, name) for name in by]
    np.testing.assert_allclose(*bends, atol=1e-6)
    for name, law in marginals_of(ebm.model, by[NAME]).items():
        other = marginals_of(ebm.model, by["bipartite"])[name]
        np.testing.assert_allclose(law, other, atol=1e-12)


def test_one_real_site_is_that_of_quadrature():
    c, x = ed.categorical("c", 2, levels=3), ed.real("x")
    mean = ed.Table(jnp.array([-1.0, 0.5, 3.0]))(c[0])
    rate = ed.where(c[1] == 2, 4.0, 1.0)
    ebm = ed.compile(ed.Model(rate * (x - mean) ** 2 + 0.5 * (c[0] == c[1])))
    assert chosen(ebm) == {NAME}
    assert value(ebm, NAME) == pytest.approx(integral(ebm)[0], rel=1e-9)


NUMBERS = {
    "table": np.float32([[0.2, -0.5, 1.0], [0.0, 0.7, -1.2], [0.4, 0.1, 0.3]]),
    "mean": np.float32([-1.0, 0.5, 2.0]),
    "rate": np.float32([1.5, 2.0, 3.5]),
    "joint": np.float32(0.75),
}


def pair(numbers):
    """Two labels, each with a real site; these sites interact."""
    c, x = ed.categorical("c", 2, levels=3), ed.real("x", 2)
    table, mean, rate, joint = (ed.parameter(name, jnp.asarray(a)) for name, a in numbers.items())
    return ed.Model(
        ed.Table(table)(c[0], c[1])
        + (0.5 * ed.Table(rate)(c) * x**2 - ed.Table(mean)(c) * x).sum()
        + joint * x[0] * x[1]
    )


def pair_law(numbers):
    table, mean, rate, joint = numbers.values()

    def energy(d, x):
        own = rate[d] @ x**2 / 2 - mean[d] @ x
        return table[d[0], d[1]] + own + joint * x[0] * x[1]

    return conditional_gaussian_law(energy, [[0, 1, 2]] * 2, 2)


def test_new_numbers_are_answered_by_the_same_program_with_their_slopes():
    ebm, rng, step = ed.compile(pair(NUMBERS)), np.random.default_rng(6), 1e-5
    assert chosen(ebm) == {NAME}
    both = jax.jit(jax.value_and_grad(lambda n: ed.log_partition(ebm.replace(**n))))
    for _ in range(3):
        numbers = {
            k: np.asarray(a + 0.1 * rng.normal(size=a.shape), "f") for k, a in NUMBERS.items()
        }
        found, slopes = both(numbers)
        exact = {k: a.astype(float) for k, a in numbers.items()}
        assert float(found) == pytest.approx(pair_law(exact).log_z, rel=1e-6)
        for name, number in exact.items():
            for at in np.ndindex(number.shape):
                ends = []
                for sign in (1, -1):
                    moved = number.copy()
                    moved[at] += sign * step
                    ends.append(pair_law({**exact, name: moved}).log_z)
                # Central differences err by step^2; the slopes are rounded to float32.
                expected = (ends[0] - ends[1]) / (2 * step)
                assert float(slopes[name][at]) == pytest.approx(expected, abs=1e-6, rel=1e-6)
    assert both._cache_size() == 1


def test_public_functions_answer():
    ebm, law = ed.compile(pair(NUMBERS)), pair_law({k: a.astype(float) for k, a in NUMBERS.items()})
    best = int(np.argmax(law.peaks))
    mode = ed.map_configuration(ebm)
    assert mode.configuration["c"].tolist() == law.states[best].tolist()
    assert mode.energy == pytest.approx(-law.peaks[best], rel=1e-6)
    found = ed.marginals(ebm)["x"]
    np.testing.assert_allclose([found.mean, found.variance], law.moments(), rtol=1e-6)
    chains = ed.sample(
        ebm, ed.ExactDraws(), key=jr.key(1), chains=4, warmup=0, draws=1000, progress=False
    )
    x = np.asarray(chains.draws["x"], float).reshape(-1, 2)
    assert min(kstest(x[:, k], law.cdf(k)).pvalue for k in range(2)) > FALSE_ALARM / 2


# Long models of like blocks.


def test_a_hidden_markov_model_with_missing_readings():
    rng, count = np.random.default_rng(2), 300
    step, mean, rate = (np.float32(a) for a in (rng.normal(size=(3, 3)), [-2, 0, 3], [1, 4, 2]))
    z, x = ed.categorical("z", count, levels=3), ed.real("x", count)
    readings, known = np.float32(rng.normal(size=count)), rng.random(count) < 0.7
    model = ed.Model(
        ed.Table(step)(z[:-1], z[1:]).sum()
        + (0.5 * ed.Table(rate)(z) * (x - ed.Table(mean)(z)) ** 2).sum()
    )
    ebm = ed.compile(model.condition({x[known]: readings[known]}))

    apart = rate * (readings[:, None].astype(float) - mean) ** 2 / 2
    each = np.where(known[:, None], -apart, np.log(2 * np.pi / rate.astype(float)) / 2)
    forth, back = [each[0]], [np.zeros(3)]
    for t in range(1, count):
        forth.append(logsumexp(forth[-1][:, None] - step.astype(float), axis=0) + each[t])
        back.append(logsumexp(each[-t] + back[-1] - step.astype(float), axis=1))
    joint = np.array(forth) + np.array(back)[::-1]
    probs = np.exp(joint - logsumexp(joint[0]))
    means = probs @ mean
    spread = (probs * (1 / rate + (mean - means[:, None]) ** 2)).sum(1)

    assert chosen(ebm) == {NAME}
    assert value(ebm, NAME) == pytest.approx(logsumexp(forth[-1]), rel=1e-12)
    found = marginals_of(ebm.model, plans(ebm, NAME))
    np.testing.assert_allclose(found["z"], probs, atol=1e-12)
    expected = np.where(known[:, None], 0.0, np.stack([means, spread], axis=1))
    np.testing.assert_allclose(found["x"], expected, atol=1e-6)


def test_like_blocks_are_one_batch_and_share_what_they_have_in_common():
    count = 200
    z, x = ed.binary("z", (count, 2)), ed.real("x", (count, 2))
    mean = np.array([[0.0, 1.0], [2.0, -1.0]])
    own = (x[:, 0] - ed.Table(mean)(z[:, 0], z[:, 1])) ** 2 + (x[:, 1] - z[:, 1]) ** 2
    ebm = ed.compile(ed.Model((own + x[:, 0] * x[:, 1]).sum()))

    def energy(d, x):
        return (x[0] - mean[d[0], d[1]]) ** 2 + (x[1] - d[1]) ** 2 + x[0] * x[1]

    (plan,) = plans(ebm, NAME).plans
    (group,) = plan.blocks
    assert group.sites.shape == (count, 2)
    assert all(len(i) == 1 for p in group.parts for i in p.tables.indices if i is not None)
    law = conditional_gaussian_law(energy, [[0, 1]] * 2, 2)
    assert value(ebm, NAME) == pytest.approx(count * law.log_z, rel=1e-12)


def test_blocks_whose_neighbours_have_unequal_levels():
    c, s, x = ed.categorical("c", 2, levels=3), ed.spin("s", 2), ed.real("x", 4)
    mean = np.array([0.0, 0.5, -1.0])
    labels, spins = (x[2:] - ed.Table(mean)(c)) ** 2, 2.0 * x[:2] ** 2 - s * x[:2] - 0.5 * s
    ebm = ed.compile(ed.Model(labels.sum() + spins.sum() + c[0] * s[0] + (c[1] == 1) * s[1]))
    rows = -np.outer([0, 1, 2], [-1, 1]), -np.outer([0, 1, 0], [-1, 1])
    expected = sum(logsumexp(row + np.array([-0.5, 0.5])) for row in rows) + 2 * np.log(np.pi)
    expected += 2 * (1 / 8 - np.log(2) / 2)
    assert value(ebm, NAME) == pytest.approx(expected, rel=1e-12)


def test_memory_is_predicted():
    rng = np.random.default_rng(0)
    c, x = ed.categorical("c", 6, levels=4), ed.real("x", 20)
    links = np.float32(0.01 * rng.normal(size=(20, 20)))
    tables = ed.Table(np.float32(rng.normal(size=(20, 4))))(c[np.arange(20) % 6])
    ebm = ed.compile(ed.Model((x**2).sum() + x @ links @ x - (tables * x).sum()))
    assert chosen(ebm) == {NAME}
    for derivatives, predicted in (
        (False, ebm.normalizer.bytes),
        (True, ebm.normalizer.most_bytes),
    ):
        taken = memory(ebm, derivatives=derivatives)
        assert predicted / 2 < taken < 2 * predicted


# Precisions that are not positive definite, and forbidden states.


def bent(forbidden):
    """A precision that is negative where c = 2, and whether that state is forbidden elsewhere."""
    c, x = ed.categorical("c", 2, levels=3), ed.real("x", 2)
    rate = ed.parameter("rate", jnp.array([2.0, 1.0, -1.0]))
    hard = jnp.array([0.0, 0.5, jnp.inf if forbidden else 0.0])
    return ed.Model(
        ed.Table(hard)(c).sum() + (ed.Table(rate)(c) * x**2).sum() - 0.5 * x[0] * x[1] - x.sum()
    )


def test_an_improper_precision_is_said_with_its_state():
    ebm = ed.compile(bent(False))
    words = (
        r"of 2 real sites, x\[0\] first, is not positive definite \(eigenvalue -.*c\[0\] = \d, c"
    )
    with pytest.raises(ValueError, match=words):
        ed.log_partition(ebm)
    with pytest.raises(ValueError, match=words):
        ed.marginals(ebm)
    with pytest.raises(ValueError, match=words):
        ed.map_configuration(ebm)
    drawn = draw(ebm.model, plans(ebm, NAME), prepare(ebm.model, plans(ebm, NAME)), key=jr.key(0))
    assert np.isnan(drawn["x"]).all()


def test_an_improper_precision_in_a_forbidden_state_is_no_matter():
    ebm = ed.compile(bent(True))

    def energy(d, x):
        rate = np.array([2.0, 1.0])[d]
        return 0.5 * d.sum() + rate @ x**2 - 0.5 * x[0] * x[1] - x.sum()

    law = conditional_gaussian_law(energy, [[0, 1]] * 2, 2)
    assert value(ebm, NAME) == pytest.approx(law.log_z, rel=1e-12)
    found = marginals_of(ebm.model, plans(ebm, NAME))
    np.testing.assert_allclose(found["x"].T, law.moments(), rtol=1e-12)
    slope = jax.grad(lambda r: ed.log_partition(ebm.replace(rate=r)))(ebm.parameters["rate"])
    second = law.means**2 + np.diagonal(law.covariances, axis1=1, axis2=2)
    expected = [-(law.probs @ ((law.states == k) * second).sum(1)) for k in (0, 1)]
    np.testing.assert_allclose(slope, [*expected, 0.0], rtol=1e-6)


def test_of_several_numbers_only_the_improper_are_nan():
    ebm = ed.compile(bent(False))
    rates = jnp.array([[2.0, 1.0, 1.0], [2.0, 1.0, -1.0]])
    found = jax.vmap(lambda r: ed.log_partition(ebm.replace(rate=r)))(rates)
    assert np.isnan(found).tolist() == [False, True]


def test_an_infinite_precision_is_said():
    s, x = ed.spin("s"), ed.real("x", 3)
    hard = ed.Table(log_potential=jnp.array([0.0, -jnp.inf]))(s)
    ebm = ed.compile(ed.Model((x**2).sum() + hard * x[0] * x[1] + x[1] * x[2]))
    assert chosen(ebm) == {NAME}
    with pytest.raises(ValueError, match=r"3 real sites, x\[0\] first, is not finite where s = 1"):
        ed.log_partition(ebm)


def test_a_factor_that_is_infinite_whatever_its_real_site_is_forbids_its_state():
    s, x = ed.spin("s", 2), ed.real("x", 2)
    wall = ed.apply(lambda s, x: jnp.where(s == 1, jnp.inf, (x - 1) ** 2), s, x)
    model = ed.Model(wall.sum() + x[0] * x[1])
    expected = np.log(2 * np.pi) - np.log(3) / 2 - 2 + 4 / 3
    assert value(ed.compile(model), NAME) == pytest.approx(expected, rel=1e-12)
    never = ed.compile(model.condition({s[0]: 1}))
    assert value(never, NAME) == -np.inf
    with pytest.raises(ValueError, match="infinite energy"):
        ed.marginals(never)


# What it refuses.


def switching(count):
    """A state-space model whose dynamics switch: all labels are about one block."""
    z, x = ed.binary("z", count), ed.real("x", count)
    drift = ed.where(z[1:] == 1, 0.9, -0.2) * x[:-1]
    return ed.Model((x[0] ** 2) + ((x[1:] - drift) ** 2).sum() + (z[1:] * z[:-1]).sum())


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (lambda: switching(3000), "2^2999 joint states of z[1], z[2], z[3], z[4], z[5], z[6] and "
            "2,993 more, the finite neighbours of x[0], x[1], x[2], x[3], x[4], x[5] and 2,994"),
        (lambda: switching(23), "2^22 joint states of the widest clique; budget 2^20, 2^2 times "
            "too many (of z[1], z[2], z[3], z[4], z[5], z[6] and 16 more, the finite neighbours"),
        (lambda: ed.Model((ed.spin("s", 3) * ed.real("x", 3) ** 3).sum()), "not shown to be quad"),
        (lambda: ed.Model((ed.spin("s", 3) * abs(ed.real("x", 3))).sum()), "in the real sites,"),
        (lambda: ed.Model(ed.real("x", 3) @ ed.spin("s", 3) * ed.count("n")), "n is neither"),
        (lambda: ed.Model((ed.real("x", 3) ** 2).sum()), "it has no finite site"),
        (lambda: ed.Model(ed.spin("s") * ed.spin("t")), "it has no real site"),
    ],
)  # fmt: skip
def test_the_reason_of_a_refusal(model, why):
    assert why in reason(ed.compile(model()), NAME)


def test_a_narrow_switching_model_is_served():
    assert applies(ed.compile(switching(12)), NAME)


def test_memory_over_the_budget_is_refused_before_it_is_taken():
    said = (
        rule(NAME)
        .offer(ed.compile(switching(12)).structure)
        .refusal(0, "log_partition", Budget(20, 10_000))
    )
    assert "of memory; budget 10 kB" in said


def test_a_factor_whose_pairs_are_not_listed_is_refused(monkeypatch):
    monkeypatch.setattr(structures, "MAX_PAIRS", 100)
    ebm = ed.compile(ed.Model(ed.tanh(ed.spin("s", 17).sum()) * ed.real("x") ** 2))
    assert "too many sites" in reason(ebm, NAME)
