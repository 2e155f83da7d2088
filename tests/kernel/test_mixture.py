"""A mixture of kernels: the law, the shares of the kernels, their states and statistics."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats

import energydsl as ed
from tests.kernel.test_invariance import DRAWS, mixed_model
from tests.oracles.enumerate import chisquare_pvalue, count_states, exact_draws, exact_law
from tests.sweep.cases import CASES, pack, unpack

FALSE_ALARM = 1e-6  # chance that a correct kernel fails one of these tests


def moved(ebm, kernel, xs, steps, warmup=0):
    @eqx.filter_jit
    def run(ebm, ensemble, xs, key):
        carry = ensemble.start(ebm, xs, key=key, warmup=warmup)
        tables, chosen = ensemble.load(ebm), []
        for k in range(steps):
            carry, info = ensemble.advance(ebm, tables, carry, key=jr.fold_in(key, k))
            chosen.append(info["chosen"][0])
        return ensemble.configurations(ebm, carry), ensemble.energies(ebm, carry), chosen

    return run(ebm, kernel.ensemble(ebm), xs, jr.key(1))


@pytest.mark.slow
@pytest.mark.parametrize("warmup", [0, 3])
def test_a_mixed_law(warmup):
    """Each kernel moves some of the sites; in warmup, all kernels move in turn."""
    model, law, weights, xs = mixed_model()
    kernel = ed.Mixture(ed.Gibbs(), ed.Langevin(step_size=0.5), weights=(1, 3))
    ebm = ed.compile(model)
    after, energies, chosen = moved(ebm, kernel, xs, 3 if warmup else 6, warmup)
    assert {int(c) for c in chosen} == ({-1} if warmup else {0, 1})
    assert all(np.mean(np.asarray(after[n] != xs[n])) > 0.2 for n in xs)
    bits = np.asarray(after["h"]).astype(int)
    assert chisquare_pvalue(count_states(bits, law.states), law.probs, DRAWS) > FALSE_ALARM
    residual = np.asarray(after["y"]) - bits @ weights
    assert scipy.stats.kstest(residual, "norm").pvalue > FALSE_ALARM
    expected = 0.5 * residual**2 + 0.4 * bits.sum(1)
    np.testing.assert_allclose(energies, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_discrete_law_inside_replica_exchange():
    """Mapped over the rungs, each of which makes a choice of its own."""
    case = next(c for c in CASES if c.name == "integer chain")
    inner = ed.Mixture(ed.Gibbs(), ed.MetropolisHastings())
    ebm, kernel = ed.compile(case.model), ed.ReplicaExchange(inner, (1.0, 2.0))
    ensemble = kernel.ensemble(ebm)
    laws = [exact_law(lambda s, t=t: case.energy(s) / t, case.levels) for t in (1.0, 2.0)]
    draws = [exact_draws(law.states, law.probs, DRAWS, seed=k) for k, law in enumerate(laws)]
    xs = [pack(case.model, d) for d in draws]

    @eqx.filter_jit
    def run(ebm, ensemble, both, key):
        carry = ensemble.start(ebm, xs[0], key=key, warmup=0)
        carry = eqx.tree_at(lambda c: c.xs, carry, both)
        for k in range(3):
            carry, _ = ensemble.advance(ebm, ensemble.load(ebm), carry, key=jr.fold_in(key, k))
        return carry.xs

    both = {n: jnp.stack([x[n] for x in xs]) for n in xs[0]}
    after = run(ebm, ensemble, both, jr.key(2))
    for k, law in enumerate(laws):
        counts = count_states(unpack(case.model, {n: a[k] for n, a in after.items()}), law.states)
        assert chisquare_pvalue(counts, law.probs, DRAWS) > FALSE_ALARM


X, S = ed.real("x", 2), ed.spin("s", 3)
EBM = ed.compile(ed.Model((X**4).sum() - 0.3 * X[0] * S.sum()))
KERNEL = ed.Mixture(ed.Gibbs(), ed.Langevin(), ed.MetropolisHastings(), weights=(1, 2, 5))


@pytest.fixture(scope="module")
def run():
    return ed.sample(EBM, KERNEL, key=jr.key(0), chains=3, warmup=30, draws=900, progress=False)


def test_kernels_are_chosen_by_their_weights_and_statistics_are_masked(run):
    chosen = run.stats["chosen"]
    assert (chosen == chosen[:1]).all()
    counts = np.bincount(chosen[0], minlength=3)
    assert chisquare_pvalue(counts, np.array([1, 2, 5]) / 8, 900) > FALSE_ALARM
    assert (np.isnan(run.stats["acceptance_rate"]) == (chosen != 1)).all()
    assert (np.isnan(run.stats["acceptance_rate_2"]) == (chosen != 2)).all()
    found = ed.diagnose(run)
    assert not any(f.name == "acceptance" for f in found.findings)


def test_the_last_draw_is_where_the_chosen_kernel_left_it(run):
    """A step of Gibbs leaves the reals, one of Langevin the spins."""
    still = {n: (a[:, 1:] == a[:, :-1]).all(axis=-1) for n, a in run.draws.items()}
    later = run.stats["chosen"][:, 1:]
    assert still["x"][later == 0].all() and still["s"][later == 1].all()
    assert (~still["s"][later == 0]).mean() > 0.3


def test_every_kernel_adapts_in_every_step_of_warmup(run):
    """The step size stays as it is when warmup ends, however often each kernel was chosen."""
    sizes = run.stats["step_size"]
    for chain in sizes:
        assert len(np.unique(chain[np.isfinite(chain)])) == 1
    assert len(np.unique(sizes[np.isfinite(sizes)])) == 3 and not (sizes == 0.1).any()


@pytest.mark.slow
def test_divergences_are_false_where_nuts_is_not_chosen():
    kernel = ed.Mixture(ed.NUTS(max_tree_depth=2, variables=("x",)), ed.Gibbs())
    found = ed.sample(EBM, kernel, key=jr.key(1), chains=2, warmup=4, draws=20, progress=False)
    assert found.stats["diverging"].dtype == bool and found.stats["n_steps"].dtype.kind == "f"
    assert (np.isnan(found.stats["n_steps"]) == (found.stats["chosen"] != 0)).all()


def test_runs_resume_bit_for_bit(tmp_path):
    options = {"key": jr.key(2), "chains": 2, "warmup": 5, "progress": False}
    whole = ed.sample(EBM, KERNEL, draws=9, **options)
    ed.sample(EBM, KERNEL, draws=4, checkpoint=tmp_path, **options)
    again = ed.sample(EBM, KERNEL, draws=9, checkpoint=tmp_path, **options)
    for name, values in whole.stats.items():
        np.testing.assert_array_equal(again.stats[name], values)


def test_kernels_without_a_site_left_are_not_chosen():
    ebm = ed.compile(EBM.model.condition(s=np.ones(3, int)))
    kernel = ed.Mixture(ed.Gibbs([S[0], S[1:]]), ed.Langevin(), weights=(9, 1))
    found = ed.sample(ebm, kernel, key=jr.key(0), chains=2, warmup=2, draws=9, progress=False)
    assert (found.stats["chosen"] == 0).all() and "acceptance_rate" in found.stats
    assert kernel.effort(ebm) == 1.0


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: ed.Mixture(), ValueError, "Mixture got no kernels"),
        (lambda: ed.Mixture(ed.Gibbs), TypeError, r"Gibbs \(the class.*expected kernels"),
        (lambda: ed.Mixture(ed.Gibbs(), weights=(1, 2)), ValueError, "expected 1 positive numbers"),
        (lambda: ed.Mixture(ed.Gibbs(), weights=(0,)), ValueError, r"weights=\(0,\)"),
        (lambda: ed.Mixture(ed.Gibbs(), weights="a"), ValueError, "weights='a'"),
        (
            lambda: ed.sample(
                EBM, ed.Mixture(ed.Langevin(), ed.NUTS()), key=jr.key(0), progress=False
            ),
            ValueError,
            "Mixture.* leaves out 3 free sites, s",
        ),
    ],
)
def test_mistakes_are_answered(call, error, words):
    with pytest.raises(error, match=words):
        call()
