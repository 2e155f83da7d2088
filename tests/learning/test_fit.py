"""The learning loop: what moves, where it stops, how it resumes, what it refuses."""

import itertools
import signal
import subprocess
import sys
import textwrap
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import paramax
import pytest
import scipy.optimize
import scipy.stats

import energydsl as ed
from energydsl._identity import content
from energydsl.learning import fit as fitting
from energydsl.learning.history import History
from energydsl.learning.moving import moving_of
from energydsl.learning.optimizer import Update
from energydsl.run import loop as running
from tests.oracles.enumerate import exact_law

FALSE_ALARM = 1e-6  # chance that a correct fit fails
KEY = jax.random.key(0)


def chain(coupling=0.0, field=0.0, n=4):
    s = ed.spin("s", n)
    bonds = (s[1:] * s[:-1]).sum()
    J, b = ed.parameter("J", coupling), ed.parameter("b", field)
    return ed.Model(-(J * bonds) - b * s.sum())


def spins(n=200, sites=4, seed=0):
    return (2 * np.random.default_rng(seed).integers(0, 2, (n, sites)) - 1).astype(np.int8)


def rbm(seed=0):
    rng = np.random.default_rng(seed)
    x, h = ed.binary("x", 6), ed.binary("h", 3, latent=True)
    W = ed.parameter("W", 0.1 * rng.normal(size=(6, 3)))
    b = ed.parameter("b", np.zeros(6))
    return ed.compile(ed.Model(-(x @ W @ h) - b @ x))


def bits(n=50, seed=0):
    return np.random.default_rng(seed).integers(0, 2, (n, 6)).astype(np.int8)


def fit(ebm, objective, data, **options):
    return ed.fit(ebm, objective, data, **{"key": KEY, "steps": 20, "progress": False} | options)


def floats(ebm):
    """What learning moves."""
    return [np.asarray(a) for a in jax.tree.leaves(moving_of(ebm, ed.MaximumLikelihood()))]


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(floats(a), floats(b), strict=True))


class Watched(ed.AbstractObjective):
    """An objective that notes each time it is traced."""

    inner: ed.AbstractObjective
    calls: list = eqx.field(static=True)

    def check(self, ebm, data):
        self.inner.check(ebm, data)

    def init(self, ebm, data, *, key):
        return self.inner.init(ebm, data, key=key)

    def loss(self, ebm, batch, state, *, key):
        self.calls.append(1)
        return self.inner.loss(ebm, batch, state, key=key)


class Calls(list):
    """A list that is hashed by identity, to be a static field."""

    def __hash__(self):
        return id(self)

    def __eq__(self, other):
        return self is other


def test_maximum_likelihood_recovers_couplings():
    """Two estimates lie within their standard errors, by the Fisher information at the truth."""
    truth, n = np.array([0.5, -0.2]), 20_000
    law = exact_law(
        lambda s: -truth[0] * (s[:, 1:] * s[:, :-1]).sum(1) - truth[1] * s.sum(1), [(-1, 1)] * 4
    )
    rows = np.random.default_rng(0).choice(len(law.states), size=n, p=law.probs)
    data = law.states[rows].astype(np.int8)
    ebm, history = fit(
        ed.compile(chain()), ed.MaximumLikelihood(), data, steps=300, optimizer=optax.adam(0.05)
    )
    found = np.array(floats(ebm))
    features = np.stack([(law.states[:, 1:] * law.states[:, :-1]).sum(1), law.states.sum(1)])
    information = n * np.cov(features, aweights=law.probs, ddof=0)
    statistic = (found - truth) @ information @ (found - truth)
    assert scipy.stats.chi2.sf(statistic, 2) > FALSE_ALARM
    # The loss is minus the mean log-likelihood, which the best fit brings below the truth's.
    entropy = -np.log(law.probs[rows]).mean()
    assert history["loss"].shape == (300,) and history.stopped is None
    assert entropy - 20 / n < history["loss"][-1] + 10 / n and history["loss"][-1] < entropy + 1e-5


def best_coupling(rows):
    """The chain's coupling of maximum likelihood, whose edges are independent."""
    return np.arctanh((rows[:, 1:] * rows[:, :-1]).mean())


def best_conditional_coupling(rows):
    """The chain's coupling of maximum pseudo-likelihood."""
    padded = np.pad(rows, [(0, 0), (1, 1)])
    fields = rows * (padded[:, 2:] + padded[:, :-2])

    def loss(J):
        return np.logaddexp(0, -2 * J * fields).mean()

    return scipy.optimize.minimize_scalar(loss, (0.1, 1.0), tol=1e-10).x


@pytest.mark.parametrize(
    ("objective", "expected", "off"),
    [
        (ed.MaximumLikelihood(), best_coupling, 1e-4),
        (ed.PseudoLikelihood(), best_conditional_coupling, 1e-4),
        # The data give 0.6 to within 0.011, and two steps of each chain at most as much again:
        # five times both together.
        (ed.ContrastiveDivergence(k=2), lambda rows: 0.6, 0.078),
    ],
    ids=lambda o: type(o).__name__ if isinstance(o, ed.AbstractObjective) else "",
)
def test_objectives_agree_on_a_small_model_by_changing_one_word(objective, expected, off):
    law = exact_law(lambda s: -0.6 * (s[:, 1:] * s[:, :-1]).sum(1), [(-1, 1)] * 4)
    rows = np.random.default_rng(0).choice(len(law.states), size=4000, p=law.probs)
    data = law.states[rows]
    optimizer = optax.sgd(optax.linear_schedule(0.2, 0.0, 400))
    ebm, _ = fit(
        ed.compile(chain()), objective, data.astype(np.int8), steps=400, optimizer=optimizer
    )
    assert floats(ebm)[0] == pytest.approx(expected(data), abs=off)


@pytest.mark.parametrize("wrapped", [False, True])
def test_data_and_numbers_and_what_is_fixed_and_evidence_stay(wrapped):
    s, t = ed.spin("s", 3), ed.spin("t", 3)
    held, data = np.array([0.3, 0.2, 0.1], np.float32), np.float32([[0.5, 0.4, 0.3]])
    J, b = ed.parameter("J", 0.1), ed.fixed(ed.parameter("b", held))
    frozen = ed.Linear(ed.fixed(held)) if wrapped else ed.fixed(ed.Linear(held))
    couple = ed.Coupling(np.diag(held))(s, t)
    energy = -J * (s * t).sum() - b @ s - 0.25 * t.sum() + (data @ s).sum() + frozen(t) + couple
    model = ed.Model(energy)
    conditioned = model.condition({t[0]: -1})
    before = ed.compile(conditioned)
    data = {"s": spins(30, 3), "t": spins(30, 3, seed=1)}
    # Decay moves whatever it is shown, gradient or none.
    decay = optax.adamw(1e-2, weight_decay=0.1)
    after, _ = fit(before, ed.MaximumLikelihood(), data, optimizer=decay)
    pairs = zip(before.model.slots, after.model.slots, before.model.skeleton.slots, strict=True)
    moved = {r.name or r.kind for old, new, r in pairs if not np.array_equal(old, new)}
    assert moved == {"J", "Coupling.weight"}
    assert before.model.parameter_count == 1 + 9
    assert np.array_equal(after.model.evidence["t"], before.model.evidence["t"])
    assert same_structure(before, after)


def same_structure(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b)


def test_ties_stay_tied_and_constraints_hold():
    s = ed.spin("s", 4)
    shared = ed.parameter("shared", 0.5)
    positive = ed.parameter("positive", paramax.Parameterize(jax.nn.softplus, jnp.asarray(0.1)))
    model = ed.Model(-(shared * s[0] * s[1]) - shared * s[2] * s[3], -(positive * s[1] * s[2]))
    up = np.tile([[1, 1, -1, 1]], (20, 1))
    after, _ = fit(ed.compile(model), ed.MaximumLikelihood(), up.astype(np.int8), steps=200,
                   optimizer=optax.adam(0.3))  # fmt: skip
    assert len(floats(after)) == 2
    # The data want a negative coupling between 1 and 2; its wrapper keeps it positive.
    assert 0 <= float(paramax.unwrap(after.parameters["positive"])) < 0.01
    assert floats(after)[-1] < -5


def test_the_data_of_an_energy_stay():
    """Observations and inputs: y has the mean (obs + X w) / 2, so that w is a least-squares fit."""
    rng = np.random.default_rng(0)
    X, obs, data = (rng.normal(size=s).astype(np.float32) for s in ((5, 2), 5, (30, 5)))
    w, y = ed.parameter("w", np.zeros(2)), ed.real("y", 5)
    ebm = ed.compile(ed.Model(((obs - y) ** 2).sum() / 2 + ((y - X @ w) ** 2).sum() / 2))
    assert ebm.model.parameter_count == 2
    after, _ = fit(ebm, ed.MaximumLikelihood(), data, steps=400, optimizer=optax.sgd(0.2))
    expected = np.linalg.lstsq(X, 2 * data.mean(0) - obs, rcond=None)[0]
    np.testing.assert_allclose(after.parameters["w"], expected, atol=1e-4)
    kinds = [slot.kind for slot in ebm.model.skeleton.slots]
    for kind, before, now in zip(kinds, ebm.model.slots, after.model.slots, strict=True):
        assert np.array_equal(before, now) == (kind != "parameter")
    assert kinds.count("data") == 2


def test_a_symmetric_matrix_with_a_zero_diagonal_stays_so():
    rng, s = np.random.default_rng(0), ed.spin("s", 4)

    def hollow(a):
        upper = jnp.triu(a, 1)
        return upper + upper.T

    W = ed.parameter("W", paramax.Parameterize(hollow, jnp.asarray(rng.normal(size=(4, 4)) / 9)))
    ebm = ed.compile(ed.Model(-0.5 * (s @ W @ s)))
    after, _ = fit(ebm, ed.MaximumLikelihood(), spins(50), optimizer=optax.adam(0.1))
    learnt = np.asarray(paramax.unwrap(after.parameters["W"]))
    assert np.array_equal(learnt, learnt.T) and not np.diag(learnt).any()
    assert not np.array_equal(learnt, paramax.unwrap(ebm.parameters["W"]))


def test_a_frozen_parameter_stays_bit_for_bit_beside_one_that_learns():
    s = ed.spin("s", 4)
    J, b = ed.parameter("J", 0.3), ed.fixed(ed.parameter("b", np.float32([0.1, 0.2, 0.3, 0.4])))
    ebm = ed.compile(ed.Model(-J * (s[1:] * s[:-1]).sum() - b @ s))
    decay = optax.adamw(1e-2, weight_decay=0.1)
    after, _ = fit(ebm, ed.MaximumLikelihood(), spins(50), optimizer=decay)
    assert np.array_equal(after.parameters["b"], np.float32([0.1, 0.2, 0.3, 0.4]))
    assert float(after.parameters["J"]) != float(ebm.parameters["J"])


def test_data_may_be_one_array_and_the_same_key_learns_the_same():
    ebm, data = rbm(), bits()
    objective = ed.ContrastiveDivergence(start="persistent", chains=8)
    once, first = fit(ebm, objective, data, batch=10)
    again, second = fit(ebm, objective, {"x": data}, batch=10)
    other, _ = fit(ebm, objective, data, batch=10, key=jax.random.key(1))
    assert same(once, again) and not same(once, other) and not same(once, ebm)
    assert np.array_equal(first["loss"], second["loss"])


def test_what_is_learnt_does_not_depend_on_chunks(monkeypatch):
    ebm, data = rbm(), bits()
    objective = ed.ContrastiveDivergence(start="persistent", chains=8)
    whole, history = fit(ebm, objective, data, batch=10, steps=50)
    monkeypatch.setattr(running, "CHUNK_SECONDS", 0.0)  # chunks of one step
    pieces, same_history = fit(ebm, objective, data, batch=10, steps=50)
    assert same(whole, pieces)
    assert np.array_equal(history["loss"], same_history["loss"])


def test_new_values_and_a_second_fit_compile_nothing():
    calls = Calls()
    objective = Watched(ed.MaximumLikelihood(), calls)
    fit(ed.compile(chain(0.1)), objective, spins(), optimizer=optax.adam(1e-2))
    assert calls
    calls.clear()
    # Other parameters, other data, more steps, and an optimizer made anew.
    fit(ed.compile(chain(0.4, 0.2)), objective, spins(seed=1), optimizer=optax.adam(1e-2),
        steps=70)  # fmt: skip
    assert not calls
    fit(ed.compile(chain(0.1)), objective, spins(), optimizer=optax.adam(2e-2))
    assert not calls
    fit(ed.compile(chain(0.1)), objective, spins(), optimizer=optax.sgd(2e-2))
    assert calls


MAKERS = {
    "adam": lambda rate: optax.adam(rate),
    "clipped": lambda rate: optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(rate, 0.9)),
    "schedule": lambda rate: optax.adamw(optax.cosine_decay_schedule(rate, 100)),
    "own schedule": lambda rate: optax.sgd(lambda t: rate / (1 + t)),
    "plateau": lambda rate: optax.chain(optax.sgd(rate), optax.contrib.reduce_on_plateau()),
}


@pytest.mark.parametrize("make", list(MAKERS.values()), ids=list(MAKERS))
def test_optimizers_are_known_by_what_they_compute(make):
    parameters = (jnp.ones(3), None, jnp.zeros((2, 2)))

    def traced(rate):
        optimizer = make(rate)
        return Update.of(optimizer, optimizer.init(parameters), parameters)

    assert traced(0.1).program == traced(0.1).program == traced(0.2).program
    assert content(traced(0.1)) == content(traced(0.1)) != content(traced(0.2))


def test_another_optimizer_is_another_program():
    parameters = (jnp.ones(3),)
    made = [optax.adam(0.1), optax.adam(0.1, nesterov=True), optax.sgd(0.1), optax.sgd(0.1, 0.9)]
    programs = {Update.of(o, o.init(parameters), parameters).program for o in made}
    assert len(programs) == 4


@pytest.mark.parametrize("make", list(MAKERS.values()), ids=list(MAKERS))
def test_a_traced_optimizer_computes_what_optax_does(make):
    optimizer, parameters = make(0.1), (jnp.ones(3), jnp.zeros((2, 2)))
    state = again = optimizer.init(parameters)
    update = Update.of(optimizer, state, parameters)
    slope, rewarded = jax.tree.map(lambda a: a + 0.3, parameters), jnp.asarray(1.5)
    for _ in range(3):
        told, state = optax.with_extra_args_support(optimizer).update(
            slope, state, parameters, value=rewarded
        )
        own, again = update(slope, again, parameters, rewarded)
        for a, b in zip(jax.tree.leaves((told, state)), jax.tree.leaves((own, again)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)  # float32's rounding


class Breaks(ed.AbstractObjective):
    """A loss that is not finite from a given step on."""

    at: int
    value: float

    def check(self, ebm, data):
        pass

    def init(self, ebm, data, *, key):
        return jnp.zeros((), int)

    def loss(self, ebm, batch, state, *, key):
        fine = sum(jnp.sum(a**2) for a in jax.tree.leaves(ebm.parameters))
        return jnp.where(state < self.at, fine, self.value), (state + 1, {"t": state})


@pytest.mark.parametrize("value, word", [(np.nan, "is not finite"), (np.inf, "is not finite"),
                                         (1e9, "has diverged")])  # fmt: skip
@pytest.mark.parametrize("at", [1, 5, 16, 17])
def test_a_broken_loss_stops_the_run_with_the_last_good_parameters(at, value, word):
    ebm = ed.compile(chain(1.0, 1.0))
    with pytest.warns(UserWarning, match=f"stopped after {at} steps: the loss {word}.*rate"):
        after, history = fit(ebm, Breaks(at, value), spins(), optimizer=optax.sgd(0.1))
    assert history["loss"].shape == (at,) and history["t"].tolist() == list(range(at))
    assert history.stopped.startswith(f"stopped after {at}")
    # Those at which the last finite loss was taken.
    assert sum(float(np.sum(a**2)) for a in floats(after)) == history["loss"][-1]


def test_a_learning_rate_that_diverges_is_told():
    y = ed.real("y", 2)
    mean = ed.parameter("mean", np.ones(2))
    ebm = ed.compile(ed.Model(0.5 * ((y - mean) ** 2).sum()))
    data = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    objective = ed.ScoreMatching(method="explicit")
    with pytest.warns(UserWarning, match=r"the loss has diverged.*lower learning rate"):
        after, history = fit(ebm, objective, data, optimizer=optax.sgd(50.0), steps=500)
    assert np.isfinite(history["loss"]).all() and 0 < len(history["loss"]) < 500
    assert all(np.isfinite(a).all() for a in floats(after))


def test_a_start_that_is_no_number_is_told():
    with pytest.warns(UserWarning, match="after 0 steps: the loss is not finite.*starting param"):
        after, history = fit(ed.compile(chain(1.0)), Breaks(0, np.nan), spins())
    assert not len(history["loss"]) and floats(after)[0] == 1.0


def test_an_update_that_is_not_finite_is_left_out_at_the_end():
    bad = optax.GradientTransformation(
        lambda params: (), lambda g, s, p=None: (jax.tree.map(lambda a: a * jnp.nan, g), s)
    )
    with pytest.warns(UserWarning, match="the last update of J, b is not finite"):
        after, _ = fit(ed.compile(chain(1.0)), ed.MaximumLikelihood(), spins(), steps=1,
                       optimizer=bad)  # fmt: skip
    assert floats(after)[0] == 1.0


def test_ctrl_c_returns_what_was_reached(monkeypatch, tmp_path):
    ebm, data = rbm(), bits()
    objective = ed.ContrastiveDivergence(start="persistent", chains=8)
    compute, calls = fitting.run_chunk, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 4:  # the first one, of no steps, only compiles
            signal.raise_signal(signal.SIGINT)
        return compute(*arguments)

    monkeypatch.setattr(fitting, "run_chunk", interrupted)
    monkeypatch.setattr(running, "CHUNK_SECONDS", 0.0)  # chunks of one step
    with pytest.warns(UserWarning, match=r"interrupted after \d+ of 50 steps"):
        part, history = fit(ebm, objective, data, batch=10, steps=50, checkpoint=tmp_path)
    monkeypatch.undo()
    reached = len(history["loss"])
    assert 0 < reached < 50 and history.stopped.startswith("interrupted")
    assert same(part, fit(ebm, objective, data, batch=10, steps=reached)[0])
    whole, whole_history = fit(ebm, objective, data, batch=10, steps=50)
    resumed, resumed_history = fit(ebm, objective, data, batch=10, steps=50, checkpoint=tmp_path)
    assert same(whole, resumed)
    assert np.array_equal(whole_history["loss"], resumed_history["loss"])


SCRIPT = """
import jax, numpy as np, optax, sys
import energydsl as ed
rng = np.random.default_rng(0)
x, h = ed.binary("x", 64), ed.binary("h", 16, latent=True)
W, b = ed.parameter("W", 0.1 * rng.normal(size=(64, 16))), ed.parameter("b", np.zeros(64))
ebm = ed.compile(ed.Model(-(x @ W @ h) - b @ x))
data = rng.integers(0, 2, (1000, 64)).astype(np.int8)
ebm, history = ed.fit(
    ebm, ed.ContrastiveDivergence(start="persistent"), data, key=jax.random.key(3), steps=8_000,
    optimizer=optax.adam(1e-3), batch=64, checkpoint=sys.argv[1] or None, progress=False,
    held_out=data[:50], every=500, patience=100, average=0.99,
)
leaves = [np.asarray(a) for a in jax.tree.leaves(ebm.parameters)]
np.savez(sys.argv[2], history["loss"], history.held_out.values, *leaves)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
def test_a_run_killed_by_sigkill_resumes_with_the_same_parameters(tmp_path):
    script, folder = tmp_path / "run.py", tmp_path / "checkpoint"
    script.write_text(textwrap.dedent(SCRIPT))

    def start(checkpoint, out):
        return subprocess.Popen([sys.executable, str(script), checkpoint, str(out)])

    killed = start(str(folder), tmp_path / "never.npz")
    deadline = time.monotonic() + 60
    while not list(folder.glob("part-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert list(folder.glob("part-*")) and not (tmp_path / "never.npz").exists()

    assert start(str(folder), tmp_path / "resumed.npz").wait() == 0
    assert start("", tmp_path / "whole.npz").wait() == 0
    resumed, whole = np.load(tmp_path / "resumed.npz"), np.load(tmp_path / "whole.npz")
    assert len(whole["arr_0"]) == 8_000
    assert all(np.array_equal(resumed[k], whole[k]) for k in whole.files)


def test_a_finished_checkpoint_is_read_and_extended(tmp_path):
    ebm, data = rbm(), bits()
    objective = ed.ContrastiveDivergence()
    whole, _ = fit(ebm, objective, data, batch=10, steps=30)
    fit(ebm, objective, data, batch=10, steps=12, checkpoint=tmp_path)
    again, history = fit(ebm, objective, data, batch=10, steps=30, checkpoint=tmp_path)
    assert same(whole, again) and history["loss"].shape == (30,)
    with pytest.raises(ValueError, match="holds 30 steps, more than steps=5"):
        fit(ebm, objective, data, batch=10, steps=5, checkpoint=tmp_path)


@pytest.mark.parametrize(
    "change, word",
    [
        ({"ebm": rbm(seed=1)}, "model's parameters was"),
        ({"objective": ed.ContrastiveDivergence(k=2)}, "objective's k was 1, now 2"),
        (
            {"objective": ed.ContrastiveDivergence(kernel=ed.MetropolisHastings())},
            "objective's kernel was None",
        ),
        ({"optimizer": optax.adam(1e-3)}, "optimizer was"),
        ({"data": bits(seed=1)}, "data was"),
        ({"key": jax.random.key(5)}, "key was"),
        ({"batch": 11}, "batch was 10, now 11"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, change, word):
    options = {"ebm": rbm(), "objective": ed.ContrastiveDivergence(), "data": bits(), "batch": 10,
               "checkpoint": tmp_path}  # fmt: skip
    fit(**options)
    with pytest.raises(ValueError, match=f"of another run.*{word}.*or another folder"):
        fit(**options | change)


@pytest.mark.parametrize(
    "data, message",
    [
        (bits()[:, :5], r"'x' has shape \(50, 5\); expected \(examples, 6\)"),
        (bits()[0], r"shape \(6,\); expected \(examples, 6\)"),
        (bits()[:0], "no examples; expected at least one"),
        (2 * bits(), r"'x' has a value outside binary.*first at"),
        ({}, r"lacks \['x'\]; expected an array for each of \['x'\]"),
        ({"x": bits(), "h": bits()}, r"shows the latent \['h'\]"),
        ({"x": bits(), "z": bits()}, r"has the unknown \['z'\]"),
    ],
)
def test_bad_data(data, message):
    with pytest.raises(ValueError, match=message):
        fit(rbm(), ed.ContrastiveDivergence(), data)


def test_a_mask_that_hides_nothing_is_no_mask():
    plain, _ = fit(rbm(), ed.ContrastiveDivergence(), bits())
    bare = np.ma.array(bits(), mask=np.zeros((50, 6), bool))
    assert same(plain, fit(rbm(), ed.ContrastiveDivergence(), bare)[0])


def test_a_masked_batch_of_a_stream_is_told():
    bad = np.ma.array(bits(), mask=True)
    with pytest.warns(UserWarning, match=r"batch 1: .*differ in \['x seen'\].*masked arrays"):
        _, history = fit(rbm(), ed.ContrastiveDivergence(), iter([bits(), bad]))
    assert len(history["loss"]) == 1


def test_bad_data_of_several_variables():
    s, t = ed.spin("s", 2), ed.real("t")
    ebm = ed.compile(ed.Model(t**2 - ed.parameter("w", 0.1) * t * s[0] + s[1]))
    with pytest.raises(ValueError, match=r"one array of data for the variables \['t', 's'\]"):
        fit(ebm, ed.PseudoLikelihood(), spins(5, 2))
    with pytest.raises(ValueError, match="examples; expected as many of each"):
        fit(ebm, ed.PseudoLikelihood(), {"s": spins(5, 2), "t": np.zeros(4)})
    with pytest.raises(TypeError, match="needs every entry of the data, and 1 of 't' are missing"):
        fit(ebm, ed.PseudoLikelihood(), {"s": spins(5, 2), "t": [0, 0, np.nan, 0, 0]})
    with pytest.raises(TypeError, match=r"'s' has dtype float.*takes integers"):
        fit(ebm, ed.PseudoLikelihood(), {"s": spins(5, 2) * 1.0, "t": np.zeros(5)})


@pytest.mark.parametrize(
    "options, message",
    [
        ({"batch": 51}, "batch=51, more than the 50 examples"),
        ({"batch": 0}, "batch=0; expected a whole number"),
        ({"steps": 0}, "steps=0; expected a whole number"),
        ({"steps": 2.5}, "steps=2.5"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_bad_numbers(options, message):
    with pytest.raises(ValueError, match=message):
        fit(rbm(), ed.ContrastiveDivergence(), bits(), **options)


@pytest.mark.usefixtures("untyped")
def test_wrong_things():
    with pytest.raises(TypeError, match=r"compile it first: ed\.compile"):
        fit(chain(), ed.MaximumLikelihood(), spins())
    with pytest.raises(TypeError, match=r"objective 'cd'; expected one such as"):
        fit(rbm(), "cd", bits())
    with pytest.raises(TypeError, match=r"optimizer 0\.1; expected one such as optax"):
        fit(rbm(), ed.ContrastiveDivergence(), bits(), optimizer=0.1)
    with pytest.raises(TypeError, match=r"the kernel 'gibbs'; expected one such as"):
        fit(rbm(), ed.ContrastiveDivergence(kernel="gibbs"), bits())


def test_models_without_anything_to_learn_or_to_show():
    s, h = ed.spin("s", 4), ed.spin("h", 2, latent=True)
    for field in (0.3, jnp.asarray(0.3), ed.fixed(ed.parameter("b", 0.3))):
        with pytest.raises(ValueError, match=r'nothing to learn.*W = ed.parameter\("W", array\)'):
            fit(ed.compile(ed.Model(-field * s.sum())), ed.MaximumLikelihood(), spins())
    with pytest.raises(ValueError, match="free variables are all latent"):
        fit(ed.compile(ed.Model(-ed.parameter("b", 0.3) * h.sum())), ed.MaximumLikelihood(), {})


def test_the_history_holds_scalars():
    class Wide(ed.AbstractObjective):
        def check(self, ebm, data):
            pass

        def init(self, ebm, data, *, key):
            return None

        def loss(self, ebm, batch, state, *, key):
            return jnp.zeros(()), (None, {"all": jnp.zeros(3)})

    with pytest.raises(ValueError, match=r"tells arrays of shapes \{'all': \(3,\)\}"):
        fit(rbm(), Wide(), bits())


def test_the_kernels_statistics_enter_the_history():
    y = ed.real("y", 2)
    mean = ed.parameter("mean", np.zeros(2))
    ebm = ed.compile(ed.Model(0.5 * ((y - mean) ** 2).sum()))
    data = np.random.default_rng(0).normal(1.0, 1.0, size=(100, 2)).astype(np.float32)
    objective = ed.ContrastiveDivergence(k=3, kernel=ed.Langevin(step_size=0.3), start="persistent")
    after, history = fit(ebm, objective, data, steps=300, optimizer=optax.adam(0.03))
    assert ((history["acceptance_rate"] > 0.5) & (history["acceptance_rate"] <= 1)).all()
    np.testing.assert_allclose(floats(after)[-1], data.mean(0), atol=0.3)


class NoiseContrastive(ed.AbstractObjective):
    """Data told apart from uniform noise, every state once, by p(s) = e^{-E(s) - log_z}."""

    log_z: Any
    weight: Any = None
    kernel: ed.AbstractKernel | None = None
    model: ed.Model | None = None

    def check(self, ebm, data):
        pass

    def init(self, ebm, data, *, key):
        return None

    def loss(self, ebm, batch, state, *, key):
        sites = batch["s"].shape[1]
        noise = jnp.asarray(list(itertools.product((-1, 1), repeat=sites)), jnp.int8)

        def odds(x):
            return sites * jnp.log(2.0) - jax.vmap(ebm.energy)({"s": x}) - self.log_z

        loss = jax.nn.softplus(-odds(batch["s"])).mean() + jax.nn.softplus(odds(noise)).mean()
        return loss, (None, {})


def test_a_learnt_log_z_comes_back_with_the_history():
    """Couplings and log Z lie within their errors of the truth, as the law of the data says.

    At the truth, with the gradient g of log p - log Z and w = q / (p + q), the estimate's
    covariance is H^-1 V H^-1 / n, with H = sum p w g g^T and V = cov_p(w g).

    Source: Gutmann & Hyvarinen (2012), JMLR 13, 307-361, theorem 3, the noise known exactly.
    """
    truth, n = np.array([0.5, -0.2]), 20_000
    law = exact_law(
        lambda s: -truth[0] * (s[:, 1:] * s[:, :-1]).sum(1) - truth[1] * s.sum(1), [(-1, 1)] * 4
    )
    rows = np.random.default_rng(0).choice(len(law.states), size=n, p=law.probs)
    data, objective = law.states[rows].astype(np.int8), NoiseContrastive(jnp.zeros(()))
    rate = optax.cosine_decay_schedule(0.1, 400)
    ebm, history = fit(ed.compile(chain()), objective, data, steps=400, optimizer=optax.adam(rate))
    assert float(objective.log_z) == 0.0
    features = (law.states[:, 1:] * law.states[:, :-1]).sum(1), law.states.sum(1)
    g = np.stack([*features, -np.ones(16)])
    w = (1 / 16) / (law.probs + 1 / 16)
    bend = (law.probs * w * g) @ g.T
    spread = np.cov(w * g, aweights=law.probs, ddof=0)
    gap = np.array([*floats(ebm), history.objective.log_z]) - [*truth, law.log_z]
    statistic = n * (bend @ gap) @ np.linalg.solve(spread, bend @ gap)
    assert scipy.stats.chi2.sf(statistic, 3) > FALSE_ALARM
    # It is learnt, not left: the start lies thousands of such errors away.
    assert abs(gap[-1]) < 0.1 < law.log_z


def decayed(objective, steps=20, **options):
    """What an optimizer that moves all that it is shown makes of an objective's arrays."""
    ebm = ed.compile(chain(0.3, 0.1))
    optimizer = optax.adamw(1e-2, weight_decay=0.5)
    return fit(ebm, objective, spins(), steps=steps, optimizer=optimizer, **options)[1].objective


@pytest.mark.usefixtures("untyped")
def test_the_settings_of_an_objective_stay():
    kernel = ed.Langevin(step_size=jnp.asarray(0.5))
    model, held, whole = chain(0.4), ed.fixed(jnp.asarray([1.0, 2.0])), np.arange(3)
    given = NoiseContrastive(jnp.ones(()), (held, whole), kernel, model)
    found = decayed(given)
    assert float(found.log_z) != 1.0
    assert np.array_equal(paramax.unwrap(found.weight[0]), [1.0, 2.0])
    assert found.weight[1] is whole and found.kernel.step_size is kernel.step_size
    assert np.array_equal(found.model.parameters["J"], model.parameters["J"])
    noise = ed.ScoreMatching(noise=jnp.asarray(0.25)).noise
    assert noise == 0.25 and isinstance(noise, float)
    plain = ed.ContrastiveDivergence(k=2)
    assert decayed(plain) == plain


def test_arrays_deep_in_an_objective_learn_within_their_constraints():
    deep = {"net": [jnp.ones(2), np.float32([3.0])],
            "scale": paramax.Parameterize(jnp.exp, jnp.asarray(0.5))}  # fmt: skip
    found = decayed(NoiseContrastive(jnp.zeros(()), deep)).weight
    # The loss does not depend on these: decay alone shrinks them, by 1 - 0.005 a step.
    shrunk = 0.995**20
    np.testing.assert_allclose(found["net"][0], shrunk, rtol=1e-5)  # float32, 20 steps
    np.testing.assert_allclose(found["net"][1], 3 * shrunk, rtol=1e-5)
    np.testing.assert_allclose(paramax.unwrap(found["scale"]), np.exp(0.5 * shrunk), rtol=1e-5)


def test_an_objective_may_learn_alone():
    """Log Z of a model in which nothing moves: e^-E / Z is the share of the data's states."""
    s = ed.spin("s", 4)
    ebm = ed.compile(ed.Model(0.0 * s.sum()))
    objective = NoiseContrastive(jnp.zeros(()))
    _, history = fit(ebm, objective, spins(), steps=300, optimizer=optax.sgd(0.5))
    # All 16 states weigh the same, so that data tell nothing from noise at log 16. Each step
    # brings the error down by an eighth of itself at least; what is left is float32's rounding.
    assert float(history.objective.log_z) == pytest.approx(np.log(16), rel=1e-5)


def test_the_arrays_of_an_objective_resume_with_its_checkpoint(tmp_path):
    options = {"ebm": ed.compile(chain()), "objective": NoiseContrastive(jnp.zeros(())),
               "data": spins(), "batch": 20}  # fmt: skip
    whole, history = fit(**options, steps=30)
    fit(**options, steps=12, checkpoint=tmp_path)
    again, resumed = fit(**options, steps=30, checkpoint=tmp_path)
    assert same(whole, again) and resumed.objective.log_z == history.objective.log_z != 0
    other = {"objective": NoiseContrastive(jnp.ones(()))}
    with pytest.raises(ValueError, match="objective's log_z was 0, now 1"):
        fit(**options | other, steps=30, checkpoint=tmp_path)


def test_other_starting_arrays_of_an_objective_compile_nothing():
    calls = Calls()
    for start in (0.0, 1.0):
        calls.clear()
        fit(ed.compile(chain()), Watched(NoiseContrastive(jnp.asarray(start)), calls), spins())
    assert not calls


class BreaksItself(Breaks):
    """A loss in an array of its own beside the model's parameters."""

    own: jax.Array = eqx.field(default_factory=lambda: jnp.asarray(2.0))

    def loss(self, ebm, batch, state, *, key):
        loss, rest = super().loss(ebm, batch, state, key=key)
        return loss + self.own**2, rest


def test_a_broken_loss_returns_the_last_good_arrays_of_both():
    with pytest.warns(UserWarning, match="stopped after 5 steps"):
        after, history = fit(ed.compile(chain(1.0, 1.0)), BreaksItself(5, np.nan), spins(),
                             optimizer=optax.sgd(0.1))  # fmt: skip
    found = sum(float(np.sum(a**2)) for a in floats(after)) + float(history.objective.own) ** 2
    assert found == pytest.approx(history["loss"][-1], rel=1e-6)  # float32, another order


def test_an_update_of_an_objective_that_is_not_finite_is_named():
    bad = optax.GradientTransformation(
        lambda params: (),
        lambda g, s, p=None: (g | {"objective.own": jnp.full_like(g["objective.own"], jnp.nan)}, s),
    )
    with pytest.warns(UserWarning, match="last update of objective.own is not finite"):
        after, history = fit(ed.compile(chain(1.0)), BreaksItself(99, 0.0), spins(), steps=1,
                             optimizer=bad)  # fmt: skip
    assert history.objective.own == 2.0 and floats(after)[0] == 1.0


def test_a_printed_history_is_a_summary():
    history = History(loss=np.array([3.0, 1.25]), error=np.array([0.5, 0.25]))
    assert repr(history) == "<History of 2 steps in 0.0 s: loss 3 to 1.25, error 0.5 to 0.25>"
    history.stopped = "interrupted after 2 of 9 steps"
    assert str(history).endswith("stopped: interrupted after 2 of 9 steps>")
    assert repr(History()) == "<History of 0 steps in 0.0 s: no step>"
