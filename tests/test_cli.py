"""The command line: names, options, files, exit codes, and what a terminal is told."""

import json
import signal
import subprocess
import sys
import textwrap
from importlib import metadata

import pytest
from typer.testing import CliRunner

import energydsl as ed
import models_zoo
from energydsl import _startup
from energydsl.cli import app, main, zoo
from energydsl.cli.words import with_error

HEADER = """
from pathlib import Path
from typing import Annotated
import signal, warnings
import numpy as np
import typer
import energydsl as ed
"""

MODELS = {
    "coin": '''
        def declare(size: int = 2) -> ed.Model:
            return ed.Model(-0.5 * ed.spin("s", size).sum())

        def main(
            seed: int = 0,
            out: Path = Path("out"),
            heads: Annotated[int, typer.Option(help="How many to show.")] = 3,
        ) -> dict:
            """Toss a coin."""
            (out / "coin.txt").write_text("tossed")
            return {"seed": seed, "heads": np.float32(heads) / 2, "rates": np.ones(2) / 3,
                    "T=1": {"energy": -1.25, "error": 0.5}, "never": float("nan"),
                    "T=2": {"energy": -0.75, "more": {"n": 3}}}
        ''',
    "worded": """
        WORDS = {
            "flips": "{flips:,}",
            "time": "{seconds:.1f} s",
            "mean": "{heads ± error} per flip (exact {exact:.3f})",
            "absent": "{nothing:.2f}",
        }

        def main(seed: int = 0, out: Path = Path("out")) -> dict:
            return {
                "seconds": 12.345, "flips": 1000, "seed": seed,
                "fair": {"heads": 0.51234, "error": 0.0421, "exact": 0.5},
                "bent": {"heads": 0.7, "error": 0.0, "exact": 0.75,
                         "pair": {"mean": 0.4912, "error": 0.123, "exact": 0.5, "z": -0.07}},
            }
        """,
    "broken": """
        raise AssertionError("the zoo imported a model that nobody asked for")
        """,
    "needy": """
        import a_library_that_nobody_has
        """,
    "failing": """
        def declare(size) -> ed.Model: ...

        def main(seed: int = 0, out: Path = Path("out")) -> dict:
            raise ValueError("the coin\\nfell off the table")
        """,
    "odd": """
        def declare():
            return "a coin"

        def main(seed: int = 0, out: Path = Path("out")):
            return [1, 2]
        """,
    "stopped": """
        def main(seed: int = 0, out: Path = Path("out")) -> dict:
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                if seed:
                    raise
                warnings.warn("sample interrupted after 3 of 9 draws")
            return {"draws": 3}
        """,
    "sampled": """
        def main(seed: int = 0, out: Path = Path("out")) -> dict:
            import jax
            ebm = ed.compile(ed.Model(-0.1 * ed.spin("s", 2).sum()))
            number = signal.SIGTERM if seed else signal.SIGINT

            class Ends(ed.Gibbs):
                def ensemble(self, ebm):
                    # In the loop's first chunk, and once more when what was drawn is being saved.
                    from energydsl.run import sampling
                    chunk = sampling._run_chunk
                    def heard(*arguments):
                        sampling._run_chunk = chunk
                        signal.raise_signal(number)
                        return chunk(*arguments)
                    sampling._run_chunk = heard
                    return super().ensemble(ebm)

            drawn = ed.sample(ebm, Ends(), key=jax.random.key(0), warmup=0, draws=500, chains=2)
            signal.raise_signal(number)
            return {"draws": drawn.draws["s"].shape[1]}
        """,
    "_shared": "",
}


LESSONS = {
    "coin": "\n\nTeaches: how a coin falls, in more words than a line of eighty columns\n"
    "has room for, and self-evident things.\n\nSource: none."
}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The command line over a zoo of these models, in a folder of its own."""
    folder = tmp_path / "zoo"
    folder.mkdir()
    for name, code in MODELS.items():
        doc = f'"""The {name} model.\n\nMore of it.{LESSONS.get(name, "")}\n"""\n'
        (folder / f"{name}.py").write_text(doc + HEADER + textwrap.dedent(code))
        monkeypatch.delitem(sys.modules, f"models_zoo.{name}", raising=False)
    monkeypatch.setattr(models_zoo, "__path__", [str(folder)])
    monkeypatch.chdir(tmp_path)
    yield lambda *args: CliRunner().invoke(app, [str(a) for a in args], prog_name="energydsl")
    for name in MODELS:
        sys.modules.pop(f"models_zoo.{name}", None)


def test_version(run):
    done = run("--version")
    assert done.exit_code == 0
    assert done.stdout == f"energydsl {metadata.version('energydsl')}\n"


def test_list_names_each_model_and_imports_none(run):
    done = run("list")
    assert done.exit_code == 0
    lines = [[name, f"  The {name} model."] for name in sorted(MODELS) if name != "_shared"]
    lines[1].append("  Teaches: how a coin falls, in more words than a line of eighty columns has")
    lines[1].append("  room for, and self-evident things.")
    assert done.stdout.splitlines() == [line for entry in lines for line in entry]


def test_run_shows_the_models_or_the_options_of_one(run):
    assert "coin     The coin model." in run("run", "--help").stdout
    options = run("run", "coin", "--help")
    assert options.exit_code == 0
    assert "Toss a coin." in options.stdout
    assert "--heads" in options.stdout and "How many to show.  [default: 3]" in options.stdout
    assert "--seed" in options.stdout and "--out" in options.stdout and "--debug" in options.stdout


def test_run_prints_a_table_and_saves_the_numbers(run, tmp_path):
    done = run("run", "coin", "--seed", 7, "--heads", 5, "--out", "deep/out")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        "seed   7",
        "heads  2.5",
        "rates  0.33333, 0.33333",
        "never  undefined",
        "        T=1    T=2",
        "energy  -1.25  -0.75",
        "error   0.5",
        "more.n         3",
        "saved in deep/out",
    ]
    saved = json.loads((tmp_path / "deep/out/coin.json").read_text())
    assert saved == {
        "seed": 7,
        "heads": 2.5,
        "rates": [1 / 3, 1 / 3],
        "T=1": {"energy": -1.25, "error": 0.5},
        "never": None,
        "T=2": {"energy": -0.75, "more": {"n": 3}},
    }
    assert (tmp_path / "deep/out/coin.txt").read_text() == "tossed"


def test_run_prints_numbers_in_words_with_their_units(run, tmp_path):
    done = run("run", "worded", "--out", "out", "--report")
    assert done.exit_code == 1, "a report needs declare()"
    done = run("run", "worded", "--out", "out")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        "flips  1,000",
        "time   12.3 s",
        "seed   0",
        "      mean                                  pair",
        "fair  0.512 ± 0.042 per flip (exact 0.500)",
        "bent  0.7 ± 0 per flip (exact 0.750)        0.49 ± 0.12 (exact 0.5), -0.1 errors off",
        "saved in out",
    ]
    saved = json.loads((tmp_path / "out/worded.json").read_text())
    assert saved["seconds"] == 12.345 and saved["fair"]["error"] == 0.0421


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (1.23456, 0.0123, "1.235 ± 0.012"),
        (1.23456, 0.0996, "1.23 ± 0.10"),
        (-1234.5, 12.3, "-1234 ± 12"),
        (0.5, 0.0, "0.5 ± 0"),
        (0.5, None, "0.5 ± undefined"),
    ],
)
def test_errors_have_two_digits_and_values_as_many(value, error, text):
    assert with_error(value, error) == text


def test_help_is_not_cut(run):
    said = " ".join(run("--help").stdout.partition("Commands:")[2].split())
    assert "..." not in said
    assert "declare() of FILE returns." in said and said.endswith("shows its options.")


def test_ctrl_c_while_libraries_are_imported_ends_by_one_line():
    told = [sys.executable, "-X", "importtime", "-m", "energydsl", "list"]
    with subprocess.Popen(told, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None and child.stdout is not None
        for line in child.stderr:
            if line.rstrip().endswith("jax._src"):
                break
        child.send_signal(signal.SIGINT)
        rest = [line for line in child.stderr if not line.startswith("import time:")]
        assert rest == ["energydsl: interrupted\n"] and child.stdout.read() == ""
    assert child.returncode == 130


@pytest.mark.parametrize(
    ("program", "started", "expected"),
    [
        ("/usr/bin/energydsl", ["python", "/usr/bin/energydsl", "list"], True),
        ("-m", ["python", "-m", "energydsl", "list"], True),
        ("-m", ["python", "-m", "pytest"], False),
        ("mine.py", ["python", "mine.py"], False),
        ("", ["python"], False),
    ],
)
def test_only_the_command_line_changes_what_ctrl_c_does(monkeypatch, program, started, expected):
    monkeypatch.setattr(sys, "argv", [program])
    monkeypatch.setattr(sys, "orig_argv", started)
    assert _startup.is_command() == expected


def test_ctrl_c_raises_again_once_the_imports_are_done(monkeypatch):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        _startup.begin()
        assert signal.getsignal(signal.SIGINT) is _startup._end
        monkeypatch.setattr("energydsl.cli.commands.app", lambda **_: None)
        main()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _startup.begin()
        _startup.finish()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            ("run", "cion"),
            "no model of the zoo is called 'cion'. Did you mean 'coin'? The zoo has: ",
        ),
        (("run", "xyz"), "no model of the zoo is called 'xyz'. The zoo has: broken, coin, "),
        (("run", "_shared"), "no model of the zoo is called '_shared'"),
        (("run", "coin", "--sed", "3"), "No such option: --sed"),
        (("run", "coin", "--heads", "many"), "Invalid value for '--heads'"),
        (("run", "coin", "--out", "zoo/coin.py"), "folder 'zoo/coin.py' cannot be written"),
        (("explain", "cion"), "'cion' is neither a Python file nor a model of the zoo. Did you"),
        (("explain", "zoo"), "'zoo' is neither a Python file nor a model of the zoo"),
        (("rum",), "No such command 'rum'"),
    ],
)
def test_wrong_use_ends_with_2_and_says_what_is_right(run, args, said):
    done = run(*args)
    assert done.exit_code == 2
    assert said in done.stderr and done.stdout == ""


def test_a_report_has_the_results_the_model_and_the_options(run, tmp_path):
    run("run", "coin", "--heads", 5, "--out", "deep/out", "--report")
    page = (tmp_path / "deep" / "out" / "report.html").read_text(encoding="utf-8")
    assert "<h1>coin</h1>" in page and "The coin model." in page
    for row in ("<td>heads</td><td>2.5</td>", "<th>T=2</th>"):
        assert row in page
    assert "<td>rates</td><td>0.33333, 0.33333</td>" in page
    assert "log Z         exact by" in page and "<td>out</td><td>deep/out</td>" in page


def test_a_report_needs_a_model_before_anything_runs(run):
    done = run("run", "failing", "--report")
    assert done.exit_code == 1 and "needs ['size']" in done.output


def test_an_output_that_cannot_be_written_stops_before_any_work(run, tmp_path):
    (tmp_path / "taken").write_text("mine")
    done = run("run", "failing", "--out", "taken/below")
    assert done.exit_code == 2 and "table" not in done.output
    assert (
        "cannot be written" in done.stderr and "Give a folder in which you may write" in done.stderr
    )


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("run", "failing"), "the coin (--debug shows where)"),
        (("run", "needy"), "needy needs 'a_library_that_nobody_has', which is not installed: pip"),
        (("run", "odd"), "odd returned list; expected a dict of numbers."),
        (("run", "broken"), "AssertionError: the zoo imported"),
        (("explain", "failing"), "declare() of failing needs ['size']; give them default values."),
        (("explain", "odd"), "declare() of odd returned str; expected ed.Model."),
        (("explain", "stopped"), "stopped has no declare(); write one that returns an ed.Model."),
    ],
)
def test_failure_ends_with_1_and_one_line(run, args, said):
    done = run(*args)
    assert done.exit_code == 1
    assert said in done.stderr and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("energydsl: ") and "Traceback" not in done.output


@pytest.mark.parametrize("args", [("run", "failing"), ("explain", "failing"), ("run", "broken")])
def test_debug_lets_the_traceback_through(run, args):
    done = run(*args, "--debug")
    assert done.exit_code == 1
    assert isinstance(done.exception, ValueError | AssertionError)


def test_an_interrupted_run_saves_what_it_has_and_ends_with_130(run, tmp_path):
    done = run("run", "stopped", "--out", "out")
    assert done.exit_code == 130
    assert done.stderr == "energydsl: sample interrupted after 3 of 9 draws\n"
    assert json.loads((tmp_path / "out/stopped.json").read_text()) == {"draws": 3}


@pytest.mark.parametrize(
    ("seed", "code", "word"), [(0, 130, "interrupted"), (1, 143, "interrupted by SIGTERM")]
)
def test_a_signal_in_the_loop_and_one_while_saving_lose_no_draw(run, tmp_path, seed, code, word):
    done = run("run", "sampled", "--seed", seed, "--out", "out")
    assert done.exit_code == code, done.output
    assert f"sample {word} after" in done.stderr
    assert 0 < json.loads((tmp_path / "out/sampled.json").read_text())["draws"] < 500


def test_an_interrupt_that_nobody_hears_ends_with_130_too(run):
    done = run("run", "stopped", "--seed", 1)
    assert done.exit_code == 130 and done.stderr == "energydsl: interrupted\n"


def test_explain_takes_a_name_or_a_file(run, tmp_path):
    named = run("explain", "coin")
    assert named.exit_code == 0, named.output
    (tmp_path / "helper.py").write_text("SIZE = 2")
    (tmp_path / "mine.py").write_text(
        "import energydsl as ed\nfrom helper import SIZE\n"
        "def declare():\n    return ed.Model(-0.5 * ed.spin('s', SIZE).sum())\n"
    )
    own = run("explain", "mine.py")
    assert own.exit_code == 0, own.output
    s = ed.spin("s", 2)
    expected = str(ed.compile(ed.Model(-0.5 * s.sum())).explain()).splitlines()[:-1]
    assert named.stdout.splitlines()[:-1] == own.stdout.splitlines()[:-1] == expected


def test_a_file_named_like_a_library_does_not_replace_it(run, tmp_path):
    (tmp_path / "numpy.py").write_text(
        "import energydsl as ed\n"
        "def declare():\n    return ed.Model(-0.5 * ed.spin('s', 2).sum())\n"
    )
    before = sys.modules["numpy"]
    done = run("explain", "numpy.py")
    assert done.exit_code == 0, done.output
    assert sys.modules["numpy"] is before


@pytest.mark.parametrize("where", ["sys.exit(0)", "def declare():\n    sys.exit(0)"])
def test_a_file_that_ends_the_program_is_told(run, tmp_path, where):
    (tmp_path / "ends.py").write_text(f"import sys\n{where}\n")
    done = run("explain", "ends.py")
    assert done.exit_code == 1
    assert "ends.py ended the program (sys.exit with 0)" in done.stderr


def test_the_help_of_explain_says_that_the_file_is_run(run):
    assert "FILE is executed as Python code" in run("explain", "--help").stdout


def test_every_model_of_the_zoo_says_what_it_is():
    assert zoo.names()
    for name in zoo.names():
        summary, lesson = zoo.described(name)
        assert summary.endswith("."), name
        assert lesson.startswith("Teaches: ") and lesson.endswith("."), name
