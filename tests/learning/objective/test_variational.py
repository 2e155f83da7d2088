"""The evidence bound, against exact likelihoods and posteriors of models that have them."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

import energydsl as ed
from energydsl.learning.guide import route_of
from energydsl.learning.likelihood import _guided
from energydsl.learning.moving import moved, moving_of

rng = np.random.default_rng(0)
NORMAL = ed.LogDensity(dist.Normal)
Z = ed.real("z", 2, latent=True)
LOADINGS = rng.normal(size=(3, 2)).astype(np.float32)
NOISE = 0.6
X = rng.normal(size=(40, 3)).astype(np.float32)


def linear():
    """z ~ N(0, 1), x ~ N(W z, 0.6^2): its posterior given x is Gaussian with correlated z."""
    W = ed.parameter("W", LOADINGS)
    return ed.compile(ed.Model(NORMAL(Z, 0.0, 1.0) + NORMAL(ed.real("x", 3), W @ Z, NOISE)))


def posterior_of_linear():
    """The means' matrix A, so that E[z given x] = A x, and the covariance."""
    covariance = np.linalg.inv(np.eye(2) + LOADINGS.T @ LOADINGS / NOISE**2)
    return covariance @ LOADINGS.T / NOISE**2, covariance


def gaussian_guide(A, factor):
    given = ed.real("x", 3, given=True)
    density = ed.LogDensity(dist.MultivariateNormal)(
        Z, loc=ed.parameter("A", A) @ given, scale_tril=ed.parameter("L", factor)
    )
    return ed.Model(density)


@eqx.filter_jit
def loss_of(objective, ebm, key):
    return objective.loss(ebm, {"x": X}, None, key=key)[0]


def log_evidence(x):
    covariance = LOADINGS @ LOADINGS.T + NOISE**2 * np.eye(3)
    gap = np.einsum("ni,ij,nj->n", x, np.linalg.inv(covariance), x)
    return -0.5 * (gap + np.linalg.slogdet(2 * np.pi * covariance)[1])


def loss_and_slopes(ebm, objective, batch, key):
    """The loss, and its gradient in the arrays of the model and of the guide."""

    def loss(moving):
        learning, own = moved(ebm, objective, moving)
        return own.loss(learning, batch, None, key=key)[0]

    return jax.value_and_grad(loss)(moving_of(ebm, objective))


def test_the_bound_is_the_likelihood_if_the_guide_is_the_posterior():
    A, covariance = posterior_of_linear()
    ebm, guide = linear(), ed.compile(gaussian_guide(A, np.linalg.cholesky(covariance)))
    for samples, importance in ((1, False), (3, True)):
        objective = ed.Variational(guide, samples=samples, importance=importance)
        loss = loss_of(objective, ebm, jr.key(0))
        np.testing.assert_allclose(-loss, log_evidence(X).mean(), rtol=2e-5)
    # Every weight is p(x) itself, so that there is nothing to estimate.
    found = ed.log_likelihood(ebm, X, guide=guide, key=jr.key(1), samples=3)
    np.testing.assert_allclose(found.examples, log_evidence(X), rtol=1e-4)
    assert found.kind == "bound" and found.upper == np.inf and found.standard_error < 1e-4


def test_the_bound_is_below_by_the_divergence_of_the_guide():
    A, covariance = posterior_of_linear()
    ebm, deviations = linear(), np.array([0.5, 0.9])
    guide = ed.compile(gaussian_guide(0.5 * A, np.diag(deviations)))
    inverse = np.linalg.inv(covariance)
    off = X @ (0.5 * A).T
    divergence = 0.5 * (
        np.trace(inverse @ np.diag(deviations**2)) - 2
        + np.einsum("ni,ij,nj->n", off, inverse, off)
        - np.log(np.prod(deviations**2)) + np.linalg.slogdet(covariance)[1]
    )  # fmt: skip
    objective = ed.Variational(guide, samples=4000)
    loss = loss_of(objective, ebm, jr.key(0))
    expected = log_evidence(X) - divergence
    logs = np.asarray(_guided(ebm, guide, {"x": jnp.asarray(X[:3])}, 500, jr.key(0)))
    error = np.sqrt((logs.var(axis=1).mean()) / 4000 / len(X))
    assert abs(-loss - expected.mean()) < 6 * error
    tighter = ed.log_likelihood(ebm, X, guide=guide, key=jr.key(0), samples=500)
    assert expected.mean() < tighter.value < log_evidence(X).mean() + 5 * tighter.standard_error
    assert tighter.lower < tighter.value


def test_every_example_has_draws_of_its_own():
    """The variance of the mean over 64 copies of an example is a 64th of that of one alone; with
    common draws it would be the same. The ratio of two variances of 40 draws is below 12 but for a
    chance of 1e-12."""
    ebm, guide = linear(), ed.compile(gaussian_guide(np.zeros((2, 3)), np.eye(2)))
    objective = ed.Variational(guide)

    @eqx.filter_jit
    def spread(count):
        batch = {"x": jnp.broadcast_to(X[0], (count, 3))}
        keys = jr.split(jr.key(count), 40)
        return jax.vmap(lambda k: objective.loss(ebm, batch, None, key=k)[0])(keys).var()

    assert spread(64) < 12 / 64 * spread(1)


@pytest.mark.slow
def test_both_models_learn_and_the_guide_returns_with_the_history():
    ebm = linear().replace(W=0.1 * jr.normal(jr.key(3), (3, 2)))
    given = ed.real("x", 3, given=True)
    mean, scale = ed.parameter("A", np.zeros((2, 3))) @ given, ed.parameter("s", np.zeros(2))
    guide = ed.Model(NORMAL(Z, mean, ed.exp(scale)))
    truth = rng.normal(size=(300, 2)) @ LOADINGS.T + NOISE * rng.normal(size=(300, 3))
    learnt, history = ed.fit(
        ebm, ed.Variational(guide), truth, key=jr.key(0), steps=700, optimizer=optax.adam(0.02)
    )
    reached = ed.log_likelihood(learnt, truth).value
    best = ed.fit(ebm, ed.MaximumLikelihood(), truth, key=jr.key(0), steps=400)[0]
    assert reached > ed.log_likelihood(best, truth).value - 0.05
    assert abs(-history["loss"][-50:].mean() - reached) < 0.05
    assert history.guide.parameters["A"].shape == (2, 3)
    assert (
        ed.log_likelihood(learnt, truth, guide=history.guide, key=jr.key(1)).value < reached + 0.01
    )


SPINS = ed.spin("h", 3, latent=True)
SHOWN = rng.integers(0, 2, (7, 4))


def machine(pairs=False):
    """Three hidden spins beside four visible bits; with pairs they interact."""
    v, W = ed.binary("v", 4), ed.parameter("W", rng.normal(size=(4, 3)))
    energy = -(v @ W @ SPINS) - np.array([0.3, -0.2, 0.5]) @ SPINS
    if pairs:
        energy = energy - 0.7 * SPINS[0] * SPINS[1] + 0.4 * SPINS[1] * SPINS[2]
    return ed.compile(ed.Model(energy))


def of_spins(pairs=False):
    given, R = ed.binary("v", 4, given=True), ed.parameter("R", 0.5 * rng.normal(size=(4, 3)))
    energy = -(given @ R @ SPINS) - ed.parameter("c", np.array([0.1, 0.2, -0.3])) @ SPINS
    return ed.compile(ed.Model(energy - 0.3 * SPINS[0] * SPINS[2] if pairs else energy))


def enumerated(ebm, guide):
    """The bound by the sum over all states of the latents, for each example."""
    states = jnp.array(np.stack(np.meshgrid(*3 * [[-1, 1]]), -1).reshape(-1, 3))
    log_z = ed.log_partition(ebm)

    def one(v):
        q = guide.given(v=v)
        logs = jax.vmap(lambda h: -q.energy({"h": h}))(states)
        logs -= jax.nn.logsumexp(logs)
        energies = jax.vmap(lambda h: ebm.energy({"v": v, "h": h}))(states)
        return -jnp.sum(jnp.exp(logs) * (energies + logs)) - log_z

    return jax.vmap(one)(jnp.asarray(SHOWN)).mean()


@pytest.mark.parametrize("pairs", [False, True])
def test_mean_field_is_exact(pairs):
    ebm, guide = machine(pairs), of_spins()
    objective = ed.Variational(guide)
    assert route_of(ebm, guide) == "means"
    loss, slopes = loss_and_slopes(ebm, objective, {"v": SHOWN}, jr.key(0))
    np.testing.assert_allclose(-loss, enumerated(ebm, guide), rtol=1e-5)

    def by_states(moving):
        learning, own = moved(ebm, objective, moving)
        return -enumerated(learning, own.guide)

    expected = jax.grad(by_states)(moving_of(ebm, objective))
    for found, wanted in zip(jax.tree.leaves(slopes), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=2e-5)


@pytest.mark.parametrize(("importance", "pairs"), [(False, True), (True, False)])
def test_the_score_function_is_unbiased(importance, pairs):
    """The mean of many gradients against that of the sum over states; false alarm below 1e-6.

    With importance weights and two draws, the sum is over all pairs of states.
    """
    ebm, guide = machine(), of_spins(pairs)
    objective = ed.Variational(guide, samples=2, importance=importance)
    states = jnp.array(np.stack(np.meshgrid(*3 * [[-1, 1]]), -1).reshape(-1, 3))

    def exact(moving):
        learning, own = moved(ebm, objective, moving)

        def one(v):
            q = own.guide.given(v=v)
            log_q = jax.vmap(lambda h: -q.energy({"h": h}))(states)
            log_q -= jax.nn.logsumexp(log_q)
            log_w = -jax.vmap(lambda h: learning.energy({"v": v, "h": h}))(states) - log_q
            both = jnp.logaddexp(log_w[:, None], log_w) - jnp.log(2)
            if not importance:
                both = (log_w[:, None] + log_w) / 2
            return jnp.sum(jnp.exp(log_q[:, None] + log_q) * both)

        return ed.log_partition(learning) - jax.vmap(one)(jnp.asarray(SHOWN)).mean()

    moving = moving_of(ebm, objective)
    value, expected = jax.value_and_grad(exact)(moving)

    @eqx.filter_jit
    def many(keys):
        return jax.lax.map(
            lambda k: loss_and_slopes(ebm, objective, {"v": jnp.asarray(SHOWN)}, k), keys,
            batch_size=100,
        )  # fmt: skip

    values, slopes = many(jr.split(jr.key(0), 3000))
    pairs_of = [
        (values, value),
        *zip(jax.tree.leaves(slopes), jax.tree.leaves(expected), strict=True),
    ]
    for drawn, wanted in pairs_of:
        error = np.std(drawn, axis=0) / np.sqrt(len(drawn))
        assert (np.abs(np.mean(drawn, axis=0) - wanted) < 6 * error + 1e-5).all()


def test_a_bound_by_many_draws_is_near_the_exact_likelihood_and_tells_its_error():
    ebm, guide = machine(), of_spins()
    exact = ed.log_likelihood(ebm, SHOWN)
    found = [
        ed.log_likelihood(ebm, SHOWN, guide=guide, samples=500, key=k)
        for k in jr.split(jr.key(0), 30)
    ]
    values = np.array([one.value for one in found])
    error = np.mean([one.standard_error for one in found])
    # The bias of the logarithm is half the variance of the mean weight.
    assert abs(values.mean() - exact.value) < 6 * error / np.sqrt(30) + error**2 * len(SHOWN)
    assert 0.4 < values.std(ddof=1) / error < 1.8
    np.testing.assert_allclose(found[0].lower, found[0].value - 1.96 * found[0].standard_error)
    assert "at least" in str(found[0])


def test_a_directed_guide_of_bits_has_no_differentiable_draws():
    given, c = ed.binary("v", 4, given=True), ed.parameter("c", np.zeros(3))
    bits = ed.binary("h", 3, latent=True)
    guide = ed.compile(ed.Model(ed.LogDensity(dist.Bernoulli)(bits, logits=given[:3] * c)))
    v = ed.binary("v", 4)
    ebm = ed.compile(ed.Model(-(v @ np.ones((4, 3)) @ bits)))
    assert route_of(ebm, guide) != "paths"


def of_normal(variable, mean=0.0):
    return ed.Model(NORMAL(variable, mean, 1.0))


@pytest.mark.parametrize(
    ("guide", "error", "message"),
    [
        (lambda: 3, TypeError, "expected a model of its"),
        (lambda: of_normal(ed.real("z", 2)), ValueError, r"\['z'\] are not latent"),
        (lambda: of_normal(ed.real("u", 2, latent=True)), ValueError, r"variables \['u'\]"),
        (lambda: of_normal(ed.real("z", 3, latent=True)), ValueError, "expected the same"),
        (lambda: of_normal(Z, ed.real("y", 2, given=True)), ValueError, r"inputs \['y'\]"),
        (lambda: ed.Model(ed.apply(lambda z: (z**4).sum(), Z)), TypeError, "exact draws"),
    ],
)  # fmt: skip
def test_a_guide_that_does_not_fit_is_refused(guide, error, message):
    with pytest.raises(error, match=message):
        ed.fit(linear(), ed.Variational(guide()), X, key=jr.key(0))


def test_what_does_not_fit_is_refused():
    A, covariance = posterior_of_linear()
    guide = ed.compile(gaussian_guide(A, np.linalg.cholesky(covariance)))
    plain = ed.compile(ed.Model(NORMAL(ed.real("x", 3), ed.parameter("m", np.zeros(3)), 1.0)))
    with pytest.raises(TypeError, match="latent variables"):
        ed.fit(plain, ed.Variational(guide), X, key=jr.key(0))
    for wrong in ({"samples": 0}, {"samples": 1, "importance": True}):
        with pytest.raises(ValueError, match="samples"):
            ed.Variational(guide, **wrong)
    with pytest.raises(ValueError, match="samples=2 or more"):
        ed.fit(machine(), ed.Variational(of_spins(pairs=True)), SHOWN, key=jr.key(0))
    ebm = linear()
    with pytest.raises(TypeError, match="key="):
        ed.log_likelihood(ebm, X, guide=guide)
    with pytest.raises(TypeError, match="Leave log_z out"):
        ed.log_likelihood(ebm, X, guide=guide, key=jr.key(0), log_z=ed.LogZ.exact(0.0))
    with pytest.raises(ValueError, match="samples=1"):
        ed.log_likelihood(ebm, X, guide=guide, key=jr.key(0), samples=1)


def test_a_run_resumes_with_its_guide(tmp_path):
    A, covariance = posterior_of_linear()
    objective = ed.Variational(gaussian_guide(0.3 * A, np.linalg.cholesky(covariance)))

    def run(steps, **more):
        return ed.fit(linear(), objective, X, key=jr.key(0), steps=steps, **more)

    whole, history = run(6)
    run(3, checkpoint=tmp_path)
    resumed, again = run(6, checkpoint=tmp_path)
    np.testing.assert_array_equal(resumed.parameters["W"], whole.parameters["W"])
    np.testing.assert_array_equal(again.guide.parameters["A"], history.guide.parameters["A"])
    other = dataclasses.replace(objective, guide=objective.guide.replace(A=A))
    with pytest.raises(ValueError, match="another run"):
        ed.fit(linear(), other, X, key=jr.key(0), steps=6, checkpoint=tmp_path)


def test_a_guide_may_use_the_inputs_of_the_model():
    """p(x given u) with latent z: the bound of each example is that of its own input."""
    u, own = ed.real("u", 2, given=True), ed.real("x", 3, given=True)
    W = ed.parameter("W", LOADINGS)
    ebm = ed.compile(ed.Model(NORMAL(Z, u, 1.0) + NORMAL(ed.real("x", 3), W @ Z, NOISE)))
    A, covariance = posterior_of_linear()
    mean = A @ own + (np.eye(2) - A @ LOADINGS) @ u
    guide = ed.compile(
        ed.Model(
            ed.LogDensity(dist.MultivariateNormal)(
                Z, loc=mean, scale_tril=np.linalg.cholesky(covariance)
            )
        )
    )
    inputs = rng.normal(size=(40, 2)).astype(np.float32)
    expected = log_evidence(X - inputs @ LOADINGS.T)
    found = ed.log_likelihood(ebm, {"x": X, "u": inputs}, guide=guide, key=jr.key(0), samples=2)
    np.testing.assert_allclose(found.examples, expected, rtol=1e-4, atol=1e-4)
    data = {"x": X, "u": inputs}
    _, history = ed.fit(ebm, ed.Variational(guide), data, key=jr.key(0), steps=1)
    np.testing.assert_allclose(-history["loss"][0], expected.mean(), rtol=1e-4)


def test_a_gaussian_is_distilled_exactly():
    z = ed.real("z", 3, latent=True)
    root = np.linalg.cholesky(np.eye(3) + 0.4)
    target = ed.compile(ed.Model(ed.Quadratic(np.eye(3) + 0.4, np.array([1.0, -0.5, 0.2]))(z)))
    mean = np.linalg.solve(np.eye(3) + 0.4, [1.0, -0.5, 0.2])
    scale = np.linalg.inv(root).T

    def guide(mean):
        density = ed.LogDensity(dist.MultivariateNormal)
        return ed.Model(density(z, loc=ed.parameter("m", mean), covariance_matrix=scale @ scale.T))

    log_z = float(ed.log_partition(target))
    _, exact = ed.fit(target, ed.Variational(guide(mean)), key=jr.key(0), steps=1)
    np.testing.assert_allclose(-exact["loss"][0], log_z, rtol=1e-5)
    same, history = ed.fit(
        target, ed.Variational(guide(np.zeros(3)), samples=20), key=jr.key(0), steps=400,
        optimizer=optax.adam(optax.cosine_decay_schedule(0.05, 400)),
    )  # fmt: skip
    np.testing.assert_allclose(history.guide.parameters["m"], mean, atol=0.03)
    for before, after in zip(
        jax.tree.leaves(target.parameters), jax.tree.leaves(same.parameters), strict=True
    ):
        np.testing.assert_array_equal(after, before)


def test_distillation_into_independent_spins_is_the_mean_field_bound():
    s, h = ed.spin("s", 5, latent=True), np.array([0.4, -0.2, 0.3, 0.1, 0.6])
    target = ed.compile(ed.Model(-(0.3 * s[1:] * s[:-1]).sum() - h @ s))
    guide = ed.Model(-ed.parameter("f", np.zeros(5)) @ s)
    _, history = ed.fit(
        target, ed.Variational(guide), key=jr.key(0), steps=400, optimizer=optax.adam(0.05)
    )
    bound = ed.estimate_log_partition(target, ed.MeanField(), key=jr.key(0)).lower
    np.testing.assert_allclose(-history["loss"][-1], bound, atol=1e-4)
    assert bound < float(ed.log_partition(target))


def test_what_may_lack_data():
    free = ed.Model(NORMAL(Z, ed.parameter("m", np.zeros(2)), 1.0))
    _, history = ed.fit(linear(), ed.Variational(free), X, key=jr.key(0), steps=2)
    assert -history["loss"][0] < log_evidence(X).mean()
    with pytest.raises(ValueError, match=r"no data of \['x'\]"):
        ed.fit(linear(), ed.Variational(free), key=jr.key(0))
    A, covariance = posterior_of_linear()
    with pytest.raises(TypeError, match="fit got no data, and Variational needs some"):
        ed.fit(linear(), ed.Variational(gaussian_guide(A, covariance)), key=jr.key(0))


def test_divergence_with_the_posterior_as_its_guide_is_that_with_the_free_energy():
    """The bound is then the free energy, and so are its derivatives in the model's parameters."""
    ebm = machine()
    given, R = ed.binary("v", 4, given=True), ed.parameter("R", ebm.parameters["W"])
    guide = ed.Model(-(given @ R @ SPINS) - np.array([0.3, -0.2, 0.5]) @ SPINS)
    plain = ed.ContrastiveDivergence(start="persistent", chains=20)
    guided = dataclasses.replace(plain, guide=guide)
    batch, key = {"v": jnp.asarray(SHOWN)}, jr.key(3)
    state = plain.init(ebm, batch, key=jr.key(4))

    @eqx.filter_jit
    def both(objective):
        def loss(moving):
            learning, own = moved(ebm, objective, moving)
            return own.loss(learning, batch, state, key=key)[0]

        return jax.value_and_grad(loss)(moving_of(ebm, objective))

    (wanted, slope), (found, own) = both(plain), both(guided)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    for a, b in zip(jax.tree.leaves(own.slots), jax.tree.leaves(slope.slots), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    # The posterior is the best guide, so that its own slope vanishes.
    for a in jax.tree.leaves(own.own):
        np.testing.assert_allclose(a, 0.0, atol=1e-5)


def test_a_machine_whose_log_z_is_out_of_reach_learns_by_mean_field_and_chains():
    """Two layers of spins above bits; the guide knows the upper layer through the data alone."""
    v, f = ed.binary("v", 40), ed.spin("f", 30, latent=True)
    g, given = ed.spin("g", 30, latent=True), ed.binary("v", 40, given=True)
    draw = np.random.default_rng(1).normal
    W, V = (ed.parameter(n, draw(scale=0.1, size=s)) for n, s in (("W", (40, 30)), ("V", (30, 30))))
    deep = ed.compile(ed.Model(-(v @ W @ f) - f @ V @ g - ed.parameter("b", np.zeros(40)) @ v))
    zeros = np.zeros((40, 30))
    first, second = ed.parameter("first", zeros), ed.parameter("second", zeros)
    guide = ed.Model(-(given @ first @ f) - given @ second @ g)
    data = np.random.default_rng(2).integers(0, 2, (64, 40)) * (np.arange(40) < 20)
    with pytest.raises(TypeError, match="guide=guide"):
        ed.fit(deep, ed.Variational(guide), data, key=jr.key(0))
    objective = ed.ContrastiveDivergence(start="persistent", guide=guide, chains=64)
    learnt, history = ed.fit(deep, objective, data, key=jr.key(0), steps=60)
    bias = np.asarray(learnt.parameters["b"])
    assert bias[:20].mean() - bias[20:].mean() > 0.1
    assert np.abs(history.guide.parameters["first"]).max() > 0.01
    drawn = np.ma.array(data, mask=np.zeros(data.shape, bool))
    drawn[0, 0] = np.ma.masked
    with pytest.raises(TypeError, match="Leave guide out"):
        ed.fit(deep, objective, drawn, key=jr.key(0))
    with pytest.raises(ValueError, match="start='persistent'"):
        ed.ContrastiveDivergence(guide=guide)
    pairs = ed.Model(-(f[0] * f[1]) - given @ first @ f - given @ second @ g)
    with pytest.raises(ValueError, match="independent bits or spins"):
        ed.fit(deep, dataclasses.replace(objective, guide=pairs), data, key=jr.key(0))
