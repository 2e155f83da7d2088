"""Leaves of normalised densities integrate to 1: the rest against NumPy's sums and SciPy."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats

import energydsl as ed
from tests.normalizer.rules import Logistic, chosen
from tests.oracles.enumerate import chisquare_pvalue, count_states, exact_law

FALSE_ALARM = 1e-6
RNG = np.random.default_rng(11)
W, U = RNG.normal(size=(2, 3)), RNG.normal(size=(3, 4))
B, H, V = ed.binary("b", 2), ed.binary("h", 3), ed.binary("v", 4)
X, R, Y = ed.real("x", 2), ed.real("r", 3), ed.real("y", 3)
M, P, K = ed.real("m"), ed.positive("p"), ed.categorical("k", levels=3)
NORMAL, BERNOULLI = ed.LogDensity(dist.Normal), ed.LogDensity(dist.BernoulliLogits)
GAMMA = ed.LogDensity(dist.Gamma)


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def net():
    """A deep belief net: a machine of two layers on top, and a layer drawn from the lower one."""
    return ed.Model(-(B @ W @ H) - 0.3 * H.sum()) + BERNOULLI(V, H @ U)


def blurred():
    """The same with real sites that no other rule integrates out."""
    return ed.Model(-(B @ W @ H) - 0.3 * H.sum()) + ed.LogDensity(dist.Laplace)(Y, H)


def states(n):
    return (np.arange(2**n)[:, None] >> np.arange(n)) & 1


def hidden_law():
    """The states of the net's hidden layer, their probabilities, and log Z."""
    h = states(3)
    weight = np.exp(0.3 * h.sum(1)) * np.prod(1 + np.exp(h @ W.T), axis=1)
    return h, weight / weight.sum(), np.log(weight.sum())


def test_log_z_of_a_deep_belief_net_is_that_of_its_top():
    ebm = ed.compile(net())
    assert ed.log_partition(ebm) == pytest.approx(hidden_law()[2], rel=1e-6)
    assert ebm.normalizer.kind == "exact"
    told = "beside the normalised leaf v, which integrates to 1"
    assert told in str(ebm.normalizer)
    assert "bipartite of 1 component" in str(ebm.normalizer)
    assert told in ebm.explain().as_dict()["components"][0]["rule"]


def test_marginals_are_those_of_the_rest_and_the_leaves_are_said_to_be_missing():
    found = ed.marginals(ed.compile(blurred()))
    h, share, _ = hidden_law()
    np.testing.assert_allclose(found["h"].mean, share @ h, rtol=1e-6)
    assert set(found) == {"b", "h"}
    assert found.missing == ("y",)
    assert "y" not in found
    with pytest.raises(ed.IntractableError, match="'y' have no exact value"):
        found["y"]


def test_marginals_of_all_sites_are_given_where_another_rule_has_them():
    found = ed.marginals(ed.compile(net()))
    h, share, _ = hidden_law()
    assert found.missing == ()
    np.testing.assert_allclose(found["v"].mean, share @ sigmoid(h @ U), rtol=1e-6)


def test_a_mode_is_refused_since_that_of_the_rest_need_not_belong_to_it():
    with pytest.raises(ed.IntractableError, match="the parents would have to be summed out"):
        ed.map_configuration(ed.compile(blurred()))


def drawn_from(ebm, count, seed):
    """Independent draws, by variable."""
    found = ed.sample(
        ebm, ed.ExactDraws(), key=jr.key(seed), chains=1, warmup=0, draws=count, progress=False
    )
    return {name: values[0] for name, values in found.draws.items()}


def test_draws_are_ancestral():
    ebm = ed.compile(net(), budget=3)
    assert "normalised leaf v" in str(ebm.conclusions.survey.choose("draw"))
    h, share, _ = hidden_law()
    lit = sigmoid(h @ U)
    law = [
        s * np.prod(np.where(v, p, 1 - p))
        for s, p in zip(share, lit, strict=True)
        for v in states(4)
    ]
    count = 20_000
    drawn = drawn_from(ebm, count, 0)
    number = drawn["h"] @ [16, 32, 64] + drawn["v"] @ [1, 2, 4, 8]
    assert chisquare_pvalue(np.bincount(number, minlength=128), np.array(law), count) > FALSE_ALARM


def test_draws_of_a_chain_of_leaves_follow_their_parents_of_the_same_draw():
    walk = ed.real("walk", 6)
    model = NORMAL(walk[0], 0.0, 100.0) + NORMAL(walk[1:], walk[:-1], 1.0)
    ebm = ed.compile(ed.Model(model))
    assert "normalised" in str(ebm.conclusions.survey.choose("draw"))
    steps = np.diff(drawn_from(ebm, 4000, 2)["walk"], axis=1)
    assert scipy.stats.kstest(steps.ravel(), "norm").pvalue > FALSE_ALARM
    # Five independent steps: the last site is 5 away from the first in variance.
    assert scipy.stats.kstest(steps.sum(axis=1) / np.sqrt(5), "norm").pvalue > FALSE_ALARM


@pytest.mark.slow
def test_leaves_of_leaves_and_of_real_sites_go_one_after_another():
    quadratic = (R**2).sum() + 0.5 * R[0] * R[1] - R[2]
    model = ed.Model(
        quadratic + NORMAL(Y, R, 2.0) + GAMMA(P, 2.0, ed.exp(Y[0])) + NORMAL(X, Y[1] / 2, P)
    )
    ebm = ed.compile(model)
    precision = np.array([[2, 0.5, 0], [0.5, 2, 0], [0, 0, 2]])
    exact = 1.5 * np.log(2 * np.pi) - np.log(np.linalg.det(precision)) / 2 + 0.25
    assert ed.log_partition(ebm) == pytest.approx(exact, rel=1e-6)
    assert chosen(ebm) == {"gaussian", "normalised"}
    assert "the normalised leaves" in str(ebm.normalizer)
    drawn = drawn_from(ebm, 4000, 1)
    spread = scipy.stats.norm(0.5, np.sqrt(0.5 + 4))
    assert scipy.stats.kstest(drawn["y"][:, 2], spread.cdf).pvalue > FALSE_ALARM
    rate = np.exp(drawn["y"][:, 0].astype(float))
    assert scipy.stats.kstest(drawn["p"] * rate, "gamma", (2.0,)).pvalue > FALSE_ALARM
    noise = (drawn["x"] - drawn["y"][:, 1:2] / 2) / drawn["p"][:, None]
    assert scipy.stats.kstest(noise.ravel(), "norm").pvalue > FALSE_ALARM


@pytest.mark.slow
def test_evidence_keeps_its_parents_and_leaves_their_other_children():
    ebm = ed.compile(net().condition({V[:2]: np.array([1, 0])}), budget=4)
    h, share, log_z = hidden_law()
    lit = sigmoid(h @ U)
    joint = share * lit[:, 0] * (1 - lit[:, 1])
    assert ed.log_partition(ebm) == pytest.approx(log_z + np.log(joint.sum()), rel=1e-6)
    assert "normalised leaf v" in str(ebm.conclusions.survey.choose("draw"))
    drawn = drawn_from(ebm, 4000, 2)["v"]
    assert (drawn[:, :2] == [1, 0]).all()
    law = (joint / joint.sum()) @ np.stack(
        [np.prod(np.where(v, lit[:, 2:], 1 - lit[:, 2:]), axis=1) for v in states(2)], axis=1
    )
    counts = np.bincount(drawn[:, 2:] @ [1, 2], minlength=4)
    assert chisquare_pvalue(counts, law, 4000) > FALSE_ALARM


def test_clamped_parents_are_no_part_of_the_rest():
    ebm = ed.compile(net().condition(h=np.array([1, 0, 1])))
    b = np.log1p(np.exp(W @ [1, 0, 1])).sum()
    assert ed.log_partition(ebm) == pytest.approx(b + 0.6, rel=1e-6)


def test_parents_left_without_a_factor_are_uniform():
    ebm = ed.compile(ed.Model(NORMAL(X, ed.Table(np.array([0.0, 1.0, 5.0]))(K), 1.0)))
    assert ed.log_partition(ebm) == pytest.approx(np.log(3))
    assert "independent of 1 component" in str(ebm.normalizer)


def test_a_real_parent_left_without_a_factor_is_improper():
    ebm = ed.compile(ed.Model(ed.LogDensity(dist.Laplace)(X, M)))
    assert "normalised leaf x" in str(ebm.normalizer)
    with pytest.raises(ValueError, match="not positive definite"):
        ed.log_partition(ebm)


def test_the_part_that_remains_is_not_evaluated_with_the_whole_energy():
    """A machine of two layers is evaluated as a whole only if it is the whole model."""
    field = ed.Model(-(B @ W @ H)) + NORMAL(Y, 3.0 * H, 1.0)
    ebm = ed.compile(field)
    log_z = np.log(np.prod(1 + np.exp(states(3) @ W.T), axis=1).sum())
    assert ed.log_partition(ebm) == pytest.approx(log_z, rel=1e-6)
    assert chosen(ebm) == {"bipartite", "normalised"}


def test_a_refusal_names_the_leaves_and_the_rest():
    s = ed.spin("s", (9, 9))
    glass = -(s[1:] * s[:-1]).sum() - (s[:, 1:] * s[:, :-1]).sum() - 0.1 * s.sum()
    y = ed.real("y", (9, 9))
    ebm = ed.compile(ed.Model(glass + NORMAL(y, s, 1.0)), budget=5)
    reason = ebm.explain().as_dict()["rules_refused"]["normalised"]
    assert reason.startswith("beside the normalised leaf y, which integrates to 1, no rule applies")
    assert "81 sites" in reason
    assert "budget 2^5" in reason


def test_without_draws_of_a_leaf_the_rest_keeps_its_log_z():
    ebm = ed.compile(ed.Model(-(B @ W @ H)) + Shifted()(Y, H).sum())
    assert chosen(ebm) == {"bipartite", "normalised"}
    assert not ed.ExactDraws().moves(ebm).any()
    assert "no method for draws" in ed.ExactDraws().reason(ebm)


class Shifted(ed.AbstractPotential):
    """A density of the user's own around a parent, without draws."""

    event_ndims = (0, 0)

    def energy(self, x, h):
        return Logistic().energy(x - h)

    def normalised(self, domain, shape):
        return domain.real_line


def test_gradients_and_new_parameters_reach_the_rest():
    w = ed.parameter("w", jnp.asarray(W))
    model = ed.Model(-(B @ w @ H)) + BERNOULLI(V, H @ U)

    def exact(w):
        return np.log(np.prod(1 + np.exp(states(3) @ w.T), axis=1).sum())

    ebm = ed.compile(model)
    slope = jax.grad(lambda w: ed.log_partition(ebm.replace(w=w)))(jnp.asarray(W))
    step = np.zeros_like(W)
    step[1, 2] = 1e-5
    assert slope[1, 2] == pytest.approx((exact(W + step) - exact(W - step)) / 2e-5, rel=1e-4)
    assert ed.log_partition(ebm.replace(w=jnp.asarray(2 * W))) == pytest.approx(
        exact(2 * W), rel=1e-6
    )


@pytest.mark.slow
def test_components_with_and_without_leaves_stand_side_by_side():
    """Leaves of a pair, a directed pair and an undirected one are told apart."""
    s, t = ed.spin("s", 4), ed.real("t", 2)
    energy = -0.4 * s[0] * s[1] - 0.7 * s[2] * s[3] + NORMAL(X, s[2], 0.5)
    ebm = ed.compile(ed.Model(energy + NORMAL(t[0], 0.0, 1.0) + NORMAL(t[1], t[0], 1.0)))
    exact = np.log(4 * np.cosh(0.4)) + np.log(4 * np.cosh(0.7))
    assert ed.log_partition(ebm) == pytest.approx(exact, rel=1e-6)
    assert "beside the normalised leaf x," in str(ebm.normalizer)
    drawn = drawn_from(ebm, 4000, 3)
    law = exact_law(lambda s: -0.4 * s[:, 0] * s[:, 1] - 0.7 * s[:, 2] * s[:, 3], [(-1, 1)] * 4)
    assert chisquare_pvalue(count_states(drawn["s"], law.states), law.probs, 4000) > FALSE_ALARM
    noise = (drawn["x"] - drawn["s"][:, 2:3]) / 0.5
    assert scipy.stats.kstest(noise.ravel(), "norm").pvalue > FALSE_ALARM
    assert scipy.stats.kstest(np.diff(drawn["t"])[:, 0], "norm").pvalue > FALSE_ALARM


def test_a_long_chain_of_leaves_is_removed_at_once():
    n = 1000
    z = ed.real("z", n)
    ebm = ed.compile(ed.Model(z[0] ** 2 + ed.LogDensity(dist.Laplace)(z[1:], 0.9 * z[:-1], 1.0)))
    assert chosen(ebm) == {"gaussian", "normalised"}
    assert ed.log_partition(ebm) == pytest.approx(np.log(np.pi) / 2, rel=1e-6)
