"""The Potts model that finite sites are, against the energy of every state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energydsl as ed
from energydsl.analysis.couplings import couplings_of
from tests.kernel.attractive import CASES
from tests.oracles.enumerate import exact_law
from tests.sweep.cases import pack


@pytest.mark.parametrize("case", CASES[2:], ids=lambda c: c.name)
def test_couplings_and_fields_give_the_energy(case):
    ebm, law = ed.compile(case.model), exact_law(case.energy, case.levels)
    found = couplings_of(ebm.structure)
    weights = found.load(ebm.model)
    xs = pack(case.model, law.states)
    levels = np.asarray(jax.vmap(found.read)(xs))
    fields = np.asarray(found.fields_at(ebm.model, weights.fields, xs))[0]
    first, last = np.asarray(found.ends).T
    energy = fields[np.arange(found.sites), levels].sum(1)
    energy -= (levels[:, first] == levels[:, last]) @ np.asarray(weights.couplings)
    seen = law.probs > 0
    assert np.isinf(energy[~seen]).all()
    offset = energy[seen] + np.log(law.probs[seen])
    assert np.ptp(offset) < 1e-5
    assert float(weights.residual) < 1e-6
    assert found.fault(ebm.model) is None
    back = jax.vmap(found.write)(jax.vmap(lambda k: ebm.start(key=k))(keys(len(levels))), levels)
    assert all(jnp.array_equal(back[n], a) for n, a in xs.items())


def keys(count):
    return jax.random.split(jax.random.key(0), count)


def test_factors_of_one_pair_are_added():
    s = ed.spin("s", 2)
    ebm = ed.compile(ed.Model(-0.5 * s[0] * s[1] + 0.8 * s[1] * s[0] - 0.1 * s[0]))
    found = couplings_of(ebm.structure)
    assert found.edges == 1
    assert np.allclose(found.load(ebm.model).couplings, -0.6)


def test_a_site_of_one_level_is_a_constant():
    s, n = ed.spin("s", 2), ed.integer("n", low=4, high=4)
    ebm = ed.compile(ed.Model(-0.3 * s[0] * s[1] - 0.2 * n * s[0]))
    found = couplings_of(ebm.structure)
    weights = found.load(ebm.model)
    fields = found.fields_at(ebm.model, weights.fields, {"s": np.ones((1, 2)), "n": np.array([4])})
    assert np.allclose(np.diff(fields[0])[:, 0], [-1.6, 0.0])
    assert ed.SwendsenWang().moves(ebm).all()


@pytest.mark.parametrize("count", [40, 41])
def test_frustration_of_a_ring_is_a_matter_of_its_signs(count):
    s, signs = ed.spin("s", count), np.where(np.arange(count) % 3 == 0, 1.0, -1.0)
    ebm = ed.compile(ed.Model((signs * s * ed.roll(s, 1)).sum()))
    fault = couplings_of(ebm.structure).fault(ebm.model)
    assert (fault is None) == ((signs > 0).sum() % 2 == 0)
