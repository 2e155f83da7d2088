"""Clamped sites stay and free ones move, under every kernel and every lowering."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import energydsl as ed
from energydsl.kernel.gibbs import GibbsEnsemble
from energydsl.sweep import LOWERINGS, dense

CHAINS, STEPS = 8, 4
HELD, SPINS = [1, 3], [1, -1]

S, X = ed.spin("s", 6), ed.real("x", 4)
SPIN_CHAIN = ed.compile(
    ed.Model(-0.1 * (S[1:] * S[:-1]).sum()).condition({S[HELD[0]]: SPINS[0], S[HELD[1]]: SPINS[1]})
)
REAL_CHAIN = ed.compile(
    ed.Model((X**2).sum() - 0.5 * (X[1:] * X[:-1]).sum()).condition(
        {X[HELD[0]]: 2.5, X[HELD[1]]: -3.5}
    )
)


def runs():
    """Each lowering, blocks of a user's own, and each kernel, on spins or on reals."""
    # A lattice with clamped sites is not packed: tests/sweep/test_packed.py.
    for kind in [kind for kind in LOWERINGS if kind.lowering != "packed"]:
        yield kind.lowering, SPIN_CHAIN, kind
    yield "user blocks", SPIN_CHAIN, ed.Gibbs([S[::2], S[1::2]])
    yield "uneven blocks", SPIN_CHAIN, ed.Gibbs([S[0], S[2:5:2], S[1::2]])
    yield "Metropolis on spins", SPIN_CHAIN, ed.MetropolisHastings()
    yield "Gibbs with gradients", SPIN_CHAIN, ed.GibbsWithGradients()
    yield "discrete Langevin", SPIN_CHAIN, ed.DiscreteLangevin()
    yield "dense on reals", REAL_CHAIN, dense.DenseSweep
    yield "Metropolis on reals", REAL_CHAIN, ed.MetropolisHastings()
    yield "Langevin", REAL_CHAIN, ed.Langevin()
    yield "Hessian Langevin", REAL_CHAIN, ed.HessianLangevin()
    yield "HMC", REAL_CHAIN, ed.HMC(step_size=0.3, steps=3)
    yield "NUTS", REAL_CHAIN, ed.NUTS(step_size=0.3, max_tree_depth=2)


SELDOM = "Metropolis on spins", "dense on reals", "Langevin", "HMC"
"""Runs that the others are like; the slow tests have them."""


@pytest.mark.parametrize(
    ("ebm", "mover"),
    [pytest.param(*r[1:], id=r[0], marks=[pytest.mark.slow] * (r[0] in SELDOM)) for r in runs()],
)
def test_clamped_sites_stay_and_free_ones_move(ebm, mover, monkeypatch):
    monkeypatch.setattr(dense, "DENSE_DEGREE", 0)
    if isinstance(mover, type):
        ensemble = GibbsEnsemble(mover.plan(ebm.structure, None).build())
    else:
        ensemble = mover.ensemble(ebm)
    start = jax.vmap(lambda k: ebm.start(key=k))(jr.split(jr.key(0), CHAINS))

    @jax.jit
    def run(start, key):
        carry = ensemble.start(ebm, start, key=key, warmup=0)
        tables = ensemble.load(ebm)

        def step(carry, key):
            carry, _ = ensemble.advance(ebm, tables, carry, key=key)
            return carry, ensemble.configurations(ebm, carry)

        return jax.lax.scan(step, carry, jr.split(key, STEPS))[1]

    (name,) = start
    seen = np.asarray(run(start, jr.key(1))[name])
    evidence = np.asarray(ebm.model.evidence[name])
    assert (seen[..., HELD] == evidence[HELD]).all()
    free = [i for i in range(seen.shape[-1]) if i not in HELD]
    moved = (seen != np.asarray(start[name])).any(axis=(0, 1))
    assert moved[free].all()
    assert jnp.isfinite(seen).all()
