"""What the sampling loop gives every kernel, without a line of the kernel's own."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import energydsl as ed
from energydsl.run import sampling

S, X, P = ed.spin("s", 3), ed.real("x", 2), ed.positive("p")
MIXED = ed.compile(ed.Model((X**2).sum() - 0.3 * X[0] * S.sum() - 0.2 * S[0] * S[1]))
REAL = ed.compile(ed.Model((X**4).sum() - 0.3 * X[0] * X[1] + 2.0 * P - ed.log(P)))
"""A positive site: energies are those of draws, without the Jacobian of the coordinates."""
SPINS = ed.compile(ed.Model(ed.apply(lambda s: jnp.tanh(s @ jnp.arange(3.0)), S) + 0.1 * S.sum()))
RUNS = [
    (MIXED, ed.Gibbs()),
    (MIXED, ed.MetropolisHastings()),
    (REAL, ed.Langevin()),
    (REAL, ed.Langevin(adjusted=False, step_size=0.02)),
    (REAL, ed.NUTS()),
    (MIXED, ed.Cycle(ed.Gibbs(), ed.Langevin())),
    (MIXED, ed.Cycle(ed.Gibbs(), ed.NUTS())),
    (SPINS, ed.DiscreteLangevin()),
    (SPINS, ed.GibbsWithGradients()),
    (REAL, ed.Langevin(metric="dense")),
    (REAL, ed.Langevin(step_size=lambda t: 0.1 / (1 + t), adjusted=False)),
    (REAL, ed.HessianLangevin()),
    (REAL, ed.HMC()),
    (REAL, ed.Slice()),
]
SELDOM = ed.NUTS, ed.GibbsWithGradients, ed.HessianLangevin, ed.HMC
"""Kernels that take long to compile, or are like others; the slow tests have them."""
every_kernel = pytest.mark.parametrize(
    ("ebm", "kernel"),
    [
        pytest.param(ebm, k, id=f"{n} {k.name}", marks=[pytest.mark.slow] * isinstance(k, SELDOM))
        for n, (ebm, k) in enumerate(RUNS)
    ],
)


few_kernels = pytest.mark.parametrize(
    ("ebm", "kernel"), [RUNS[0], RUNS[3], RUNS[5]], ids=lambda part: str(part)[:30]
)


def run(ebm, kernel, draws=12, **options):
    options = {"chains": 2, "warmup": 15, "key": jr.key(0), "progress": False, **options}
    return ed.sample(ebm, kernel, draws=draws, **options)


def same(a, b):
    assert a.draws.keys() == b.draws.keys() and a.stats.keys() == b.stats.keys()
    for mine, other in ((a.draws, b.draws), (a.stats, b.stats)):
        for name in mine:
            np.testing.assert_array_equal(mine[name], other[name])


@every_kernel
def test_a_checkpoint_is_gone_on_from_bit_for_bit(ebm, kernel, tmp_path):
    whole = run(ebm, kernel)
    run(ebm, kernel, draws=5, checkpoint=tmp_path)
    same(run(ebm, kernel, checkpoint=tmp_path), whole)


@few_kernels
def test_draws_do_not_depend_on_chunks(ebm, kernel, monkeypatch):
    whole = run(ebm, kernel)
    monkeypatch.setattr(sampling, "BUFFER_DRAWS", 3)
    same(run(ebm, kernel), whole)


@few_kernels
def test_quantities_are_those_of_the_draws(ebm, kernel):
    kept = run(ebm, kernel, thin=2, keep={"norm": lambda x: jnp.sum(x["x"] ** 2)})
    whole = run(ebm, kernel, thin=2)
    expected = (whole.draws["x"] ** 2).sum(-1)
    np.testing.assert_allclose(kept.draws["norm"], expected, rtol=1e-5)
    np.testing.assert_array_equal(kept.stats["energy"], whole.stats["energy"])


@every_kernel
def test_energies_and_statistics_go_to_arviz(ebm, kernel):
    chains = run(ebm, kernel)
    values = {n: a[1, -1] for n, a in chains.draws.items()}
    assert float(ebm.energy(values)) == pytest.approx(float(chains.stats["energy"][1, -1]), 1e-5)
    for name, last in chains.last.items():
        np.testing.assert_array_equal(last, chains.draws[name][:, -1])
    tree = ed.to_arviz(chains)
    assert set(tree["posterior"].data_vars) == set(chains.draws)
    names = {"energy": "model_energy"}
    if isinstance(kernel, ed.NUTS | ed.HMC):
        names["hamiltonian"] = "energy"
    stats = tree["sample_stats"]
    for name, values in chains.stats.items():
        np.testing.assert_array_equal(stats[names.get(name, name)], values)


def test_nuts_tells_what_its_trajectories_did():
    stats = run(REAL, ed.NUTS()).stats
    assert {"diverging", "tree_depth", "acceptance_rate", "step_size"} <= set(stats)


def test_chains_start_apart():
    """A step too small to matter leaves each chain where it began."""
    chains = run(REAL, ed.Langevin(step_size=1e-12, adjusted=False), draws=1, chains=4, warmup=0)
    first = chains.draws["x"][:, 0]
    assert len(np.unique(first)) == first.size
