"""The README's code runs, and the API page has every public name."""

import re
from pathlib import Path

import energydsl as ed

ROOT = Path(__file__).parents[1]


def test_the_code_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = list(re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    assert blocks, "README.md has no ```python block"

    namespace = {}
    for block in blocks:
        # Blank lines in front let a traceback show the README's own line numbers.
        above = "\n" * text.count("\n", 0, block.start(1))
        exec(compile(above + block[1], str(ROOT / "README.md"), "exec"), namespace)


def test_the_api_page_has_every_public_name():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\.\. (?:auto\w+|py:data):: (\w+)$", page, re.MULTILINE)
    assert sorted(documented) == sorted(ed.__all__)
