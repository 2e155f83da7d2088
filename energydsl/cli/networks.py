"""Commands that answer questions about networks in UAI files."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import typer

from energydsl.analysis.evaluation import as_double
from energydsl.cli.terminal import Debug, failing, plain
from energydsl.compiler import answers
from energydsl.compiler import compile as compiler
from energydsl.compiler import ebm as compiled
from energydsl.compiler.ebm import EBM
from energydsl.io.uai import read_uai, uai_sites
from energydsl.mode.choose import map_configuration
from energydsl.normalizer import Intractable, Question
from energydsl.normalizer.base import Budget

File = Annotated[
    Path, typer.Argument(exists=True, dir_okay=False, help="A network in the UAI format.")
]
Evidence = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="A UAI evidence file of one sample."),
]
Terms = Annotated[
    int, typer.Option(min=0, help="log2 of the number of terms that one component may take.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one line of JSON.")]

NO_MASS = (
    "Z is 0: every configuration has a potential of 0, so that the evidence, if there is some, is "
    "impossible"
)


def log_partition(
    file: File,
    evidence: Evidence = None,
    budget: Terms = Budget.terms,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Print log Z of a network; for a Bayesian network that is log P(evidence)."""
    with failing(debug), jax.enable_x64(True):
        asked = _Asked(file, evidence)
        if all(asked.model.skeleton.mask(v).all() for v in asked.model.variables):
            energy = float(as_double(asked.model).energy({}))
            said = {"kind": "exact", "method": "evaluation", "operations": 1.0}
            said["seconds"] = asked.seconds
        else:
            value, said = asked.answer(budget, "log_partition", compiled.log_partition)
            energy = -float(value)
        numbers = {"log_z": 0.0 - energy, **said}
        note = {"note": NO_MASS} if np.isposinf(energy) else {}
        _print({**numbers, **note}, [], as_json)


def marginals(
    file: File,
    evidence: Evidence = None,
    budget: Terms = Budget.terms,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Print the probabilities of each variable's levels, a line for each variable's number."""
    with failing(debug), jax.enable_x64(True):
        asked = _Asked(file, evidence)
        found, said = asked.answer(budget, "marginals", answers.marginals)
        shares = {name: np.asarray(law.probabilities) for name, law in found.items()}
        laws = [shares[name][index].tolist() for name, index in asked.sites]
        lines = [f"{i} {' '.join(f'{p:.9f}' for p in law)}" for i, law in enumerate(laws)]
        _print({**said, "marginals": laws}, lines, as_json)


def mode(
    file: File,
    evidence: Evidence = None,
    budget: Terms = Budget.terms,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Print a configuration of highest probability: the level of each variable, in order."""
    with failing(debug), jax.enable_x64(True):
        asked = _Asked(file, evidence)
        found, said = asked.answer(budget, "mode", map_configuration)
        x = asked.model.complete(found.configuration)
        levels = {name: np.asarray(values) for name, values in x.items()}
        configuration = [int(levels[name][index]) for name, index in asked.sites]
        proof = {"bound": found.bound, "proven": found.proven}
        numbers = {"energy": found.energy, **said, "method": found.method, **proof}
        lines = [" ".join(map(str, configuration))]
        _print({**numbers, "configuration": configuration}, lines, as_json)


class _Asked:
    """The model of a file, and the time that each step took."""

    def __init__(self, file: Path, evidence: Path | None) -> None:
        self.seconds: dict[str, float] = {}
        self.model = self._timed("read", lambda: read_uai(file, evidence))
        self.sites = uai_sites(file)
        """The site of each variable of the file."""

    def answer[T](
        self, budget: int, question: Question, function: Callable[[EBM], T]
    ) -> tuple[T, dict[str, Any]]:
        """The answer to a question, with how it was found."""
        ebm = self._timed("compile", lambda: compiler.compile(self.model, budget=budget))
        found = self._timed("answer", lambda: function(ebm))
        normalizer = ebm.conclusions.survey.choose(question)
        if isinstance(normalizer, Intractable):
            return found, {"seconds": self.seconds}
        said = {
            "kind": normalizer.kind,
            "method": normalizer.rules,
            "operations": normalizer.operations,
            "seconds": self.seconds,
        }
        return found, said

    def _timed[T](self, step: str, work: Callable[[], T]) -> T:
        began = time.perf_counter()
        done = work()
        self.seconds[step] = time.perf_counter() - began
        return done


def _print(numbers: dict[str, Any], lines: list[str], as_json: bool) -> None:
    """Print numbers as JSON, or the single ones by name, then `lines` in place of the lists."""
    if as_json:
        typer.echo(json.dumps(plain(numbers)))
        return
    for name, value in numbers.items():
        if not isinstance(value, list):
            typer.echo(f"{name:<10}  {_text(value)}")
    for line in lines:
        typer.echo(line)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        steps = ", ".join(f"{step} {seconds:.3g}" for step, seconds in value.items())
        return f"{sum(value.values()):.3g} ({steps})"
    return f"{value:.15g}" if isinstance(value, float) else str(value)
