"""Runs over several devices have the draws of one."""

import os
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest

import energydsl as ed

SPREAD = """
import sys
import jax, numpy as np
import energydsl as ed
s, b = ed.spin("s", (16, 6)), ed.binary("b", (16, 6))
pairs = 0.3 * (s * ed.roll(s, 1, 0)).sum() + 0.2 * (s * ed.roll(s, 1, 1)).sum()
lattice = ed.compile(ed.Model(-pairs - 0.1 * (s * b).sum() + 0.05 * s.sum()))
i, j = np.triu_indices(24, 1)
g = ed.spin("g", 24)
w = np.random.default_rng(0).normal(size=len(i)) * (np.arange(len(i)) % 5 == 0)
graph = ed.compile(ed.Model((w * g[i] * g[j]).sum()))
bonds = (s * ed.roll(s, 1, 0)).sum() + (s * ed.roll(s, 1, 1)).sum()
packed = ed.compile(ed.Model(-0.4 * bonds))
run = dict(key=jax.random.key(0), warmup=7, progress=False)
for ebm, chains in ((lattice, 8), (graph, 8), (packed, 40)):
    alone = ed.sample(ebm, ed.Gibbs(), chains=chains, draws=12, **run)
    for shape, names in (((2,), ("chain",)), ((8,), ("site",)), ((2, 4), ("chain", "site"))):
        mesh = jax.make_mesh(shape, names)
        over = ed.sample(ebm, ed.Gibbs(), chains=chains, draws=12, mesh=mesh, **run)
        assert all(np.array_equal(alone.draws[n], over.draws[n]) for n in alone.draws)
        places = {len(a.sharding.device_set) for a in over.last.values()}
        assert places == {mesh.size}, (ebm.sweep.lowering, names, places)

mesh = jax.make_mesh((8,), ("chain",))
ed.sample(lattice, ed.Gibbs(), chains=8, draws=5, checkpoint=sys.argv[1], mesh=mesh, **run)
alone = ed.sample(lattice, ed.Gibbs(), chains=8, draws=12, **run)
again = ed.sample(lattice, ed.Gibbs(), chains=8, draws=12, checkpoint=sys.argv[1], mesh=mesh, **run)
assert all(np.array_equal(alone.draws[n], again.draws[n]) for n in alone.draws)
assert {len(a.sharding.device_set) for a in again.last.values()} == {8}
"""


@pytest.mark.slow
def test_draws_on_two_and_eight_devices_are_those_on_one(tmp_path):
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    script = textwrap.dedent(SPREAD)
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "run")],
                          env=os.environ | flags, text=True, capture_output=True)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def ebm():
    return ed.compile(ed.Model(ed.spin("s", (3, 2)).sum()))


def test_a_mesh_is_a_mesh_with_known_axes(ebm):
    run = dict(key=jax.random.key(0), progress=False)
    with pytest.raises(TypeError, match=r"sample got mesh=8; expected a mesh of devices"):
        ed.sample(ebm, mesh=8, **run)
    rows = jax.make_mesh((1,), ("rows",))
    with pytest.raises(ValueError, match=r"axes \['rows'\]; expected 'chain'.* or 'site'"):
        ed.sample(ebm, mesh=rows, **run)


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        ("site", "2 devices, which do not divide the first axis of 's', of size 3"),
        ("chain", "2 devices, which do not divide the chains, of size 5"),
    ],
)
def test_a_mesh_that_does_not_divide_is_refused(ebm, axis, message):
    """The one device of a test machine stands for two."""
    mesh = jax.sharding.Mesh(np.array([jax.devices()[0]] * 2), (axis,))
    with pytest.raises(ValueError, match=message):
        ed.sample(ebm, key=jax.random.key(0), chains=5, mesh=mesh, progress=False)
