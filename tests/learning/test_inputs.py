"""Models given inputs, beside enumeration in NumPy."""

import itertools
from functools import cache

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import energydsl as ed

LENGTH, WIDTH, LEVELS, COUNT = 4, 3, 3, 5


@cache
def numbers():
    """Weights, transitions, inputs and labels, all different."""
    rng = np.random.default_rng(5)
    return (
        rng.normal(size=(WIDTH, LEVELS)).astype(np.float32),
        rng.normal(size=(LEVELS, LEVELS)).astype(np.float32),
        rng.normal(size=(COUNT, LENGTH, WIDTH)).astype(np.float32),
        rng.integers(0, LEVELS, (COUNT, LENGTH)),
    )


@cache
def chain(budget=20):
    """A conditional random field of a chain of labels."""
    w, a, _, _ = numbers()
    x = ed.real("x", (LENGTH, WIDTH), given=True)
    y = ed.categorical("y", LENGTH, levels=LEVELS)
    energy = ed.Table(-(x @ ed.parameter("W", w)))(y).sum()
    energy += ed.Table(ed.parameter("A", a))(y[:-1], y[1:]).sum()
    return ed.compile(ed.Model(energy), budget=budget)


def labellings():
    return np.array(list(itertools.product(range(LEVELS), repeat=LENGTH)))


def scores(x):
    """Minus the energy of every labelling, given one example's inputs."""
    w, a, _, _ = numbers()
    own = np.take_along_axis(x.astype(float) @ w, labellings().T, axis=1).sum(axis=0)
    return own - a[labellings()[:, :-1], labellings()[:, 1:]].sum(axis=1)


def laws(xs):
    """The probability of every labelling given each example's inputs."""
    each = np.stack([scores(x) for x in xs])
    return np.exp(each - np.logaddexp.reduce(each, axis=1, keepdims=True))


def place(labels):
    return labels @ LEVELS ** np.arange(LENGTH - 1, -1, -1)


def moments(x, weights):
    """The mean of dE/dW and dE/dA over labellings with these probabilities."""
    hot = np.eye(LEVELS)[labellings()]
    slope_w = -np.einsum("s,td,stk->dk", weights, x, hot)
    return slope_w, np.einsum("s,stk,stl->kl", weights, hot[:, :-1], hot[:, 1:])


def exact_slopes(xs, ys):
    """The gradient of minus the conditional log-likelihood in W and A."""
    each = []
    for x, y, law in zip(xs, ys, laws(xs), strict=True):
        seen = np.zeros(len(law))
        seen[place(y)] = 1
        each.append([a - b for a, b in zip(moments(x, seen), moments(x, law), strict=True)])
    return [np.mean(part, axis=0) for part in zip(*each, strict=True)]


def slopes_of(objective, ebm, data, **options):
    """The gradient that one step of learning follows: the change under a rate of 1."""
    learnt, history = ed.fit(
        ebm, objective, data, steps=1, optimizer=optax.sgd(1.0), progress=False,
        **{"key": jr.key(0), **options},
    )  # fmt: skip
    change = {n: ebm.parameters[n] - learnt.parameters[n] for n in ebm.parameters}
    return {n: np.asarray(a) for n, a in change.items()}, history


def test_conditional_likelihoods_are_those_of_enumeration():
    _, _, xs, ys = numbers()
    expected = np.log(laws(xs)[np.arange(COUNT), place(ys)])
    found = ed.log_likelihood(chain(), {"x": xs, "y": ys})
    np.testing.assert_allclose(found.examples, expected, atol=2e-6)
    assert found.kind == "exact" and found.value == pytest.approx(expected.mean(), abs=1e-6)
    one = chain().log_prob({"x": xs[1], "y": ys[1]})
    assert float(one) == pytest.approx(expected[1], abs=2e-6)
    assert float(chain().given(x=xs[1]).log_prob({"y": ys[1]})) == float(one)
    log_z = ed.log_partition(chain().given(x=xs[2]))
    assert log_z == pytest.approx(np.logaddexp.reduce(scores(xs[2])), abs=1e-6)


def test_the_gradient_of_exact_likelihood_is_that_of_enumeration():
    _, _, xs, ys = numbers()
    found, history = slopes_of(ed.MaximumLikelihood(), chain(), {"x": xs, "y": ys})
    expected = exact_slopes(xs, ys)
    np.testing.assert_allclose(found["W"], expected[0], atol=2e-6)
    np.testing.assert_allclose(found["A"], expected[1], atol=2e-6)
    loss = -np.log(laws(xs)[np.arange(COUNT), place(ys)]).mean()
    assert history["loss"][0] == pytest.approx(loss, abs=2e-6)


def test_pseudo_likelihood_conditions_each_example_on_its_inputs():
    _, _, xs, ys = numbers()
    total = 0.0
    for y, law in zip(ys, laws(xs), strict=True):
        for t in range(LENGTH):
            others = np.delete(labellings(), t, axis=1)
            like = (others == np.delete(y, t)).all(axis=1)
            total -= np.log(law[place(y)] / law[like].sum())
    _, history = slopes_of(ed.PseudoLikelihood(), chain(), {"x": xs, "y": ys})
    assert history["loss"][0] == pytest.approx(total / COUNT, abs=1e-5)


def test_divergence_with_exact_draws_follows_the_likelihood():
    """The mean over many keys is within 5.5 standard errors of the exact gradient.

    Under a normal law the false alarm is 4e-8 for each of 18 numbers, together 7e-7.
    """
    _, _, xs, ys = numbers()
    data = {"x": np.repeat(xs, 400, axis=0), "y": np.repeat(ys, 400, axis=0)}
    objective = ed.ContrastiveDivergence(kernel=ed.ExactDraws(), start="noise")
    runs = [slopes_of(objective, chain(), data, key=jr.key(k))[0] for k in range(12)]
    for name, expected in zip(("W", "A"), exact_slopes(xs, ys), strict=True):
        each = np.stack([run[name] for run in runs])
        # The standard error is estimated from all 12 * 18 numbers, which have like spreads.
        spread = np.sqrt(each.var(axis=0, ddof=1).mean() / len(runs))
        assert np.abs(each.mean(axis=0) - expected).max() < 5.5 * 2 * spread
        assert spread < 0.02


@pytest.mark.slow
def test_chains_from_the_data_keep_their_inputs():
    """An exact draw from the data's place has the law given that example's own inputs."""
    _, _, xs, _ = numbers()
    strong = chain().replace(W=20 * chain().parameters["W"], A=0 * chain().parameters["A"])
    best = np.argmax(xs @ numbers()[0], axis=2)
    found, _ = slopes_of(ed.ContrastiveDivergence(k=3), strong, {"x": xs, "y": best})
    # Labels that are nearly certain given their own inputs leave nothing to learn.
    assert np.abs(found["W"]).max() < 0.35
    swapped, _ = slopes_of(ed.ContrastiveDivergence(k=3), strong, {"x": xs, "y": best[::-1]})
    assert np.abs(swapped["W"]).max() > 0.5


def test_score_matching_of_a_regression():
    """E = k/2 (y - w x)^2 has the explicit loss k^2 (y - w x)^2 / 2 - k."""
    rng = np.random.default_rng(3)
    x, y = ed.real("x", given=True), ed.real("y")
    w, k = ed.parameter("w", 0.7), ed.parameter("k", 1.5)
    ebm = ed.compile(ed.Model(k / 2 * (y - w * x) ** 2))
    data = {n: rng.normal(size=6).astype(np.float32) for n in "xy"}
    _, history = slopes_of(ed.ScoreMatching("explicit"), ebm, data)
    gaps = data["y"] - 0.7 * data["x"]
    assert history["loss"][0] == pytest.approx(np.mean(1.5**2 * gaps**2 / 2 - 1.5), abs=1e-5)
    found = ed.log_likelihood(ebm, data)
    expected = -0.75 * gaps**2 - np.log(2 * np.pi / 1.5) / 2
    np.testing.assert_allclose(found.examples, expected, atol=1e-6)


@pytest.mark.slow
def test_the_error_of_quadratures_is_their_mean():
    x, y = ed.real("x", given=True), ed.real("y")
    ebm = ed.compile(ed.Model(abs(y - x) + 0.1 * y**2))
    xs = np.array([0.3, -0.4, 0.5], np.float32)
    found = ed.log_likelihood(ebm, {"x": xs, "y": np.zeros(3)})
    each = [ed.log_likelihood(ebm.given(x=x), np.zeros(1)) for x in xs]
    assert found.kind == "quadrature"
    assert found.standard_error == pytest.approx(np.mean([e.standard_error for e in each]))
    assert found.value == pytest.approx(np.mean([e.value for e in each]), abs=1e-6)


def test_latents_are_summed_out_given_the_inputs():
    """A hidden layer between inputs and labels: log p(y | x) beside enumeration of both."""
    rng = np.random.default_rng(8)
    x, y = ed.real("x", 2, given=True), ed.spin("y", 3)
    h = ed.binary("h", 4, latent=True)
    v, u = rng.normal(size=(2, 4)).astype(np.float32), rng.normal(size=(3, 4)).astype(np.float32)
    ebm = ed.compile(ed.Model(-(y @ u @ h) - x @ v @ h))
    xs = rng.normal(size=(6, 2)).astype(np.float32)
    ys = rng.choice([-1, 1], size=(6, 3))
    every = np.array(list(itertools.product([-1, 1], repeat=3)))
    free = np.logaddexp(0, every @ u + (xs @ v)[:, None]).sum(axis=2)
    seen = np.logaddexp(0, ys @ u + xs @ v).sum(axis=1)
    expected = seen - np.logaddexp.reduce(free, axis=1)
    found = ed.log_likelihood(ebm, {"x": xs, "y": ys})
    np.testing.assert_allclose(found.examples, expected, atol=5e-6)
    energy = ebm.free_energy({"x": xs[4], "y": ys[4]})
    assert float(energy) == pytest.approx(-seen[4], abs=2e-6)


def test_an_input_that_all_examples_share_is_given_to_the_model():
    _, _, xs, ys = numbers()
    alike = {"x": np.repeat(xs[:1], COUNT, axis=0), "y": ys}
    each, _ = slopes_of(ed.MaximumLikelihood(), chain(), alike)
    shared, _ = slopes_of(ed.MaximumLikelihood(), chain().given(x=xs[0]), ys)
    np.testing.assert_allclose(each["W"], shared["W"], atol=2e-6)
    fixed = chain().given(x=xs[0])
    assert ed.log_likelihood(fixed, ys).value == pytest.approx(
        ed.log_likelihood(chain(), alike).value, abs=2e-6
    )
    # Data count instead of what was given.
    own = ed.log_likelihood(fixed, {"x": xs, "y": ys}).examples
    np.testing.assert_array_equal(own, ed.log_likelihood(chain(), {"x": xs, "y": ys}).examples)


def test_new_inputs_and_new_examples_compile_nothing(compilations):
    rng = np.random.default_rng(0)

    def run(k):
        data = {
            "x": rng.normal(size=(8, LENGTH, WIDTH)).astype(np.float32),
            "y": rng.integers(0, LEVELS, (8, LENGTH)),
        }
        ed.fit(chain(), ed.PseudoLikelihood(), data, key=jr.key(k), steps=3, batch=4)
        ed.log_likelihood(chain(), data)
        ed.predict(chain(), data)
        ed.log_partition(chain().given(x=data["x"][0]))

    run(0)
    before = len(compilations)
    run(1)
    assert before and len(compilations) == before


def test_batches_from_an_iterator_bring_their_inputs():
    _, _, xs, ys = numbers()
    parts = ({"x": xs, "y": ys} for _ in range(3))
    ebm, history = ed.fit(chain(), ed.MaximumLikelihood(), parts, key=jr.key(0), steps=3)
    whole, again = ed.fit(
        chain(), ed.MaximumLikelihood(), {"x": xs, "y": ys}, key=jr.key(0), steps=3, progress=False
    )
    np.testing.assert_allclose(history["loss"], again["loss"], atol=1e-6)
    np.testing.assert_allclose(ebm.parameters["W"], whole.parameters["W"], atol=1e-6)


def test_predictions_are_those_of_each_example():
    _, _, xs, _ = numbers()
    found = ed.predict(chain(), {"x": xs})
    hot = np.eye(LEVELS)[labellings()]
    expected = np.einsum("ns,stk->ntk", laws(xs), hot)
    np.testing.assert_allclose(found["y"].probabilities, expected, atol=1e-6)
    assert found.kind == "exact" and list(found) == ["y"]
    modes = ed.predict(chain(), xs, "mode")
    np.testing.assert_array_equal(modes["y"], labellings()[laws(xs).argmax(axis=1)])
    one = ed.map_configuration(chain().given(x=xs[3]))
    np.testing.assert_array_equal(one.configuration["y"], modes["y"][3])
    single = ed.marginals(chain().given(x=xs[3]))["y"]
    np.testing.assert_allclose(single.probabilities, expected[3], atol=1e-6)


def test_predictions_of_real_and_partly_clamped_variables():
    """y ~ N(w x, 1) for three sites, the second of which is clamped."""
    x, y = ed.real("x", 3, given=True), ed.real("y", 3)
    model = ed.Model(((y - 2 * x) ** 2).sum() / 2 + 0.5 * y[0] * y[1])
    ebm = ed.compile(model.condition({y[1]: 4.0}))
    xs = np.array([[1.0, 0.0, -1.0], [0.5, 9.0, 3.0]])
    found = ed.predict(ebm, xs)["y"]
    np.testing.assert_allclose(
        found.mean, np.stack([2 * xs[:, 0] - 2, [4, 4], 2 * xs[:, 2]], 1), atol=1e-6
    )
    np.testing.assert_allclose(found.variance, [[1, 0, 1]] * 2, atol=1e-6)


def test_chains_are_those_of_the_given_inputs():
    _, _, xs, _ = numbers()
    for k in (0, 3):
        ebm = chain().given(x=xs[k])
        law = ebm.conditional("y", {"y": [2, 0, 1, 1]})
        like = {t: (np.delete(labellings(), t, 1) == np.delete([2, 0, 1, 1], t)).all(1)
                for t in range(LENGTH)}  # fmt: skip
        joint = laws(xs)[k]
        expected = [joint[like[t]] / joint[like[t]].sum() for t in range(LENGTH)]
        np.testing.assert_allclose(law.probs, expected, atol=1e-5)
        draws = ed.sample(ebm, ed.ExactDraws(), key=jr.key(k), chains=2, warmup=0, draws=2000)
        share = np.eye(LEVELS)[draws.draws["y"]].mean(axis=(0, 1))
        exact = np.einsum("s,stk->tk", joint, np.eye(LEVELS)[labellings()])
        # 5.3 standard errors of 4,000 independent draws: a false alarm of 1e-7 each, 24 numbers.
        assert np.abs(share - exact).max() < 5.3 * np.sqrt(0.25 / 4000)


def test_trees_of_chains_hold_inputs_as_constant_data():
    _, _, xs, _ = numbers()
    y = next(v for v in chain().model.variables if v.name == "y")
    chains = ed.sample(
        chain().given(x=xs[0]), ed.Gibbs(), key=jr.key(0), chains=2, warmup=0, draws=20
    )
    tree = ed.to_arviz(chains)
    np.testing.assert_array_equal(tree["constant_data"]["x"], xs[0])
    assert "observed_data" not in tree.children and y.name in tree["posterior"]
    with pytest.raises(ValueError, match="not conditioned"):
        ed.predictive(chains, key=jr.key(1))


def test_a_regression_conditioned_on_responses_predicts_new_ones():
    """Weights with normal priors, inputs x and responses y: the predictive law is known."""
    rng = np.random.default_rng(2)
    x, w, y = ed.real("x", (5, 2), given=True), ed.real("w", 2), ed.real("y", 5)
    model = ed.Model((w @ w) / 2 + ((y - x @ w) ** 2).sum() / 2)
    xs, ys = rng.normal(size=(5, 2)), rng.normal(size=5)
    ebm = ed.compile(model.condition(y=ys)).given(x=xs)
    precision = np.eye(2) + xs.T @ xs
    expected = np.linalg.solve(precision, xs.T @ ys)
    np.testing.assert_allclose(ed.marginals(ebm)["w"].mean, expected, atol=1e-6)
    chains = ed.sample(ebm, ed.ExactDraws(), key=jr.key(0), chains=2, warmup=0, draws=2000)
    new = ed.predictive(chains, key=jr.key(1))
    assert list(new) == ["y"]
    spread = np.sqrt(1 + np.einsum("nd,de,ne->n", xs, np.linalg.inv(precision), xs))
    gap = new["y"].mean(axis=(0, 1)) - xs @ expected
    # 5.5 standard errors: a false alarm of 4e-8 each, five numbers.
    assert (np.abs(gap) < 5.5 * spread / np.sqrt(4000)).all()


def test_a_resumed_run_knows_its_inputs(tmp_path):
    _, _, xs, _ = numbers()
    options = {"key": jr.key(0), "chains": 1, "warmup": 0, "checkpoint": tmp_path}
    ed.sample(chain().given(x=xs[0]), ed.Gibbs(), draws=5, **options)
    with pytest.raises(ValueError, match="evidence"):
        ed.sample(chain().given(x=xs[1]), ed.Gibbs(), draws=9, **options)


def test_values_of_inputs_are_checked():
    _, _, xs, ys = numbers()
    ebm = chain()
    with pytest.raises(ValueError, match=r"inputs \['x'\] have no value.*log_partition\(ebm.given"):
        ed.log_partition(ebm)
    with pytest.raises(ValueError, match=r"input 'x' has no value.*ebm.given\(x=array\)"):
        ebm.energy({"y": ys[0]})
    with pytest.raises(ValueError, match=r"input 'x' has no value"):
        ebm.start(key=jr.key(0))
    with pytest.raises(ValueError, match=r"given got 'y'; the inputs are \['x'\]"):
        ebm.given(y=ys[0])
    with pytest.raises(ValueError, match=r"shape \(3,\); expected \(4, 3\)"):
        ebm.given(x=np.zeros(3))
    with pytest.raises(ValueError, match="NaN"):
        ebm.given(x=np.full((LENGTH, WIDTH), np.nan))
    with pytest.raises(ValueError, match=r"The data lacks \['x'\]"):
        ed.fit(ebm, ed.MaximumLikelihood(), {"y": ys}, key=jr.key(0))
    with pytest.raises(ValueError, match=r"examples of each|as many of each"):
        ed.fit(ebm, ed.MaximumLikelihood(), {"x": xs[:2], "y": ys}, key=jr.key(0))
    with pytest.raises(TypeError, match="log_z and data with inputs"):
        ed.log_likelihood(ebm, {"x": xs, "y": ys}, log_z=ed.LogZ.exact(1.0))
    with pytest.raises(TypeError, match="start='persistent' and data with inputs"):
        ed.fit(ebm, ed.ContrastiveDivergence(start="persistent"), {"x": xs, "y": ys}, key=jr.key(0))


def test_inputs_of_predictions_are_checked():
    _, _, xs, ys = numbers()
    ebm = chain()
    with pytest.raises(ValueError, match=r"inputs \['x'\] are missing"):
        ed.predict(ebm, {"y": ys})
    with pytest.raises(ValueError, match=r"shape \(4, 3\); expected \(examples, 4, 3\)"):
        ed.predict(ebm, xs[0])
    with pytest.raises(ValueError, match="at least one"):
        ed.predict(ebm, xs[:0])
    with pytest.raises(ValueError, match="answer='mod'"):
        ed.predict(ebm, xs, "mod")
    with pytest.raises(TypeError, match="without inputs"):
        ed.predict(ed.compile(ed.Model(-ed.spin("s", 2).sum())), xs)
    narrow = ed.compile(ebm.model, budget=1)
    with pytest.raises(ed.IntractableError, match=r"predict has no exact answer.*ed.sample\(at"):
        ed.predict(narrow, xs)


def test_an_example_whose_law_does_not_exist_is_named():
    """The precision of y is its input."""
    x, y = ed.real("x", given=True), ed.real("y")
    ebm = ed.compile(ed.Model(x * y**2 / 2))
    good = ed.predict(ebm, np.array([1.0, 4.0]))["y"]
    np.testing.assert_allclose(good.variance, [1, 0.25], atol=1e-6)
    with pytest.raises(ValueError, match="inputs of example 1 does not exist"):
        ed.predict(ebm, np.array([1.0, -4.0, 2.0]))
    with pytest.raises(ValueError, match="given the inputs of example 2"):
        ed.log_likelihood(ebm, {"x": np.array([1.0, 2.0, -1.0]), "y": np.zeros(3)})


def test_states_that_differ_between_examples_are_refused():
    class Remembers(ed.AbstractObjective):
        def check(self, ebm, data):
            assert set(data) == {"y"} and not ebm.model.missing_inputs

        def init(self, ebm, data, *, key):
            return jnp.zeros(())

        def loss(self, ebm, batch, state, *, key):
            value = jnp.mean(jax.vmap(ebm.energy)(batch))
            return value, (value, {})

    _, _, xs, ys = numbers()
    with pytest.raises(ValueError, match="out_axes"):
        ed.fit(chain(), Remembers(), {"x": xs, "y": ys}, key=jr.key(0), steps=2, progress=False)


def test_an_answer_that_does_not_exist_is_told():
    """Where an input is 1, every label of its site is forbidden; the other site has a law."""
    x, y = ed.binary("x", 2, given=True), ed.categorical("y", 2, levels=3)
    ebm = ed.compile(ed.Model(ed.Table([[0, 1, 2], [np.inf] * 3])(x, y).sum()))
    zeros = np.zeros((2, 2), int)
    np.testing.assert_array_equal(ed.predict(ebm, zeros, "mode")["y"], zeros)
    for answer in ("mode", "marginals"):
        with pytest.raises(ValueError, match="inputs of example 1 does not exist"):
            ed.predict(ebm, np.array([[0, 0], [0, 1], [0, 0]]), answer)
