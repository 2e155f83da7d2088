"""The commands that answer questions about UAI files: numbers, words and exit codes."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from energydsl.cli import app
from tests.oracles import network as oracle
from tests.oracles.network import Tables


def network():
    """Cardinalities that differ, so that the model's order of sites is not the file's."""
    rng = np.random.default_rng(5)
    cards, scopes = (3, 2, 4, 2), [(2, 0), (3, 1), (1, 2)]
    return Tables(cards, [(s, rng.gamma(1.0, size=[cards[i] for i in s])) for s in scopes])


GIVEN = {2: 3, 1: 0}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a command in a folder with a network, evidence on it, and a larger network."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.uai").write_text(oracle.text(network()))
    (tmp_path / "net.evid").write_text("2 2 3 1 0")
    (tmp_path / "all.evid").write_text("4 0 2 1 0 2 3 3 1")
    (tmp_path / "zero.uai").write_text("MARKOV 1 2 1 1 0 2 0 0")
    (tmp_path / "short.uai").write_text("MARKOV\n1\n2\n1\n1 0\n2\n0.5\n")
    pairs = [(i, j) for i in range(40) for j in range(i)]
    wide = Tables((2,) * 40, [(pair, np.full((2, 2), 0.5)) for pair in pairs])
    (tmp_path / "wide.uai").write_text(oracle.text(wide))
    return lambda *args: CliRunner().invoke(app, [str(a) for a in args])


def answer(run, *args):
    done = run(*args, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.mark.parametrize("given", [None, GIVEN])
def test_logz_is_that_of_enumeration(run, given):
    options = ("--evidence", "net.evid") if given else ()
    found = answer(run, "logz", "net.uai", *options)
    assert found["log_z"] == pytest.approx(oracle.law(network(), given).log_z, abs=1e-12)
    assert found["kind"] == "exact" and found["operations"] > 0
    assert set(found["seconds"]) == {"read", "compile", "answer"}
    lines = run("logz", "net.uai", *options).stdout.splitlines()
    assert [line.split()[0] for line in lines] == [
        "log_z",
        "kind",
        "method",
        "operations",
        "seconds",
    ]
    assert float(lines[0].split()[1]) == pytest.approx(found["log_z"], abs=1e-12)
    assert found["method"] in lines[2]


def test_logz_of_a_whole_configuration_is_its_log_potential(run):
    found = answer(run, "logz", "net.uai", "--evidence", "all.evid")
    at = np.ravel_multi_index((2, 0, 3, 1), network().cards)
    expected = np.log(oracle.potential(network())[at])
    assert found["log_z"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("given", [None, GIVEN])
def test_marginals_are_printed_by_the_files_numbers(run, given):
    options = ("--evidence", "net.evid") if given else ()
    found = answer(run, "marginals", "net.uai", *options)
    exact = oracle.law(network(), given).marginals
    for law, expected in zip(found["marginals"], exact, strict=True):
        np.testing.assert_allclose(law, expected, atol=1e-12)
    *said, last = run("marginals", "net.uai", *options).stdout.splitlines()
    assert [line.split()[0] for line in said[:4]] == ["kind", "method", "operations", "seconds"]
    number, *law = last.split()
    assert number == "3"
    np.testing.assert_allclose(np.array(law, float), exact[3], atol=1e-9)


@pytest.mark.parametrize("given", [None, GIVEN])
def test_the_mode_is_printed_by_the_files_numbers(run, given):
    options = ("--evidence", "net.evid") if given else ()
    found = answer(run, "map", "net.uai", *options)
    exact = oracle.law(network(), given)
    levels = np.unravel_index(np.argmax(exact.joint), network().cards)
    assert found["configuration"] == [int(level) for level in levels]
    assert found["proven"] is True and found["kind"] == "exact"
    expected = -np.log(oracle.potential(network())[np.argmax(exact.joint)])
    assert found["energy"] == pytest.approx(expected, abs=1e-12)
    last = run("map", "net.uai", *options).stdout.splitlines()[-1]
    assert last == " ".join(map(str, levels))


def test_the_mode_of_a_network_that_is_too_wide_for_rules_has_a_bound(run):
    found = answer(run, "map", "wide.uai")
    assert found["bound"] <= found["energy"] and "kind" not in found
    assert found["method"] in ("graph cut", "alpha-expansion")
    assert found["proven"] is (found["bound"] == found["energy"])


@pytest.mark.parametrize("command", ["logz", "marginals"])
@pytest.mark.parametrize(("budget", "said"), [("20", "budget 2^20"), ("3", "budget 2^3")])
def test_a_network_that_is_too_wide_is_refused_in_one_line(run, command, budget, said):
    done = run(command, "wide.uai", "--budget", budget)
    assert done.exit_code == 1 and done.stdout == "" and said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_network_without_mass_is_told_in_words(run):
    assert answer(run, "logz", "zero.uai")["log_z"] is None
    done = run("logz", "zero.uai")
    assert done.exit_code == 0
    assert "-inf" in done.stdout and "every configuration has a potential of 0" in done.stdout
    for command in ("marginals", "map"):
        done = run(command, "zero.uai")
        assert done.exit_code == 1
        assert "Every configuration has infinite energy" in done.stderr


@pytest.mark.parametrize("command", ["logz", "marginals", "map"])
@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("net.uai", "--budget", "1"), 1, "budget 2^1"),
        (("short.uai",), 1, "short.uai, line 7: found the end of the file; expected 2 entries of"),
        (("net.uai", "--evidence", "net.uai"), 1, "net.uai, line 1: found 'MARKOV'; expected the"),
        (("absent.uai",), 2, "'absent.uai' does not exist"),
        (("net.uai", "--evidence", "absent"), 2, "'absent' does not exist"),
        (("net.uai", "--budget", "-1"), 2, "--budget"),
    ],
)
def test_refusals_are_one_line_of_words(run, command, args, code, said):
    done = run(command, *args)
    assert done.exit_code == code and done.stdout == ""
    assert said in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.output and "Error:" not in done.stderr.splitlines()[0]
    if code == 1:
        assert len(done.stderr.splitlines()) == 1
