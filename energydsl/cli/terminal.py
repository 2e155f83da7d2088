"""What the command line prints: numbers, tables and failures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import numpy as np
import typer

from energydsl._startup import INTERRUPTED
from energydsl._types import IntractableError
from energydsl.cli.words import flat

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of a failure.")]


def plain(value: Any) -> Any:
    """The value as JSON data; NaN and infinities become null."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    return plain(np.asarray(value).tolist())


def tables_of(numbers: Mapping[str, Any]) -> list[list[list[str]]]:
    """Single numbers, one in each row, and cases in the narrower orientation; headers first."""
    cases = {
        name: {key: _text(one) for key, one in flat(value).items()}
        for name, value in numbers.items()
        if isinstance(value, dict)
    }
    single = [[name, _text(v)] for name, v in numbers.items() if name not in cases]
    tables = [[["", ""], *single]] if single else []
    if cases:
        columns = list(dict.fromkeys(key for case in cases.values() for key in case))
        grid = [["", *columns]]
        grid += [[name, *(case.get(c, "") for c in columns)] for name, case in cases.items()]
        across = [list(row) for row in zip(*grid, strict=True)]
        tables.append(min(grid, across, key=lambda g: sum(_widths(g))))
    return tables


def print_numbers(numbers: Mapping[str, Any]) -> None:
    """Print single numbers in lines, then cases as a table."""
    for header, *rows in tables_of(numbers):
        print_grid([header, *rows] if any(header) else rows)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    if value is None:
        return "undefined"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _widths(grid: list[list[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*grid, strict=True)]


def print_grid(grid: list[list[str]]) -> None:
    """Print rows of cells in columns."""
    widths = _widths(grid)
    for row in grid:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())


@contextmanager
def failing(debug: bool) -> Iterator[None]:
    """Print an exception as one line and exit with code 1, unless `debug` is set.

    After Ctrl-C the code is 130.
    """
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("energydsl: interrupted", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except (typer.Exit, typer.BadParameter):
        raise
    except Exception as error:
        if debug:
            raise
        known = isinstance(error, ValueError | TypeError | ImportError | OSError | IntractableError)
        kind = "" if known else f"{type(error).__name__}: "
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        typer.echo(f"energydsl: {kind}{line} (--debug shows where)", err=True)
        raise typer.Exit(1) from None
