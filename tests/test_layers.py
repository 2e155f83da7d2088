"""Imports go one way: the order of the layers is the architecture."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import energydsl

ORDER = {
    "": "_messages _pickling _startup | _types _identity | language | analysis | sweep | normalizer"
    " | compiler | kernel | estimator | mode | run | learning | reporting | io | cli | __main__",
    "language": "constraint domain | variable | expression | declare potential"
    " | evidence merge skeleton parameters | model | missing mixture noised",
    "language/domain": "base | finite continuous | *",
    "language/expression": "operation | tree | leaf | product rearrange reduction | elementwise"
    " | along view | apply select convolution sparse | numpy_functions interval | range sampled"
    " | finite_part",
    "language/merge": "forms | columns | batch | terms",
    "language/potential": "base density support | family | *",
    "analysis": "uniform graph degree parity factor canonical | structure truncated | statistics"
    " | conditional evaluation"
    " | incidence joint_states value_checks layer coordinates ends differences | tables"
    " | couplings",
    "analysis/conditional": "base | levels family | *",
    "sweep": "base forest pairs | lattice trees | * | choose",
    "normalizer": "base double families log_z banded"
    " | bessel_families counting elimination gaussian | *"
    " | choice evaluate",
    "normalizer/conditional_gaussian": "blocks | integrals | rule",
    "normalizer/elimination": "anneal steps blocks arena | order layout spread"
    " | batches cut | schedule search | body | narrow wide | passes"
    " | finite_sum | slices | rule",
    "normalizer/gaussian": "quadratic | *",
    "normalizer/quadrature": "integrand product | landmarks cubature | modes | rule",
    "compiler": (
        "conclusions recommendation slow | explain | ebm | answers compile expectation start"
        " | predict"
    ),
    "kernel": "acceptance base tuning summed | clusters metric point sweeping"
    " | gradient discrete joint | gibbs | hamiltonian tempering | * | choose",
    "estimator": "base annealing finite spanning_trees | annealed | tempered | * | bounds"
    " | estimate",
    "mode": "flow | pairs | base crossover descent diffusion roof"
    " | graph_cut expansion search | choose",
    "run": "moments files limits lost signals spread start | quantities | lowest checkpoint | loop"
    " | sampling | predictive",
    "learning": "divergence latent optimizer | guide shown | bias data noise"
    " | batches likelihood start | objective | history moving | held_out steps | fit",
    "learning/objective": "base | conditionals | * | choose",
    "learning/start": "base | * | choose",
    "reporting": "statistics canvas page pointwise tex | groups | * | report",
    "io": "tabulate | *",
    "io/uai": "words | network evidence | *",
    "cli": "zoo words | terminal | report networks | commands",
}
"""The order of each folder: a file imports from those before it there, and from nothing after.

What stands together between two bars does not import each other; ``*`` is every file not named.
"""
PACKAGE = Path(energydsl.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))


def imported(file):
    """The modules of this package that a file imports, anywhere in it, as parts of their paths."""
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        yield from (n.split(".")[1:] for n in names if n.startswith("energydsl."))


def height(folder, name):
    """Where a file or folder stands in the order of the folder that it lies in."""
    groups = [group.split() for group in ORDER[folder].split("|")]
    named = [k for k, group in enumerate(groups) if name in group]
    return named[0] if named else next(k for k, group in enumerate(groups) if "*" in group)


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_a_file_imports_only_what_comes_before_it(file):
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    for target in imported(file):
        shared = 0
        while shared < len(parts) - 1 and parts[shared] == target[shared]:
            shared += 1
        if parts[shared] == "__init__":
            continue  # A folder's door shows all that lies in it.
        folder = "/".join(parts[:shared])
        assert height(folder, target[shared]) < height(folder, parts[shared]), (
            f"{'/'.join(parts)} imports {'/'.join(target)}, which comes after it or beside it"
        )


def test_every_folder_says_what_belongs_in_it_and_in_which_order():
    folders = {"/".join(f.relative_to(PACKAGE).parts[:-1]) for f in FILES}
    assert folders == set(ORDER)
    for folder in folders:
        assert ast.get_docstring(ast.parse((PACKAGE / folder / "__init__.py").read_text()))
        present = {f.stem for f in (PACKAGE / folder).iterdir() if not f.name.startswith("__py")}
        named = set(ORDER[folder].replace("|", " ").split()) - {"*"}
        assert named <= present
        assert "*" in ORDER[folder] or named == present - {"__init__"}


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
        "assert numpyro.distributions.Normal is energydsl.analysis.conditional.gaussian.dist.Normal"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_public_name_hides_a_module():
    """Such a module could not be imported by `import energydsl.name as other`."""
    modules = {file.stem for file in PACKAGE.iterdir() if file.suffix in ("", ".py")}
    assert not modules & set(energydsl.__all__)
