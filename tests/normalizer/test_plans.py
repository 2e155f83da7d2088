"""Every plan's answers, log Z, marginals, draws and modes, against NumPy's sums over all states."""

import itertools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats

import energydsl as ed
from energydsl.normalizer import counting
from energydsl.normalizer.base import normal, uniform
from energydsl.normalizer.evaluate import draw, marginals_of, mode_of, prepare
from tests.normalizer.rules import Logistic, applies, chosen, plans, reason, value
from tests.oracles.enumerate import chisquare_pvalue, count_states, exact_law

FALSE_ALARM = 1e-6
RULES_OF_FINITE = "independent", "bipartite", "enumeration", "elimination"
DRAWS = 4000
RNG = np.random.default_rng(5)

S, B, C = ed.spin("s", (2, 3)), ed.binary("b", 3), ed.categorical("c", 2, levels=3)
N = ed.integer("n", 2, low=-1, high=2)
W, V = np.float32(RNG.normal(size=(3, 3))), np.float32(RNG.normal(size=(3, 2)))
FORBIDDEN = np.where(np.eye(3, dtype=bool), -np.inf, np.float32(RNG.normal(size=(3, 3))))


def w(index):
    return W[index].astype(float)


# Each with the energy written a second time, in NumPy, of states with a column for each site.
CASES = {
    "lone sites of unequal levels": (
        lambda: ed.Model(W[0] @ B + 0.3 * (N**2).sum()),
        ["b", "n"],
        lambda x: x["b"] @ w(0) + 0.3 * (x["n"] ** 2).sum(1),
        {"independent", "enumeration", "independent beside"},
    ),
    "an odd cycle": (
        lambda: ed.Model(B @ W @ B),
        ["b"],
        lambda x: np.einsum("ki,ij,kj->k", x["b"], W.astype(float), x["b"]),
        {"enumeration"},
    ),
    "two layers": (
        lambda: ed.Model(-(B @ V @ N) + W[1] @ B),
        ["b", "n"],
        lambda x: -np.einsum("ki,ij,kj->k", x["b"], V.astype(float), x["n"]) + x["b"] @ w(1),
        {"enumeration", "bipartite"},
    ),
    "labels with forbidden pairs": (
        lambda: ed.Model(ed.Table(log_potential=FORBIDDEN)(C[0], C[1]) + 0.4 * (C[0] == 2)),
        ["c"],
        lambda x: -FORBIDDEN.astype(float)[x["c"][:, 0], x["c"][:, 1]] + 0.4 * (x["c"][:, 0] == 2),
        {"enumeration", "bipartite"},
    ),
    "components of unequal size": (
        lambda: (
            ed.Model(
                -0.7 * S[0, 0] * S[0, 1]
                - 0.4 * S[0, 1] * S[0, 2]
                + 0.6 * B[0] * N[0] ** 2
                + 0.2 * B[1]
            )
            + ed.Model(0.0 * (B[2] + N[1] + S[1].sum()))
        ),
        ["s", "b", "n"],
        lambda x: (
            -0.7 * x["s"][:, 0] * x["s"][:, 1]
            - 0.4 * x["s"][:, 1] * x["s"][:, 2]
            + 0.6 * x["b"][:, 0] * x["n"][:, 0] ** 2
            + 0.2 * x["b"][:, 1]
        ),
        {"enumeration"},
    ),
    "energies near a thousand": (
        lambda: ed.Model(1000.0 - 1200.0 * B[0] + B[1] + B[0] * B[1] * 0.5 - 800.0 * B[1] * B[2]),
        ["b"],
        lambda x: (
            1000.0
            - 1200.0 * x["b"][:, 0]
            + x["b"][:, 1]
            + 0.5 * x["b"][:, 0] * x["b"][:, 1]
            - 800.0 * x["b"][:, 1] * x["b"][:, 2]
        ),
        {"enumeration", "bipartite"},
    ),
}
HELD = {
    "two layers": {N[0]: 2, B[1:2]: np.array([1])},
    "an odd cycle": {B[0]: 1},
    "components of unequal size": {S[0, 1]: -1, "n": np.array([1, 2])},
}
FIXED = {
    "two layers": {("n", 0): 2, ("b", 1): 1},
    "an odd cycle": {("b", 0): 1},
    "components of unequal size": {("s", 1): -1, ("n", 0): 1, ("n", 1): 2},
}
"""The same once more, by site."""
LEVELS = {"s": [-1, 1], "b": [0, 1], "c": [0, 1, 2], "n": [-1, 0, 1, 2]}
SIZES = {"s": 6, "b": 3, "c": 2, "n": 2}


def law_of(case, held):
    """All states of all sites, in the order of the case's names, and their probabilities."""
    _, names, energy, _ = CASES[case]
    axes = [LEVELS[n] for n in names for _ in range(SIZES[n])]
    starts = dict(zip(names, np.cumsum([0, *(SIZES[n] for n in names)]), strict=False))
    for (name, number), one in FIXED[case].items() if held else ():
        axes[starts[name] + number] = [one]

    def of(states):
        return energy({n: states[:, starts[n] : starts[n] + SIZES[n]] for n in names})

    return names, exact_law(of, axes)


SELDOM = "two layers", "labels with forbidden pairs"
"""Cases that are asked among the slow tests only, as the others are like them."""

QUESTIONS = [
    pytest.param(
        case, held, marks=[pytest.mark.slow] * ((held and case != "an odd cycle") or case in SELDOM)
    )
    for case in CASES
    for held in (False, True)
    if not held or case in HELD
]


def model_of(case, held):
    model = CASES[case][0]()
    return model.condition(HELD[case]) if held else model


def rules_of(ebm):
    found = [n for n in RULES_OF_FINITE if applies(ebm, n)]
    assert found
    return found


@pytest.mark.parametrize(("case", "held"), QUESTIONS)
def test_answers_are_those_of_the_sum_over_all_states(case, held):
    ebm = ed.compile(model_of(case, held))
    names, law = law_of(case, held)
    free = [v.name for v in ebm.structure.skeleton.free]
    for rule in rules_of(ebm):
        alone = plans(ebm, rule)
        np.testing.assert_allclose(value(ebm, rule), law.log_z, rtol=1e-6)
        check_marginals(marginals_of(ebm.model, alone), names, law, ebm)
        check_mode(ebm, mode_of(ebm.model, alone), names, law, free)
        check_draws(ebm, alone, names, law, free)


def flat(ebm, x, names):
    """Configurations as states of all sites, evidence included."""
    whole = jax.vmap(ebm.model.complete)(x)
    return np.concatenate([np.asarray(whole[n]).reshape(len(whole[n]), -1) for n in names], axis=1)


def check_marginals(found, names, law, ebm):
    start = 0
    for n in names:
        for k in range(SIZES[n]):
            held = ebm.model.skeleton.mask(next(v for v in ebm.model.variables if v.name == n))
            column = law.states[:, start + k]
            expected = [law.probs[column == level].sum() for level in LEVELS[n]]
            if not held.ravel()[k]:
                # The case's formula and the model round their constants differently.
                np.testing.assert_allclose(found[n][k], expected, atol=1e-5)
        start += SIZES[n]


def check_mode(ebm, x, names, law, free):
    assert sorted(x) == sorted(free)
    state = flat(ebm, jax.tree.map(lambda a: a[None], x), names)[0]
    (row,) = np.flatnonzero((law.states == state).all(axis=1))
    np.testing.assert_allclose(law.probs[row], law.probs.max(), rtol=1e-5)


def check_draws(ebm, alone, names, law, free):
    prepared = prepare(ebm.model, alone)
    drawn = jax.vmap(lambda k: draw(ebm.model, alone, prepared, key=k))(jr.split(jr.key(3), DRAWS))
    assert sorted(drawn) == sorted(free)
    counts = count_states(flat(ebm, drawn, names), law.states)
    probs = law.probs
    if (probs > 1 - 1e-3).any():
        assert counts[probs.argmax()] > DRAWS - 40
        return
    pvalue = chisquare_pvalue(counts, probs, DRAWS)
    assert pvalue > FALSE_ALARM, f"{alone.rules} draws another law: {counts} for {DRAWS * probs}"


def test_the_public_functions_ask_the_same_plans():
    case = "components of unequal size"
    ebm = ed.compile(model_of(case, held=True))
    _, law = law_of(case, held=True)
    assert chosen(ebm) == {"independent"}
    found = ed.marginals(ebm)
    assert found.kind == "exact" and sorted(found) == ["b", "n", "s"]
    assert found["s"].probabilities.shape == (2, 3, 2) and found["s"].mean.shape == (2, 3)
    np.testing.assert_array_equal(found["s"].probabilities[0, 1], [1, 0])
    np.testing.assert_array_equal(found["n"].mean, [1, 2])
    np.testing.assert_array_equal(found["n"].variance, [0, 0])
    np.testing.assert_array_equal(found["n"].levels, LEVELS["n"])
    np.testing.assert_allclose(found["b"].mean.ravel(), law.probs @ law.states[:, 6:9], atol=1e-6)
    best = ed.map_configuration(ebm)
    assert best.proven and best.method == ebm.normalizer.rules
    np.testing.assert_allclose(best.energy, -np.log(law.probs.max()) - law.log_z, rtol=1e-5)
    chains = ed.sample(ebm, ed.ExactDraws(), key=jr.key(0), warmup=0, draws=DRAWS, progress=False)
    # Independent draws: the sum of 4 x DRAWS bits lies within six standard deviations.
    mean = chains.draws["b"].mean((0, 1))
    assert (np.abs(mean - found["b"].mean) < 6 * 0.5 / np.sqrt(4 * DRAWS)).all()
    assert (chains.draws["s"][..., 0, 1] == -1).all()
    x = ebm.start(key=jr.key(1))
    moved, _, _ = ed.ExactDraws().step(ebm, x, None, key=jr.key(2))
    assert {n: (a.shape, a.dtype) for n, a in moved.items()} == {
        n: (a.shape, a.dtype) for n, a in x.items()
    }


def test_labels_have_probabilities_and_no_mean():
    found = ed.marginals(ed.compile(model_of("labels with forbidden pairs", held=False)))["c"]
    assert found.mean is None and found.probabilities.shape == (2, 3)


def test_draws_where_the_table_has_no_room_for_every_state(monkeypatch):
    """The cells of the table are then several passes, which each draw visits again."""
    case = "two layers"
    monkeypatch.setattr(counting, "CHUNK", 40)
    monkeypatch.setattr(counting, "TABLE", 2)
    ebm = ed.compile(model_of(case, held=False), memory=10**9)
    names, law = law_of(case, held=False)
    for rule in ("bipartite", "enumeration"):
        alone = plans(ebm, rule)
        (plan,) = alone.plans
        assert not plan._tabled and plan._passes > plan._passes_a_cell > 1
        assert value(ebm, rule) == pytest.approx(law.log_z, rel=1e-6)
        check_marginals(marginals_of(ebm.model, alone), names, law, ebm)
        check_mode(ebm, mode_of(ebm.model, alone), names, law, ["b", "n"])
        check_draws(ebm, alone, names, law, ["b", "n"])


X = ed.real("x", 3)
PRECISION = np.array([[2.0, 0.5, 0.0], [0.5, 1.5, -0.25], [0.0, -0.25, 1.0]])
LINEAR = np.array([1.0, -0.5, 2.0])


def gaussian(**held):
    model = ed.Model(ed.Quadratic(jnp.asarray(PRECISION), jnp.asarray(LINEAR))(X))
    return ed.compile(model + ed.Model((ed.real("y") - 3.0) ** 2))


def whitened_pvalue(draws, mean, covariance):
    """Of normal draws, once made independent: of each column, and of their squared length."""
    z = np.linalg.solve(np.linalg.cholesky(covariance), (draws - mean).T)
    pvalues = [scipy.stats.kstest(row, "norm").pvalue for row in z]
    return min([*pvalues, scipy.stats.kstest((z**2).sum(0), "chi2", args=(len(z),)).pvalue])


def test_gaussian_answers_are_the_closed_forms():
    ebm = gaussian()
    assert chosen(ebm) == {"gaussian"}
    covariance = np.linalg.inv(PRECISION)
    mean = covariance @ LINEAR
    found = ed.marginals(ebm)
    np.testing.assert_allclose(found["x"].mean, mean, rtol=1e-6)
    np.testing.assert_allclose(found["x"].variance, np.diag(covariance), rtol=1e-6)
    np.testing.assert_allclose([found["y"].mean, found["y"].variance], [3.0, 0.5], rtol=1e-6)
    assert found["x"].probabilities is None
    best = ed.map_configuration(ebm)
    np.testing.assert_allclose(best.configuration["x"], mean, rtol=1e-6)
    chains = ed.sample(ebm, ed.ExactDraws(), key=jr.key(0), warmup=0, draws=DRAWS, progress=False)
    draws = np.concatenate([chains.draws["x"], chains.draws["y"][..., None]], -1).reshape(-1, 4)
    joint = scipy.linalg.block_diag(covariance, 0.5)
    assert whitened_pvalue(draws, [*mean, 3.0], joint) > FALSE_ALARM


def test_a_single_real_site_has_its_mean_and_variance():
    x = ed.real("x")
    found = ed.marginals(ed.compile(ed.Model(2 * (x - 1.5) ** 2)))["x"]
    np.testing.assert_allclose([found.mean, found.variance], [1.5, 0.25], rtol=1e-6)
    assert found.mean.shape == ()


def test_a_clamped_gaussian_is_the_conditional_one():
    ebm = ed.compile(gaussian().model.condition({X[1]: 2.0, "y": 3.0}))
    free = [0, 2]
    covariance = np.linalg.inv(PRECISION[np.ix_(free, free)])
    mean = covariance @ (LINEAR[free] - PRECISION[free, 1] * 2.0)
    found = ed.marginals(ebm)
    np.testing.assert_allclose(found["x"].mean, [mean[0], 2.0, mean[1]], rtol=1e-6)
    np.testing.assert_allclose(found["x"].variance[free], np.diag(covariance), rtol=1e-6)
    assert found["x"].variance[1] == 0 and found["y"].variance == 0
    assert ed.map_configuration(ebm).configuration["x"][1] == 2.0


def mixed():
    """Real sites beside spins; the law of the spins and the means given them in closed form."""
    s, x = ed.spin("s", 2), ed.real("x", 3)
    pull = np.float32(RNG.normal(size=(2, 3)))
    width = np.array([1.0, 2.0, 0.5])
    energy = (jnp.asarray(width) * x**2).sum() / 2 - s @ pull @ x - 0.3 * s.sum()
    states = np.array(list(itertools.product([-1, 1], repeat=2)))
    means = states @ pull.astype(float) / width
    logs = 0.3 * states.sum(1) + (means**2 * width / 2).sum(1)
    return ed.Model(energy), states, np.exp(logs - np.logaddexp.reduce(logs)), means, 1 / width


def test_mixtures_of_normals_from_real_sites_beside_spins():
    model, states, probs, means, variances = mixed()
    ebm = ed.compile(model)
    assert chosen(ebm) == {"bipartite"}
    found = ed.marginals(ebm)
    expected = probs @ means
    np.testing.assert_allclose(found["s"].probabilities[:, 1], probs @ (states == 1), rtol=1e-5)
    np.testing.assert_allclose(found["x"].mean, expected, rtol=1e-5, atol=1e-6)
    second = probs @ (means**2 + variances)
    np.testing.assert_allclose(found["x"].variance, second - expected**2, rtol=1e-5)
    chains = ed.sample(ebm, ed.ExactDraws(), key=jr.key(0), warmup=0, draws=DRAWS, progress=False)
    s, x = (chains.draws[n].reshape(4 * DRAWS, -1) for n in ("s", "x"))
    assert chisquare_pvalue(count_states(s, states), probs, 4 * DRAWS) > FALSE_ALARM
    row = (s[:, None] == states).all(-1).argmax(1)
    assert whitened_pvalue(x - means[row], np.zeros(3), np.diag(variances)) > FALSE_ALARM
    best = ed.map_configuration(ebm)
    (at,) = np.flatnonzero((states == np.asarray(best.configuration["s"])).all(1))
    assert at == probs.argmax()
    np.testing.assert_allclose(best.configuration["x"], means[at], rtol=1e-5)


def walk():
    """A scale, a walk of that scale and a coin for each step: drawn one after the other."""
    t, r, b = ed.positive("t"), ed.real("r", 4), ed.binary("b", 4)
    return ed.Model(
        ed.LogDensity(dist.Gamma)(t, 3.0, 2.0)
        + ed.LogDensity(dist.Normal)(r[0], 0.0, 1.0)
        + ed.LogDensity(dist.Normal)(r[1:], 0.5 * r[:-1] + 1.0, t)
        + ed.LogDensity(dist.BernoulliLogits)(b, 2.0 * r)
    )


def test_directed_draws_are_ancestral():
    ebm = ed.compile(walk())
    assert chosen(ebm) == {"normalised"}
    chains = ed.sample(ebm, ed.ExactDraws(), key=jr.key(1), warmup=0, draws=DRAWS, progress=False)
    t, r, b = (chains.draws[n].reshape(4 * DRAWS, -1).astype(float) for n in ("t", "r", "b"))
    steps = (r[:, 1:] - 0.5 * r[:, :-1] - 1.0) / t
    pvalues = [scipy.stats.kstest(t[:, 0], "gamma", args=(3.0, 0.0, 0.5)).pvalue]
    pvalues += [scipy.stats.kstest(z, "norm").pvalue for z in [r[:, 0], *steps.T]]
    odds = 1 / (1 + np.exp(-2 * r))
    excess = (b - odds).sum(0) / np.sqrt((odds * (1 - odds)).sum(0))
    pvalues += list(2 * scipy.stats.norm.sf(np.abs(excess)))
    # Independent of one another as well.
    pvalues += [scipy.stats.pearsonr(*pair).pvalue for pair in itertools.combinations(steps.T, 2)]
    assert min(pvalues) > FALSE_ALARM, pvalues


def test_directed_draws_with_evidence_above_them():
    t = walk().variables[0]
    ebm = ed.compile(walk().condition({t.name: 0.01}))
    assert chosen(ebm) == {"normalised"}
    chains = ed.sample(ebm, ed.ExactDraws(), key=jr.key(1), warmup=0, draws=200, progress=False)
    r = chains.draws["r"]
    assert np.abs(r[..., 1:] - 0.5 * r[..., :-1] - 1.0).max() < 0.1


def test_what_a_rule_does_not_answer_another_does():
    """A directed model of normals has draws from its densities, marginals from its precision."""
    x = ed.real("x", 2)
    density = ed.LogDensity(dist.Normal)
    ebm = ed.compile(ed.Model(density(x[0], 1.0, 2.0) + density(x[1], 3 * x[0], 1.0)))
    assert chosen(ebm) == {"normalised"}
    found = ed.marginals(ebm)["x"]
    np.testing.assert_allclose(found.mean, [1.0, 3.0], rtol=1e-6)
    np.testing.assert_allclose(found.variance, [4.0, 37.0], rtol=1e-6)
    np.testing.assert_allclose(ed.map_configuration(ebm).configuration["x"], [1.0, 3.0], rtol=1e-6)


def test_what_no_rule_answers_is_refused_with_the_reasons(untyped):
    ebm = ed.compile(ed.Model(ed.real("y") ** 4))
    assert isinstance(ebm.normalizer, ed.Numerical) and not isinstance(ebm.normalizer, ed.Exact)
    assert str(ebm.normalizer).startswith("numerical, by quadrature of 1 component")
    for ask in (ed.marginals, ed.map_configuration):
        with pytest.raises(ed.IntractableError, match="quadrature: numerical integration does not"):
            ask(ebm)
    with pytest.raises(ValueError, match=r"ExactDraws\(\) leaves out 1 free sites.*quadrature"):
        ed.sample(ebm, ed.ExactDraws(), key=jr.key(0), progress=False)
    with pytest.raises(ed.IntractableError, match="gaussian: p is not real"):
        ed.marginals(ed.compile(ed.Model(ed.LogDensity(dist.LogNormal())(ed.positive("p")))))
    with pytest.raises(TypeError, match="marginals got Model; compile it"):
        ed.marginals(ebm.model)
    with pytest.raises(TypeError, match="inside a JAX transformation"):
        jax.jit(lambda j: ed.marginals(ed.compile(ed.Model(j * B.sum())))["b"].mean)(0.5)


def test_densities_without_draws_have_none():
    ebm = ed.compile(ed.Model(Logistic()(X).sum()))
    assert reason(ebm, "normalised") is None
    assert "no method for draws" in reason(ebm, "normalised", question="draw")


def test_a_model_in_which_everything_is_forbidden_has_no_mode():
    never = ed.Model(ed.Table(np.full((2, 2), np.inf)).factor(B[0], B[1]))
    with pytest.raises(ValueError, match="infinite energy"):
        ed.map_configuration(ed.compile(never))


def test_random_numbers_made_of_words():
    with jax.enable_x64(True):
        u = np.asarray(uniform(jr.key(0), (20_000,)))
        z = np.asarray(normal(jr.key(1), (20_000,)))
    assert u.dtype == z.dtype == np.float64
    assert u.min() > 0 and u.max() <= 1 and len(np.unique(u)) == len(u)
    assert scipy.stats.kstest(u, "uniform").pvalue > FALSE_ALARM
    assert scipy.stats.kstest(z, "norm").pvalue > FALSE_ALARM
