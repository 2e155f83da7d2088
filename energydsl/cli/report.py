"""The report of a run of a zoo model: one HTML file with everything that it wrote."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from energydsl.cli.terminal import tables_of
from energydsl.compiler import compile as compiler
from energydsl.language.model import Model
from energydsl.reporting.page import Page
from energydsl.reporting.report import add_draws, add_model, add_versions
from energydsl.run.files import write_whole


def write_report(
    module: ModuleType,
    model: Model,
    options: Mapping[str, Any],
    numbers: Mapping[str, Any],
    folder: Path,
) -> Path:
    """Write ``report.html`` into the folder of a run, from what the run returned and saved there.

    Args:
        module: the zoo model.
        model: what it declares by default.
        options: the options of the run.
        numbers: what it returned, in words.
        folder: where its pictures and chains are.
    """
    summary, _, text = (inspect.getdoc(module) or "").partition("\n")
    page = Page(module.__name__.rpartition(".")[2].replace("_", " "), summary)
    page.prose(text)
    page.section("Results")
    for header, *rows in tables_of(numbers):
        page.table(header, rows)
    for picture in sorted(folder.glob("*.png")):
        page.picture(picture.read_bytes(), picture.stem.replace("_", " "))
    for file in sorted(folder.glob("*.nc")):
        page.section(f"Chains of {file.name}")
        add_draws(page, _posterior(file))
    add_model(page, compiler.compile(model))
    page.section("Options")
    page.table(("option", "value"), options.items())
    add_versions(page)
    path = folder / "report.html"
    write_whole(path, str(page).encode())
    return path


def _posterior(file: Path) -> dict[str, Any]:
    import arviz as az

    with az.from_netcdf(file) as tree:
        return {str(name): a.values for name, a in tree["posterior"].data_vars.items()}
