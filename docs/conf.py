"""Sphinx configuration: MyST pages whose code is run, API pages from docstrings."""

import re
from importlib.metadata import version as installed_version

project = "energydsl"
author = "the energydsl authors"
release = version = installed_version("energydsl")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"{project} {release}"

myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_output_stderr = "remove"  # progress bars

autodoc_member_order = "bysource"
default_role = "code"  # docstrings write `name` as Markdown does


def _dollar_math(app, what, name, obj, options, lines):
    """Let docstrings write mathematics as the pages do, between dollars."""
    text = "\n".join(lines)
    text = re.sub(r"\$\$([^$]+)\$\$", _displayed, text)
    text = re.sub(r"\$([^$]+)\$", r":math:`\1`", text)
    lines[:] = text.split("\n")


def _displayed(match):
    return f"\n\n.. math:: {' '.join(match[1].split())}\n\n"


def setup(app):
    app.connect("autodoc-process-docstring", _dollar_math)
