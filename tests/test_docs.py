"""The README's code runs, extensions are short, and the API page has every public name."""

import ast
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

import energydsl as ed

ROOT = Path(__file__).parents[1]
LONGEST = 40
"""Lines in which a kernel, a rule, a potential and an objective of a user's own can be written."""


def code_of(page):
    """The Python of a page, block by block, its line numbers kept."""
    text = (ROOT / page).read_text(encoding="utf-8")
    pattern = r"^```(?:\{code-cell\} )?python\n(?:---\n.*?^---\n|(?::[^\n]*\n)+)?(.*?)^```$"
    for block in re.finditer(pattern, text, re.MULTILINE | re.DOTALL):
        # Blank lines in front let a traceback show the page's own line numbers.
        yield "\n" * text.count("\n", 0, block.start(1)) + block[1]


def test_the_readmes_code_runs(tmp_path, monkeypatch):
    """The code of the other pages runs when the documentation is built."""
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for code in code_of("README.md"):
        exec(compile(code, str(ROOT / "README.md"), "exec"), namespace)
    plt.close("all")
    assert namespace, "README.md has no block of Python"


@pytest.mark.slow
def test_the_models_by_field_are_learnt_drawn_and_asked(tmp_path, monkeypatch):
    """Building the documentation runs their declarations only."""
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for code in code_of("docs/models.md"):
        exec(compile(code, str(ROOT / "docs" / "models.md"), "exec"), namespace)
    plt.close("all")
    assert len(namespace["ebms"]) == 13


def test_every_family_is_extended_in_few_lines():
    classes = [
        node
        for code in code_of("docs/extending.md")
        for node in ast.parse(code).body
        if isinstance(node, ast.ClassDef)
    ]
    extended = {base.attr for node in classes for base in node.bases}
    families = ("Potential", "Domain", "Kernel", "Rule", "Plan", "Objective")
    assert extended == {f"Abstract{family}" for family in families}
    for node in classes:
        assert node.end_lineno - node.lineno < LONGEST, node.name


def test_the_api_page_has_every_public_name():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\.\. (?:auto\w+|py:data):: (\w+)$", page, re.MULTILINE)
    assert sorted(documented) == sorted(ed.__all__)
    files = re.findall(r"^\.\. autofunction:: energydsl\.io\.(\w+)$", page, re.MULTILINE)
    assert set(files) == set(ed.io.__all__) - set(ed.__all__)
