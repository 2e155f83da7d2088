"""Checkpoints: another run is refused, damage is noticed, and no instant of a save loses a row."""

import os
import signal
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

import energydsl as ed
from energydsl.run import checkpoint as checkpoints
from energydsl.run import files, loop
from energydsl.run.checkpoint import Checkpoint

KEY = jax.random.key(0)


def sample(ebm, kernel, **options):
    options = {"key": KEY, "chains": 2, "warmup": 2, "draws": 3, "progress": False} | options
    return ed.sample(ebm, kernel, **options)


def pair(coupling=0.3):
    s = ed.spin("s", 2)
    return s, ed.Model(-coupling * s[0] * s[1])


@pytest.fixture(scope="module")
def ebm():
    return ed.compile(pair()[1])


def cell(energy, **options):
    """A walk under one energy of a real variable."""
    y = ed.real("y")
    return ed.compile(ed.Model(energy(y))), ed.MetropolisHastings(), options


class Net(eqx.Module):
    scale: float = eqx.field(static=True, default=1.0)
    activation: object = eqx.field(static=True, default=jnp.square)

    def __call__(self, y):
        return jnp.sum(self.activation(self.scale * y))


class Step(ed.AbstractKernel):
    """A kernel with an array among its settings."""

    widths: object

    def init(self, ebm, x, *, key, warmup):
        return None

    def step(self, ebm, x, state, *, key):
        return {"y": x["y"] + self.widths[0]}, state, {}

    def moves(self, ebm):
        return ebm.structure.free

    def reason(self, ebm):
        return ""


def gibbs(*order, **options):
    s, model = pair()
    return ed.compile(model), ed.Gibbs(blocks=[s[i : i + 1] for i in order]), options


def kept(function):
    return ed.compile(pair()[1]), ed.Gibbs(), {"keep": {"m": function}}


def nested(c):
    w = np.full(2, c, np.float32)
    return lambda x: jax.jit(lambda z: (z["s"] * w).sum())(x)


def proposing(width):
    def propose(x, *, key):
        return {"y": x["y"] + width * jax.random.normal(key)}, jnp.zeros(())

    return ed.compile(ed.Model(ed.real("y") ** 2)), ed.MetropolisHastings(propose), {}


def stepping(width):
    return ed.compile(ed.Model(ed.real("y") ** 2)), Step(np.array([width, 1.0])), {}


def held(value):
    s, model = pair()
    return ed.compile(model.condition({s[0]: value})), ed.Gibbs(), {}


def options(**given):
    return ed.compile(pair()[1]), ed.Gibbs(), given


SQUARE, FOURTH = (lambda y: y**2), (lambda y: y**4)

CHANGES = {
    "keep of the same name": (
        lambda: kept(lambda x: x["s"].sum()), lambda: kept(lambda x: x["s"].max()), "keep was",
    ),
    "keep with an array in a nested jit": (
        lambda: kept(nested(1.0)), lambda: kept(nested(2.0)), "keep was",
    ),
    "keep with another number": (
        lambda: kept(lambda x: 2.0 * x["s"].sum()), lambda: kept(lambda x: 3.0 * x["s"].sum()),
        "keep was",
    ),
    "the order of blocks": (lambda: gibbs(0, 1), lambda: gibbs(1, 0), "kernel's blocks was"),
    "a proposal": (lambda: proposing(0.1), lambda: proposing(0.2), "kernel's proposal was"),
    "an array of a kernel": (lambda: stepping(0.1), lambda: stepping(0.2), "kernel's widths was"),
    "another kernel": (
        lambda: (proposing(0.1)[0], ed.Langevin(), {}), lambda: (proposing(0.1)[0], ed.NUTS(), {}),
        "kernel was Langevin, now NUTS",
    ),
    "a setting of a kernel": (
        lambda: (proposing(0.1)[0], ed.Langevin(step_size=0.1), {}),
        lambda: (proposing(0.1)[0], ed.Langevin(step_size=0.2), {}),
        "kernel's step_size was 0.1, now 0.2",
    ),
    "a lambda of apply": (
        lambda: cell(lambda y: ed.apply(SQUARE, y)), lambda: cell(lambda y: ed.apply(FOURTH, y)),
        "model was",
    ),
    "the activation of a network": (
        lambda: cell(ed.Neural(Net())), lambda: cell(ed.Neural(Net(activation=jnp.abs))),
        "model was",
    ),
    "a static field of a network": (
        lambda: cell(ed.Neural(Net())), lambda: cell(ed.Neural(Net(scale=2.0))), "model was",
    ),
    "another density": (
        lambda: cell(ed.LogDensity(dist.Normal(0.0, 1.0))),
        lambda: cell(ed.LogDensity(dist.Cauchy(0.0, 1.0))), "model was",
    ),
    "the start": (
        lambda: options(start={"s": np.array([1, 1])}),
        lambda: options(start={"s": np.array([1, -1])}), "start was",
    ),
    "a start where there was none": (
        lambda: options(), lambda: options(start={"s": np.array([1, -1])}), "start was None",
    ),
    "the key's implementation": (
        lambda: options(key=jax.random.key(0, impl="rbg")),
        lambda: options(key=jax.random.key(0, impl="unsafe_rbg")),
        "key was .* of rbg, now .* of unsafe_rbg",
    ),
    "what is clamped": (lambda: held(1), lambda: held(-1), "model's evidence was"),
    "warmup": (lambda: options(warmup=2), lambda: options(warmup=3), "warmup was 2, now 3"),
}  # fmt: skip


@pytest.mark.parametrize("one, other, word", list(CHANGES.values()), ids=list(CHANGES))
def test_another_run_is_refused(one, other, word, tmp_path):
    ebm, kernel, extra = one()
    sample(ebm, kernel, checkpoint=tmp_path, **extra)
    ebm, kernel, extra = other()
    with pytest.raises(ValueError, match=f"of another run: {word}.*or another folder"):
        sample(ebm, kernel, checkpoint=tmp_path, **extra)


def test_another_precision_is_said(ebm, tmp_path):
    sample(ebm, ed.Gibbs(), checkpoint=tmp_path)
    with jax.enable_x64(True):
        double = ed.compile(pair()[1])
        with pytest.raises(ValueError, match=r"run: precision was float32, now float64\. Give"):
            sample(double, ed.Gibbs(), checkpoint=tmp_path)


RATE = 0.1
OPTIMIZERS = {
    "rate": (lambda: optax.adam(RATE), lambda: optax.adam(2 * RATE)),
    "schedule": (
        lambda: optax.sgd(lambda t: jnp.asarray([0.1, 0.2])[t % 2]),
        lambda: optax.sgd(lambda t: jnp.asarray([0.1, 0.3])[t % 2]),
    ),
    "injected": (
        lambda: optax.inject_hyperparams(optax.sgd)(learning_rate=RATE),
        lambda: optax.inject_hyperparams(optax.sgd)(learning_rate=2 * RATE),
    ),
    "momentum": (lambda: optax.sgd(RATE, 0.5), lambda: optax.sgd(RATE, 0.9)),
}


def fit(data, **options):
    s = ed.spin("s", 2)
    ebm = ed.compile(ed.Model(-ed.parameter("J", 0.1) * s[0] * s[1]))
    options = {"key": KEY, "steps": 3, "progress": False} | options
    return ed.fit(ebm, ed.PseudoLikelihood(), data, **options)


DATA = np.array([[1, 1], [1, -1], [-1, -1]], np.int8)


@pytest.mark.parametrize("one, other", list(OPTIMIZERS.values()), ids=list(OPTIMIZERS))
def test_another_optimizer_is_refused(one, other, tmp_path):
    fit(DATA, optimizer=one(), checkpoint=tmp_path)
    fit(DATA, optimizer=one(), checkpoint=tmp_path)
    with pytest.raises(ValueError, match="of another run: optimizer was"):
        fit(DATA, optimizer=other(), checkpoint=tmp_path)


def test_a_stream_with_other_batches_later_is_refused(tmp_path):
    fit(iter([DATA, DATA, -DATA, DATA]), checkpoint=tmp_path)
    fit(iter([DATA, DATA, -DATA, DATA]), steps=4, checkpoint=tmp_path)
    for stream in ([DATA, DATA, DATA, DATA, DATA], [DATA, DATA]):
        with pytest.raises(ValueError, match="data are other batches among the first 4, or fewer"):
            fit(iter(stream), steps=5, checkpoint=tmp_path)


def test_what_cannot_be_known_by_content_is_refused_at_the_start(ebm, tmp_path):
    generator = (i for i in range(3))

    def propose(x, *, key):
        return x, jnp.zeros(()) * (generator is None)

    with pytest.raises(TypeError, match="cannot tell the kernel's proposal from another"):
        sample(ebm, ed.MetropolisHastings(propose), checkpoint=tmp_path)


@pytest.fixture
def written(ebm, tmp_path):
    """A checkpoint of two parts."""
    sample(ebm, ed.Gibbs(), checkpoint=tmp_path)
    sample(ebm, ed.Gibbs(), draws=6, checkpoint=tmp_path)
    assert len(list(tmp_path.glob("part-*"))) == 2
    return tmp_path


def flip_last_byte(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def flip_header_byte(path):
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "a flipped byte of data": flip_last_byte,
    "a flipped byte of the header": flip_header_byte,
    "a file cut short": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "an empty file": lambda path: path.write_bytes(b""),
    "a file of another kind": lambda path: path.write_bytes(b"{}" * 40),
}


@pytest.mark.parametrize("file", ["state", "part-000001"])
@pytest.mark.parametrize("damage", list(DAMAGES.values()), ids=list(DAMAGES))
def test_damage_is_noticed_and_told_in_words(ebm, written, file, damage):
    damage(written / f"{file}.safetensors")
    with pytest.raises(ValueError) as told:
        sample(ebm, ed.Gibbs(), draws=9, checkpoint=written)
    said = str(told.value)
    assert str(written) in said and file in said and "give another folder" in said


def test_swapped_and_missing_parts_are_noticed(ebm, written):
    one, other = sorted(written.glob("part-*"))
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second), other.write_bytes(first)
    with pytest.raises(ValueError, match=r"part-000000.*damaged"):
        sample(ebm, ed.Gibbs(), draws=9, checkpoint=written)
    one.write_bytes(first)
    other.unlink()
    with pytest.raises(ValueError, match=r"part-000001.*missing"):
        sample(ebm, ed.Gibbs(), draws=9, checkpoint=written)


def test_rows_that_do_not_sum_to_the_counter_are_noticed(ebm, tmp_path, monkeypatch):
    save = Checkpoint.save

    def forgetful(self, state, counters, passed, produced, rows):
        save(self, state, counters | {"draws": counters["draws"] + 1}, passed, produced, rows)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", forgetful)
        sample(ebm, ed.Gibbs(), checkpoint=tmp_path)
    with pytest.raises(ValueError, match="it counts 4 draws, not 3"):
        sample(ebm, ed.Gibbs(), draws=9, checkpoint=tmp_path)


class Killed(BaseException):
    """What no handler expects: the process is gone."""


@pytest.fixture
def eager(monkeypatch):
    """Chunks of one draw, and a save after each."""
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 0.0)
    monkeypatch.setattr(loop.Saver, "save_when_due", lambda self, run: self.save(run))


def test_the_same_run_made_anew_is_read(tmp_path):
    for one in ("a proposal", "keep with an array in a nested jit", "the activation of a network"):
        (ebm, kernel, extra), (again, same, told) = (CHANGES[one][0]() for _ in range(2))
        first = sample(ebm, kernel, checkpoint=tmp_path / one, **extra).draws
        second = sample(again, same, checkpoint=tmp_path / one, **told).draws
        assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("moment", ["before", "in the middle", "after"])
@pytest.mark.parametrize("count", [1, 2, 3, 6, 7])
def test_a_run_killed_at_any_write_resumes_bit_for_bit(
    ebm, tmp_path, monkeypatch, eager, moment, count
):
    whole = sample(ebm, ed.Gibbs(), draws=6).draws["s"]
    write, calls = files.write_whole, []

    def dying(path, data):
        calls.append(path)
        if len(calls) >= count:
            if moment == "in the middle" and len(calls) == count:
                path.with_name(path.name + files.PARTIAL).write_bytes(data[: len(data) // 2])
            if moment == "after" and len(calls) == count:
                write(path, data)
            raise Killed
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write_whole", dying)
        with pytest.raises(Killed):
            sample(ebm, ed.Gibbs(), draws=6, checkpoint=tmp_path)
    resumed = sample(ebm, ed.Gibbs(), draws=6, checkpoint=tmp_path)
    assert np.array_equal(resumed.draws["s"], whole)
    again = sample(ebm, ed.Gibbs(), draws=6, checkpoint=tmp_path)
    assert np.array_equal(again.draws["s"], whole)
    assert not list(tmp_path.glob("*.partial")) and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["part", "state"])
def test_an_interrupt_after_a_write_saves_no_row_twice(ebm, tmp_path, monkeypatch, eager, name):
    whole = sample(ebm, ed.Gibbs(), warmup=0, draws=6).draws["s"]
    write, calls = files.write_whole, []

    def interrupted(path, data):
        write(path, data)
        calls.append(path.name)
        if len([c for c in calls if c.startswith(name)]) == 2 and path.name.startswith(name):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write_whole", interrupted)
        with pytest.warns(UserWarning, match="interrupted after"):
            part = sample(ebm, ed.Gibbs(), warmup=0, draws=6, checkpoint=tmp_path)
    assert np.array_equal(part.draws["s"], whole[:, : part.draws["s"].shape[1]])
    assert np.array_equal(
        sample(ebm, ed.Gibbs(), warmup=0, draws=6, checkpoint=tmp_path).draws["s"], whole
    )


def test_a_full_disk_loses_no_draw(ebm, tmp_path, monkeypatch, eager):
    whole = sample(ebm, ed.Gibbs(), draws=6).draws["s"]
    write, calls = files.write_whole, []

    def full(path, data):
        calls.append(path)
        if len(calls) > 4:
            raise OSError(28, "No space left on device")
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write_whole", full)
        with pytest.warns(UserWarning, match="could not be written.*No space left") as told:
            drawn = sample(ebm, ed.Gibbs(), draws=6, checkpoint=tmp_path)
    assert str(tmp_path) in str(told[0].message)
    assert np.array_equal(drawn.draws["s"], whole) and drawn.stopped is None
    assert np.array_equal(sample(ebm, ed.Gibbs(), draws=6, checkpoint=tmp_path).draws["s"], whole)


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file"
    files.write_whole(path, b"good")

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        files.write_whole(path, b"another")
    assert path.read_bytes() == b"good" and [p.name for p in tmp_path.iterdir()] == ["file"]


HOLD = """
import sys, time
from pathlib import Path
from energydsl.run.files import Lock
lock = Lock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_one_process_at_a_time_writes_to_a_folder(ebm, tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=rf"in use by another run \(process {other.pid}\)"):
            sample(ebm, ed.Gibbs(), checkpoint=tmp_path)
        # A process that is gone holds nothing, however it ended.
        other.send_signal(signal.SIGKILL)
    sample(ebm, ed.Gibbs(), checkpoint=tmp_path)
    # Nor does a run that has ended, or that was refused.
    with pytest.raises(ValueError, match="holds 3 draws, more than"):
        sample(ebm, ed.Gibbs(), draws=1, checkpoint=tmp_path)
    sample(ebm, ed.Gibbs(), draws=4, checkpoint=tmp_path)


def test_a_checkpoint_of_an_earlier_version_is_said_to_be_one(ebm, tmp_path):
    from safetensors.numpy import save_file

    save_file({"leaf-0": np.zeros(1)}, tmp_path / "state.safetensors", {"run": '{"identity": {}}'})
    with pytest.raises(ValueError, match="written by an earlier version of energydsl"):
        sample(ebm, ed.Gibbs(), checkpoint=tmp_path)
