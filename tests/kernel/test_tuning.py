"""Warmup tunes steps to their acceptance rate, then leaves them alone."""

import jax
import jax.random as jr
import numpy as np
import pytest

import energydsl as ed


def narrow(sites):
    """A normal law a hundred times narrower than the kernels' first steps."""
    x = ed.real("x", sites)
    return ed.compile(ed.Model(0.5e4 * (x**2).sum()))


@pytest.mark.parametrize(
    ("kernel", "sites", "target"),
    [
        (ed.Langevin(), 20, 0.574),
        (ed.Langevin(target=0.8), 20, 0.8),
        (ed.MetropolisHastings(), 20, 0.234),
        (ed.MetropolisHastings(), 1, 0.44),
        (ed.NUTS(), 20, 0.8),
    ],
    ids=str,
)
def test_warmup_finds_the_acceptance_rate(kernel, sites, target):
    chains = ed.sample(
        narrow(sites), kernel, key=jr.key(0), warmup=1000, draws=1000, chains=8, progress=False
    )
    assert chains.stats["acceptance_rate"].mean() == pytest.approx(target, abs=0.08)


def test_without_warmup_nothing_is_tuned():
    chains = ed.sample(narrow(20), ed.Langevin(), key=jr.key(0), warmup=0, draws=50, progress=False)
    np.testing.assert_allclose(chains.stats["step_size"], 0.1, rtol=1e-6)
    assert not chains.stats["acceptance_rate"].any()


@pytest.mark.parametrize("kernel", [ed.Langevin(), ed.MetropolisHastings()], ids=str)
def test_after_warmup_the_step_stays(kernel):
    ebm = narrow(3)
    x = ebm.start(key=jr.key(0))
    state = kernel.init(ebm, x, key=jr.key(1), warmup=20)
    step = jax.jit(lambda x, state, key: kernel.step(ebm, x, state, key=key)[:2])
    values = []
    for key in jr.split(jr.key(2), 40):
        x, state = step(x, state, key)
        values.append(float(jax.tree.leaves(state)[0]))
    assert len(set(values[:20])) == 20
    assert len(set(values[19:])) == 1
