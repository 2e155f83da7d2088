"""Warmup tunes steps to their acceptance rate, then leaves them alone."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import energydsl as ed
from energydsl.kernel.tuning import Tuned


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
        # Dual averaging towards 0.8 ends higher here; NumPyro's own NUTS at 0.86 to 0.87.
        (ed.NUTS(), 20, 0.87),
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


@pytest.mark.parametrize(
    "kernel", [ed.Langevin(), ed.MetropolisHastings(), ed.NUTS(max_tree_depth=3)], ids=str
)
def test_after_warmup_the_step_stays(kernel):
    ebm = narrow(3)
    x = ebm.start(key=jr.key(0))
    state = kernel.init(ebm, x, key=jr.key(1), warmup=20)
    step = jax.jit(lambda x, state, key: kernel.step(ebm, x, state, key=key)[:2])
    values = []
    for key in jr.split(jr.key(2), 40):
        x, state = step(x, state, key)
        tuned = state.adaptation.step_size if isinstance(kernel, ed.NUTS) else state
        values.append(float(jax.tree.leaves(tuned)[0]))
    assert len(set(values[:20])) > 15
    assert len(set(values[19:])) == 1


def test_warmup_ends_at_the_average_of_its_steps():
    """Hoffman & Gelman (2014), algorithm 5, in NumPy: t0 = 10, gamma = 0.05, kappa = 0.75."""
    first, target, accepted = 0.3, 0.6, [0.0, 1.0, 0.9, 0.1, 1.0]
    tuned = Tuned.begin(first, len(accepted))
    lag, average = 0.0, 0.0
    for t, accept in enumerate(accepted, start=1):
        tuned = tuned.learn(jnp.asarray(accept), target)
        lag = (1 - 1 / (t + 10)) * lag + (target - accept) / (t + 10)
        step = np.log(10 * first) - np.sqrt(t) / 0.05 * lag
        average = t**-0.75 * step + (1 - t**-0.75) * average
        if t < len(accepted):
            assert float(tuned.log_value) == pytest.approx(step, rel=1e-5)
    assert float(tuned.log_value) == pytest.approx(average, rel=1e-5)
    assert abs(step - average) > 0.1
    still = tuned.learn(jnp.asarray(0.0), target)
    assert float(still.value) == float(tuned.value)
