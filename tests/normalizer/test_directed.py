import equinox as eqx
import flowjax.bijections as bijections
import flowjax.distributions as flows
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
from flowjax.flows import coupling_flow, masked_autoregressive_flow

import energydsl as ed
from tests.normalizer.rules import Logistic, applies, chosen, reason, value

PLAIN = flows.StandardNormal((2,))

NORMALISED = {
    "normal": (ed.real("x", 3), dist.Normal(0.5, 2.0)),
    "student": (ed.real("x"), dist.StudentT(3.0, 1.0, 2.0)),
    "gamma": (ed.positive("x", 2), dist.Gamma(2.0, 3.0)),
    "beta": (ed.interval("x", low=0.0, high=1.0), dist.Beta(2.0, 3.0)),
    "dirichlet": (ed.simplex("x", 3), dist.Dirichlet(jnp.array([2.0, 3.0, 4.0]))),
    "vector": (ed.real("x", 2), dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2) + 0.5)),
    "wrapped": (ed.real("x", 2), dist.Normal(jnp.zeros(2), 1.0).to_event(1)),
    "coupling flow": (ed.real("x", 2), coupling_flow(jr.key(0), base_dist=PLAIN)),
    "autoregressive": (ed.real("x", 2), masked_autoregressive_flow(jr.key(0), base_dist=PLAIN)),
}


@pytest.mark.parametrize("name", NORMALISED)
def test_a_normalised_density_has_log_z_zero(name):
    x, q = NORMALISED[name]
    ebm = ed.compile(ed.Model(ed.LogDensity(q)(x)))
    assert chosen(ebm) == {"normalised"}
    assert ed.log_partition(ebm) == 0.0


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("student", "gamma", "beta")]


@pytest.mark.parametrize("name", [*SLOW, "dirichlet", "vector"])
def test_quadrature_agrees(name):
    x, q = NORMALISED[name]
    ebm = ed.compile(ed.Model(ed.LogDensity(q)(x)))
    assert value(ebm, "quadrature") == pytest.approx(0.0, abs=1e-9)


def test_clamping_some_events_leaves_the_others():
    x = ed.real("x", 4)
    model = ed.Model(ed.LogDensity(dist.Normal(0.0, 1.0))(x)).condition({x[:2]: np.ones(2)})
    ebm = ed.compile(model)
    held = 2 * (-0.5 - np.log(2 * np.pi) / 2)
    assert ed.log_partition(ebm) == pytest.approx(held, rel=1e-6)


class Doubled(eqx.Module):
    """No density: its log_prob is twice one."""

    def log_prob(self, x):
        return 2 * dist.Normal(0.0, 1.0).log_prob(x)


def normal(x):
    return ed.LogDensity(dist.Normal(0.0, 1.0))(x)


def bernoulli(b):
    return ed.LogDensity(dist.BernoulliLogits)(b, 0.3)


X, P = ed.real("x", 2), ed.positive("p")
B, K, N = ed.binary("b"), ed.categorical("k", levels=3), ed.integer("n", low=0, high=3)
M = ed.integer("m", low=-300, high=400)
M, T, U = ed.real("m"), ed.real("t"), ed.interval("u", low=0.0, high=1.0)
GIVEN = ed.LogDensity(dist.Normal)
DIRECTED = {
    "a mean": (lambda: normal(M) + GIVEN(T, 2 * M - 1, 0.5), "quadrature"),
    "a walk": (lambda: normal(R[0]) + GIVEN(R[1:], 0.9 * R[:-1]), "gaussian"),
    "a mixture": (
        lambda: (
            ed.LogDensity(dist.CategoricalLogits)(K, np.array([0.3, -1.0, 0.2]))
            + GIVEN(X, ed.Table(np.array([-1.0, 0.0, 3.0]))(K), 0.7)
        ),
        "bipartite",
    ),
    "a coin of unknown bias": (
        lambda: ed.LogDensity(dist.Beta)(U, 2.0, 3.0) + ed.LogDensity(dist.BernoulliProbs)(C, U),
        "quadrature",
    ),
    "a scale": (
        lambda: ed.LogDensity(dist.Gamma)(P, 6.0, 2.0) + GIVEN(M, 0.0, ed.sqrt(P) / (P + P)),
        "quadrature",
    ),
    "a chain of bits": (
        lambda: (
            bernoulli(C[0])
            + ed.LogDensity(dist.BernoulliLogits)(C[1:], ed.Table(np.array([-1.0, 2.0]))(C[:-1]))
        ),
        "enumeration",
    ),
    "a vector": (
        lambda: (
            normal(M)
            + ed.LogDensity(dist.MultivariateNormal)(X, M * np.ones(2), np.array([[2, 1], [1, 3]]))
        ),
        "gaussian",
    ),
}
C, R = ed.binary("c", 4), ed.real("r", 5)
FOOLING = {
    "scaled by a parameter": lambda: jnp.asarray(2.0) * normal(X),
    "scaled by a number": lambda: 2 * normal(X),
    "scaled by one": lambda: 1.0 * normal(X),
    "the model scaled": lambda: (ed.Model(normal(X)) / 2).expression,
    "subtracted": lambda: 3 * normal(X) - normal(X),
    "averaged": lambda: ed.LogDensity(dist.Normal(0.0, 1.0))(X) / 2,
    "squared": lambda: normal(X[0]) ** 2 + normal(X[1]),
    "twice": lambda: normal(X) + normal(X),
    "twice by broadcasting": lambda: ed.LogDensity(dist.Normal(jnp.zeros((3, 2)), 1.0))(X),
    "repeated sites": lambda: normal(X[np.array([0, 0, 1])]),
    "one site in an event twice": lambda: ed.LogDensity(
        dist.MultivariateNormal(jnp.zeros(3), jnp.eye(3))
    )(X[np.array([0, 0, 1])]),
    "shared with a field": lambda: normal(X) + 0.5 * X.sum(),
    "of a function of the sites": lambda: normal(2 * X),
    "of another potential": lambda: normal(ed.Neural(jnp.sum)(X[:1])) + normal(X[1]),
    "truncated": lambda: normal(P),
    "its mean a variable": lambda: (
        ed.apply(lambda a, b: -dist.Normal(a, 1.0).log_prob(b), X[0], X[1]) + normal(X[0])
    ),
    "its mean not finite": lambda: (
        ed.LogDensity(dist.Normal)(X[0], 1 / M, 1.0) + 0.1 * M**2 + normal(X[1])
    ),
    "its scale of any sign": lambda: (
        ed.LogDensity(dist.Normal)(X[0], 0.0, X[1] * X[1]) + normal(X[1])
    ),
    "one given the other, both ways": lambda: (
        ed.LogDensity(dist.Laplace)(X[0], X[1]) + ed.LogDensity(dist.Laplace)(X[1], X[0])
    ),
    "in a ring": lambda: ed.LogDensity(dist.Laplace)(X, X[::-1]),
    "drawn twice": lambda: normal(X) + ed.LogDensity(dist.Normal)(X[1], X[0]),
    "a part of an event in a ring": lambda: (
        ed.LogDensity(dist.MultivariateNormal)(X, P * np.ones(2), np.eye(2))
        + ed.LogDensity(dist.Exponential)(P, ed.exp(X[1]))
    ),
    "probabilities that learning may move": lambda: (
        ed.LogDensity(dist.CategoricalProbs)(K, np.ones(3) / 3) + normal(X)
    ),
    "counts cut off": lambda: ed.LogDensity(dist.Poisson)(N, 2.0) + normal(X),
    "its mean itself": lambda: ed.LogDensity(dist.Laplace)(X, X),
    "truncated by NumPyro": lambda: ed.LogDensity(dist.TruncatedNormal(0.0, 1.0, low=0.0))(P),
    "negated": lambda: -ed.LogDensity(dist.Laplace(0.0, 1.0))(X),
    "doubled by its owner": lambda: ed.LogDensity(Doubled())(X),
    "broadcast inside": lambda: ed.LogDensity(dist.Normal(jnp.zeros((3, 2)), 1.0).to_event(1))(X),
    "a flow onto half the line": lambda: (
        ed.LogDensity(flows.Transformed(PLAIN, bijections.Chain([bijections.Exp((2,))])))(X)
        + normal(X)
    ),
    "a Gamma shifted by NumPyro": lambda: ed.LogDensity(
        dist.TransformedDistribution(
            dist.Gamma(2.0, 1.0), dist.transforms.AffineTransform(0.0, 1.0)
        )
    )(P),
}


@pytest.mark.parametrize("name", FOOLING)
def test_it_is_not_fooled(name):
    ebm = ed.compile(ed.Model(FOOLING[name]()))
    assert not applies(ebm, "normalised")
    assert "no site is drawn from one normalised conditional density" in reason(ebm, "normalised")


@pytest.mark.parametrize("name", DIRECTED)
def test_densities_given_others_have_log_z_zero_as_another_rule_finds(name):
    energy, other = DIRECTED[name]
    ebm = ed.compile(ed.Model(energy()))
    assert chosen(ebm) == {"normalised"}
    assert ed.log_partition(ebm) == 0.0
    assert value(ebm, other) == pytest.approx(0.0, abs=1e-6)


def test_labels_of_unknown_probabilities_have_log_z_zero():
    p, k = ed.simplex("p", 3), ed.categorical("k", 4, levels=3)
    drawn = ed.LogDensity(dist.CategoricalProbs)(k, p)
    model = ed.Model(ed.LogDensity(dist.Dirichlet)(p, jnp.array([2.0, 3.0, 4.0])) + drawn)
    assert chosen(ed.compile(model)) == {"normalised"}
    assert not applies(ed.compile(model.condition(k=np.array([0, 1, 2, 2]))), "normalised")


def test_held_parents_leave_their_children_normalised_and_held_children_do_not():
    mean, tau, x = ed.real("mean"), ed.positive("tau"), ed.real("x", 4)
    scale = ed.LogDensity(dist.HalfCauchy)(tau, 5.0)
    model = ed.Model(normal(mean) + scale + GIVEN(x, mean, tau))
    assert ed.log_partition(ed.compile(model)) == 0.0
    above = ed.compile(model.condition(mean=0.5))
    held = -0.125 - np.log(2 * np.pi) / 2
    assert ed.log_partition(above) == pytest.approx(held, rel=1e-6)
    assert not applies(ed.compile(model.condition(x=np.ones(4))), "normalised")


def test_part_of_an_event_clamped_is_no_density():
    model = ed.Model(ed.LogDensity(dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2) + 0.5))(X))
    assert not applies(ed.compile(model.condition({X[0]: 1.0})), "normalised")


@pytest.mark.parametrize(
    "q",
    [
        dist.Normal(jnp.zeros(2), 1.0).mask(False),
        dist.Normal(jnp.zeros(2), 1.0).mask(False).to_event(1),
        dist.Unit(jnp.zeros(2)),
        dist.Delta(jnp.zeros(2)),
        dist.ImproperUniform(dist.constraints.real, (), (2,)),
        dist.Normal(jnp.zeros((3, 2)), 1.0),
    ],
    ids=lambda q: type(q).__name__,
)
def test_other_distributions_are_not_taken(q):
    from energydsl.language.domain import Real
    from energydsl.language.potential.density import is_density

    assert is_density(dist.Normal(jnp.zeros(2), 1.0), Real(), (2,))
    assert not is_density(q, Real(), (2,))


def test_a_flow_whose_steps_leave_the_line_is_not_taken():
    from energydsl.language.domain import Real
    from energydsl.language.potential.density import is_density

    bent = flows.Transformed(PLAIN, bijections.SoftPlus((2,)))
    assert not is_density(bent, Real(), (2,))
    assert not is_density(flows.LogNormal(jnp.zeros(2)), Real(), (2,))
    hidden = coupling_flow(jr.key(0), base_dist=PLAIN, transformer=bijections.Affine())
    assert is_density(hidden, Real(), (2,))


def test_a_potential_of_the_users_own_may_claim_it():
    ebm = ed.compile(ed.Model(Logistic()(X).sum()))
    assert chosen(ebm) == {"normalised"}
    assert value(ebm, "quadrature") == pytest.approx(0.0, abs=1e-9)


def test_the_reason_names_parameters_that_need_not_meet_their_constraints():
    beta, y = ed.real("beta", 2), ed.binary("y", 3)
    prior = ed.LogDensity(dist.Normal)(beta, 0.0, 1.0)
    odds = ed.exp(np.arange(6.0).reshape(3, 2) @ beta)
    for probs, doubted in ((odds / (1 + odds), True), (1 / (1 + odds), False)):
        ebm = ed.compile(ed.Model(prior + ed.LogDensity(dist.Bernoulli)(y, probs=probs)))
        assert applies(ebm, "normalised") != doubted
        if doubted:
            told = reason(ebm, "normalised")
            assert "BernoulliProbs always has probs in [0, 1]; give logits=" in told


def test_parameters_of_densities_may_be_outputs_of_networks():
    z, x = ed.real("z", 3), ed.binary("x", 5)
    network = eqx.nn.MLP(3, 5, 4, 1, key=jr.key(0))
    prior = ed.LogDensity(dist.Normal)(z, 0.0, 1.0)
    ebm = ed.compile(
        ed.Model(prior + ed.LogDensity(dist.Bernoulli)(x, logits=ed.Neural(network)(z)))
    )
    assert applies(ebm, "normalised")
    values = {"z": jnp.array([0.5, -1, 2]), "x": jnp.array([0, 1, 1, 0, 1])}
    expected = dist.Normal(0, 1).log_prob(values["z"]).sum()
    expected += dist.BernoulliLogits(network(values["z"])).log_prob(values["x"]).sum()
    np.testing.assert_allclose(ebm.log_prob(values), expected, rtol=1e-5)
    drawn = ed.sample(ebm, ed.ExactDraws(), key=jr.key(1), chains=2, warmup=0, draws=2000).draws
    logits = jax.vmap(network)(jnp.asarray(drawn["z"].reshape(-1, 3)))
    off = drawn["x"].reshape(-1, 5) - jax.nn.sigmoid(logits)
    spread = np.sqrt(np.mean(jax.nn.sigmoid(logits) * jax.nn.sigmoid(-logits), axis=0) / len(off))
    assert (np.abs(np.mean(off, axis=0)) < 5.5 * spread).all()
