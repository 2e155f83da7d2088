"""Access to the model zoo: names, summaries and modules, without importing all of them.

A zoo model is a module of ``models_zoo`` whose docstring's first line describes it, and in which a
paragraph says what it teaches. It has a ``declare(...)`` that returns a `Model`, a ``main(...)``
that runs it, takes at least ``seed`` and ``out``, and returns its numbers, and ``WORDS`` for them.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
from pathlib import Path
from types import ModuleType

import models_zoo


def names() -> list[str]:
    """The names of all models in alphabetical order."""
    found = (module.name for module in pkgutil.iter_modules(models_zoo.__path__))
    return sorted(name for name in found if not name.startswith("_"))


TEACHES = "Teaches: "
"""The first word of the paragraph of a model's docstring that says what to learn from it."""


def described(name: str) -> tuple[str, str]:
    """What a model is and what it teaches, from its docstring, without importing the model."""
    spec = importlib.util.find_spec(f"models_zoo.{name}")
    assert spec is not None and spec.origin is not None
    text = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    lessons = [p for p in text.split("\n\n") if p.startswith(TEACHES)]
    return text.partition("\n")[0], " ".join("".join(lessons[:1]).split())


def load(name: str) -> ModuleType:
    """The module of a model.

    Raises:
        ImportError: a library that it needs is missing; the message says how to install it.
    """
    try:
        return importlib.import_module(f"models_zoo.{name}")
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{name} needs {error.name!r}, which is not installed: pip install 'energydsl[zoo]'."
        ) from error
