"""Binary quadratic models: their energies are those of the models, in both directions."""

import dataclasses
import enum
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energydsl as ed
from energydsl.analysis.evaluation import as_double

ROUNDING = 1e-12
"""The error of a few dozen operations in float64 on numbers of order 1."""


class Vartype(enum.Enum):
    SPIN = frozenset({-1, 1})
    BINARY = frozenset({0, 1})


@dataclasses.dataclass
class BQM:
    """What is read of a `dimod.BinaryQuadraticModel`, and how one is made."""

    linear: dict
    quadratic: dict
    offset: float
    vartype: Vartype | str

    def __post_init__(self):
        if isinstance(self.vartype, str):
            self.vartype = Vartype[self.vartype]
        ends = {label for pair in self.quadratic for label in pair}
        assert ends <= set(self.linear) and all(a != b for a, b in self.quadratic)

    def energies(self, rows):
        """The energies of configurations whose columns are in the order of `linear`."""
        column = {label: rows[:, i] for i, label in enumerate(self.linear)}
        total = np.full(len(rows), float(self.offset))
        for label, bias in self.linear.items():
            total = total + bias * column[label]
        for (a, b), bias in self.quadratic.items():
            total = total + bias * column[a] * column[b]
        return total


@pytest.fixture
def dimod(monkeypatch):
    module = types.ModuleType("dimod")
    module.BinaryQuadraticModel = BQM
    monkeypatch.setitem(sys.modules, "dimod", module)


def energies(model, rows):
    """The energies of configurations of all free sites, in order, in float64."""
    with jax.enable_x64(True):
        values, at = {}, 0
        for v in model.skeleton.free:
            part = np.zeros((len(rows), v.size))
            free = ~model.skeleton.mask(v).ravel()
            part[:, free] = rows[:, at : at + free.sum()]
            at += free.sum()
            values[v.name] = jnp.asarray(part.reshape(-1, *v.shape), v.domain.dtype)
        return np.asarray(jax.vmap(as_double(model).energy)(values))


def states(levels, n):
    return np.array(levels)[np.indices((2,) * n).reshape(n, -1).T]


@pytest.mark.parametrize("kind", ["SPIN", "BINARY"])
def test_a_bqm_becomes_a_model_with_its_energies(kind):
    labels = ["b", 7, ("a", 1), "d"]
    linear = dict(zip(labels, [0.5, -1.25, 0.0, 2.0], strict=True))
    quadratic = {("d", "b"): 0.75, (7, ("a", 1)): -0.5, ("b", 7): 1.5}
    bqm = BQM(linear, quadratic, -3.5, kind)
    model = ed.io.from_bqm(bqm)
    rows = states([-1, 1] if kind == "SPIN" else [0, 1], 4)
    np.testing.assert_allclose(energies(model, rows), bqm.energies(rows), atol=ROUNDING)
    assert [str(v) for v in model.variables] == ["s: spin[4]" if kind == "SPIN" else "x: binary[4]"]


def test_a_bqm_without_interactions(dimod):
    model = ed.io.from_bqm(BQM({"a": 1.5, "b": -0.5}, {}, 0.0, "SPIN"))
    assert float(model.energy({"s": [1, -1]})) == 2.0
    assert ed.io.to_bqm(model).quadratic == {}


def models():
    rng = np.random.default_rng(2)
    s, b = ed.spin("s", (2, 2)), ed.binary("b", 3)
    ising = -0.7 * (s[1:] * s[:-1]).sum() - 0.3 * (s[:, 1:] * s[:, :-1]).sum() - s[0, 0] + 2.0
    bits = (b @ rng.normal(size=(3, 3)) @ b) - 0.5 * b.sum()
    # Multiples of 1/8, which float32 holds, so that no term of degree 3 arises by rounding.
    three = ed.Table(np.add.outer([[0.125, 2.0], [-1.0, 0.5]], [0.0, 1.5]))(b[0], b[2], b[1])
    cubic = (s[0, 0] * s[0, 1] * s[1, 1]) + ising
    return {
        "ising": (ed.Model(ising), [-1, 1]),
        "bits": (ed.Model(bits + three), [0, 1]),
        "clamped": (ed.Model(cubic).condition({s[0, 1]: -1}), [-1, 1]),
    }


@pytest.mark.usefixtures("dimod")
@pytest.mark.parametrize("name", models())
def test_a_quadratic_model_becomes_a_bqm_with_its_energies(name):
    model, levels = models()[name]
    bqm = ed.io.to_bqm(model)
    rows = states(levels, len(bqm.linear))
    np.testing.assert_allclose(bqm.energies(rows), energies(model, rows), atol=ROUNDING)
    assert bqm.vartype == (Vartype.SPIN if levels == [-1, 1] else Vartype.BINARY)


@pytest.mark.usefixtures("dimod")
def test_terms_that_rounding_left_are_left_out():
    """In float32, the sums of three numbers each cancel but for about 1e-7."""
    b, numbers = ed.binary("b", 3), np.random.default_rng(0).normal(size=(3, 2))
    sums = numbers[0, :, None, None] + numbers[1, :, None] + numbers[2]
    model = ed.Model(ed.Table(sums)(b[0], b[1], b[2]))
    bqm, rows = ed.io.to_bqm(model), states([0, 1], 3)
    assert bqm.quadratic == {}
    np.testing.assert_allclose(bqm.energies(rows), energies(model, rows), atol=1e-5)


@pytest.mark.usefixtures("dimod")
def test_spins_beside_bits_become_bits():
    s, b = ed.spin("s"), ed.binary("b", 2)
    model = ed.Model(1.5 * s * b[0] - 0.25 * b[1] + s)
    bqm = ed.io.to_bqm(model)
    assert list(bqm.linear) == ["s", "b[0]", "b[1]"] and bqm.vartype == Vartype.BINARY
    rows = states([0, 1], 3)
    values = rows * [2, 1, 1] - [1, 0, 0]
    np.testing.assert_allclose(bqm.energies(rows), energies(model, values), atol=ROUNDING)


@pytest.mark.usefixtures("dimod")
def test_what_no_bqm_represents_is_refused():
    s, c, x = ed.spin("s", 3), ed.categorical("c", levels=3), ed.real("x")
    cases = [
        (s[0] * s[1] * s[2], r"a factor of s\[0\], s\[1\], s\[2\] with a term of degree 3"),
        (ed.Table(np.zeros((3, 2)))(c, s[0]), "to_bqm got c with 3 levels; expected free sites"),
        (ed.Table([0.0, np.inf])(s[0]), r"the energy inf in a factor of s\[0\]; the biases"),
        (s[0] * x + x**2, "to_bqm got 1 free sites without a finite list of levels, x first"),
    ]
    for energy, said in cases:
        with pytest.raises(ValueError, match=said):
            ed.io.to_bqm(ed.Model(energy))


def test_dimod_is_asked_for_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "dimod", None)
    with pytest.raises(ImportError, match="to_bqm needs dimod, which is not installed: pip"):
        ed.io.to_bqm(ed.Model(ed.spin("s") * 1.0))


def test_things_that_are_no_bqm():
    with pytest.raises(TypeError, match="from_bqm got dict without the attribute 'linear'"):
        ed.io.from_bqm({})
    with pytest.raises(ValueError, match="from_bqm got a BQM without variables"):
        ed.io.from_bqm(BQM({}, {}, 0.0, "SPIN"))
    odd = types.SimpleNamespace(linear={0: 1.0}, quadratic={}, offset=0.0, vartype="INTEGER")
    with pytest.raises(ValueError, match="variables of the kind INTEGER; expected SPIN or BINARY"):
        ed.io.from_bqm(odd)
