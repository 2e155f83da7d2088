"""The command line: the model zoo, explanations of models, and answers about UAI files.

Exit codes: 0 for success, 1 for a failure while running, 2 for wrong usage, 130 after Ctrl-C and
143 after SIGTERM; in the last two cases the draws so far are saved.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
import inspect
import json
import shutil
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from energydsl import _startup
from energydsl.cli import networks, zoo
from energydsl.cli.report import write_report
from energydsl.cli.terminal import Debug, failing, plain, print_numbers
from energydsl.cli.words import told
from energydsl.compiler import compile as compiler
from energydsl.io import output_folder
from energydsl.language.model import Model
from energydsl.run.files import write_whole
from energydsl.run.signals import Listener

WIDTH = 110
"""The most columns that help is printed in."""

PARAGRAPH: Any = {
    "initial_indent": "  ", "subsequent_indent": "  ", "break_on_hyphens": False,
}  # fmt: skip
"""How sentences are broken into lines."""

Report = Annotated[
    bool,
    typer.Option("--report", help="Write report.html into the folder, with all results."),
]


class Whole(TyperGroup):
    """A group whose commands are listed with whole sentences, over several lines if need be."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(n, (c.help or "").partition("\n")[0]) for n, c in commands if c])


class Zoo(Whole):
    """A group of commands, one per zoo model; only the model that is run is imported."""

    def list_commands(self, ctx: Any) -> list[str]:
        return zoo.names()

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand:
        return TyperCommand(cmd_name, help=zoo.described(cmd_name)[0])

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str, TyperCommand, list[str]]:
        name, *rest = args
        if name not in zoo.names():
            _refuse(f"no model of the zoo is called {name!r}", name, "NAME")
        with failing(debug="--debug" in rest):
            return name, _command(name), rest


app = typer.Typer(
    cls=Whole,
    context_settings={"max_content_width": WIDTH},
    help="Energy-based models: list the zoo, run its models, explain your own.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(
    typer.Typer(cls=Zoo, rich_markup_mode=None),
    name="run",
    help="Run a model of the zoo: `energydsl run NAME --help` shows its options.",
    subcommand_metavar="NAME [OPTIONS]",
    no_args_is_help=True,
)


def main() -> None:
    """The entry point of ``energydsl`` and ``python -m energydsl``."""
    _startup.finish()
    app(prog_name="energydsl")


def _show_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"energydsl {metadata.version('energydsl')}")
        raise typer.Exit
    return wanted


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    pass


@app.command("list")
def list_models() -> None:
    """List the models of the zoo, and what each teaches."""
    width = shutil.get_terminal_size().columns
    for name in zoo.names():
        summary, lesson = zoo.described(name)
        typer.echo(name)
        for text in filter(None, (summary, lesson)):
            typer.echo(textwrap.fill(text, width, **PARAGRAPH))


@app.command()
def explain(
    file: Annotated[str, typer.Argument(help="A Python file, or a model of the zoo.")],
    debug: Debug = False,
) -> None:
    """Explain what the compiler finds in the model that declare() of FILE returns.

    FILE is executed as Python code, so give only files that you trust.
    """
    with failing(debug):
        typer.echo(compiler.compile(_declared(file)).explain())


app.command("logz")(networks.log_partition)
app.command("marginals")(networks.marginals)
app.command("map")(networks.mode)


def _declared(file: str) -> Model:
    """The model of a Python file or of a zoo model's name."""
    try:
        return _model_of(zoo.load(file) if file in zoo.names() else _load_file(file), file)
    except SystemExit as end:
        raise ValueError(
            f"{file} ended the program (sys.exit with {end.code!r}) before its model was known; "
            'put the code that runs it below `if __name__ == "__main__":`.'
        ) from None


def _model_of(module: ModuleType, file: str) -> Model:
    """The model that a module's `declare()` returns."""
    declare = getattr(module, "declare", None)
    if declare is None:
        raise ValueError(f"{file} has no declare(); write one that returns an ed.Model.")
    needed = [
        p.name
        for p in inspect.signature(declare).parameters.values()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if needed:
        raise ValueError(f"declare() of {file} needs {needed}; give them default values.")
    model = declare()
    if not isinstance(model, Model):
        raise TypeError(f"declare() of {file} returned {type(model).__name__}; expected ed.Model.")
    return model


def _load_file(file: str) -> ModuleType:
    path = Path(file)
    # The prefix prevents that a file such as numpy.py replaces the library of that name.
    name = f"energydsl_explains_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if not path.is_file() or spec is None or spec.loader is None:
        _refuse(f"{file!r} is neither a Python file nor a model of the zoo", file, "FILE")
    # Lets the file import modules from its folder; libraries take precedence.
    sys.path.append(str(path.parent))
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _refuse(what: str, name: str, hint: str) -> NoReturn:
    """Raise a usage error that lists the zoo's models, with the most similar name."""
    names = zoo.names()
    close = difflib.get_close_matches(name, names, 1)
    guess = f"Did you mean {close[0]!r}? " if close else ""
    raise typer.BadParameter(f"{what}. {guess}The zoo has: {', '.join(names)}.", param_hint=hint)


def _command(name: str) -> Any:
    """A command that runs a model's `main`, with its options and ``--debug``."""
    run = zoo.load(name).main

    @functools.wraps(run)
    def command(*, report: bool, debug: bool, **options: Any) -> None:
        with failing(debug), _interruptible():
            _run(name, run, options, report)

    own = inspect.signature(run, eval_str=True).parameters.values()
    last = [
        inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=a)
        for n, a in (("report", Report), ("debug", Debug))
    ]
    command.__signature__ = inspect.Signature([*own, *last])  # type: ignore[attr-defined]
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(name)(command)
    return typer.main.get_command(single)


def _run(name: str, run: Callable[..., Any], options: dict[str, Any], report: bool) -> None:
    """Run a model, print and save the numbers that it returns, and write a report if asked."""
    try:
        folder = output_folder(options["out"])
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--out") from None
    module = zoo.load(name)
    model = _model_of(module, name) if report else None
    numbers = run(**options)
    if not isinstance(numbers, Mapping):
        raise TypeError(f"{name} returned {type(numbers).__name__}; expected a dict of numbers.")
    saved = plain(numbers)
    write_whole(folder / f"{name}.json", (json.dumps(saved, indent=2) + "\n").encode())
    said = told(saved, getattr(module, "WORDS", {}))
    print_numbers(said)
    if model is not None:
        write_report(module, model, options, said, folder)
    typer.echo(f"saved in {folder}")


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the sampling but not the saving, and set the exit code."""
    with Listener() as listener, warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = _show_warning
        yield
    if listener.heard is not None:
        raise typer.Exit(128 + listener.heard)


def _show_warning(message: Warning | str, *where: Any, **more: Any) -> None:
    typer.echo(f"energydsl: {message}", err=True)
