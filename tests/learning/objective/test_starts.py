"""Starts of contrastive divergence: laws of the buffer, recovery likelihood, exact gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import numpy.ma as ma
import numpyro.distributions as dist
import pytest
import scipy.special
import scipy.stats

import energydsl as ed
from energydsl.learning.data import check_examples
from energydsl.learning.moving import moved, moving_of
from energydsl.learning.objective.base import mean_loss

FALSE_ALARM = 1e-6  # chance that a correct start fails one of these tests
KEY = jax.random.key(0)
SLOW = pytest.mark.slow


class Stays(ed.AbstractKernel):
    """A kernel that adds a constant to every real site, so that it can be told who was moved."""

    by: float = 0.0

    def init(self, ebm, x, *, key, warmup):
        return None

    def step(self, ebm, x, state, *, key):
        return {n: a + self.by for n, a in x.items()}, None, {}

    def moves(self, ebm):
        return ebm.structure.free

    def reason(self, ebm):
        return ""


def gaussian(precision=1.0):
    """E = a y^2 / 2, with the precision a as its parameter."""
    y = ed.real("y", 1)
    return ed.compile(ed.Model(0.5 * ed.parameter("a", precision) * (y**2).sum()))


def rbm():
    rng = np.random.default_rng(0)
    w, b, c = (0.7 * rng.normal(size=s) for s in ((3, 1), 3, 1))
    x, h = ed.binary("x", 3), ed.binary("h", 1, latent=True)
    W, B, C = (ed.parameter(n, a) for n, a in zip("Wbc", (w, b, c), strict=True))
    return ed.compile(ed.Model(-(x @ W @ h) - B @ x - C @ h)), (w, b, c)


def slopes_of(ebm, objective, data, count, key=KEY):
    """Gradients of the loss for several keys, each with what was kept of the one before."""
    moving = moving_of(ebm, objective)

    def step(state, key):
        def loss(moving):
            learning, own = moved(ebm, objective, moving)
            value, (state_, _) = mean_loss(own, learning, data, state, key=key)
            return value, state_

        slopes, state = jax.grad(loss, has_aux=True)(moving)
        return state, jnp.concatenate([g.ravel() for g in jax.tree.leaves(slopes)])

    @jax.jit
    def run(key):
        state = objective.init(ebm, data, key=key)
        return jax.lax.scan(step, state, jax.random.split(key, count))[1]

    data = {n: jnp.asarray(a) for n, a in data.items()}
    return np.asarray(run(key), np.float64)


def check_mean(each, expected):
    """Hotelling's test that independent rows have this mean."""
    count, size = each.shape
    gap = each.mean(0) - expected
    statistic = count * gap @ np.linalg.solve(np.atleast_2d(np.cov(each.T)), gap)
    law = scipy.stats.f(size, count - size)
    assert law.sf(statistic * (count - size) / (size * (count - 1))) > FALSE_ALARM


def bits(sites):
    return (np.arange(2**sites)[:, None] >> np.arange(sites)) & 1


def free(w, b, c, v):
    """The free energy of an RBM and its gradient in the parameters, for each row of v."""
    inside = v @ w + c
    on = scipy.special.expit(inside)
    value = -(v @ b) - np.logaddexp(0, inside).sum(1)
    slope = np.concatenate([(-v[:, :, None] * on[:, None]).reshape(len(v), -1), -v, -on], axis=1)
    return value, slope


BITS = np.random.default_rng(1).integers(0, 2, (20, 3)).astype(np.int8)


@pytest.mark.parametrize(
    "start",
    ["persistent", ed.Buffer(60, renew=0.3), {"x": dist.Bernoulli(0.9)}],
    ids=["persistent", "buffer", "distribution"],
)
def test_with_exact_draws_the_mean_gradient_is_that_of_the_likelihood(start):
    ebm, parameters = rbm()
    cd = ed.ContrastiveDivergence(kernel=ed.ExactDraws(), start=start, chains=50)
    energies, slopes = free(*parameters, bits(3))
    weights = np.exp(-energies) / np.exp(-energies).sum()
    expected = free(*parameters, BITS)[1].mean(0) - weights @ slopes
    check_mean(slopes_of(ebm, cd, {"x": BITS}, 400), expected)


def test_the_penalty_s_gradient_is_its_formula():
    (ebm, parameters), alpha = rbm(), 0.3
    cd = ed.ContrastiveDivergence(
        start="persistent", chains=30, kernel=ed.ExactDraws(), penalty=alpha
    )
    data, moving = {"x": jnp.asarray(BITS)}, moving_of(ebm, cd)

    @jax.jit
    def run(moving):
        def loss(moving):
            state = cd.init(ebm, data, key=KEY)
            value, (state, _) = cd.loss(moved(ebm, cd, moving)[0], data, state, key=KEY)
            return value, state["x"]

        return jax.value_and_grad(loss, has_aux=True)(moving)

    (value, samples), slopes = run(moving)
    (ups, up_slopes), (downs, down_slopes) = (
        free(*parameters, v) for v in (BITS, np.asarray(samples))
    )
    expected = ups.mean() - downs.mean() + alpha * ((ups**2).mean() + (downs**2).mean())
    assert float(value) == pytest.approx(expected, abs=1e-5)  # float32's rounding
    up, down = 1 + 2 * alpha * ups, 2 * alpha * downs - 1
    expected = up @ up_slopes / len(up) + down @ down_slopes / len(down)
    found = np.concatenate([np.ravel(g) for g in jax.tree.leaves(slopes)])
    np.testing.assert_allclose(found, expected, atol=1e-5)


SIZE, CHAINS, TURNS, RENEW = 40, 12, 2000, 0.1


@pytest.fixture(scope="module")
def turns():
    """The buffer before and after each of many steps: entries of 1000 and more, noise around 0."""
    ebm, kernel = gaussian(), Stays(by=1.0)
    cd = ed.ContrastiveDivergence(
        kernel=kernel, start=ed.Buffer(SIZE, renew=RENEW), chains=CHAINS, k=3
    )
    data = {"y": jnp.zeros((4, 1))}
    shape = jax.eval_shape(lambda: cd.init(ebm, data, key=KEY))
    assert {n: a.shape for n, a in shape.items()} == {"y": (SIZE, 1)}
    before = {"y": 1000.0 * (1 + jnp.arange(SIZE, dtype=jnp.float32)[:, None])}

    @jax.jit
    @jax.vmap
    def turn(key):
        return cd.loss(ebm, data, before, key=key)

    losses, (after, _) = turn(jax.random.split(KEY, TURNS))
    return np.asarray(before["y"])[:, 0], np.asarray(after["y"])[..., 0], np.asarray(losses)


def test_the_places_drawn_are_refilled_with_the_ends_of_their_chains(turns):
    before, after, losses = turns
    moved = after != before
    # As many places as chains: no entry was drawn twice.
    assert (moved.sum(1) == CHAINS).all()
    renewed = after < 500
    stays = moved & ~renewed
    assert np.array_equal(after[stays], (before + 3)[np.nonzero(stays)[1]])
    # The loss is that of the ends, which are what was put back.
    ends = np.where(moved, after, 0).astype(float)
    np.testing.assert_allclose(losses, -(ends**2).sum(1) / CHAINS / 2, rtol=1e-5)


def test_the_share_that_begins_at_noise_is_renew(turns):
    _, after, _ = turns
    noise = after[after < 500] - 3
    assert scipy.stats.binomtest(len(noise), TURNS * CHAINS, RENEW).pvalue > FALSE_ALARM
    # New ones are uniform, as `EBM.start` draws them, and all different.
    assert scipy.stats.kstest(noise.astype(float), "uniform", (-2, 4)).pvalue > FALSE_ALARM
    assert len(np.unique(noise)) > 0.99 * len(noise)


def test_all_entries_are_drawn_equally_often(turns):
    before, after, _ = turns
    share = CHAINS / SIZE
    seen = (after != before).sum(0)
    z = (seen - TURNS * share) / np.sqrt(TURNS * share * (1 - share))
    # Without replacement the counts are correlated by -1 / (SIZE - 1).
    assert scipy.stats.chi2.sf((z**2).sum() * (SIZE - 1) / SIZE, SIZE - 1) > FALSE_ALARM


@pytest.mark.parametrize("renew, low", [(0.0, True), (1.0, False)])
def test_renew_of_0_and_of_1(renew, low):
    ebm = gaussian()
    cd = ed.ContrastiveDivergence(kernel=Stays(), start=ed.Buffer(6, renew=renew), chains=6)
    before = {"y": jnp.full((6, 1), 1000.0)}
    _, (after, _) = cd.loss(ebm, {"y": jnp.zeros((4, 1))}, before, key=KEY)
    assert ((np.asarray(after["y"]) == 1000.0) == low).all()


def test_a_buffer_of_bits_is_held_in_configurations():
    """Gibbs packs chains, so that entries must be unpacked configurations in their own dtypes."""
    ebm, _ = rbm()
    cd = ed.ContrastiveDivergence(start=ed.Buffer(50), chains=40, kernel=ed.Gibbs())

    @jax.jit
    def run(key):
        data = {"x": jnp.asarray(BITS)}
        return cd.loss(ebm, data, cd.init(ebm, data, key=key), key=key)[1][0]

    after = run(KEY)
    assert {n: (a.dtype, a.shape) for n, a in after.items()} == {
        "x": (jnp.int8, (50, 3)), "h": (jnp.int8, (50, 1))
    }  # fmt: skip
    assert set(np.unique(np.concatenate([np.ravel(a) for a in after.values()]))) == {0, 1}


def test_a_run_with_a_buffer_resumes_bit_for_bit_and_compiles_once(tmp_path, compilations):
    ebm, data = gaussian(), np.random.default_rng(0).normal(size=(20, 1)).astype(np.float32)
    cd = ed.ContrastiveDivergence(
        start=ed.Buffer(50, renew=0.2), chains=20, penalty=1e-3, kernel=ed.Langevin()
    )

    def fit(steps, folder=None, model=ebm):
        return ed.fit(
            model, cd, data, key=KEY, steps=steps, batch=10, checkpoint=folder, progress=False
        )

    whole, history = fit(30)
    fit(13, tmp_path)
    resumed, again = fit(30, tmp_path)
    other = ebm.replace(a=2.0)
    compilations.clear()
    fit(30, model=other)
    assert not compilations
    assert np.array_equal(history["loss"], again["loss"])
    assert whole.parameters["a"] == resumed.parameters["a"] != ebm.parameters["a"]


def test_missing_entries_are_drawn_beside_a_buffer():
    """Where no example shows s[1], the likelihood does not depend on the coupling."""
    s = ed.spin("s", 2)
    ebm = ed.compile(ed.Model(-ed.parameter("J", 0.8) * s[0] * s[1]))
    shown = np.array([[True, False]] * 30)
    data = check_examples(ebm, ma.masked_array(np.ones((30, 2), np.int8), ~shown), "fit")
    cd = ed.ContrastiveDivergence(kernel=ed.ExactDraws(), start=ed.Buffer(40), chains=40, settle=1)
    cd.check(ebm, data)
    check_mean(slopes_of(ebm, cd, data, 200), np.zeros(1))


@pytest.mark.parametrize("kind", ["one", "named", "ebm"])
def test_chains_begin_at_draws_of_a_given_distribution(kind):
    law = dist.Normal(5.0, 0.5)
    y = ed.real("y", 1)
    source = {
        "one": law,
        "named": {"y": law},
        "ebm": ed.compile(ed.Model(ed.LogDensity(law)(y).sum())),
    }[kind]
    n = 4000
    cd = ed.ContrastiveDivergence(kernel=Stays(), start=source, chains=n)
    cd.check(gaussian(), {"y": jnp.zeros((2, 1))})
    value, (state, _) = cd.loss(gaussian(), {"y": jnp.zeros((2, 1))}, None, key=KEY)
    # y^2 has the mean 25.25 and the variance 4 * 25 * 0.25 + 2 * 0.25^2.
    z = (-2 * float(value) - 25.25) / np.sqrt((25 + 0.125) / n)
    assert state is None and abs(z) < scipy.stats.norm.isf(FALSE_ALARM / 2)


PRECISION, PULL = np.array([[2.0, 0.8], [0.8, 1.5]]), np.array([0.4, -1.0])


def recovery_slope(data, low, width, precision=PRECISION, pull=PULL):
    """The mean gradient in the precision and the pull, over the noise, in closed form."""
    noise = low**2 * np.eye(2)
    second = data.T @ data / len(data) + noise
    mean = data.mean(0)
    cov = np.linalg.inv(precision + np.eye(2) / width**2)
    # Given the noisy data, x has the mean cov (pull + noisy / width^2).
    inner = (
        np.outer(pull, pull) + (np.outer(pull, mean) + np.outer(mean, pull)) / width**2
        + (second + width**2 * np.eye(2)) / width**4
    )  # fmt: skip
    expected_second = cov + cov @ inner @ cov
    expected_mean = cov @ (pull + mean / width**2)
    return 0.5 * (second - expected_second), expected_mean - mean


@SLOW
def test_recovery_with_exact_draws_has_the_gradient_of_its_likelihood():
    """Of a Gaussian, whose energy is that of the data at every level."""
    levels = (0.3, 1.2)
    y = ed.real("y", 2)
    A, b = ed.parameter("A", PRECISION), ed.parameter("b", PULL)
    ebm = ed.compile(ed.Model(0.5 * (y @ A @ y) - b @ y))
    data = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32) + 0.5
    cd = ed.ContrastiveDivergence(kernel=ed.ExactDraws(), start=ed.Noisy(levels))
    cd.check(ebm, {"y": data})
    each = [recovery_slope(data, 0.0, s) for s in levels]
    expected = np.concatenate([np.ravel(np.mean(part, 0)) for part in zip(*each, strict=True)])
    found = slopes_of(ebm, cd, {"y": data}, 500)
    # A is symmetric in the data, so its two other entries are one number.
    check_mean(found[:, [0, 1, 3, 4, 5]], expected[[0, 1, 3, 4, 5]])


def ladder():
    """E = (a + c t) |y|^2 / 2 + y[0] y[1] / 2 at the noise t, held at y[1] = 3."""
    y, t = ed.real("y", 2), ed.real("t", given=True)
    energy = 0.5 * (ed.parameter("a", 0.9) + ed.parameter("c", 0.5) * t) * (y**2).sum()
    return ed.compile(ed.Model(energy + 0.5 * y[0] * y[1]).condition({y[1]: 3.0}))


def test_each_rung_of_a_ladder_has_its_level_and_its_noise():
    data = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32) + 1
    levels, lows, pull = np.array([0.5, 0.6]), np.array([0.0, 0.5]), -1.5
    cd = ed.ContrastiveDivergence(kernel=ed.ExactDraws(), start=ed.Noisy(levels, level="t"))
    ebm = ladder().given(t=7.0)  # which the rungs replace
    cd.check(ebm, {"y": data})
    x = data[:, 0].astype(float)
    each = []
    for low, high in zip(lows, levels, strict=True):
        variance = high**2 - low**2
        cov = 1 / (0.9 + 0.5 * low + 1 / variance)
        second = (x**2).mean() + low**2
        inner = pull**2 + 2 * pull * x.mean() / variance + (second + variance) / variance**2
        # The clamped site is the same in both terms.
        each.append(np.array([1.0, low]) * (second - cov - cov**2 * inner) / 2)
    check_mean(slopes_of(ebm, cd, {"y": data}, 500), np.mean(each, axis=0))


def test_draws_down_a_ladder_follow_their_law():
    """The levels of N(0, 1) data: with exact conditionals each rung maps a normal to a normal."""
    y, t = ed.real("y"), ed.real("t", given=True)
    ebm = ed.compile(ed.Model(0.5 * y**2 / (1 + t**2))).given(t=0.0)
    levels = np.array([1.5, 2.0, 2.2])
    start = ed.Noisy(levels, level="t")
    n = 4000
    found = np.asarray(start.draw(ebm, ed.ExactDraws(), key=KEY, k=1, chains=n)["y"], float)
    variance = levels[-1] ** 2
    for low, high in ((2.0, 2.2), (1.5, 2.0), (0.0, 1.5)):
        precision = 1 / (1 + low**2) + 1 / (high**2 - low**2)
        variance = 1 / precision + variance / ((high**2 - low**2) * precision) ** 2
    assert found.shape == (n,)
    assert scipy.stats.kstest(found / np.sqrt(variance), "norm").pvalue > FALSE_ALARM


def test_recovery_begins_at_the_noisy_data_in_units_of_the_noise():
    """A kernel that adds 1 moves an example by its own noise and once more by its width."""
    ebm, width, n = gaussian(), 0.25, 2000
    cd = ed.ContrastiveDivergence(kernel=Stays(by=1.0), start=ed.Noisy(width), k=2)
    data = np.full((n, 1), 3.0, np.float32)
    value, (state, _) = cd.loss(ebm, {"y": jnp.asarray(data)}, None, key=KEY)
    # y ends at 3 + 2 width + width xi.
    centre = 3 + 2 * width
    expected = (9 - centre**2 - width**2) / 2
    deviation = np.sqrt((4 * centre**2 * width**2 + 2 * width**4) / n) / 2
    assert state is None
    assert abs(float(value) - expected) < deviation * scipy.stats.norm.isf(FALSE_ALARM / 2)


@pytest.mark.parametrize("start", [ed.Noisy(0.8), dist.Normal(0.0, 1.0)], ids=["noisy", "normal"])
def test_starts_with_inputs_of_the_examples(start):
    """E = k (y - w x)^2 / 2: the gradients of the likelihood and of the recovery likelihood."""
    rng = np.random.default_rng(3)
    x, y = ed.real("x", given=True), ed.real("y")
    w, k = ed.parameter("w", 0.7), ed.parameter("k", 1.5)
    ebm = ed.compile(ed.Model(k / 2 * (y - w * x) ** 2))
    xs, ys = rng.normal(size=(2, 30)).astype(np.float32)
    cd = ed.ContrastiveDivergence(kernel=ed.ExactDraws(), start=start).of_one_example()
    rest = (ys - 0.7 * xs).astype(float)
    shrink, spread = 0.0, 1 / 1.5
    if isinstance(start, ed.Noisy):
        spread = 1 / (1.5 + 1 / 0.64)
        shrink = spread / 0.64
    # Samples have the residuals shrink (rest + 0.8 noise) + their own noise.
    mean, second = shrink * rest, shrink**2 * (rest**2 + 0.64) + spread
    expected = [np.mean(rest**2 - second) / 2, np.mean(-1.5 * xs * (rest - mean))]
    check_mean(slopes_of(ebm, cd, {"x": xs, "y": ys}, 400), np.array(expected))


def test_one_example_has_one_chain_by_default():
    assert ed.ContrastiveDivergence(start=dist.Normal(0.0, 1.0)).of_one_example().chains == 1
    assert ed.ContrastiveDivergence(start=ed.Noisy(0.1)).of_one_example().chains is None


@pytest.mark.parametrize(
    "start, adjusted",
    [("persistent", True), pytest.param("noise", True, marks=SLOW), ("persistent", False)],
)
def test_step_sizes_are_tuned_while_learning_lasts(start, adjusted):
    """From a step far too small to one of the wanted acceptance; without the test it stays."""
    y = ed.real("y", 2)
    ebm = ed.compile(ed.Model(0.5 * ((y - ed.parameter("m", np.zeros(2))) ** 2).sum()))
    data = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)

    cd = ed.ContrastiveDivergence(
        kernel=ed.Langevin(step_size=1e-4, adjusted=adjusted), start=start, chains=20, tune=True
    )
    _, tuned = ed.fit(ebm, cd, data, key=KEY, steps=600, progress=False)
    if not adjusted:
        assert np.ptp(tuned["step_size"]) == 0
        return
    # 20 chains in 300 steps, each within 0 and 1: 6 standard errors of independent rates are 0.04.
    assert abs(tuned["acceptance_rate"][300:].mean() - 0.574) < 0.04
    assert tuned["step_size"][300:].min() > 0.1
    # The rate of adaptation decays.
    early, late = (np.abs(np.diff(np.log(tuned["step_size"])))[part].mean() for part in
                   (slice(0, 50), slice(550, 600)))  # fmt: skip
    assert late < early / 3


@SLOW
def test_nuts_is_tuned_while_learning_lasts():
    y = ed.real("y", 2)
    ebm = ed.compile(ed.Model(50 * ((y - ed.parameter("m", np.zeros(2))) ** 2).sum()))
    data = 0.1 * np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    rates = {}
    for tune in (True, False):
        cd = ed.ContrastiveDivergence(kernel=ed.NUTS(), start="persistent", chains=10, tune=tune)
        _, history = ed.fit(ebm, cd, data, key=KEY, steps=200, progress=False)
        rates[tune] = history["acceptance_rate"][100:].mean()
    # A step of 1 in a well of width 0.1 is never accepted.
    assert abs(rates[True] - 0.8) < 0.1 and rates[False] < 0.1


def test_tuning_that_has_no_chains_to_keep_is_refused():
    with pytest.raises(ValueError, match="tune=True with a start at the data"):
        ed.ContrastiveDivergence(tune=True)
    with pytest.raises(TypeError, match="tune=True and data with inputs"):
        ed.ContrastiveDivergence(start="noise", tune=True).of_one_example()


def levelled():
    y, t = ed.real("y", 2), ed.real("t", given=True)
    return ed.compile(ed.Model(0.5 * (1 + t**2) * (y**2).sum())).given(t=0.0)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: ed.Buffer(0), "size=0; expected a whole number"),
        (lambda: ed.Buffer(10, renew=1.5), r"renew=1\.5; expected a probability"),
        (lambda: ed.Noisy(()), r"levels=\(\); expected standard deviations"),
        (lambda: ed.Noisy((0.2, 0.1)), "that increase"),
        (lambda: ed.Noisy((0.0, 0.1)), "above 0"),
        (lambda: ed.Noisy((0.1, np.inf)), "levels=.*expected"),
        (lambda: ed.ContrastiveDivergence(penalty=-1.0), r"penalty=-1\.0; expected a finite"),
        (lambda: ed.ContrastiveDivergence(start=ed.Noisy(0.1), chains=4), "one chain per example"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "options, ebm, error, message",
    [
        ({"start": ed.Buffer(50)}, gaussian, ValueError, "100 chains, more than the 50 entries"),
        ({"start": ed.Noisy(0.1)}, lambda: rbm()[0], TypeError, "real variables that data show"),
        ({"start": ed.Noisy(0.1, "s")}, levelled, ValueError, r"level='s'; .* has \['t'\]"),
        ({"start": ed.Noisy(0.1, "t")}, gaussian, ValueError, "level='t'; .* has none"),
        ({"start": {"z": dist.Normal()}}, gaussian, ValueError, r"draws \['z'\]; the free"),
        ({"start": dist.Normal(jnp.zeros(3))}, gaussian, ValueError, r"shape \(3,\)"),
        ({"start": dist.Normal()}, lambda: rbm()[0], TypeError, "binary takes integers"),
    ],
)  # fmt: skip
def test_starts_that_do_not_suit_a_model_are_refused(options, ebm, error, message):
    ebm = ebm()
    data = {v.name: jnp.zeros((3, *v.shape), v.domain.dtype) for v in ebm.structure.skeleton.free}
    with pytest.raises(error, match=message):
        ed.ContrastiveDivergence(**options).check(ebm, data)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("start", [3, ["data"], {}, {"y": 3.0}, ed.Buffer])
def test_what_is_no_start_is_refused(start):
    with pytest.raises(TypeError, match=r"ContrastiveDivergence got .*expected"):
        ed.ContrastiveDivergence(start=start)


def test_a_buffer_with_inputs_is_refused():
    with pytest.raises(TypeError, match=r"start=Buffer\(...\) and data with inputs"):
        ed.ContrastiveDivergence(start=ed.Buffer(200)).of_one_example()


def test_noise_on_data_with_gaps_is_refused():
    data = ma.masked_array(np.zeros((4, 1)), [[True], [False], [False], [False]])
    with pytest.raises(TypeError, match="Noisy adds noise to whole examples"):
        ed.fit(gaussian(), ed.ContrastiveDivergence(start=ed.Noisy(0.1)), data, key=KEY)


def test_draws_without_a_ladder_are_refused():
    with pytest.raises(ValueError, match=r"level=None.*Use ed\.sample"):
        ed.Noisy(0.1).draw(gaussian(), key=KEY)


def test_a_start_s_arrays_are_not_learnt():
    cd = ed.ContrastiveDivergence(start=dist.Normal(jnp.zeros(1), jnp.ones(1)))
    assert not moving_of(gaussian(), cd).own
