"""Where each step's examples come from: data held whole, and streams."""

import itertools
import os
import subprocess
import sys
import textwrap

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import energydsl as ed
from energydsl.learning import batches
from energydsl.learning.batches import Whole
from energydsl.learning.moving import moving_of
from energydsl.run import loop as running

KEY = jax.random.key(0)


def machine():
    s = ed.spin("s", 4)
    J, b = ed.parameter("J", 0.1), ed.parameter("b", np.zeros(4))
    return ed.compile(ed.Model(-J * (s[1:] * s[:-1]).sum() - b @ s))


def spins(number, size=20):
    """The batch of this number."""
    rng = np.random.default_rng(number)
    return (2 * rng.integers(0, 2, (size, 4)) - 1).astype(np.int8)


def stream(count=None):
    return map(spins, itertools.count() if count is None else range(count))


def fit(data, objective=None, **options):
    options = {"key": KEY, "steps": 30, "progress": False} | options
    return ed.fit(machine(), objective or ed.PseudoLikelihood(), data, **options)


def same(a, b):
    leaves = [jax.tree.leaves(moving_of(ebm, ed.MaximumLikelihood())) for ebm in (a, b)]
    return all(map(np.array_equal, *leaves))


class Mean(ed.AbstractObjective):
    """Tells the mean of each batch, and notes each time it is traced."""

    traced: list = eqx.field(static=True)

    def __hash__(self):
        return id(self.traced)

    def check(self, ebm, data):
        pass

    def init(self, ebm, data, *, key):
        return None

    def loss(self, ebm, batch, state, *, key):
        self.traced.append(1)
        seen = jnp.mean(batch["s"].astype(float))
        return sum(jnp.sum(a**2) for a in jax.tree.leaves(ebm.parameters)), (None, {"mean": seen})


def test_an_epoch_shows_every_example_once_in_an_order_of_its_own():
    source = Whole({"x": jnp.arange(10)}, 3)
    reader, count = source.read(6)
    assert count == 6
    order, seen = source.order, []
    for t in range(6):
        order, batch = reader.batch(order, KEY, jnp.asarray(t), jnp.asarray(t))
        seen.append(np.asarray(batch["x"]))
    first, second = np.concatenate(seen[:3]), np.concatenate(seen[3:])
    assert len(set(first)) == len(set(second)) == 9
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("room", [1, 7, 256])
def test_a_stream_is_a_batch_a_step_in_its_order(monkeypatch, room):
    monkeypatch.setattr(batches, "WINDOW_STEPS", room)
    _, history = fit(stream(), Mean([]))
    expected = [spins(k).mean() for k in range(30)]
    np.testing.assert_allclose(history["mean"], expected, atol=1e-6)


def test_a_stream_of_the_same_data_learns_what_the_data_do():
    whole, history = fit(spins(0))
    streamed, same_history = fit(itertools.repeat({"s": spins(0)}))
    assert same(whole, streamed)
    assert np.array_equal(history["loss"], same_history["loss"])


def test_windows_of_any_length_compile_one_program(monkeypatch):
    monkeypatch.setattr(running, "CHUNK_SECONDS", 0.0)
    objective = Mean([])
    fit(stream(), objective, steps=3)
    calls = len(objective.traced)
    monkeypatch.setattr(running, "CHUNK_SECONDS", 10.0)
    fit(stream(), objective, steps=100)
    assert len(objective.traced) == calls


def test_the_end_of_a_stream_is_told_and_loses_nothing():
    with pytest.warns(UserWarning, match="stopped after 12 steps: the data ended; what was learnt"):
        ended, history = fit(stream(12))
    assert len(history["loss"]) == 12
    wanted, _ = fit(stream(), steps=12)
    assert same(ended, wanted)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (2 * spins(0), r"batch 12: The data of 's' has a value outside spin"),
        (spins(0)[:, :2], r"batch 12: The data of 's' has shape \(20, 2\)"),
        (spins(0)[:7], r"batch 12: It has 7 examples, but the first batch had 20"),
        ({"t": spins(0)}, r"batch 12: The data lacks \['s'\]"),
        (1.0 * spins(0), r"batch 12: .*takes integers"),
    ],
)
def test_a_bad_batch_stops_the_run_with_what_was_learnt(bad, message):
    with pytest.warns(UserWarning, match=f"stopped after 12 steps: {message}"):
        ended, _ = fit(itertools.chain(stream(12), [bad], stream()))
    wanted, _ = fit(stream(), steps=12)
    assert same(ended, wanted)


def test_a_resumed_stream_goes_on_where_it_was(tmp_path):
    objective = ed.ContrastiveDivergence(start="persistent", chains=8)
    whole, history = fit(stream(), objective)
    fit(stream(), objective, steps=11, checkpoint=tmp_path)
    resumed, same_history = fit(stream(), objective, checkpoint=tmp_path)
    assert same(whole, resumed)
    assert np.array_equal(history["loss"], same_history["loss"])
    with pytest.raises(ValueError, match=r"of another run.*data was"):
        fit(map(spins, itertools.count(1)), objective, checkpoint=tmp_path)


def test_what_a_stream_raises_leaves_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "CHUNK_SECONDS", 0.0)  # chunks of one step

    def lost():
        yield from stream(12)
        raise OSError("the disk went away")

    with pytest.raises(OSError, match="the disk went away"):
        fit(lost(), checkpoint=tmp_path)
    with pytest.raises(ValueError, match="holds 12 steps, more than steps=5"):
        fit(stream(), steps=5, checkpoint=tmp_path)
    resumed, _ = fit(stream(), checkpoint=tmp_path)
    whole, _ = fit(stream())
    assert same(whole, resumed)


def test_a_broken_loss_is_told_of_a_stream_too():
    wild = optax.sgd(1e6)
    with pytest.warns(UserWarning, match=r"stopped after \d+ steps: the loss"):
        after, history = fit(stream(), ed.MaximumLikelihood(), optimizer=wild)
    assert np.isfinite(history["loss"]).all()
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(after.parameters))


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (stream(0), {}, "an iterator of data that yields no batch"),
        (stream(), {"batch": 5}, "batch=5 and an iterator, which gives whole batches"),
        (iter([2 * spins(0)]), {}, "a value outside spin"),
    ],
)
def test_a_stream_that_cannot_begin_is_refused(data, options, message):
    with pytest.raises(ValueError, match=message):
        fit(data, **options)


def test_a_function_of_the_step_learns_what_a_stream_does():
    streamed, history = fit(stream())
    numbered, same_history = fit(spins)
    assert same(streamed, numbered)
    assert np.array_equal(history["loss"], same_history["loss"])


def test_a_function_resumes_without_reading_what_was_used(tmp_path):
    asked = []

    def batch_of(step):
        asked.append(step)
        return spins(step)

    objective = ed.ContrastiveDivergence(start="persistent", chains=8)
    whole, history = fit(spins, objective)
    fit(batch_of, objective, steps=11, checkpoint=tmp_path)
    asked.clear()
    resumed, same_history = fit(batch_of, objective, checkpoint=tmp_path)
    assert same(whole, resumed) and np.array_equal(history["loss"], same_history["loss"])
    # The first batch is checked, and the last one of the earlier run.
    assert set(asked) == {0, 10, *range(11, 30)}


def test_a_function_of_other_batches_is_noticed(tmp_path):
    fit(spins, steps=11, checkpoint=tmp_path)
    with pytest.raises(ValueError, match=r"of another run.*data was"):
        fit(lambda step: spins(step + 1), checkpoint=tmp_path)
    with pytest.raises(ValueError, match="data are other batches among the first 11"):
        fit(lambda step: spins(step + (step > 5)), checkpoint=tmp_path)


def test_a_bad_batch_of_a_function_stops_the_run_with_what_was_learnt(monkeypatch):
    monkeypatch.setattr(batches, "WINDOW_STEPS", 5)
    with pytest.warns(UserWarning, match=r"stopped after 12 steps: batch 12: .*outside spin"):
        ended, _ = fit(lambda step: spins(step) * (1 + (step == 12)))
    assert same(ended, fit(spins, steps=12)[0])


def test_a_function_takes_neither_batch_nor_epochs():
    with pytest.raises(ValueError, match="batch=5 and a function of the step's number"):
        fit(spins, batch=5)
    with pytest.raises(ValueError, match="epochs=2 and data that is no array"):
        fit(spins, steps=None, epochs=2)


DIVIDED = """
import equinox as eqx, jax, jax.numpy as jnp, numpy as np
import energydsl as ed
from energydsl.learning.batches import source_of
rng = np.random.default_rng(0)
s, y = ed.spin("s", 6), ed.real("y", 2)
b, m = ed.parameter("b", np.zeros(6)), ed.parameter("m", np.zeros(2))
ebm = ed.compile(ed.Model(-0.1 * (s[1:] * s[:-1]).sum() - b @ s + 0.5 * ((y - m) ** 2).sum()))
data = {"s": rng.choice(np.int8([-1, 1]), (64, 6)), "y": np.float32(rng.normal(size=(64, 2)))}
mesh = jax.make_mesh((2,), ("data",))
place = jax.NamedSharding(mesh, jax.P("data"))
split = {n: jax.device_put(a, place) for n, a in data.items()}


def learn(objective, data, **options):
    learnt, history = ed.fit(ebm, objective, data, key=jax.random.key(0), steps=30, every=10,
                             held_out=data, average=0.9, progress=False, **options)
    leaves = jax.tree.leaves(learnt.parameters)
    return np.concatenate([*map(np.ravel, leaves), history.held_out.values])


for batch in (None, 16, 15):
    source = source_of(ebm, split, batch)
    key = jax.random.key(0)
    first = jnp.zeros((), int)
    _, one = eqx.filter_jit(lambda r: r.batch(source.order, key, first, first))(source.reader)
    halves = {n: len(a.sharding.device_set) for n, a in one.items()}
    assert batch == 15 or halves == {"s": 2, "y": 2}, halves
    assert all(not a.sharding.is_fully_replicated for a in one.values() if batch != 15)
    persistent = ed.ContrastiveDivergence(start="persistent", chains=8)
    for objective in (ed.MaximumLikelihood(), persistent):
        whole, half = (learn(objective, d, batch=batch) for d in (data, split))
        # Two halves are added in another order: float32's rounding, over 30 steps.
        np.testing.assert_allclose(half, whole, rtol=1e-4, atol=1e-5)
"""


@pytest.mark.slow
def test_examples_divided_among_devices_learn_what_they_do_on_one():
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    script = textwrap.dedent(DIVIDED)
    done = subprocess.run([sys.executable, "-c", script], env=os.environ | flags, text=True,
                          capture_output=True)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
