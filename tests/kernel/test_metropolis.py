"""Metropolis-Hastings: what it accepts at the edges of the support."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import energydsl as ed
from energydsl.kernel.acceptance import acceptance

INF, NAN = np.inf, np.nan


@pytest.mark.parametrize(
    ("old", "new", "log_q", "rate"),
    [
        (1.0, 0.0, 0.0, 1.0),
        (0.0, 1.0, 0.0, np.exp(-1.0)),
        (0.0, 1.0, 0.5, np.exp(-0.5)),
        (0.0, INF, 0.0, 0.0),
        (INF, 3.0, 0.0, 1.0),
        (INF, INF, 0.0, 1.0),
        (0.0, -INF, 0.0, 0.0),
        (0.0, NAN, 0.0, 0.0),
        (INF, NAN, 0.0, 0.0),
        (INF, -INF, 0.0, 0.0),
        (0.0, 0.0, NAN, 0.0),
        (INF, 0.0, NAN, 0.0),
        (0.0, 0.0, -INF, 0.0),
    ],
)
def test_acceptance_of_a_move_between_two_energies(old, new, log_q, rate):
    said = acceptance(*(jnp.asarray(a, float) for a in (old, new, log_q)))
    assert float(said) == pytest.approx(rate)


def hard_core_gas(side):
    """Particles on a lattice, no two of them neighbours."""
    table = np.array([[0, 0], [0, -np.inf]])
    g = ed.binary("g", (side, side))
    pair = ed.Table(log_potential=table)
    energy = pair(g[1:], g[:-1]).sum() + pair(g[:, 1:], g[:, :-1]).sum() - 0.2 * g.sum()
    return ed.compile(ed.Model(energy))


def test_chains_leave_states_of_no_probability():
    """From 36 sites that are all occupied, from which most moves lead to another such state."""
    ebm, kernel = hard_core_gas(6), ed.MetropolisHastings()

    @jax.jit
    def run(key):
        x = {"g": jnp.ones((6, 6), jnp.int8)}
        state = kernel.init(ebm, x, key=key, warmup=0)

        def step(carry, k):
            return kernel.step(ebm, *carry, key=k)[:2], None

        return jax.lax.scan(step, (x, state), jr.split(key, 500))[0][0]["g"]

    occupied = np.asarray(jax.vmap(run)(jr.split(jr.key(0), 4)))
    assert not (occupied[..., 1:, :] & occupied[..., :-1, :]).any()
    assert not (occupied[..., 1:] & occupied[..., :-1]).any()


def test_no_draw_stands_on_a_pole_at_the_edge_of_the_support():
    """Gamma(0.1): half of its mass lies below 0.001, and the density is infinite at 0."""
    p = ed.positive("p", 2)
    chains = ed.sample(
        ed.compile(ed.Model((0.9 * ed.log(p) + p).sum())), ed.MetropolisHastings(),
        key=jr.key(0), chains=8, draws=2000, progress=False,
    )  # fmt: skip
    assert (chains.draws["p"] > 0).all()
    assert np.isfinite(chains.stats["energy"]).all()


def test_a_proposal_outside_the_support_is_refused():
    """A user's proposal to negative numbers, where this energy is NaN."""

    def mirrored(x, *, key):
        sign = jnp.where(jr.bernoulli(key), 1.0, -1.0)
        return {"p": sign * x["p"] + 0.1 * jr.normal(key)}, jnp.zeros(())

    p = ed.positive("p")
    ebm = ed.compile(ed.Model(p - ed.log(p)))
    chains = ed.sample(ebm, ed.MetropolisHastings(mirrored), key=jr.key(1), progress=False)
    assert (chains.draws["p"] > 0).all()
