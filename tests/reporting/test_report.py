"""Reports: files that stand alone, with what was found, drawn and learnt."""

import ast
import base64
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import jax.random as jr
import numpy as np
import pytest

import energydsl as ed
from energydsl.reporting.page import Page
from energydsl.reporting.tex import energy_tex

VOID = {"img", "meta", "br"}


class Checked(HTMLParser):
    """Every tag that is opened is closed, in order; texts and sources are collected."""

    def __init__(self, page):
        super().__init__()
        self.open, self.text, self.sources, self.pictures = [], "", [], []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.sources += [v for k, v in attributes if k in ("src", "href")]
        if tag == "img":
            assert given["alt"], "a picture has no text for those who cannot see it"
            self.pictures.append(given["alt"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data + " "


def grid():
    s = ed.spin("s", (5, 4))
    return ed.Model(-0.3 * (s[1:] * s[:-1]).sum() - 0.2 * s.sum())


@pytest.fixture(scope="module")
def ebm():
    return ed.compile(grid())


@pytest.fixture(scope="module")
def chains(ebm):
    return ed.sample(ebm, key=jr.key(5), chains=3, draws=30, warmup=0, progress=False)


@pytest.fixture(scope="module")
def page(ebm, chains, tmp_path_factory):
    path = ed.report(ebm, chains, tmp_path_factory.mktemp("report") / "run.html")
    return path, Checked(path.read_text(encoding="utf-8"))


def test_a_report_stands_alone(page):
    _, seen = page
    assert seen.sources and all(s.startswith("data:image/") for s in seen.sources)
    for source in seen.sources:
        kind, _, content = source.partition(";base64,")
        start = {
            "data:image/png": b"\x89PNG",
            "data:image/svg+xml": b"<?xml",
            "data:image/gif": b"GIF89a",
        }[kind]
        assert base64.b64decode(content, validate=True).startswith(start)


def test_a_report_has_everything_about_the_run(page, ebm, chains):
    _, seen = page
    # The time of compiling stands last.
    assert str(ebm.explain()).rpartition("compiled in")[0] in seen.text
    assert str(ed.diagnose(chains)).splitlines()[1] in seen.text
    assert f"log Z = {float(ed.log_partition(ebm)):.10g} (exact), exact by" in seen.text
    assert "key [0, 5]" in seen.text
    assert "All chains, draw by draw." in seen.pictures
    assert "Samples of s" in seen.text and "s[0, 0]" in seen.text
    assert [p for p in seen.pictures if p.startswith("E = ")]
    titles = ["Energy", "Factor graph", "What the compiler found", "log Z", "Chains",
              "Means and traces", "Samples of s", "Versions"]  # fmt: skip
    places = [seen.text.index(title) for title in titles]
    assert len(set(places)) == len(titles)


def test_the_means_are_those_of_the_draws(page, chains):
    _, seen = page
    found = re.search(r"s\[0, 0\]\s*(-?[0-9.]+)", seen.text)
    mean = chains.draws["s"][..., 0, 0].mean()
    assert abs(float(found[1]) - mean) < 6e-3, "as rounded"


def test_learning_curves_stand_in_a_report(tmp_path):
    s, b = ed.spin("s", 3), ed.parameter("b", np.zeros(3))
    ebm = ed.compile(ed.Model(-(b * s).sum()))
    learnt, history = ed.fit(
        ebm, ed.MaximumLikelihood(), np.ones((4, 3), int), key=jr.key(0), steps=3, progress=False
    )
    seen = Checked(ed.report(learnt, history, tmp_path / "fit.html").read_text(encoding="utf-8"))
    assert "3 steps of MaximumLikelihood" in seen.text
    assert "The objective's scalars at each step, and their means." in seen.pictures


def test_a_model_alone_and_a_run_without_draws_have_reports(ebm, chains, tmp_path):
    Checked(ed.report(ebm, path=tmp_path / "model.html").read_text(encoding="utf-8"))
    none = {name: a[:, :0] for name, a in chains.draws.items()}
    stats = {name: a[:, :0] for name, a in chains.stats.items()}
    empty = type(chains)(none, stats, *[getattr(chains, n) for n in (
        "last", "ebm", "kernel", "key", "warmup", "thin", "seconds")])  # fmt: skip
    path = ed.report(ebm, empty, tmp_path / "none.html")
    assert "There are no draws." in Checked(path.read_text(encoding="utf-8")).text


def test_what_cannot_be_reported_is_said(untyped, ebm, tmp_path):
    with pytest.raises(TypeError, match=r"report got Model; compile it first"):
        ed.report(grid(), path=tmp_path / "x.html")
    with pytest.raises(TypeError, match=r"report got {}; expected chains of ed.sample"):
        ed.report(ebm, {}, tmp_path / "x.html")
    with pytest.raises(ValueError, match=r"report got no path; name the file"):
        ed.report(ebm)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("-b @ s", [r"- b \, s"]),
        ("a + b - c", [" a", "+ b", "- c"]),
        ("a - (b - c)", [" a", "- b", "+ c"]),
        ("-0.3 * (s[1:] * s[:-1]).sum()", [r"- 0.3 \, \sum s_{1:} \, s_{:-1}"]),
        ("((x - mu)**2).sum() / 2", [r" \frac{1}{2} \, \sum \left(x - \mu\right)^{2}"]),
        ("a / (b + c)", [r" \frac{a}{b + c}"]),
        ("s.sum() * t", [r" \left(\sum s\right) \, t"]),
        ("exp(x) + sqrt(y)", [r" \exp\left(x\right)", r"+ \sqrt{y}"]),
        ("(c == 2).sum()", [r" \sum \left[c = 2\right]"]),
        ("f32[3,4] @ long_name", [r" \mathrm{data}_{3\times 4} \, \mathrm{long\_name}"]),
        ("2e-07 * x", [r" 2 \cdot 10^{-7} \, x"]),
        ("(-x)**2", [r" \left(-x\right)^{2}"]),
        ("x + ...(cut", []),
    ],
)
def test_energies_become_formulas(text, terms):
    assert energy_tex(text) == terms


def test_a_formula_with_many_operations_is_typeset():
    page = Page("x")
    page.formulas(energy_tex("-(s @ f32[3,3] @ s) / T + where(a > b, a**2, exp(-b)).sum(0)[1]"))
    assert "<code>" not in "".join(page.parts)


ZOO = Path(__file__).parents[2] / "models_zoo"


@pytest.mark.parametrize("name", sorted(file.stem for file in ZOO.glob("*.py")))
def test_the_zoos_words_are_typeset_without_their_markup(name):
    said = ast.get_docstring(ast.parse((ZOO / f"{name}.py").read_text(encoding="utf-8"))) or ""
    page = Page(name)
    page.prose(said.partition("\n")[2])
    shown = re.sub("<img[^>]*>", "", "".join(page.parts))
    assert not re.findall(r"[`$]|\\\w+", shown)


def test_numbers_in_a_table_have_few_digits():
    page = Page("x")
    page.table(
        ("", ""), [("a", 0.47109375), ("b", 63015.9687), ("c", np.float64(-1.5e-7)), ("d", 12)]
    )
    cells = re.findall("<td>(.*?)</td>", page.parts[0])
    assert cells[1::2] == ["0.4711", "63,016", "-1.5e-07", "12"]


def test_words_are_escaped_and_formulas_that_cannot_be_typeset_are_shown():
    page = Page("<b>", "a & b")
    page.prose("If $x < 1$, see\n\n$$\\begin{x}$$ <script>")
    page.code("<script>")
    page.table(("<i>",), [("</td>",)])
    text = str(page)
    assert "<script>" not in text and "<i>" not in text and "<b>" not in text
    seen = Checked(text)
    assert seen.pictures == ["x < 1"] and r"\begin{x}" in seen.text and "</td>" in seen.text


def test_a_browser_opens_it(page):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if browser is None:
        pytest.skip("no Chromium is installed")
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--dump-dom", page[0].as_uri()],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert "What the compiler found" in done.stdout
