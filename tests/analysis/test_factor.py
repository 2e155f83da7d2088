"""Factors: their sum is the energy, and nothing outside a factor's scope moves it."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import energydsl as ed
import energydsl.analysis.factor
from energydsl.analysis.evaluation import as_double, factor_energies
from energydsl.analysis.structure import Structure
from energydsl.language.merge import terms
from tests.language.expressions import LEAVES, configuration, energies, model_of, replaced


def batches(structure, model, x):
    """The energy of every factor, one array a batch."""
    env = model.environment(model.complete(x))
    return [factor_energies(f, env) for f in structure.factors]


def check_sum(model, key=0, **tolerance):
    with jax.enable_x64(True):
        wide = as_double(model)
        x = configuration(wide, jr.key(key))
        parts = batches(Structure(model), wide, x)
        assert all(jnp.issubdtype(p.dtype, jnp.floating) for p in parts)
        total = sum(jnp.sum(p) for p in parts)
        np.testing.assert_allclose(total, wide.energy(x), rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=5, suppress_health_check=[HealthCheck.too_slow])
@given(text=energies(), key=st.integers(0, 2**20))
def test_a_random_energy_comes_apart_soundly(text, key):
    model = model_of(text)
    structure = Structure(model)
    with jax.enable_x64(True):
        wide = as_double(model)
        x, other = (configuration(wide, k) for k in jr.split(jr.key(key)))
        found = jax.jit(lambda x, y: everything(structure, wide, x, y))(x, other)
        before, after, mixed = jax.device_get(found)
        energy = float(wide.energy(x))

    # The factors add up to the energy.
    np.testing.assert_allclose(sum(p.sum() for p in before), energy, rtol=1e-9, atol=1e-9)

    # A site outside a factor's scope does not move it.
    for factor, old, new in zip(structure.factors, before, after, strict=True):
        inside = np.zeros((structure.sites, factor.size), bool)
        inside[structure.scope(factor).T, np.arange(factor.size)] = True
        gap = np.abs(new - old)
        assert (gap[~inside] <= 1e-12 * np.maximum(1, np.abs(old)).max()).all()

    # Two sites without an edge do not interact.
    joined = np.eye(structure.sites, dtype=bool)
    joined[tuple(structure.edges.T)] = True
    apart = ~(joined | joined.T)
    assert np.abs(mixed[apart]).max(initial=0) <= 1e-10 * max(1, abs(energy))


def everything(structure, model, x, y):
    """Factors at x, factors with each site moved to y, and all mixed differences of the energy."""
    every = jnp.arange(structure.sites)

    def at(a):
        return replaced(model, x, y, a)

    def mixed(a, b):
        both = replaced(model, at(a), y, b)
        return model.energy(both) - model.energy(at(a)) - model.energy(at(b)) + model.energy(x)

    after = jax.vmap(lambda a: batches(structure, model, at(a)))(every)
    table = jax.vmap(jax.vmap(mixed, (None, 0)), (0, None))(every, every)
    return batches(structure, model, x), after, table


def shapes(model):
    """Of each batch: how many factors, of how many arguments that are sites."""
    structure = Structure(model)
    return sorted((f.size, structure.scope_size(f)) for f in structure.factors)


s, t = ed.spin("s", (3, 4)), ed.spin("t", 4)
c = ed.categorical("c", 2, levels=100_000)


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("(s[1:] * s[:-1]).sum()", [(8, 2)]),
        ("0.3 * (s[1:] * s[:-1]).sum() - s.sum()", [(8, 2), (12, 1)]),
        ("s[0] @ np.ones((4, 4)) @ t", [(16, 2)]),
        ("s[0] @ (np.ones((4, 4)) @ t)", [(16, 2)]),
        ("(s @ t).sum()", [(12, 2)]),
        ("s.sum() * t.sum()", [(48, 2)]),
        ("(s.sum() + 2.0) * t.sum()", [(4, 1), (48, 2)]),
        ("(s[0] + t) @ (s[0] - t)", [(4, 1), (4, 1), (4, 2), (4, 2)]),
        ("t @ t", [(4, 1)]),
        ("((s[0] - t)**2).sum()", [(4, 2)]),
        ("(s.sum(0)**2).sum()", [(4, 3)]),
        ("ed.exp(s.sum())", [(1, 12)]),
        ("(s / (2 + t)).sum()", [(12, 2)]),
        ("(s.sum() / 12 + t.mean()) / 3", [(4, 1), (12, 1)]),
        ("(s * 2 * 3 * t).sum()", [(12, 2)]),
        ("ed.apply(jnp.sum, t)", [(1, 4)]),
        ("ed.apply(jnp.cumsum, t).sum()", [(4, 4)]),
        ("ed.apply(jnp.argmax, t)", [(1, 4)]),
        ("ed.apply(jnp.cumsum, t) @ ed.apply(jnp.cumprod, t)", [(4, 4)]),
        ("s.max()", [(1, 12)]),
        ("s.max(1).sum()", [(3, 4)]),
        ("ed.logsumexp(0.5 * s * t, 0).sum()", [(4, 6)]),
        ("(ed.cumsum(s, 1) @ t).sum()", [(12, 5)]),
        ("(ed.cumsum(s, 0) ** 2).sum()", [(12, 3)]),
        ("(ed.diff(s, axis=0) ** 2).sum()", [(8, 2)]),
        ("(c * c).sum() + c[0] - c[1]", [(1, 1), (1, 1), (2, 1)]),
        ("ed.Table(np.ones((2, 2)))(s, t).sum()", [(12, 2)]),
        ("ed.Table(np.ones((4, 2, 2)))(s, t).sum()", [(12, 2)]),
        ("s[3:].sum() + t.sum()", [(4, 1)]),
        ("t.sum() + 3.0 * ed.exp(2.0)", [(1, 0), (4, 1)]),
        ("-(t - t[::-1]).sum()", [(4, 1), (4, 1)]),
    ],
)
def test_an_expression_comes_apart_into_its_factors(formula, expected):
    model = ed.Model(eval(formula))
    assert shapes(model) == expected
    check_sum(model)


def test_equal_arguments_become_one():
    (factor,) = Structure(ed.Model((t * t * t).sum())).factors
    assert len(factor.leaves) == 1


def test_a_long_sum_times_a_long_sum_stays_whole(monkeypatch):
    monkeypatch.setattr(terms, "FEW", 1_000)
    first = sum(t[k % 4] * s[0, k % 4] for k in range(60))
    structure = Structure(ed.Model(first * first))
    assert len(structure.factors) == 1
    check_sum(ed.Model(first * first))


def test_too_many_products_stay_whole(monkeypatch):
    monkeypatch.setattr(energydsl.analysis.factor, "MAX_FACTORS", 47)
    model = ed.Model(s.sum() * t.sum())
    assert shapes(model) == [(1, 16)]
    check_sum(model)


def test_every_leaf_of_the_grammar_alone():
    for leaf in set(LEAVES):
        check_sum(model_of(f"({leaf}).sum()"))


def test_two_expressions_of_inputs_in_one_factor_are_told_apart():
    """log Z of independent spins: the sum of log(2 cosh) of the products."""
    rng = np.random.default_rng(3)
    A, B, x = rng.normal(size=(3, 4)), rng.normal(size=(3, 4)), rng.normal(size=3)
    s, u = ed.spin("s", 4), ed.real("u", 3, given=True)
    ebm = ed.compile(ed.Model(((u @ A) * s * (u @ B)).sum()))
    found = float(ed.log_partition(ebm.given(u=x)))
    assert found == pytest.approx(np.log(2 * np.cosh((x @ A) * (x @ B))).sum(), rel=1e-6)
