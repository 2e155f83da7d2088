"""Chains as the bits of words: which models, and each chain as it would be alone."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energydsl as ed
from energydsl.sweep.packed import BITS, Packed, PackedSweep
from tests.oracles.enumerate import chisquare_pvalue

FALSE_ALARM = 1e-6  # chance that correct code fails one of these tests
COUPLING, FIELD = 0.31, 0.2


def torus(shape=(2, 4), coupling=COUPLING, field=FIELD):
    s = ed.spin("s", shape)
    bonds = sum((s * ed.roll(s, 1, axis)).sum() for axis in range(len(shape)))
    return ed.Model(-coupling * bonds - field * s.sum())


@eqx.filter_jit
def swept(ebm, xs, key, betas=None):
    sweep = ebm.sweep
    tables = sweep.load(ebm.structure, ebm.model)
    state = sweep.sweep(ebm.structure, tables, sweep.pack(xs), key=key, betas=betas)
    return sweep.unpack(state)


@pytest.mark.parametrize("chains", [1, 5, 6, 31, 32, 33, 70])
def test_any_number_of_chains_is_packed_and_unpacked(chains):
    ebm = ed.compile(torus((2, 6)))
    assert isinstance(ebm.sweep, PackedSweep)
    xs = jax.vmap(lambda k: ebm.start(key=k))(jax.random.split(jax.random.key(chains), chains))
    state = ebm.sweep.pack(xs)
    assert isinstance(state, Packed) == (chains >= 6)
    assert np.array_equal(ebm.sweep.unpack(state)["s"], xs["s"])


def test_the_probability_of_each_count_of_neighbours_is_exact_to_its_bits():
    ebm = ed.compile(torus((2, 4)))
    tables = ebm.sweep.load(ebm.structure, ebm.model)
    digits = ebm.sweep._thresholds(tables[1], None, 32)
    lowest_lane = np.asarray(digits[..., 0]) & 1
    probability = (lowest_lane * 2.0 ** np.arange(BITS + 1)[:, None]).sum(0) / 2**BITS
    # With 2 columns, a site has its one neighbour across twice. Counts of all four neighbours.
    count = np.arange(5)
    expected = 1 / (1 + np.exp(-2 * (COUPLING * (2 * count - 4) + FIELD)))
    assert np.abs(np.sort(np.unique(probability)) - expected).max() < 2.0 ** -(BITS + 1) + 1e-7


def test_extreme_couplings_leave_ordered_chains_as_they_are():
    """A probability of 1 is drawn always, and one of 0 never."""
    ebm = ed.compile(torus((4, 6), coupling=50.0, field=0.0))
    xs = {"s": jnp.where(jnp.arange(64) % 3 == 0, 1, -1)[:, None, None] * jnp.ones((4, 6), int)}
    after = xs
    for k in range(20):
        after = swept(ebm, after, jax.random.key(k))
    assert np.array_equal(after["s"], xs["s"])


def test_each_chain_has_a_temperature_of_its_own():
    """Betas that go round by threes, so that they differ between the lanes of a word."""
    ebm = ed.compile(torus((4,), field=0.4))
    assert isinstance(ebm.sweep, PackedSweep)
    count, steps = 30_000, 12
    betas = jnp.asarray(np.resize([0.2, 1.0, 2.5], count), float)
    xs = jax.vmap(lambda k: ebm.start(key=k))(jax.random.split(jax.random.key(0), count))
    for k in range(steps):
        xs = swept(ebm, xs, jax.random.key(k + 1), betas)
    states = 2 * ((np.arange(16)[:, None] >> np.arange(4)) & 1) - 1
    energies = -COUPLING * (states * np.roll(states, 1, 1)).sum(1) - 0.4 * states.sum(1)
    drawn = (np.asarray(xs["s"]).reshape(count, 4) + 1) // 2 @ (1 << np.arange(4))
    for place, beta in enumerate((0.2, 1.0, 2.5)):
        weights = np.exp(-beta * energies)
        counts = np.bincount(drawn[place::3], minlength=16)
        # After 12 sweeps of 4 sites the chains have forgotten their starts: the coldest relaxes
        # by more than a factor of 5 a sweep.
        assert chisquare_pvalue(counts, weights / weights.sum(), count // 3) > FALSE_ALARM


@pytest.mark.parametrize(("sign", "groups"), [(1.0, 1), (-1.0, 2)])
def test_neighbours_count_together_where_their_energies_are_the_same(sign, groups):
    """Both terms read the same number, one perhaps with the other sign."""
    s, J = ed.spin("s", (4, 4)), ed.parameter("J", 0.4)
    down, along = J * (s * ed.roll(s, 1, 0)).sum(), J * (s * ed.roll(s, 1, 1)).sum()
    ebm = ed.compile(ed.Model(down + along if sign > 0 else down - along))
    assert len(ebm.sweep.groups) == groups
    slopes = np.asarray(ebm.sweep.load(ebm.structure, ebm.model)[1])
    expected = 0.8 * (np.arange(3) - 1)[:, None] + sign * 0.8 * (np.arange(3) - 1)
    np.testing.assert_allclose(np.unique(slopes.round(5)), np.unique(expected.round(5)), atol=1e-6)


def test_neighbours_of_other_numbers_count_apart():
    s = ed.spin("s", (4, 4))
    energy = 0.4 * (s * ed.roll(s, 1, 0)).sum() + 0.9 * (s * ed.roll(s, 1, 1)).sum()
    assert len(ed.compile(ed.Model(energy)).sweep.groups) == 2


def two_kinds():
    s, t = ed.spin("s", 4), ed.spin("t", 4)
    return ed.Model((s * ed.roll(s, 1, 0)).sum() + (s * t).sum() + (t * ed.roll(t, 1, 0)).sum())


def three_at_once():
    s = ed.spin("s", 6)
    return ed.Model((s * ed.roll(s, 1, 0) * ed.roll(s, 2, 0)).sum())


def by_a_table():
    """Whose energies may be infinite, so that they are no sums over neighbours."""
    s = ed.spin("s", 4)
    return ed.Model(ed.Table(np.arange(4.0).reshape(2, 2))(s, ed.roll(s, 1, 0)).sum())


def of_levels():
    n = ed.integer("n", 4, low=0, high=3)
    return ed.Model(0.1 * (n * ed.roll(n, 1, 0)).sum())


def with_fields():
    s = ed.spin("s", 4)
    return ed.Model((s * ed.roll(s, 1, 0)).sum() + (np.arange(4.0) * s).sum())


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: two_kinds(), "one variable of two levels"),
        (lambda: of_levels(), "one variable of two levels"),
        (lambda: by_a_table(), "in which the energy is linear"),
        (lambda: three_at_once(), "more than two sites"),
        (lambda: with_fields(), "different numbers, so that sites differ"),
        (lambda: ed.Model((lambda s: s[1:] * s[:-1])(ed.spin("s", 4)).sum()), "boundary"),
        (lambda: ed.Model(0.3 * ed.spin("s", (4, 4)).sum()), "independent"),
        (lambda: torus((3, 5)), "no cell|sublattices"),
    ],
    ids=["two", "levels", "table", "three", "fields", "open", "independent", "odd"],
)
def test_other_models_are_refused_with_the_reason(model, reason):
    refused = PackedSweep.plan(ed.compile(model()).structure, None)
    assert re.search(reason, refused.reason)


def test_a_clamped_site_is_left_to_other_sweeps():
    s = ed.spin("s", (4, 4))
    model = torus((4, 4)).condition({s[1, 2]: 1})
    refused = PackedSweep.plan(ed.compile(model).structure, None)
    assert "clamped" in refused.reason
