"""Parameters on disk: read back as they were, and refused where they do not fit."""

import subprocess
import sys
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import paramax
import pytest
from safetensors.numpy import save_file

import energydsl as ed


def declared(seed, *, sites=3, width=4, names=("J", "h")):
    """A network, a positive coupling, a field, and a frozen array, drawn by this seed."""
    rng = np.random.default_rng(seed)
    s, y = ed.spin("s", sites), ed.real("y", 2)
    positive = paramax.Parameterize(jnp.exp, jnp.asarray(rng.normal(), jnp.float32))
    J, h = ed.parameter(names[0], positive), ed.parameter(names[1], rng.normal(size=sites))
    still = ed.fixed(ed.parameter("still", rng.normal(size=(2, 2)).T))
    net = eqx.nn.MLP(2, "scalar", width, 1, key=jr.key(seed))
    energy = -J * (s[1:] * s[:-1]).sum() - h @ s + (y @ still @ y) ** 2 + ed.Neural(net)(y)
    return ed.Model(energy + y @ y)


def leaves(model):
    return [np.asarray(a) for a in jax.tree.leaves(model.parameters) if eqx.is_array(a)]


def test_what_is_saved_reads_back(tmp_path):
    path = tmp_path / "learnt.safetensors"
    first, second = declared(0), declared(1)
    assert all((a != b).any() for a, b in zip(leaves(first), leaves(second), strict=True))
    ed.save(ed.compile(first), path)
    again = ed.load(path, ed.compile(second))
    assert isinstance(again, ed.EBM)
    for a, b in zip(leaves(again.model), leaves(first), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    x = {"s": [1, -1, -1], "y": [0.3, 0.7]}
    assert float(again.energy(x)) == float(first.energy(x)) != float(second.energy(x))
    assert ed.load(path, second) == ed.load(path, first) and isinstance(
        ed.load(path, first), ed.Model
    )


def test_clamped_sites_are_no_part_of_a_file(tmp_path):
    path = tmp_path / "p.safetensors"
    held = declared(1).condition(y=[0.1, 0.2])
    ed.save(declared(0), path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = ed.load(path, held)
    np.testing.assert_array_equal(again.parameters["h"], declared(0).parameters["h"])
    np.testing.assert_array_equal(again.evidence["y"], held.evidence["y"])


def test_a_file_is_read_in_a_new_process(tmp_path):
    s, J = ed.spin("s", 3), ed.parameter("J", 0.25)
    ebm = ed.compile(ed.Model(-J * (s[1:] * s[:-1]).sum()))
    ed.save(ebm, tmp_path / "p.safetensors")
    program = """
import sys, energydsl as ed
s, J = ed.spin("s", 3), ed.parameter("J", 9.0)
ebm = ed.load(sys.argv[1], ed.compile(ed.Model(-J * (s[1:] * s[:-1]).sum())))
print(float(ed.log_partition(ebm)))
"""
    found = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "p.safetensors"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert float(found.stdout) == pytest.approx(np.log(8 * np.cosh(0.25) ** 2), rel=1e-12)


def test_a_file_of_another_model_is_refused(tmp_path):
    path = tmp_path / "p.safetensors"
    ed.save(declared(0), path)
    with pytest.raises(ValueError, match=r"h: shape \(3,\) in the file, shape \(5,\) in the model"):
        ed.load(path, declared(0, sites=5))
    with pytest.raises(
        ValueError, match=r"b: absent in the file.*h: shape \(3,\) in the file, absent"
    ):
        ed.load(path, declared(0, names=("J", "b")))
    with pytest.raises(ValueError, match=r"Neural.*weight: shape \(4, 2\) in the file"):
        ed.load(path, declared(0, width=6))


def test_another_energy_of_the_same_parameters_is_a_doubt(tmp_path):
    s, t, J = ed.spin("s", 3), ed.spin("t", 3), ed.parameter("J", 0.5)
    ed.save(ed.Model(-J * s.sum()), tmp_path / "p.safetensors")
    other = ed.Model(-ed.parameter("J", 0.1) * t.sum())
    with pytest.warns(UserWarning, match=r"saved from E = -J \* s.sum\(\) over s: spin\[3\]"):
        found = ed.load(tmp_path / "p.safetensors", other)
    assert float(found.parameters["J"]) == 0.5


def test_a_file_that_is_damaged_or_foreign_is_told(tmp_path):
    path, model = tmp_path / "p.safetensors", declared(0)
    with pytest.raises(FileNotFoundError, match="no file"):
        ed.load(path, model)
    ed.save(model, path)
    whole = path.read_bytes()
    for broken in (whole[:-3], whole[:40], b"", whole[:-9] + bytes([whole[-9] ^ 8]) + whole[-8:]):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="damaged"):
            ed.load(path, model)
    save_file({"J": np.zeros(3)}, path)
    with pytest.raises(ValueError, match=r"not written by ed.save.*ebm.replace"):
        ed.load(path, model)


def test_what_cannot_be_saved_is_told(tmp_path):
    path = tmp_path / "p.safetensors"
    with pytest.raises(ValueError, match="without parameters"):
        ed.save(ed.Model(-ed.spin("s", 2).sum()), path)
    with pytest.raises(TypeError, match="save got"):
        ed.save({"J": 1.0}, path)
    with pytest.raises(TypeError, match="load got"):
        ed.load(path, {"J": 1.0})
    model = declared(0)
    with pytest.raises(TypeError, match="inside a JAX transformation"):
        jax.jit(lambda h: ed.save(model.replace(h=h), path))(model.parameters["h"])
    with pytest.raises(OSError):
        ed.save(model, tmp_path / "absent" / "p.safetensors")
    assert not list(tmp_path.iterdir())
