"""What `explain` says will be slow: only where it is so, with the line to write instead."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energydsl as ed
from energydsl.cli import zoo
from energydsl.compiler import slow

s, x = ed.spin("s", 60), ed.real("x", 2)


def said(model):
    explained = ed.compile(model).explain()
    assert all(f"slow          {text}" in str(explained) for text in explained.as_dict()["slow"])
    return explained.as_dict()["slow"]


class Wave(eqx.Module):
    """A network with one array."""

    scale: jax.Array

    def __call__(self, x):
        return self.scale * jnp.cos(x[0] * x[1])


def bumpy(weight):
    """An energy without closed form, so that log Z of two reals is by quadrature."""
    return weight * ed.cos(x[0] * x[1]) + (x**4).sum()


def test_quadrature_that_depends_on_what_is_learnt_is_told():
    (text,) = said(ed.Model(bumpy(ed.parameter("w", 0.5))))
    assert "log Z by quadrature at every step" in text and "ed.ScoreMatching() or ed.Cont" in text
    spins = ed.spin("t", 2)
    (text,) = said(ed.Model(bumpy(ed.parameter("w", 0.5)) + x @ spins))
    assert "ed.ScoreMatching" not in text and "learn by ed.ContrastiveDivergence()" in text


def test_quadrature_without_parameters_or_of_other_components_is_not():
    bias = ed.parameter("b", 0.1)
    network = Wave(jnp.ones(()))
    assert not said(ed.Model(bumpy(0.5), bias * ed.spin("t")))
    assert not said(ed.Model(ed.Neural(ed.fixed(network))(x) + (x**4).sum()))
    assert said(ed.Model(ed.Neural(network)(x) + (x**4).sum()))
    one = ed.real("one")
    assert not said(ed.Model(bias**2 * one**4 + one**2)), "one dimension costs little"


def test_terms_of_a_loop_that_did_not_merge_are_told():
    def powers(count):
        return ed.Model(sum(abs(s[k] + s[k + 1] + 3) ** (1 + k / 7) for k in range(count)))

    (text,) = said(powers(slow.MANY))
    assert f"{slow.MANY} terms stand alone" in text and "(w * s[i] * s[j]).sum()" in text
    assert not said(powers(slow.MANY - 1))
    assert not said(ed.Model(sum(0.1 * k * s[k] * s[k + 1] for k in range(59))))


def test_arrays_that_dwarf_the_model_are_told(monkeypatch):
    monkeypatch.setattr(slow, "LARGE", 800)
    monkeypatch.setattr(slow, "DWARFED", 100)
    data = np.ones((100, 2), np.float32)
    (text,) = said(ed.Model(((data @ x) ** 2).sum() + x @ x))
    assert "for 2 sites" in text and "x @ (A.T @ A) @ x" in text
    assert not said(ed.Model(((data[:99] @ x) ** 2).sum() + x @ x)), "792 bytes"
    monkeypatch.setattr(slow, "LARGE", 0)
    assert not said(ed.Model(((data[:99] @ x) ** 2).sum() + x @ x)), "99 times the sites"
    W = ed.parameter("W", data)
    monkeypatch.setattr(slow, "COSTLY", np.inf)
    assert not said(ed.Model(((W @ x) ** 2).sum() + x @ x)), "what is learnt is no data"


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.names())
def test_no_model_of_the_zoo_raises_a_false_alarm(name):
    told = said(zoo.load(name).declare())
    assert len(told) == (name in ("two_moons", "score_and_noise", "product_of_experts")), told
