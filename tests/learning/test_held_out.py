"""Data that are not learnt from: what is measured of them, and when learning stops by them."""

import re
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import energydsl as ed
from energydsl.learning import held_out as judging
from energydsl.learning.moving import moving_of
from energydsl.run import loop as running
from tests.oracles.enumerate import exact_law

KEY = jr.key(0)


def chain(coupling=0.0, n=4):
    s = ed.spin("s", n)
    J, b = ed.parameter("J", coupling), ed.parameter("b", np.zeros(n))
    return ed.compile(ed.Model(-(J * (s[1:] * s[:-1]).sum()) - b @ s))


MACHINE = chain()


def spins(n=60, seed=0):
    return (2 * np.random.default_rng(seed).integers(0, 2, (n, 4)) - 1).astype(np.int8)


TRAIN, OTHER = spins(30), spins(41, seed=1)


def fit(objective=None, data=TRAIN, ebm=MACHINE, **options):
    options = {"key": KEY, "steps": 40, "progress": False, "every": 5, "held_out": OTHER} | options
    return ed.fit(ebm, objective or ed.MaximumLikelihood(), data, **options)


def leaves(ebm):
    return [np.asarray(a) for a in jax.tree.leaves(moving_of(ebm, ed.MaximumLikelihood()))]


def same(a, b):
    return all(map(np.array_equal, leaves(a), leaves(b)))


def law_of(ebm):
    J, b = (np.asarray(ebm.parameters[n]) for n in "Jb")
    return exact_law(lambda s: -J * (s[:, 1:] * s[:, :-1]).sum(1) - s @ b, [(-1, 1)] * 4)


def mean_log_p(ebm, data):
    """The mean log-likelihood, by enumeration."""
    law = law_of(ebm)
    rows = ((data + 1) // 2) @ (8, 4, 2, 1)
    assert np.array_equal(law.states[rows], data)
    return np.log(law.probs[rows]).mean()


def mean_log_pseudo(ebm, data):
    """The mean over examples of the sum of the sites' conditional log-probabilities."""
    law, total = law_of(ebm), 0.0
    log_p = {tuple(s): np.log(p) for s, p in zip(law.states, law.probs, strict=True)}
    for row in data:
        for i in range(4):
            other = row.copy()
            other[i] *= -1
            total -= np.logaddexp(0, log_p[tuple(other)] - log_p[tuple(row)])
    return total / len(data)


@pytest.mark.parametrize("part", [1, 7, 41, 1024])
def test_the_measure_is_that_of_a_run_of_as_many_steps(monkeypatch, part):
    monkeypatch.setattr(judging, "PART", part)
    learnt, history = fit(batch=1)
    found = history.held_out
    assert found.name == "loss" and found.steps.tolist() == [5, 10, 15, 20, 25, 30, 35, 40]
    assert found.values[-1] == pytest.approx(-mean_log_p(learnt, OTHER), rel=1e-5)  # float32
    shorter, _ = fit(batch=1, steps=15)
    assert found.values[2] == pytest.approx(-mean_log_p(shorter, OTHER), rel=1e-5)
    assert "held_out" not in history


def test_measuring_does_not_change_what_is_learnt():
    objective = ed.ContrastiveDivergence(start="persistent", chains=8)
    watched, history = fit(objective, batch=10)
    bare, same_history = fit(objective, batch=10, held_out=None)
    assert same(watched, bare) and same_history.held_out is None
    assert np.array_equal(history["loss"], same_history["loss"])


@pytest.mark.parametrize(
    ("objective", "name", "oracle"),
    [
        (ed.MaximumLikelihood(), "loss", mean_log_p),
        (ed.PseudoLikelihood(), "loss", mean_log_pseudo),
        (ed.ContrastiveDivergence(), "minus log-likelihood", mean_log_p),
    ],
    ids=lambda o: type(o).__name__,
)
def test_what_is_measured_of_each_objective(objective, name, oracle):
    learnt, history = fit(objective)
    assert history.held_out.name == name
    assert history.held_out.values[-1] == pytest.approx(-oracle(learnt, OTHER), rel=1e-5)


def test_a_pseudo_likelihood_serves_where_log_z_is_out_of_reach():
    s = ed.spin("s", 4)
    J, b = ed.parameter("J", 0.1), ed.parameter("b", np.zeros(4))
    ebm = ed.compile(ed.Model(-(J * (s[1:] * s[:-1]).sum()) - b @ s), budget=1)
    learnt, history = fit(ed.ContrastiveDivergence(), ebm=ebm)
    assert history.held_out.name == "minus log pseudo-likelihood"
    expected = -mean_log_pseudo(learnt, OTHER)
    assert history.held_out.values[-1] == pytest.approx(expected, rel=1e-5)


def test_what_cannot_be_measured_is_refused_unless_a_function_is_given():
    x, h = ed.binary("x", 4), ed.binary("h", 2, latent=True)
    ebm = ed.compile(ed.Model(-(x @ ed.parameter("W", np.ones((4, 2))) @ h)), budget=1)
    data, objective = (TRAIN + 1) // 2, ed.ContrastiveDivergence()
    with pytest.raises(TypeError, match=r"Give measure=.*MaximumLikelihood: .*Pseudo.*\['h'\]"):
        fit(objective, data, ebm, held_out=data)

    def mean_free_energy(ebm, data):
        return jnp.mean(jax.vmap(lambda x: ebm.free_energy({"x": x}))(data))

    learnt, history = fit(objective, data, ebm, held_out=data, measure=mean_free_energy)
    assert history.held_out.name == "mean free energy"
    assert history.held_out.values[-1] == pytest.approx(
        float(mean_free_energy(learnt, data)), rel=1e-6
    )


def test_inputs_of_held_out_data():
    """Each example has a log Z of its own."""
    rng, s, x = np.random.default_rng(0), ed.spin("s"), ed.real("x", given=True)
    ebm = ed.compile(ed.Model(-(ed.parameter("w", 0.3) * x * s)))
    rows = [{"x": rng.normal(size=n), "s": 2 * rng.integers(0, 2, n) - 1} for n in (20, 33)]
    learnt, history = fit(ebm=ebm, data=rows[0], held_out=rows[1], batch=10)
    field = float(learnt.parameters["w"]) * rows[1]["x"] * rows[1]["s"]
    assert history.held_out.values[-1] == pytest.approx(
        np.logaddexp(0, -2 * field).mean(), rel=1e-5
    )


def test_an_evidence_bound_is_measured_with_the_guide_as_it_is_learnt():
    x, h = ed.binary("x", 4), ed.binary("h", 2, latent=True)
    W = ed.parameter("W", np.float32(np.random.default_rng(0).normal(size=(4, 2))))
    ebm = ed.compile(ed.Model(-(x @ W @ h)))
    guide = ed.Model(-(ed.parameter("m", np.zeros(2)) @ h))
    data, held_out = (TRAIN + 1) // 2, (OTHER + 1) // 2
    learnt, history = fit(ed.Variational(guide), data, ebm, held_out=held_out)
    # h has the mean m whatever the data, by which the bound is computed here.
    q = 1 / (1 + np.exp(-np.asarray(history.guide.parameters["m"])))
    entropy = -(q * np.log(q) + (1 - q) * np.log(1 - q)).sum()
    bound = (held_out @ np.asarray(learnt.parameters["W"]) @ q).mean() + entropy
    expected = float(ed.log_partition(learnt)) - bound
    assert history.held_out.name == "loss"
    assert history.held_out.values[-1] == pytest.approx(expected, rel=1e-5)  # float32


class Scripted(ed.AbstractObjective):
    """A loss whose value on held-out data is read from a list; J is the number of steps, halved."""

    loss_kind: ClassVar[Any] = "measure"

    def check(self, ebm, data):
        pass

    def init(self, ebm, data, *, key):
        return None

    def loss(self, ebm, batch, state, *, key):
        return -ebm.parameters["J"] + jnp.sum(ebm.parameters["b"] ** 2), (None, {})


def scripted(values):
    """A measure that has these values after 5, 10, ... steps of `counting`."""

    def told(ebm, data):
        return values[round(float(ebm.parameters["J"])) // 5 - 1]

    return told


def counting(values, **options):
    """A run in which J counts the steps, with these values of the measure."""
    options = {"optimizer": optax.sgd(1.0), "measure": scripted(values)} | options
    return fit(Scripted(), **options)


def test_patience_counts_measurements_without_a_new_lowest():
    learnt, history = counting([3.0, 2.0, 2.5, 1.0, 1.0, 1.5, 0.5, 0.4], patience=2)
    assert history.held_out.steps.tolist() == [5, 10, 15, 20, 25, 30]
    assert history.held_out.best == 20 and float(learnt.parameters["J"]) == 20.0
    expected = r"after 30 steps: the held-out told did not fall in 2 .*1 after 20 steps.*returned"
    assert re.search(expected, history.stopped)
    assert "held-out told lowest after 20 steps (1)" in str(history)
    patient, longer = counting([3.0, 2.0, 2.5, 1.0, 1.0, 1.5, 0.5, 0.4], patience=3)
    assert longer.stopped is None and float(patient.parameters["J"]) == 40.0


def test_early_stopping_is_no_failure(recwarn):
    counting([3.0, 4.0, 4.0], patience=1)
    assert not [w for w in recwarn if "fit " in str(w.message)]


def test_the_best_is_returned_also_when_the_run_ends_otherwise():
    learnt, history = counting([3.0, 1.0, 2.0, np.nan], patience=9, steps=22)
    assert history.stopped is None and float(learnt.parameters["J"]) == 10.0
    last, _ = counting([3.0, 1.0, 2.0, np.nan], steps=22)
    assert float(last.parameters["J"]) == 22.0
    with pytest.warns(UserWarning, match="the data ended; the parameters after 10 steps are ret"):
        ended, _ = counting([3.0, 1.0, 2.0], patience=9, data=iter([TRAIN] * 17))
    assert float(ended.parameters["J"]) == 10.0


def test_a_measure_that_is_never_a_number_stops_the_run_too():
    learnt, history = counting([np.nan, np.inf, np.nan], patience=3)
    assert "did not fall in 3 evaluations; it never was a finite number" in history.stopped
    assert history.held_out.best is None and float(learnt.parameters["J"]) == 15.0
    assert "never finite in 3 evaluations" in str(history)


def test_measuring_compiles_once(compilations):
    other = chain(0.3)
    fit(ed.ContrastiveDivergence())
    compilations.clear()
    fit(ed.ContrastiveDivergence(), ebm=other, steps=60, held_out=spins(41, seed=3))
    assert not compilations


@pytest.mark.parametrize("average", [None, 0.9])
def test_a_watched_run_resumes_bit_for_bit(tmp_path, monkeypatch, average):
    objective = ed.ContrastiveDivergence(start="persistent", chains=8)
    options = {"batch": 10, "average": average, "patience": 4, "optimizer": optax.adam(0.1)}
    whole, history = fit(objective, steps=80, **options)
    assert history.stopped is not None  # it ends early, after the interruptions
    monkeypatch.setattr(running, "CHUNK_SECONDS", 0.0)  # chunks of one step
    for steps in (7, 12, 80, 80):
        resumed, again = fit(objective, steps=steps, checkpoint=tmp_path, **options)
    assert same(whole, resumed) and again.stopped == history.stopped
    assert np.array_equal(again["loss"], history["loss"])
    assert np.array_equal(again.held_out.steps, history.held_out.steps)
    assert np.array_equal(again.held_out.values, history.held_out.values)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"held_out": spins(41, seed=2)}, "held_out was"),
        ({"held_out": None}, "held_out was"),
        ({"every": 4}, "every was 5, now 4"),
        ({"patience": 2}, "patience was None, now 2"),
        ({"average": 0.9}, "average was None, now 0.9"),
        ({"measure": lambda ebm, data: 0.0}, "measure is"),
    ],
)
def test_a_checkpoint_of_another_watch_is_refused(tmp_path, change, word):
    fit(checkpoint=tmp_path)
    with pytest.raises(ValueError, match=f"of another run.*{word}"):
        fit(checkpoint=tmp_path, **change)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"held_out": None, "patience": 3}, "patience=3 without held_out. Give the data"),
        ({"held_out": None, "measure": len}, "measure=.* without held_out"),
        ({"every": 41}, "every 41 steps, and takes 40 steps in all"),
        ({"every": 0}, "every=0; expected a whole number"),
        ({"patience": 0}, "patience=0; expected a whole number"),
        ({"patience": 1.5}, r"patience=1\.5; expected"),
        ({"held_out": {"t": OTHER}}, r"held_out: The data lacks \['s'\]"),
        ({"held_out": OTHER[:0]}, "held_out: The data has no examples"),
        ({"held_out": 2 * OTHER}, "held_out: The data of 's' has a value outside spin"),
        ({"held_out": OTHER[:, :3]}, "held_out: The data of 's' has shape"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_bad_settings(options, message):
    with pytest.raises(ValueError, match=message):
        fit(**options)


@pytest.mark.usefixtures("untyped")
def test_bad_measures():
    with pytest.raises(TypeError, match=r"measure='AUROC'; expected a function"):
        fit(measure="AUROC")
    with pytest.raises(TypeError, match=r"measure= returned .*shape.*; expected one number"):
        fit(measure=lambda ebm, data: np.zeros(3))
    with pytest.raises(TypeError, match=r"held_out: .*takes integers"):
        fit(held_out=1.0 * OTHER)
    hole = np.ma.array(OTHER, mask=OTHER > 0)
    with pytest.raises(TypeError, match="PseudoLikelihood needs every entry"):
        fit(ed.PseudoLikelihood(), held_out=hole)
