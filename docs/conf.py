"""Sphinx configuration: MyST pages whose code is run, API pages from docstrings."""

import re
from importlib.metadata import version as installed_version

from docutils import nodes
from latex2mathml.converter import convert

project = "energydsl"
author = "the energydsl authors"
release = version = installed_version("energydsl")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["page.css"]
html_show_copyright = False
html_title = f"{project} {release}"

myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 3

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
nb_output_stderr = "remove"  # progress bars

autodoc_member_order = "bysource"
napoleon_use_ivar = True
html_math_renderer = "mathml"
default_role = "code"  # docstrings write `name` as Markdown does


RETURNED = {
    "Expression", "EBM", "Exact", "Numerical", "Intractable", "Marginals", "Marginal", "Mode",
    "Chains", "Diagnosis", "Finding",
}  # fmt: skip
"""Classes that users receive and never construct."""


def _hide_constructor(app, what, name, obj, options, signature, result):
    """Show no arguments where nobody gives them."""
    if what == "class" and name.rpartition(".")[2] in RETURNED:
        return "", result
    return None


def _dollar_math(app, what, name, obj, options, lines):
    """Let docstrings write mathematics as the pages do, between dollars."""
    text = "\n".join(lines)
    text = re.sub(r"\$\$([^$]+)\$\$", _displayed, text)
    text = re.sub(r"\$([^$]+)\$", r":math:`\1`", text)
    lines[:] = text.split("\n")


def _displayed(match):
    return f"\n\n.. math:: {' '.join(match[1].split())}\n\n"


def _inline(translator, node):
    """A formula as MathML, which browsers typeset themselves: pages need no network for it."""
    translator.body.append(_mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def _block(translator, node):
    translator.body.append(f'<div class="math">{_mathml(node.astext(), "block")}</div>')
    raise nodes.SkipNode


def _mathml(tex, display):
    found = convert(" ".join(tex.split()), display=display)
    # What is not known is passed through as text.
    if unknown := re.findall(r"\\\w+", re.sub(r"<[^>]*>", "", found)):
        raise ValueError(f"{unknown} in the formula {tex!r} have no MathML.")
    return found


def setup(app):
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    app.connect("autodoc-process-docstring", _dollar_math)
    app.connect("autodoc-process-signature", _hide_constructor)
