"""Which densities are taken for normalised, and over which domains they may stand."""

import flowjax.bijections as bijections
import flowjax.distributions as flows
import flowjax.flows
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest

import energydsl as ed
from energydsl.language.domain import Count, PositiveDefinite, Real
from energydsl.language.potential.density import is_density

PLAIN = flows.Normal(jnp.zeros(2))
FLOWS = [
    "block_neural_autoregressive_flow",
    "coupling_flow",
    "masked_autoregressive_flow",
    "planar_flow",
    "triangular_spline_flow",
]


@pytest.mark.parametrize(
    "name", [*FLOWS[:2], *(pytest.param(f, marks=pytest.mark.slow) for f in FLOWS[2:])]
)
def test_flows_of_listed_bijections_are_normalised(name):
    flow = getattr(flowjax.flows, name)(jr.key(0), base_dist=PLAIN)
    assert is_density(flow, Real(), (2,))
    x = ed.real("x", 2)
    assert ed.log_partition(ed.compile(ed.Model(ed.LogDensity(flow)(x)))) == 0.0


class Halved(bijections.AbstractBijection):
    """Onto the positive half, and its log-determinant left out."""

    shape: tuple[int, ...] = (2,)
    cond_shape: None = None

    def transform_and_log_det(self, x, condition=None):
        return jnp.exp(x), jnp.zeros(())

    def inverse_and_log_det(self, y, condition=None):
        return jnp.log(y), jnp.zeros(())


class Stretched(bijections.Affine):
    """A subclass, whose methods may be others."""


def squared(x):
    return x**2


def bnaf(activation):
    make = flowjax.flows.block_neural_autoregressive_flow
    return make(jr.key(0), base_dist=PLAIN, activation=activation)


UNKNOWN = {
    "a bijection of a user's own": lambda: flows.Transformed(PLAIN, Halved()),
    "inside a chain": lambda: flows.Transformed(PLAIN, bijections.Chain([Halved()])),
    "inside an inverse": lambda: flows.Transformed(PLAIN, bijections.Invert(Halved())),
    "a subclass": lambda: flows.Transformed(PLAIN, Stretched(jnp.zeros(2))),
    "in a coupling": lambda: flowjax.flows.coupling_flow(
        jr.key(0), base_dist=PLAIN, transformer=Stretched()
    ),
    "an activation of a user's own": lambda: bnaf(squared),
    "an activation that ends": lambda: bnaf(bijections.Tanh()),
    "an inverter of a user's own": lambda: flows.Transformed(
        PLAIN,
        bijections.NumericalInverse(bijections.Affine(jnp.zeros(2)), lambda b, y, c: y),
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_listed_is_not_taken_for_normalised(name):
    assert not is_density(UNKNOWN[name](), Real(), (2,))


def test_counts_and_matrices_have_densities_of_their_own():
    assert is_density(dist.Poisson(2.0), Count(), (3,))
    assert not is_density(dist.Poisson(2.0), Real(), (3,))
    wishart = dist.Wishart(5.0, jnp.eye(2))
    assert is_density(wishart, PositiveDefinite(), (2, 2))
    assert not is_density(dist.Binomial(3, 0.5), Count(), ())
    n, k = ed.count("n", 3), ed.integer("k", 3, low=0, high=4)
    poisson = ed.LogDensity(dist.Poisson)
    assert ed.log_partition(ed.compile(ed.Model(poisson(n, 2.0)))) == 0.0
    # Cut off at four, it is not normalised.
    cut = 3 * np.log(np.exp(-2.0) * sum(2.0**j / np.prod(range(1, j + 1)) for j in range(5)))
    found = ed.log_partition(ed.compile(ed.Model(poisson(k, 2.0))))
    np.testing.assert_allclose(found, cut, rtol=1e-6)  # the rate is a float32


def test_bernoulli_is_normalised_over_any_two_levels_from_zero():
    for view in (ed.binary("b"), ed.categorical("c", levels=2), ed.integer("n", low=0, high=1)):
        ebm = ed.compile(ed.Model(ed.LogDensity(dist.BernoulliProbs)(view, 0.3)))
        assert "normalised" in str(ebm.normalizer)


def test_a_categorical_is_normalised_over_whatever_counts_its_levels_from_zero():
    categorical, logits = ed.LogDensity(dist.CategoricalLogits), np.array([0.3, -1.0, 0.2, 0.5])
    for view in (ed.categorical("c", 2, levels=4)[::-1], ed.integer("n", 2, low=0, high=3)):
        ebm = ed.compile(ed.Model(categorical(view, logits)))
        assert "normalised" in str(ebm.normalizer)
        np.testing.assert_allclose(
            np.exp(-ebm.energy({ebm.model.variables[0].name: [1, 3]})),
            np.exp(logits)[[1, 3]].prod() / np.exp(logits).sum() ** 2,
            rtol=1e-5,
        )  # float32
    with pytest.raises(ValueError, match="levels that count from 0"):
        categorical(ed.integer("m", low=1, high=4), logits)


X, S = ed.real("x", 3), ed.spin("s", 3)
C, U = ed.categorical("c", 4, levels=2), ed.interval("u", 2, low=0.0, high=2.0)
N, W = ed.count("n", 2), ed.simplex("w", 3)
MISPLACED = [
    (lambda: ed.LogDensity(dist.HalfNormal(1.0))(X), "x, which is real, for HalfNormal.*positive"),
    (lambda: ed.LogDensity(dist.HalfNormal)(X, 1.0), "support is positive.*by ed.positive"),
    (lambda: ed.LogDensity(dist.Gamma(2.0, 1.0))(X[1:]), r"x\[1:\].*by ed.positive"),
    (lambda: ed.LogDensity(dist.Exponential)(X), "Exponential.*by ed.positive"),
    (lambda: ed.LogDensity(dist.Uniform(0.0, 1.0))(X), r"interval\(low=0, high=1\)"),
    (lambda: ed.LogDensity(dist.Uniform)(U, 0.0, 1.0), r"support is \[0, 1\]"),
    (lambda: ed.LogDensity(dist.Beta(2.0, 2.0))(U), r"interval\(low=0, high=1\)"),
    (lambda: ed.LogDensity(dist.Poisson(2.0))(X), r"\{0, 1, 2, ...\}.*by ed.count"),
    (lambda: ed.LogDensity(dist.Normal)(S), "s, which is spin, for Normal.*by ed.real"),
    (lambda: ed.LogDensity(dist.Normal())(C), "categorical.*by ed.real"),
    (lambda: ed.LogDensity(dist.BernoulliLogits)(S, 0.0), r"\{0, 1\}.*by ed.binary"),
    (lambda: ed.LogDensity(dist.Binomial(3, 0.5))(N), r"ed.integer\(low=0, high=3\)"),
    (lambda: ed.LogDensity(dist.Dirichlet(jnp.ones(3)))(X), "by ed.simplex"),
    (lambda: ed.LogDensity(dist.VonMises(0.0, 1.0))(X), "low=-math.pi"),
    (
        lambda: ed.LogDensity(dist.CategoricalLogits)(C[:2], logits=jnp.zeros(3)),
        r"3 numbers.*c\[:2\].*one number for each level",
    ),
    (lambda: ed.LogDensity(dist.CategoricalLogits)(X, logits=jnp.zeros(3)), "3 numbers"),
]


@pytest.mark.parametrize(("declare", "message"), MISPLACED, ids=range(len(MISPLACED)))
def test_a_density_whose_support_is_not_the_domain_is_refused(declare, message):
    with pytest.raises(ValueError, match=message):
        declare()


@pytest.mark.parametrize(
    "declare",
    [
        lambda: ed.LogDensity(dist.Normal)(U),
        lambda: ed.LogDensity(dist.Normal)(W),
        lambda: ed.LogDensity(dist.Uniform(-1.0, 2.0))(U),
        lambda: ed.LogDensity(dist.Uniform)(U, 0.0, X[0]),
        lambda: ed.LogDensity(dist.Poisson(2.0))(S[:1] * 0.0),
        lambda: ed.LogDensity(dist.Gamma(2.0, 1.0))(ed.exp(X)),
        lambda: ed.LogDensity(dist.TruncatedNormal(0.0, 1.0, low=-1.0))(U),
        lambda: ed.LogDensity(dist.MultivariateNormal(jnp.zeros(3), jnp.eye(3)))(X),
    ],
    ids=range(8),
)
def test_a_domain_inside_the_support_is_taken(declare):
    declare()
