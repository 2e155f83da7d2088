"""A few dozen random models, and the fuzzer's own eyes: it must see what is wrong."""

from types import SimpleNamespace

import numpy as np
import pytest

import energydsl as ed
from tests.fuzz import rounded
from tests.fuzz.__main__ import main
from tests.fuzz.case import Algebra, Case
from tests.fuzz.checks import Asked, Run
from tests.fuzz.compare import Failure, agree, require
from tests.fuzz.generate import generate
from tests.fuzz.oracle import Oracle
from tests.fuzz.recipe import (
    Binary,
    Constant,
    Lookup,
    Move,
    Numbers,
    Power,
    Reduce,
    View,
)
from tests.fuzz.shrink import shrink
from tests.fuzz.sites import Site

FALSE_ALARM = 1e-7
SEEDS = range(3, 6)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_model_agrees_with_numpy(seed):
    run = Run(generate(seed), Asked.of(seed), false_alarm=FALSE_ALARM).go()
    assert not run.failures, f"{run.failures}\n{run.case.source()}"


def test_a_seed_means_one_model():
    assert generate(5).source() == generate(5).source() != generate(6).source()


def test_all_domains_and_nodes_are_drawn():
    cases = [generate(seed) for seed in range(400)]
    text = "\n".join(case.source() for case in cases)
    words = [
        "ed.spin", "ed.binary", "ed.categorical", "ed.integer", "low=-", "ed.real", "ed.positive",
        "ed.interval", "ed.simplex", "latent=True", "::-1]", "[np.array(", "True", ".T",
        "reshape", "ed.roll", "None]", "**", " / ", " @ ", ".mean(", ".sum(0)", "==", "<=",
        "ed.where", "abs(", "ed.exp", "ed.log(", "ed.tanh", "ed.softplus", "ed.maximum",
        "ed.logaddexp", "ed.Table(log_potential", "ed.Table(energy", "-np.inf", "ed.apply",
        "sp.coo_array", "ed.Neural", "ed.Quadratic", "ed.Coupling", "ed.Linear",
        "ed.LogDensity(dist.Normal)", "ed.LogDensity(dist.CategoricalLogits", "ed.mixture",
        "condition({'", "condition({a[", "budget=", "(1, 1)",
    ]  # fmt: skip
    assert not [word for word in words if word not in text]


# A chain of spins with a table, a real site beside it, and both held in part.
S = View.of(Site("s", "spin", (3,)))
B = View.of(Site("b", "integer", (2,), (("low", -1), ("high", 1)), latent=True))
X = View.of(Site("x", "real", (2,)))
W = Numbers.of("W", np.array([0.3, -0.7], "f"))
T = Numbers.of("T", np.array([[0.2, -0.4, 0.9], [0.1, 0.6, -0.3]], "f"), owned=True)
CHAIN = Reduce.of(
    Binary.of("multiply", W, Binary.of("multiply", Move.of(S, "{a}[1:]"), Move.of(S, "{a}[:-1]")))
)
TABLE = Reduce.of(Lookup.of(T, "energy", (Move.of(S, "{a}[1:]"), B)))
PULL = Reduce.of(Binary.of("multiply", Constant.of(0.4), Binary.of("multiply", X, B)))
SQUARE = Reduce.of(Power.of(X, 2))


def case_of(*terms, held=()):
    return Case(0, Algebra("terms", terms), held, view=Move.of(S, "{a}[::-1]"))


FINITE = case_of(CHAIN, TABLE)
MIXED = case_of(CHAIN, TABLE, PULL, SQUARE, held=((Move.of(X, "{a}[:1]"), np.array([0.5], "f")),))


@pytest.fixture(scope="module")
def finite():
    return Run(FINITE, Asked(), false_alarm=FALSE_ALARM).go()


@pytest.fixture(scope="module")
def mixed():
    return Run(MIXED, Asked(), false_alarm=FALSE_ALARM).go()


@pytest.mark.parametrize("name", ["finite", pytest.param("mixed", marks=pytest.mark.slow)])
def test_a_correct_model_passes_every_check(name, request):
    run = request.getfixturevalue(name)
    assert not run.failures
    for check in ("log Z compared", "draws compared", "slopes in one array", "log prob"):
        assert run.counts[check]


def _turned(probs):
    return probs[..., ::-1]


WRONG = {
    "a sign": ("finite", "energy", lambda e: -e),
    "a small constant": ("finite", "energy", lambda e: e + 3e-5),
    "one of many": ("finite", "energy", lambda e: e + 0.01 * (np.arange(len(e)) == 5)),
    "NaN": ("finite", "energy", lambda e: np.where(np.arange(len(e)) == 5, np.nan, e)),
    "the ratio of the others": ("finite", "log ratio", lambda e: -e),
    "levels from the other end": ("finite", "conditional of spin", _turned),
    "sites in another order": ("finite", "conditional of a view", lambda p: p[:, ::-1]),
    "a density's sign": ("mixed", "conditional of real", lambda p: -p),
    "a slope": ("finite", "gradient in parameters", lambda g: [1.01 * a for a in g]),
    "a slope in the other array": (
        "finite",
        "gradient in parameters",
        lambda g: [0 * a for a in g],
    ),
    "the slope for the score": ("mixed", "score", lambda x: {n: -a for n, a in x.items()}),
    "another temperature": ("finite", "free energy", lambda e: e * 1.001),
}


@pytest.mark.parametrize(
    "mistake",
    [pytest.param(m, marks=[pytest.mark.slow] * (WRONG[m][0] == "mixed")) for m in WRONG],
)
def test_a_wrong_answer_is_noticed(mistake, request):
    name, check, change = WRONG[mistake]
    answer, compare = request.getfixturevalue(name).answers[check]
    compare(answer)
    with pytest.raises(Failure):
        compare(change(answer))


def test_a_sign_in_the_oracle_is_noticed(finite, monkeypatch):
    """The two readings of a recipe share nothing, so that a mistake in either shows."""
    original = Lookup.compute
    monkeypatch.setattr(
        Lookup, "compute", lambda *a: rounded.UNARY["negative"](original(*a), rounded.Ties(1))
    )
    answer, _ = finite.answers["energy"]
    expected, _ = FINITE.energy(finite.values)
    with pytest.raises(Failure):
        agree(answer, expected.value, expected.tolerance())


def test_a_wrong_log_z_is_noticed(finite, monkeypatch):
    wrong_log_z(monkeypatch)
    with pytest.raises(Failure, match="got"):
        finite.log_z()


def wrong_log_z(monkeypatch):
    original = ed.log_partition
    monkeypatch.setattr(ed, "log_partition", lambda ebm: original(ebm) + 1e-5)


def _flipped(start):
    """One spin in ten turned up."""
    s = start["s"].copy()
    s[::10, 0] = 1
    return {**start, "s": s}


STEPS = {
    "changed the law": _flipped,
    "never moved": lambda start: start,
    "left its domain": lambda start: {**start, "b": start["b"] * 2},
}


@pytest.mark.parametrize("message", STEPS)
def test_a_wrong_step_is_noticed(message, finite, monkeypatch):
    def sample(ebm, kernel, *, start, **settings):
        after = {n: np.asarray(a) for n, a in STEPS[message](start).items()}
        draws = {n: a[:, None] for n, a in after.items()}
        energy = np.zeros((len(after["s"]), 1))
        if message != "left its domain":
            known, _ = FINITE.energy({n: np.asarray(a, float) for n, a in after.items()})
            energy[:, 0] = known.value
        return SimpleNamespace(draws=draws, stats={"energy": energy})

    monkeypatch.setattr(ed, "sample", sample)
    with pytest.raises(Failure, match=message):
        finite.one_step()


@pytest.mark.slow
def test_a_real_site_drawn_too_wide_is_noticed(mixed):
    after = mixed.exact_starts()
    mixed.follows(after)
    wide = {**after, "x": np.where(*mixed.oracle.evidence["x"], 1.2 * after["x"])}
    with pytest.raises(Failure, match="moved a real site"):
        mixed.follows(wide)


def test_a_clamped_site_that_moves_is_noticed(mixed):
    after = mixed.exact_starts()
    with pytest.raises(Failure, match="clamped site of x moved"):
        mixed.follows({**after, "x": after["x"] + 0.1})


def test_the_oracle_of_the_mixed_model_is_the_formula():
    """log Z of the real site beside the levels, written out once by hand."""
    law = Oracle(MIXED).law()
    total = 0.0
    for s in np.array(np.meshgrid(*[[-1, 1]] * 3)).reshape(3, -1).T:
        for b in np.array(np.meshgrid(*[[-1, 0, 1]] * 2)).reshape(2, -1).T:
            w, t = W.array.astype(float), T.array.astype(float)
            e = (w * s[1:] * s[:-1]).sum() + sum(t[(s[k + 1] + 1) // 2, b[k] + 1] for k in (0, 1))
            pull = float(np.float32(0.4))
            e += 0.25 + pull * 0.5 * b[0] - (pull * b[1]) ** 2 / 4
            total += np.exp(-e) * np.sqrt(np.pi)
    assert np.isclose(law.log_z, np.log(total), rtol=1e-10)


def test_comparisons_within_rounding_are_left_out():
    near = Binary.of("add", Binary.of("multiply", Constant.of(0.1), S), Constant.of(0.2))
    tie = Reduce.of(Binary.of("less", near, Constant.of(0.3)))
    assert Run(case_of(CHAIN, tie), Asked(), false_alarm=FALSE_ALARM).go().skipped


def test_a_failure_shrinks_to_what_makes_it():
    big = Case(
        0, Algebra("sum", (Algebra("scaled", (FINITE.body,), (0.5,)), MIXED.body)), MIXED.held
    )

    def fails(case):
        return TABLE in case.body.terms

    small = shrink(big, fails, seconds=10.0)
    assert small.body.terms == [TABLE] and not small.held


def test_the_command_prints_seeds_and_fails(capsys, monkeypatch):
    """Every model is one whose oracle is off, so that the command has something to say."""
    monkeypatch.setattr("tests.fuzz.__main__.generate", lambda seed: FINITE)
    monkeypatch.setattr(Run, "text", lambda run: require(False, "nothing is right"))
    monkeypatch.setattr(Run, "compiled", lambda run: None)
    assert main(["--models", "1", "--seed", "3", "--shrink", "0"]) == 1
    said = capsys.readouterr().out
    assert "seed 0: text: nothing is right" in said and "ebm = ed.compile(model)" in said
    assert "1 models" in said and "checks:" in said
