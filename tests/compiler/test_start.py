"""Chains begin where the model allows."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import energydsl as ed
from energydsl.compiler.start import starts


def gas(side):
    g = ed.binary("g", (side, side))
    pair = ed.Table(log_potential=np.array([[0, 0], [0, -np.inf]]))
    return ed.compile(ed.Model(pair(g[1:], g[:-1]).sum() + pair(g[:, 1:], g[:, :-1]).sum()))


def test_starts_of_a_hard_core_model_are_allowed():
    """Of uniform starts of a lattice gas of 6 x 6, three in a million are allowed."""
    ebm = gas(6)
    g = np.asarray(starts(ebm, 8, key=jr.key(0))["g"]).astype(int)
    assert (g[:, 1:] * g[:, :-1]).sum() + (g[:, :, 1:] * g[:, :, :-1]).sum() == 0
    assert len(np.unique(g.reshape(8, -1), axis=0)) == 8
    chains = ed.sample(ebm, ed.MetropolisHastings(), key=jr.key(1), warmup=0, draws=50)
    assert np.isfinite(chains.stats["energy"]).all()


def test_starts_that_are_allowed_stay_as_they_are_drawn():
    s = ed.spin("s", 4)
    ebm = ed.compile(ed.Model(-(s[1:] * s[:-1]).sum()))
    drawn = [ebm.start(key=k)["s"] for k in jr.split(jr.key(0), 5)]
    np.testing.assert_array_equal(starts(ebm, 5, key=jr.key(0))["s"], np.stack(drawn))


def test_a_run_that_would_begin_in_a_forbidden_state_is_refused():
    a = ed.binary("a", 2)
    never = ed.apply(lambda a: jnp.where(a.sum() >= 0, jnp.inf, 0.0), a)
    with pytest.raises(ValueError, match=r"4 of the chains, number 0 first.*start="):
        ed.sample(ed.compile(ed.Model(never)), ed.MetropolisHastings(), key=jr.key(0))
    with pytest.raises(ValueError, match="would begin at an infinite energy"):
        start = {"g": np.ones((3, 3), int)}
        ed.sample(gas(3), ed.MetropolisHastings(), key=jr.key(0), start=start)
