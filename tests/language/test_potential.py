"""Potentials against the formulas in their docstrings."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import paramax
import pytest
from scipy.stats import multivariate_normal, norm

import energydsl as ed

RNG = np.random.default_rng(3)


def energy(expression, **arrays):
    return float(ed.Model(expression).energy(arrays))


def test_linear_is_a_field():
    bias, x = RNG.normal(size=(2, 3)), RNG.normal(size=(2, 3))
    found = energy(ed.Linear(bias)(ed.real("x", (2, 3))), x=x)
    np.testing.assert_allclose(found, (bias * x).sum(), rtol=1e-5)


def test_coupling_is_a_bilinear_form():
    weight, x, y = RNG.normal(size=(2, 3)), RNG.normal(size=2), RNG.normal(size=3)
    found = energy(ed.Coupling(weight)(ed.real("x", 2), ed.real("y", 3)), x=x, y=y)
    np.testing.assert_allclose(found, -x @ weight @ y, rtol=1e-5)


def test_quadratic_is_the_energy_of_a_gaussian():
    root, b, x = RNG.normal(size=(3, 3)), RNG.normal(size=3), RNG.normal(size=3)
    precision = root @ root.T + np.eye(3)
    view = ed.real("x", 3)
    found = energy(ed.Quadratic(precision, b)(view), x=x)
    np.testing.assert_allclose(found, x @ precision @ x / 2 - b @ x, rtol=1e-5)
    assert ed.compile(ed.Model(ed.Quadratic(precision)(view))).structure.quadratic


def test_transparent_potentials_show_who_interacts():
    x, y = ed.binary("x", 2), ed.binary("y", 3)
    ebm = ed.compile(ed.Model(ed.Coupling(np.ones((2, 3)))(x, y) + ed.Linear(np.ones(2))(x)))
    assert len(ebm.structure.edges) == 6
    assert ebm.structure.sides is not None


FINITE = [
    ed.spin("a", 3),
    ed.binary("a", 3),
    ed.categorical("a", 3, levels=4),
    ed.integer("a", 3, low=-2, high=1),
    ed.integer("a", 3, low=5, high=5),
]


@pytest.mark.parametrize("view", FINITE, ids=lambda v: str(v.variable.domain))
@pytest.mark.parametrize("batched", [False, True])
def test_a_table_is_read_at_the_levels(view, batched):
    domain = view.variable.domain
    n = domain.levels
    table = RNG.normal(size=((3,) if batched else ()) + (n, 2))
    bits = ed.binary("b", 3)
    levels, other = RNG.integers(n, size=3), RNG.integers(2, size=3)
    values = {"a": domain.values[levels], "b": other}
    rows = table if batched else np.broadcast_to(table, (3, n, 2))
    expected = rows[np.arange(3), levels, other].sum()
    found = energy(ed.Table(table)(view, bits).sum(), **values)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    minus = energy(ed.Table(log_potential=table)(view, bits).sum(), **values)
    np.testing.assert_allclose(minus, -expected, rtol=1e-5)


def test_a_table_of_integers_is_an_energy_like_any_other():
    c = ed.categorical("c", 2, levels=2)
    model = ed.Model(ed.Table([[0, 1], [2, 5]])(c[0], c[1]))
    found = model.energy({"c": [1, 1]})
    assert found == 5.0
    assert found.dtype == np.float32
    assert model.parameter_count == 4


def test_a_table_forbids_by_minus_infinite_log_potentials():
    c = ed.binary("c", 2)
    exclusive = np.array([[0.0, 0.0], [0.0, -np.inf]])
    model = ed.Model(ed.Table(log_potential=exclusive)(c[0], c[1]) + 0.0 * c.sum())
    assert model.energy({"c": [1, 1]}) == np.inf
    np.testing.assert_allclose(ed.log_partition(ed.compile(model)), np.log(3), rtol=1e-12)


def test_a_wrapped_table_stays_wrapped_on_either_sign():
    c = ed.binary("c", 2)
    for sign, keyword in ((1, "energy"), (-1, "log_potential")):
        inside = ed.Table(**{keyword: ed.fixed(np.ones((2, 2)))})
        outside = ed.fixed(ed.Table(**{keyword: np.ones((2, 2))}))
        for table in (inside, outside):
            model = ed.Model(table(c[0], c[1]))
            assert model.parameter_count == 0
            assert model.energy({"c": [0, 1]}) == sign
    positive = paramax.Parameterize(jnp.exp, jnp.zeros(2))
    model = ed.Model(ed.Table(log_potential=positive)(c[0]))
    assert model.energy({"c": [0, 1]}) == -1.0
    slope = eqx.filter_grad(lambda m: m.energy({"c": [1, 0]}))(model)
    np.testing.assert_allclose(jax.tree.leaves(slope.parameters)[0], [0, -1])


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ("ed.Table()", ValueError, "either energy= or log_potential=, one of the two"),
        ("ed.Table([0.0], log_potential=[0.0])", ValueError, "one of the two"),
        ("ed.Table([0.0, -np.inf])", ValueError, "energy of -inf.*forbid the others"),
        ("ed.Table(log_potential=[0.0, np.inf])", ValueError, "energy of -inf"),
        ("ed.Table([0.0, np.nan])(s)", ValueError, r"shape \(2,\) has nan at \(1,\)"),
        ("ed.Table(np.zeros((2, 3)))(s, s)", ValueError, r"\(2, 3\) was called on 2 views with"),
        ("ed.Table(np.zeros(2))(s, s)", ValueError, r"its last axes must be \(2, 2\)"),
        ("ed.Table(np.zeros((4, 2)))(s)", ValueError, r"do not broadcast"),
        ("ed.Table(np.zeros(2))(2 * s)", TypeError, r"Expected a variable.* got 2 \* s"),
        ("ed.Table(np.zeros(2))(x)", TypeError, "of domain real; expected a view of a finite"),
        ("ed.Table(np.zeros(2))(3)", TypeError, "Expected a variable or a view of one"),
        ("ed.LogDensity(3)", TypeError, "LogDensity got int, which has no log_prob"),
        ("ed.LogDensity(dist.Bernoulli)(s)", TypeError, "got no param.*either probs= or logits="),
        ("ed.LogDensity(dist.Bernoulli)(s, 0.3, 0.1)", TypeError, "got probs, logits; expected ei"),
        ("ed.LogDensity(dist.Bernoulli)(s, mean=0.3)", TypeError, "unexpected .*'mean'"),
        (
            "ed.LogDensity(dist.RelaxedBernoulli)(x, 1.0, 0.3)",
            TypeError,
            "has no probs=; .*logits=",
        ),
        (
            "ed.LogDensity(dist.TruncatedNormal)",
            TypeError,
            "TruncatedNormal, which has no log_prob",
        ),
        ("ed.LogDensity(dist.Normal(0, 1))(x, x)", TypeError, "has its parameters already"),
        ("ed.LogDensity(dist.Normal)(x, 0, 1, 2)", TypeError, "too many .* Expected loc, scale"),
        ("ed.LogDensity(dist.Normal)(x, rate=x)", TypeError, "keyword argument 'rate'"),
        ("ed.LogDensity(dist.Gamma)(t)", TypeError, "missing .*'concentration'"),
        ("ed.LogDensity(dist.Normal)(x, validate_args=True)", TypeError, "got validate_args; exp"),
        ("ed.LogDensity(dist.Normal)(x, 0, x)", ValueError, "x, which is real, for Normal's scale"),
        ("ed.LogDensity(dist.Normal)(x, 0, s)", ValueError, "s, which is spin, for Normal's sca"),
        ("ed.LogDensity(dist.Normal)(x, 0, -1)", ValueError, r"-1 for Normal's scale; .*Positive"),
        (
            "ed.LogDensity(dist.CategoricalLogits)(c, np.zeros(3))",
            ValueError,
            "3 numbers along .* c",
        ),
        (
            "ed.LogDensity(dist.Categorical(np.ones(2) / 2))(s)",
            ValueError,
            "levels that count from",
        ),
        ("ed.LogDensity(dist.Normal(np.zeros(2), 1))(x)", ValueError, r"do not broadcast"),
        ("ed.LogDensity(dist.Dirichlet(np.ones(3)))(s[0])", ValueError, "by ed.simplex"),
        ("ed.Neural(3)", TypeError, "Neural got int; expected a callable"),
        ("ed.Model(ed.Neural(lambda v: v)(x))", ValueError, r"energy of shape \(3,\); expected a"),
        ("ed.Model(ed.Neural(lambda v: v > 0)(x))", ValueError, "out_size='scalar'"),
        ("ed.Neural(lambda v: (v.sum(), 0))(x)", TypeError, "returned tuple"),
        ("ed.Coupling(np.ones((2, 2)))(x, s)", ValueError, r"@ got shapes \(3,\) and \(2, 2\)"),
        ("ed.Linear(np.ones(4))(x)", ValueError, "do not broadcast"),
        ("ed.Linear(np.array([0, np.nan, 0]))(x)", ValueError, "has nan"),
    ],
)
def test_a_mistake_is_caught_where_it_is_written(untyped, wrong, error, message):
    names = {"ed": ed, "np": np, "dist": dist}
    names |= {"s": ed.spin("s", 3), "x": ed.real("x", 3), "t": ed.positive("t", 3)}
    names["c"] = ed.categorical("c", 3, levels=2)
    with pytest.raises(error, match=message):
        eval(wrong, names)


def test_nan_in_a_network_is_refused():
    network = eqx.nn.Linear(3, "scalar", key=jr.key(0))
    broken = eqx.tree_at(lambda m: m.weight, network, jnp.full((1, 3), jnp.nan))
    with pytest.raises(ValueError, match=r"Neural\[Linear\], of shape \(1, 3\), has NaN"):
        ed.Neural(broken)(ed.real("x", 3))


FAMILIES = [
    (dist.Normal(0.3, 1.5), ed.real("x", 4)),
    (dist.Normal(jnp.array([0.0, 1.0, 2.0, 3.0]), 0.5), ed.real("x", 4)),
    (dist.Normal(jnp.zeros((3, 1)), jnp.ones(4)), ed.real("x", (3, 4))),
    (dist.Laplace(0.0, 2.0), ed.real("x", 4)),
    (dist.StudentT(3.0, 0.0, 1.0), ed.real("x", 4)),
    (dist.Gamma(2.0, 3.0), ed.positive("x", 4)),
    (dist.LogNormal(0.0, 1.0), ed.positive("x", 4)),
    (dist.Beta(2.0, 3.0), ed.interval("x", 4, low=0, high=1)),
    (dist.Uniform(0.0, 2.0), ed.interval("x", 4, low=0, high=2)),
    (dist.Bernoulli(probs=0.3), ed.binary("x", 4)),
    (dist.Bernoulli(logits=jnp.array([0.3, -1.0, 2.0, 0.0])), ed.binary("x", 4)),
    (dist.Categorical(probs=jnp.array([0.2, 0.3, 0.5])), ed.categorical("x", 4, levels=3)),
    (dist.Binomial(5, probs=0.4), ed.integer("x", 4, low=0, high=5)),
    (dist.Poisson(2.5), ed.integer("x", 4, low=0, high=30)),
    (dist.Dirichlet(jnp.array([1.0, 2.0, 3.0])), ed.simplex("x", (4, 3))),
    (dist.MultivariateNormal(jnp.zeros(3), jnp.eye(3) * 2), ed.real("x", (4, 3))),
    (dist.Normal(0.0, 1.0).expand([4]).to_event(1), ed.real("x", 4)),
]

SELDOM = 0, 3, 4, 6, 8, 13
"""The places of families whose shapes and domains others have, too; the slow tests have them."""


@pytest.mark.parametrize(
    ("q", "view"),
    [
        pytest.param(q, view, id=f"{type(q).__name__}{k}", marks=[pytest.mark.slow] * (k in SELDOM))
        for k, (q, view) in enumerate(FAMILIES)
    ],
)
def test_a_log_density_changes_sign(q, view):
    x = view.variable.domain.start(view.shape, key=jr.key(4))
    expected = -np.sum(q.log_prob(x))
    np.testing.assert_allclose(energy(ed.LogDensity(q)(view), x=x), expected, rtol=2e-5, atol=1e-5)


def test_a_plain_distribution_is_one_factor_a_site_with_parameters_that_are_learnt():
    x = ed.real("x", 3)
    loc = jnp.array([0.1, 0.2, 0.3])
    model = ed.Model(ed.LogDensity(dist.Normal(loc, jnp.ones(3)))(x) + ed.Linear(loc)(x))
    assert model.parameter_count == 6
    assert len(ed.compile(model).structure.edges) == 0
    slope = eqx.filter_grad(lambda m: m.energy({"x": jnp.full(3, 2.0)}))(model)
    # loc is one parameter, used twice: its slopes loc - x and x add.
    np.testing.assert_allclose(slope.parameters["Normal.loc"], loc, atol=1e-6)
    np.testing.assert_allclose(slope.parameters["Normal.scale"], 1 - (2 - loc) ** 2, atol=1e-5)
    numbers = ed.Model(ed.LogDensity(dist.Normal(0.0, 1.0))(x - ed.parameter("mu", loc)))
    assert numbers.parameter_count == 3


def test_a_family_called_on_arrays_has_data_and_on_parameters_learns():
    x, loc = ed.real("x", 3), np.array([0.1, 0.2, 0.3])
    q = ed.LogDensity(dist.Normal)
    assert ed.Model(q(x, loc, 1.0)).parameter_count == 0
    learnt = ed.Model(q(x, ed.parameter("mu", loc), ed.parameter("tau", 2.0)))
    assert list(learnt.parameters) == ["mu", "tau"]
    assert "Normal(x, mu, tau)" in str(learnt)
    with pytest.raises(ValueError, match=r"got tau, which is -1.0, for Normal's scale; .*ositive"):
        q(x, 0.0, ed.parameter("tau", -1.0))


def test_a_table_may_be_a_parameter():
    s, T = ed.spin("s", 2), ed.parameter("T", np.array([0.5, 2.0]))
    for sign, table in ((1, ed.Table(T)), (-1, ed.Table(log_potential=T))):
        model = ed.Model(table(s).sum())
        assert list(model.parameters) == ["T"]
        assert model.energy({"s": [-1, 1]}) == sign * 2.5


def test_a_log_density_is_fixed_like_any_potential():
    x = ed.real("x", 3)
    q = dist.Normal(jnp.zeros(3), jnp.ones(3))
    assert ed.Model(ed.LogDensity(q)(x)).parameter_count == 6
    for fixed in (ed.fixed(ed.LogDensity(q)), ed.LogDensity(ed.fixed(q))):
        model = ed.Model(fixed(x))
        assert model.parameter_count == 0
        np.testing.assert_allclose(model.energy({"x": np.zeros(3)}), 1.5 * np.log(2 * np.pi))


PLAIN = {
    f"{type(q).__name__}{k}": (q, view)
    for k, (q, view) in enumerate(FAMILIES)
    if q.get_args() and set(q.get_args()) == set(type(q).arg_constraints)
}


@pytest.mark.parametrize(("q", "view"), PLAIN.values(), ids=PLAIN)
def test_a_family_called_on_parameters_is_the_distribution(q, view):
    x = view.variable.domain.start(view.shape, key=jr.key(4))
    by_name = {n: getattr(q, n) for n in q.get_args()}
    found = energy(ed.LogDensity(type(q))(view, **by_name), x=x)
    np.testing.assert_allclose(found, -np.sum(q.log_prob(x)), rtol=2e-5, atol=1e-5)


EITHER = [
    (dist.Bernoulli, ed.binary("b", 4), {"probs": 0.3}),
    (dist.Bernoulli, ed.binary("b", 4), {"logits": -0.4}),
    (dist.Binomial, ed.integer("n", 4, low=0, high=5), {"total_count": 5, "logits": -0.4}),
    (dist.Categorical, ed.categorical("c", 4, levels=3), {"probs": np.array([0.2, 0.3, 0.5])}),
    (dist.Geometric, ed.count("n", 4), {"probs": 0.3}),
]


@pytest.mark.parametrize(("family", "view", "given"), EITHER)
def test_a_family_of_probabilities_or_logits_is_named_as_in_numpyro(family, view, given):
    x, q = np.array([0, 1, 1, 0]), family(**given)
    model = ed.Model(ed.LogDensity(family)(view, **given))
    np.testing.assert_allclose(
        model.energy({view.variable.name: x}), -q.log_prob(x).sum(), rtol=1e-5
    )
    assert model == ed.Model(ed.LogDensity(type(q))(view, **given))
    if "probs" in given:  # without a name, NumPyro takes probabilities
        assert model == ed.Model(ed.LogDensity(family)(view, *given.values()))


def test_a_family_s_parameters_may_be_variables():
    mu, tau, x = ed.real("mu"), ed.positive("tau"), ed.real("x", 4)
    normal = ed.LogDensity(dist.Normal)
    model = ed.Model(normal(x, mu, 0.5 + tau) + normal(mu, scale=3.0))
    assert str(model).startswith("Model: E = Normal(x, mu, 0.5 + tau).sum() + Normal(mu, 0, 3)")
    given = {"x": RNG.normal(size=4), "mu": np.float32(0.7), "tau": np.float32(1.2)}
    expected = -norm.logpdf(given["x"], 0.7, 1.7).sum() - norm.logpdf(0.7, 0, 3)
    np.testing.assert_allclose(model.energy(given), expected, rtol=1e-5)
    ebm = ed.compile(model)
    # Each x meets mu and tau, which meet each other.
    assert len(ebm.structure.edges) == 4 + 4 + 1
    law = ebm.conditional(mu, given)
    precision = 1 / 9 + 4 / 1.7**2
    np.testing.assert_allclose(law.scale, precision**-0.5, rtol=1e-5)
    np.testing.assert_allclose(law.loc, given["x"].sum() / 1.7**2 / precision, rtol=1e-5)


def test_a_parameter_looked_up_by_a_label_makes_a_mixture():
    x, k = ed.real("x", 3), ed.categorical("k", 3, levels=2)
    means, logits = jnp.array([-1.0, 2.0]), jnp.log(jnp.array([0.3, 0.7]))
    drawn = ed.LogDensity(dist.Normal)(x, ed.Table(means)(k), 0.5)
    model = ed.Model(drawn + ed.LogDensity(dist.CategoricalLogits)(k, logits))
    ebm = ed.compile(model)
    np.testing.assert_allclose(ed.log_partition(ebm), 0.0, atol=1e-6)
    held = ed.compile(model.condition(x=np.array([-1.0, 0.6, 3.0])))
    weights = np.array([0.3, 0.7]) * norm.pdf(np.array([[-1.0], [0.6], [3.0]]), means, 0.5)
    np.testing.assert_allclose(ed.log_partition(held), np.log(weights.sum(1)).sum(), rtol=1e-6)
    probs = held.conditional(k, held.start(key=jr.key(0))).probs
    np.testing.assert_allclose(probs, weights / weights.sum(1, keepdims=True), rtol=1e-4)


@pytest.mark.parametrize("wrap", [jax.jit, jax.grad, lambda f: jax.jit(jax.grad(f))])
def test_densities_may_be_declared_while_jax_traces(wrap):
    x, mu, tau = ed.real("x", 3), ed.real("mu"), ed.positive("tau")
    given = {"x": jnp.ones(3), "mu": jnp.asarray(0.5), "tau": jnp.asarray(2.0)}

    def at(a):
        density = ed.LogDensity(dist.Normal)(x, a * mu, tau) + ed.LogDensity(dist.Normal(0, 1))(mu)
        return ed.Model(density + ed.LogDensity(dist.HalfCauchy)(tau, a)).energy(given)

    def expected(a):
        law = dist.Normal(0.5 * a, 2.0).log_prob(jnp.ones(3)).sum()
        return -law - dist.Normal(0, 1).log_prob(0.5) - dist.HalfCauchy(a).log_prob(2.0)

    np.testing.assert_allclose(wrap(at)(1.5), wrap(expected)(1.5), rtol=1e-5)


def test_another_parametrisation_is_another_model():
    x = ed.real("x", 2)
    normal, matrix = ed.LogDensity(dist.MultivariateNormal), 2 * np.eye(2)
    models = [ed.Model(normal(x, **{n: matrix})) for n in ("precision_matrix", "scale_tril")]
    assert models[0] != models[1]
    assert "MultivariateNormal[precision_matrix](x, f32[2,2])" in str(models[0])
    expected = -multivariate_normal.logpdf([1.0, -2.0], np.zeros(2), np.eye(2) / 2)
    np.testing.assert_allclose(models[0].energy({"x": np.array([1.0, -2.0])}), expected, rtol=1e-5)


class Flow(eqx.Module):
    """What flows have: log_prob of one event, and arrays of their own."""

    scale: jax.Array

    def log_prob(self, x):
        return jnp.sum(-0.5 * (x / self.scale) ** 2 - jnp.log(self.scale))


def test_anything_with_log_prob_is_one_factor_over_the_view():
    x = ed.real("x", 3)
    model = ed.Model(ed.LogDensity(Flow(jnp.full(3, 2.0)))(x))
    np.testing.assert_allclose(model.energy({"x": np.ones(3)}), 3 * (0.125 + np.log(2)), rtol=1e-6)
    assert model.parameter_count == 3
    assert len(ed.compile(model).structure.edges) == 3
    assert str(model).startswith("Model: E = LogDensity[Flow](x)")


def test_a_network_sees_all_its_views_at_once():
    network = eqx.nn.MLP(5, "scalar", 8, 1, key=jr.key(0))
    joined = ed.Neural(lambda y, s: network(jnp.concatenate([y, s])))
    y, s = ed.real("y", 2), ed.spin("s", 3)
    given = {"y": jnp.array([0.3, -0.2]), "s": jnp.array([1, -1, 1])}
    expected = network(jnp.concatenate([given["y"], given["s"]]))
    np.testing.assert_allclose(energy(joined(y, s), **given), expected, rtol=1e-6)

    model = ed.Model(ed.Neural(network)(ed.real("z", 5)))
    assert model.parameter_count == 5 * 8 + 8 + 8 + 1


class Cube(ed.AbstractPotential):
    """A potential of a user, on vectors."""

    event_ndims = (1,)

    weight: jax.Array

    def energy(self, x):
        return (self.weight * x**3).sum()


class Vector(Cube):
    def energy(self, x):
        return self.weight * x


def test_a_potential_of_ones_own_makes_a_batch_of_factors():
    x = ed.real("x", (4, 2))
    weight = jnp.array([0.5, -1.0])
    values = RNG.normal(size=(4, 2)).astype(np.float32)
    found = energy(Cube(weight)(x).sum(), x=values)
    np.testing.assert_allclose(found, (weight * values**3).sum(), rtol=1e-5)
    edges = ed.compile(ed.Model(Cube(weight)(x).sum())).structure.edges
    assert edges.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert ed.Model(Cube(ed.fixed(weight))(x).sum()).parameter_count == 0


def test_a_vector_from_one_event_is_refused():
    with pytest.raises(ValueError, match=r"Vector.energy returned an array of shape \(2,\)"):
        Vector(jnp.ones(2))(ed.real("x", (4, 2)))
    with pytest.raises(ValueError, match=r"got arguments of shapes .*; expected 1, of at least"):
        Cube(jnp.ones(2))(ed.real("x", (4, 2)), ed.real("y", (4, 2)))


class Rows(ed.AbstractPotential):
    """Reads the entries of its argument that a setting lists."""

    weight: jax.Array
    rows: object = eqx.field(static=True)

    def energy(self, x):
        return (self.weight * x[jnp.asarray(self.rows)]).sum()


class Holds(ed.AbstractPotential):
    """The sum of other potentials."""

    parts: list

    def energy(self, x):
        return sum(part.energy(x) for part in self.parts)


@pytest.mark.parametrize("kind", [tuple, list])
@pytest.mark.parametrize("count", [2, 40])
def test_potentials_of_one_class_may_have_different_settings(kind, count):
    s, rows = ed.spin("s", 5), [kind((k % 5, (k + 2) % 5)) for k in range(count)]
    weight = np.array([0.3, -0.2], np.float32)
    terms = [Rows(jnp.asarray((-1.0) ** k * weight), rows[k])(s) for k in range(count)]
    model = ed.Model(sum(terms))
    field = np.zeros(5)
    for k in range(count):
        np.add.at(field, list(rows[k]), (-1.0) ** k * weight)
    expected = np.logaddexp(field, -field).sum()
    np.testing.assert_allclose(ed.log_partition(ed.compile(model)), expected, rtol=1e-6)
    assert model == model.replace(Rows=model.parameters["Rows"])
    assert model != ed.Model(sum(terms[:-1], Rows(jnp.asarray(weight), kind((0, 1)))(s)))


@pytest.mark.filterwarnings("ignore:A JAX array is being set as static")
def test_an_array_as_a_setting_is_refused():
    rows = Rows(jnp.ones(2), np.array([0, 1]))
    for potential, name in ((rows, "Rows"), (Holds([rows]), "Holds")):
        with pytest.raises(TypeError, match=rf"{name} holds an array in a static field.*tuple"):
            potential(ed.spin("s", 5))
