"""The sampling loop: what it keeps, where it stops, how it resumes."""

import contextlib
import copy
import pickle
import re
import signal
import subprocess
import sys
import textwrap
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energydsl as ed
from energydsl.run import loop, sampling

KEY = jax.random.key(0)


def ising(shape=(4, 4), coupling=0.3):
    s = ed.spin("s", shape)
    return ed.Model(-coupling * ((s[1:] * s[:-1]).sum() + (s[:, 1:] * s[:, :-1]).sum()))


def run(ebm, **options):
    options = {"key": KEY, "chains": 2, "warmup": 3, "draws": 7, "progress": False} | options
    return ed.sample(ebm, ed.Gibbs(), **options)


@pytest.fixture(scope="module")
def ebm():
    return ed.compile(ising())


def magnetisation(x):
    return x["s"].astype(float).mean()


def test_shapes_dtypes_and_energies(ebm):
    chains = run(ebm)
    assert chains.draws["s"].shape == (2, 7, 4, 4) and chains.draws["s"].dtype == np.int8
    energies = jax.vmap(jax.vmap(lambda s: ebm.energy({"s": s})))(chains.draws["s"])
    np.testing.assert_allclose(chains.stats["energy"], energies, rtol=1e-6)
    assert np.array_equal(chains.last["s"], chains.draws["s"][:, -1])
    assert "2 chains x 7 draws of s[4, 4]" in repr(chains)


def test_the_same_key_gives_the_same_draws_and_another_does_not(ebm):
    first, again = run(ebm), run(ebm)
    other = run(ebm, key=jax.random.key(1))
    assert np.array_equal(first.draws["s"], again.draws["s"])
    assert not np.array_equal(first.draws["s"], other.draws["s"])


def test_thinning_and_warmup_skip_steps_of_the_same_chain(ebm):
    every = run(ebm, warmup=0, draws=12).draws["s"]
    thinned = run(ebm, warmup=3, draws=3, thin=3).draws["s"]
    assert np.array_equal(thinned, every[:, [5, 8, 11]])


def test_draws_do_not_depend_on_chunks(ebm, monkeypatch):
    whole = run(ebm, draws=20).draws["s"]
    monkeypatch.setattr(sampling, "BUFFER_BYTES", 3 * 2 * (16 + 4))
    assert np.array_equal(run(ebm, draws=20).draws["s"], whole)


def test_keep_stores_named_quantities_instead(ebm):
    chains = run(ebm, keep={"m": magnetisation, "row": lambda x: x["s"][0]})
    spins = run(ebm).draws["s"]
    assert set(chains.draws) == {"m", "row"}
    np.testing.assert_allclose(chains.draws["m"], spins.mean((2, 3)), rtol=1e-6)
    assert np.array_equal(chains.draws["row"], spins[:, :, 0])


def test_chains_begin_where_they_are_told(ebm):
    up = {"s": np.ones((4, 4), int)}
    cold = ed.compile(ising(coupling=50.0))
    assert (run(cold, start=up).draws["s"] == 1).all()
    both = {"s": np.stack([np.ones((4, 4), int), -np.ones((4, 4), int)])}
    draws = run(cold, start=both).draws["s"]
    assert (draws[0] == 1).all() and (draws[1] == -1).all()


class Rolls(ed.AbstractKernel):
    """A walk without chance: each step moves the rows on by one."""

    def init(self, ebm, x, *, key, warmup):
        return None

    def step(self, ebm, x, state, *, key):
        return {"s": jnp.roll(x["s"], 1, 0)}, None, {}

    def moves(self, ebm):
        return ebm.structure.free

    def reason(self, ebm):
        return ""


def test_a_chain_goes_on_from_where_another_run_stood(ebm):
    """Each chain from its own place, step by step as by hand, whatever the new key."""
    stood = run(ebm).last
    options = {"key": jax.random.key(9), "chains": 2, "draws": 3, "progress": False}
    for warmup in (0, 2):
        draws = ed.sample(ebm, Rolls(), start=stood, warmup=warmup, **options).draws["s"]
        for k in range(3):
            assert np.array_equal(draws[:, k], np.roll(stood["s"], warmup + k + 1, axis=1))
    assert not np.array_equal(stood["s"][0], stood["s"][1])


def test_evidence_stands_in_every_draw():
    model = ising()
    (s,) = (ed.variable(v.name, v.domain, v.shape) for v in model.variables)
    chains = run(ed.compile(model.condition({s[0]: [1, -1, 1, -1]})))
    assert (chains.draws["s"][:, :, 0] == [1, -1, 1, -1]).all()


def test_new_parameters_do_not_recompile(monkeypatch):
    traces, observe = [], sampling._observe

    def counted(*arguments):
        traces.append(1)
        return observe(*arguments)

    monkeypatch.setattr(sampling, "_observe", counted)
    for coupling in (0.1, 0.2, 0.3):
        run(ed.compile(ising(coupling=coupling)), draws=5, keep={"m": lambda x: x["s"].sum()})
    once = len(traces)
    traces.clear()
    # Nor does a function of the same text, or another number of draws.
    run(ed.compile(ising(coupling=0.9)), draws=9, keep={"m": lambda x: x["s"].sum()})
    assert once and not traces
    scale = 2.0
    run(ed.compile(ising()), keep={"m": lambda x: scale * x["s"].sum()})
    assert traces


def test_ctrl_c_returns_what_was_drawn(ebm, monkeypatch, tmp_path):
    """A real signal, in the second chunk, which ends; what was drawn can be gone on from."""
    compute, calls = sampling._run_chunk, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return compute(*arguments)

    monkeypatch.setattr(sampling, "_run_chunk", interrupted)
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 0.0)  # chunks of one draw
    with pytest.warns(UserWarning, match="interrupted after 2 of 7 draws"):
        chains = run(ebm, warmup=0, checkpoint=tmp_path)
    assert chains.stopped.startswith("interrupted")
    monkeypatch.undo()
    whole = run(ebm, warmup=0).draws["s"]
    assert np.array_equal(chains.draws["s"], whole[:, :2])
    assert np.array_equal(run(ebm, warmup=0, checkpoint=tmp_path).draws["s"], whole)


def test_a_nan_energy_stops_the_run_and_keeps_the_draws():
    y = ed.real("y")
    trap = ed.apply(lambda y: jnp.where(y > 3.0, jnp.nan, 0.0), y)
    ebm = ed.compile(ed.Model(0.5 * (y - 1.0) ** 2, trap))
    assert ebm.sweep is None
    kernel = _Walk()
    with pytest.warns(
        UserWarning, match=r"energies of all chains became NaN, that of chain 0 first, in step 31"
    ):
        chains = ed.sample(
            ebm, kernel, key=KEY, chains=2, warmup=0, draws=50, progress=False,
            start={"y": np.zeros(())},
        )  # fmt: skip
    assert 0 < chains.draws["y"].shape[1] < 50
    assert np.isfinite(chains.draws["y"]).all() and np.isfinite(chains.stats["energy"]).all()


def test_small_integers_reach_users_wide_enough_to_compute_with():
    n, c = ed.integer("n", 4, low=99, high=100), ed.categorical("c", levels=2)
    ebm = ed.compile(ed.Model(0.0 * n.sum(), 0.0 * (c == 1)))
    keep = {"square": lambda x: (x["n"] ** 2).mean(), "n": lambda x: x["n"], "c": lambda x: x["c"]}
    kept = run(ebm, keep=keep).draws
    assert kept["n"].dtype == kept["c"].dtype == np.int32
    # Mean squares of small integers, in float32.
    np.testing.assert_allclose(kept["square"], (kept["n"].astype(float) ** 2).mean(-1), rtol=1e-6)
    draws = run(ebm).draws
    assert np.array_equal(draws["n"], kept["n"]) and np.array_equal(draws["c"], kept["c"])
    assert {k: str(a.dtype) for k, a in draws.items()} == {"n": "int32", "c": "int8"}


def test_ctrl_c_that_a_callback_swallows_is_heard(ebm, monkeypatch):
    """JAX drops what its garbage-collection callback raises; so does this chunk."""
    compute, calls = sampling._run_chunk, []

    def swallowing(*arguments):
        calls.append(1)
        if len(calls) == 2:
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        return compute(*arguments)

    monkeypatch.setattr(sampling, "_run_chunk", swallowing)
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 0.0)
    with pytest.warns(UserWarning, match="interrupted after 2 of 50 draws"):
        run(ebm, warmup=0, draws=50)


def test_sigterm_saves_what_was_drawn_and_the_handlers_are_put_back(ebm, monkeypatch, tmp_path):
    compute, calls = sampling._run_chunk, []
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]

    def ended(*arguments):
        calls.append(1)
        if len(calls) in (2, 3):
            signal.raise_signal(signal.SIGTERM)
        return compute(*arguments)

    monkeypatch.setattr(sampling, "_run_chunk", ended)
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 0.0)
    with pytest.warns(UserWarning, match="interrupted by SIGTERM after 2 of 50 draws"):
        part = run(ebm, warmup=0, draws=50, checkpoint=tmp_path)
    monkeypatch.undo()
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    whole = run(ebm, warmup=0, draws=50, checkpoint=tmp_path)
    assert np.array_equal(whole.draws["s"][:, :2], part.draws["s"])


def test_a_third_ctrl_c_ends_the_chunk_itself(ebm, monkeypatch):
    compute, calls = sampling._run_chunk, []

    def stuck(*arguments):
        calls.append(1)
        if len(calls) == 3:
            for _ in range(3):
                signal.raise_signal(signal.SIGINT)
        return compute(*arguments)

    monkeypatch.setattr(sampling, "_run_chunk", stuck)
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 0.0)
    with pytest.warns(UserWarning, match="interrupted after 2 of 50 draws"):
        assert run(ebm, warmup=0, draws=50).draws["s"].shape[1] == 2


def test_a_handler_of_the_programs_own_stays(ebm, monkeypatch):
    heard, compute = [], sampling._run_chunk

    def once(*arguments):
        if not heard:
            signal.raise_signal(signal.SIGTERM)
        return compute(*arguments)

    own = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        monkeypatch.setattr(sampling, "_run_chunk", once)
        assert run(ebm).stopped is None and heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, own)


def test_inside_a_transformation_it_says_so(ebm):
    def draws(key):
        return run(ebm, key=key).draws["s"]

    for call in (lambda: jax.jit(draws)(KEY), lambda: jax.vmap(draws)(jax.random.split(KEY, 2)),
                 lambda: jax.jit(lambda x: x + draws(KEY))(1.0)):  # fmt: skip
        with pytest.raises(TypeError, match=r"sample was called inside jax\.jit.*Call it outside"):
            call()
    with pytest.raises(TypeError, match="estimate_log_partition was called inside"):
        jax.jit(lambda key: ed.estimate_log_partition(ebm, key=key).value)(KEY)


@pytest.mark.parametrize("copied", [lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy],
                         ids=["pickle", "deepcopy"])  # fmt: skip
def test_ebms_and_chains_can_be_copied(ebm, copied):
    chains = run(ebm)
    again = copied(chains)
    assert again.ebm == chains.ebm and copied(ebm) == ebm
    assert np.array_equal(again.draws["s"], chains.draws["s"])
    assert np.array_equal(run(copied(ebm), key=again.key).draws["s"], chains.draws["s"])


class _Walk(ed.AbstractKernel):
    """Steps of one tenth upwards: where a chain will be is known beforehand."""

    def init(self, ebm, x, *, key, warmup):
        return jnp.zeros((), int)

    def step(self, ebm, x, state, *, key):
        return {"y": x["y"] + 0.1}, state + 1, {"steps": state}

    def moves(self, ebm):
        return ebm.structure.free

    def reason(self, ebm):
        return ""


@pytest.mark.parametrize(
    "options, message",
    [
        ({"draws": 0}, "draws=0; expected a whole number of at least 1"),
        ({"chains": 0}, "chains=0"),
        ({"thin": 0}, "thin=0"),
        ({"warmup": -1}, "warmup=-1; expected a whole number of at least 0"),
        ({"draws": 2.5}, "draws=2.5"),
        ({"start": {"s": np.zeros((4, 4), int)}}, "outside spin.*first at"),
        ({"start": {"s": np.ones((3, 3), int)}}, r"start has shapes .*\(3, 3\)"),
        ({"start": {"t": np.ones((4, 4), int)}}, "lacks.*'s'.*unknown.*'t'"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_bad_numbers_and_starts(ebm, options, message):
    with pytest.raises(ValueError, match=message):
        run(ebm, **options)


@pytest.mark.usefixtures("untyped")
def test_things_that_are_no_ebm_or_kernel(ebm):
    with pytest.raises(TypeError, match=r"compile it first: ed\.compile"):
        run(ising())
    with pytest.raises(TypeError, match=r"expected one such as ed\.Gibbs\(\)"):
        ed.sample(ebm, "gibbs", key=KEY)
    with pytest.raises(TypeError, match="keep\\['m'\\] returned tuple"):
        run(ebm, keep={"m": lambda x: (x["s"].sum(), 1)})
    with pytest.raises(TypeError, match=r"key=0; expected a key such as jax\.random\.key"):
        run(ebm, key=0)
    with pytest.raises(
        TypeError, match=r"diagnose got EBM; expected the chains that ed\.sample returns"
    ):
        ed.diagnose(ebm)
    with pytest.raises(TypeError, match="to_arviz got EBM"):
        ed.to_arviz(ebm)
    with pytest.raises(ValueError, match=r"uses 'q'; the configuration has \['s'\]"):
        run(ebm, keep={"m": lambda x: x["q"]})


def test_a_finished_checkpoint_is_read_and_extended(ebm, tmp_path):
    whole = run(ebm, draws=20).draws["s"]
    run(ebm, draws=8, checkpoint=tmp_path / "run")
    again = run(ebm, draws=20, checkpoint=tmp_path / "run")
    assert np.array_equal(again.draws["s"], whole)
    with pytest.raises(ValueError, match="holds 20 draws, more than draws=5"):
        run(ebm, draws=5, checkpoint=tmp_path / "run")


@pytest.mark.parametrize(
    "change, word",
    [
        ({"ebm": ed.compile(ising(coupling=0.31))}, "model's data was"),
        ({"ebm": ed.compile(ising((4, 5)))}, "model was"),
        ({"key": jax.random.key(5)}, "key was"),
        ({"chains": 3}, "chains was 2, now 3"),
        ({"thin": 2}, "thin was 1, now 2"),
        ({"keep": {"m": magnetisation}}, r"keep was configurations, now \['m'\]"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(ebm, tmp_path, change, word):
    run(ebm, checkpoint=tmp_path)
    with pytest.raises(ValueError, match=f"of another run.*{word}.*or another folder"):
        run(**{"ebm": ebm, "checkpoint": tmp_path} | change)


def test_a_checkpoint_that_cannot_be_written(ebm, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is not a folder that can be written"):
        run(ebm, checkpoint=tmp_path / "file")


SCRIPT = """
import jax, numpy as np, sys
import energydsl as ed
s = ed.spin("s", (64, 64))
ebm = ed.compile(ed.Model(-0.3 * (s * ed.roll(s, 1)).sum() - 0.3 * (s[:, 1:] * s[:, :-1]).sum()))
chains = ed.sample(
    ebm, ed.Gibbs(), key=jax.random.key(3), chains=2, warmup=50, draws=int(sys.argv[2]), thin=40,
    checkpoint=sys.argv[1] or None, progress=False,
)
np.save(sys.argv[3], chains.draws["s"])
"""


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
def test_a_run_killed_by_sigkill_resumes_with_the_same_draws(tmp_path):
    script, folder, draws = tmp_path / "run.py", tmp_path / "checkpoint", "1000"
    script.write_text(textwrap.dedent(SCRIPT))

    def start(checkpoint, out):
        return subprocess.Popen([sys.executable, str(script), checkpoint, draws, str(out)])

    killed = start(str(folder), tmp_path / "never.npy")
    deadline = time.monotonic() + 60
    while not list(folder.glob("part-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert list(folder.glob("part-*")) and not (tmp_path / "never.npy").exists()

    assert start(str(folder), tmp_path / "resumed.npy").wait() == 0
    assert start("", tmp_path / "whole.npy").wait() == 0
    resumed, whole = np.load(tmp_path / "resumed.npy"), np.load(tmp_path / "whole.npy")
    assert np.array_equal(resumed, whole)


def test_the_bar_says_that_the_program_is_compiled_and_how_long_that_took(monkeypatch):
    said = []

    class Bar(loop.tqdm):
        def set_postfix_str(self, text="", refresh=True):
            said.append(text)

    monkeypatch.setattr(loop, "tqdm", Bar)
    ebm = ed.compile(ed.Model(-0.1 * ed.spin("s", 2).sum()))
    ed.sample(ebm, ed.Gibbs(), key=jax.random.key(0), warmup=3, draws=5)
    assert said[0] == "compiling" and len(said) > 1
    assert all(re.fullmatch(r"compiled in \d+\.\d s", text) for text in said[1:])
