"""Imports go one way: the order of the layers is the architecture."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import energydsl

LAYERS = [
    ["_types"],
    ["domain", "graph", "polynomial"],
    ["density"],
    ["variable"],
    ["operation"],
    ["expression"],
    ["bounds"],
    ["family"],
    ["declare", "potential"],
    ["factor", "skeleton"],
    ["model"],
    ["structure"],
    ["arguments"],
    ["conditional", "states", "values"],
    ["marginal", "surface"],
    ["sweep", "normalizer"],
    ["findings"],
    ["advice"],
    ["explain"],
    ["ebm"],
    ["compiler"],
    ["latent", "unconstrained"],
    ["examples", "log_z"],
    ["batches"],
    ["kernel"],
    ["annealing"],
    ["estimator"],
    ["likelihood"],
    ["checkpoint"],
    ["quantity", "running"],
    ["optimizer"],
    ["sampling"],
    ["objective"],
    ["fitting"],
    ["trace"],
    ["datatree", "diagnostics", "plot"],
    ["io"],
    ["zoo"],
    ["cli"],
]
HEIGHT = {name: height for height, names in enumerate(LAYERS) for name in names}
BASES = {"base", "gradient", "tuning"}
"""Contracts that members of a family share."""
GATHERERS = {"__init__", "choose"}
"""Files of a family that know all its members."""
UPWARDS = {("model", "plot")}
"""`Model.graph` draws itself: the one call upwards, made when it is called."""
PACKAGE = Path(energydsl.__file__).parent
FILES = [f for f in PACKAGE.rglob("*.py") if f.relative_to(PACKAGE).name != "__main__.py"]


def imported(file):
    """The modules of this package that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = (
                [f"{node.module}.{a.name}" for a in node.names]
                if node.module == "energydsl"
                else [node.module]
            )
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        yield from (n.split(".")[1:] for n in names if n.startswith("energydsl."))


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_a_file_imports_only_from_layers_below(file):
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    if parts == ("__init__",):
        return
    for target in imported(file):
        family = parts[0] == target[0]
        if family:
            # Of a folder, siblings share their base; its door shows them all.
            allowed = parts[-1] in GATHERERS or target[-1] in BASES
            assert allowed, f"{file} imports its sibling {target}"
        else:
            if (parts[0], target[0]) in UPWARDS:
                continue
            assert HEIGHT[target[0]] < HEIGHT[parts[0]], f"{file} imports {target} from above"


def test_every_module_has_its_layer():
    found = {f.relative_to(PACKAGE).with_suffix("").parts[0] for f in FILES} - {"__init__"}
    assert found == set(HEIGHT)


def test_importing_starts_no_backend():
    """`jax.distributed` and platform choices must still be possible after the import."""
    code = (
        "import energydsl\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_arviz_may_be_imported_first():
    """It leaves a lazy NumPyro behind, which must become one whole module."""
    code = (
        "import arviz, energydsl, numpyro\n"
        "assert numpyro.distributions.distribution\n"
        "assert numpyro.distributions.Normal is energydsl.conditional.dist.Normal"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
