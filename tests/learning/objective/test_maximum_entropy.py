"""Maximum entropy beside its dual in NumPy, and beside maximum likelihood."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import paramax
import pytest
import scipy.optimize
import scipy.stats
from scipy.special import logsumexp

import energydsl as ed
from energydsl.learning.moving import moving_of
from tests.learning.objective.losses import loss_of, slope
from tests.oracles.enumerate import exact_law

FALSE_ALARM = 1e-6  # chance that a correct objective fails one of these tests
KEY = jr.key(0)
FACES = np.arange(1, 7)


def die(start=0.0):
    d, lam = ed.integer("d", low=1, high=6), ed.parameter("lam", start)
    return ed.compile(ed.Model(lam * d))


def magnet(w=0.3, b=(0.1, -0.2, 0.4)):
    s = ed.spin("s", 3)
    w, b = ed.parameter("w", w), ed.parameter("b", np.array(b))
    return ed.compile(ed.Model(w * (s[1:] * s[:-1]).sum() + b @ s + 0.5 * s[0] * s[2]))


def magnet_moments():
    """The means of the two features under the enumerated law."""
    law = exact_law(
        lambda s: 0.3 * (s[:, 1:] * s[:, :-1]).sum(1) + s @ [0.1, -0.2, 0.4]
        + 0.5 * s[:, 0] * s[:, 2], [(-1, 1)] * 3,
    )  # fmt: skip
    bonds = (law.states[:, 1:] * law.states[:, :-1]).sum(1)
    return {"w": law.probs @ bonds, "b": law.probs @ law.states}


def test_a_loaded_die_has_the_multiplier_of_jaynes():
    """The dual lam m + log Z is minimised by SciPy; its minimum is the entropy."""
    dual = scipy.optimize.minimize_scalar(lambda t: 4.5 * t + logsumexp(-t * FACES), (-1, 0))
    learnt, history = ed.fit(
        die(), ed.MaximumEntropy({"lam": 4.5}), key=KEY, steps=300, optimizer=optax.adam(0.05),
        progress=False,
    )  # fmt: skip
    # The gap at the end is rounding: a step of Adam below 1e-5.
    assert history["gap"][0] == pytest.approx(1.0, abs=1e-6) and history["gap"][-1] < 1e-4
    assert float(learnt.parameters["lam"]) == pytest.approx(dual.x, abs=1e-4)
    assert history["loss"][-1] == pytest.approx(dual.fun, abs=1e-5)
    assert history["loss"][-1] == pytest.approx(float(ed.entropy(learnt)), abs=1e-5)


def test_moments_that_no_die_has_are_never_reached():
    _, history = ed.fit(
        die(), ed.MaximumEntropy({"lam": 7.0}), key=KEY, steps=100, optimizer=optax.adam(0.5),
        progress=False,
    )  # fmt: skip
    assert (history["gap"] > 0.999).all() and (np.diff(history["loss"]) < 0).all()


def test_the_gradient_is_the_gap_between_moments():
    wanted = {"w": np.array(0.7), "b": np.array([0.3, 0.0, -0.5])}
    _, slopes = slope(magnet(), ed.MaximumEntropy(wanted), {})
    has = magnet_moments()
    for found, name in zip(slopes, ("w", "b"), strict=True):
        np.testing.assert_allclose(found, wanted[name] - has[name], atol=2e-6)


def test_of_examples_it_is_maximum_likelihood():
    data = {"s": np.random.default_rng(0).choice([-1, 1], (7, 3)).astype(np.int8)}
    value, slopes = slope(magnet(), ed.MaximumEntropy(), data)
    expected, theirs = slope(magnet(), ed.MaximumLikelihood(), data)
    for a, b in zip(slopes, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)
    # The dual leaves out the energy without parameters, 0.5 s_0 s_2.
    fixed = 0.5 * (data["s"][:, 0] * data["s"][:, 2]).mean()
    assert value == pytest.approx(expected - fixed, abs=1e-5)


@pytest.mark.slow
def test_chains_by_exact_draws_have_an_unbiased_gradient():
    wanted = {"w": np.array(0.7), "b": np.array([0.3, 0.0, -0.5])}
    objective = ed.MaximumEntropy(wanted, kernel=ed.ExactDraws(), chains=20)
    ebm = magnet()
    loss, moving = loss_of(ebm, objective, {}), moving_of(ebm, objective)
    assert not moving.own, "moments are not learnt"
    each = jax.vmap(lambda key: jax.grad(loss)(moving, key))(jr.split(KEY, 200))
    each = np.concatenate([np.reshape(a, (200, -1)) for a in jax.tree.leaves(each)], 1, dtype=float)
    has = magnet_moments()
    gap = each.mean(0) - np.append(wanted["w"] - has["w"], wanted["b"] - has["b"])
    # Hotelling's test of four means.
    statistic = 200 * gap @ np.linalg.solve(np.cov(each.T), gap)
    assert scipy.stats.f.sf(statistic * 196 / (4 * 199), 4, 196) > FALSE_ALARM


def test_chains_go_on_from_step_to_step_and_take_k_steps():
    """Gibbs of one free spin flips it with the probability 1/2, a new number at each step."""
    s, theta = ed.spin("s", 50), ed.parameter("theta", 0.0)
    ebm = ed.compile(ed.Model(theta * s.sum()))
    objective = ed.MaximumEntropy({"theta": 0.0}, kernel=ed.Gibbs(), k=3, chains=4)
    start = objective.init(ebm, {}, key=KEY)
    objective = paramax.unwrap(objective)
    _, (state, info) = objective.loss(ebm, {}, start, key=jr.key(1))
    ensemble = ed.Gibbs().ensemble(ebm)
    expected, keys = start, jr.split(jr.key(1), 3)
    for key in keys:
        expected, _ = ensemble.advance(ebm, ensemble.load(ebm), expected, key=key)
    np.testing.assert_array_equal(
        ensemble.configurations(ebm, state)["s"], ensemble.configurations(ebm, expected)["s"]
    )
    moments = np.asarray(ensemble.configurations(ebm, state)["s"], float).sum(1).mean()
    assert float(info["gap"]) == pytest.approx(abs(moments), abs=1e-5)


@pytest.mark.slow
def test_without_exact_log_z_chains_match_the_moments():
    """Spins on a torus, with a budget too small for log Z, have a mean of 0.4."""
    s, b = ed.spin("s", (6, 6)), ed.parameter("b", np.zeros((6, 6)))
    bonds = (s * ed.roll(s, 1, 0)).sum() + (s * ed.roll(s, 1, 1)).sum()
    ebm = ed.compile(ed.Model(-0.2 * bonds - (b * s).sum()), budget=4)
    objective = ed.MaximumEntropy({"b": np.full((6, 6), -0.4)}, chains=200)
    learnt, _ = ed.fit(
        ebm, objective, key=KEY, steps=200, progress=False,
        optimizer=optax.adam(optax.linear_schedule(0.05, 0.0, 200)),
    )  # fmt: skip
    draws = ed.sample(
        learnt, ed.Gibbs(), key=KEY, chains=400, warmup=100, draws=1, progress=False
    ).draws["s"]  # fmt: skip
    each = draws[:, 0].mean(axis=(1, 2))
    # 5.5 standard errors, of 400 draws and of the last moments of 200 chains.
    assert abs(each.mean() - 0.4) < 5.5 * each.std() * np.sqrt(1 / 400 + 1 / 200)


def test_constraints_are_kept():
    """An energy linear in exp(u): the gradient in u has the factor exp(u)."""
    d = ed.integer("d", low=1, high=6)
    lam = ed.parameter("lam", paramax.Parameterize(jnp.exp, jnp.asarray(-0.5)))
    ebm = ed.compile(ed.Model(lam * d))
    _, (found,) = slope(ebm, ed.MaximumEntropy({"lam": 2.5}), {})
    probs = np.exp(-np.exp(-0.5) * FACES)
    has = (probs @ FACES) / probs.sum()
    assert float(found) == pytest.approx((2.5 - has) * np.exp(-0.5), abs=1e-5)


def fit(ebm, objective, *data):
    return ed.fit(ebm, objective, *data, key=KEY, steps=2, progress=False)


def test_models_that_it_does_not_fit_are_refused():
    d, a = ed.integer("d", low=1, high=6), ed.parameter("a", 0.3)
    with pytest.raises(TypeError, match=r"linear in its parameters.*linear in a\. Use Max"):
        fit(ed.compile(ed.Model(a**2 * d)), ed.MaximumEntropy(), FACES)
    x, h = ed.binary("x", 3), ed.binary("h", 2, latent=True)
    W = ed.parameter("W", np.zeros((3, 2)))
    with pytest.raises(TypeError, match=r"data do not show \['h'\]\. Use MaximumLikelihood"):
        fit(ed.compile(ed.Model(x @ W @ h)), ed.MaximumEntropy(), np.eye(3, dtype=int))
    given = ed.real("z", given=True)
    with pytest.raises(TypeError, match="given inputs every example has its own"):
        fit(ed.compile(ed.Model(a * given * d)), ed.MaximumEntropy(), {"d": FACES, "z": FACES})


@pytest.mark.usefixtures("untyped")
def test_moments_that_do_not_fit_the_parameters_are_refused():
    with pytest.raises(ValueError, match=r"moments of \['mu'\]; the parameters.*\['lam'\]"):
        fit(die(), ed.MaximumEntropy({"mu": 1.0}))
    with pytest.raises(ValueError, match=r"shape \(2,\) of 'lam'; expected \(\)"):
        fit(die(), ed.MaximumEntropy({"lam": [1.0, 2.0]}))
    with pytest.raises(ValueError, match="'lam' that are not finite"):
        ed.MaximumEntropy({"lam": np.nan})
    with pytest.raises(TypeError, match=r"moments 4.5; expected them by the parameters' names"):
        ed.MaximumEntropy(4.5)
    with pytest.raises(ValueError, match="k=0; expected a whole number"):
        ed.MaximumEntropy(k=0)
    with pytest.raises(
        TypeError, match=r"got no data, and MaximumLikelihood needs .*objective, data"
    ):
        fit(die(), ed.MaximumLikelihood())
    with pytest.raises(TypeError, match=r"got data, and MaximumEntropy needs none"):
        fit(die(), ed.MaximumEntropy({"lam": 1.0}), FACES)


def test_a_run_without_data_resumes(tmp_path):
    options = {"key": KEY, "progress": False}
    objective = ed.MaximumEntropy({"lam": 4.5})
    ed.fit(die(), objective, steps=3, checkpoint=tmp_path, **options)
    resumed, _ = ed.fit(die(), objective, steps=6, checkpoint=tmp_path, **options)
    whole, _ = ed.fit(die(), objective, steps=6, **options)
    assert resumed.parameters["lam"] == whole.parameters["lam"]
