"""Kernels on domains that have neither a table of levels nor single real sites."""

import itertools

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats

import energydsl as ed
from tests.kernel.test_invariance import DRAWS, FALSE_ALARM, KERNELS, moved
from tests.language.test_domain import Permutation


@pytest.mark.parametrize(
    "kernel",
    [pytest.param(k, marks=[pytest.mark.slow] * isinstance(k, ed.NUTS)) for k in KERNELS],
    ids=lambda k: type(k).__name__,
)
def test_matrices(kernel):
    """Of a Wishart, the diagonal is chi-squared, and the determinant over that, too."""
    scale = np.array([[1.0, 0.5], [0.5, 0.8]])
    law = scipy.stats.wishart(5.0, scale)
    xs = {"S": jnp.asarray(law.rvs(DRAWS, random_state=0), float)}
    matrix = ed.positive_definite("S", (2, 2))
    model = ed.Model(ed.LogDensity(dist.Wishart(5.0, jnp.asarray(scale)))(matrix))
    after = np.asarray(moved(ed.compile(model), kernel, xs)["S"], float)
    assert np.mean(after[:, 0, 1] != np.asarray(xs["S"])[:, 0, 1]) > 0.2
    np.testing.assert_array_equal(after[:, 0, 1], after[:, 1, 0])
    rest = np.linalg.det(after) / after[:, 0, 0]
    for values, df, width in [
        (after[:, 0, 0], 5, scale[0, 0]),
        (after[:, 1, 1], 5, scale[1, 1]),
        (rest, 4, np.linalg.det(scale) / scale[0, 0]),
    ]:
        assert (
            scipy.stats.kstest(values, scipy.stats.chi2(df, scale=width).cdf).pvalue > FALSE_ALARM
        )


def test_counts():
    """A Poisson count, a second that stands on it, and a third that is clamped."""
    n = ed.count("n", 3)
    model = ed.Model(
        ed.LogDensity(dist.Poisson)(n[0], 0.7) + ed.LogDensity(dist.Poisson)(n[1:], 1.0 + n[0])
    ).condition({n[2]: 4})
    rng = np.random.default_rng(5)
    weights = np.array(
        [scipy.stats.poisson.pmf(k, 0.7) * scipy.stats.poisson.pmf(4, 1 + k) for k in range(40)]
    )
    first = rng.choice(40, DRAWS, p=weights / weights.sum())
    before = np.stack([first, rng.poisson(1 + first), np.full(DRAWS, 4)], axis=1)
    xs = {"n": jnp.asarray(before, jnp.int32)}
    after = np.asarray(moved(ed.compile(model), ed.MetropolisHastings(), xs)["n"])
    assert (after[:, 2] == 4).all()
    assert (after != before).any(axis=1).mean() > 0.2
    seen = np.bincount(np.minimum(after[:, 0], 6), minlength=7)
    expected = np.append(weights[:6], weights[6:].sum()) / weights.sum() * DRAWS
    assert scipy.stats.chisquare(seen, expected).pvalue > FALSE_ALARM
    mean = 1 + np.arange(40)
    law = (weights / weights.sum()) @ scipy.stats.poisson.pmf(np.arange(60), mean[:, None])
    seen = np.bincount(np.minimum(after[:, 1], 8), minlength=9)
    expected = np.append(law[:8], law[8:].sum()) * DRAWS
    assert scipy.stats.chisquare(seen, expected / expected.sum() * DRAWS).pvalue > FALSE_ALARM


def test_a_permutation_moves_as_its_domain_says():
    order = ed.variable("o", Permutation(), 3)
    slope = np.array([0.3, -0.4, 0.8])
    ebm = ed.compile(ed.Model((order * slope).sum()))
    states = np.array(list(itertools.permutations(range(3))))
    probs = np.exp(-states @ slope)
    probs /= probs.sum()
    before = states[np.random.default_rng(6).choice(6, DRAWS, p=probs)]
    after = np.asarray(
        moved(ebm, ed.MetropolisHastings(), {"o": jnp.asarray(before, jnp.int8)})["o"]
    )
    assert (after != before).any(axis=1).mean() > 0.2
    seen = (after[:, None] == states).all(axis=2).sum(axis=0)
    assert scipy.stats.chisquare(seen, probs * DRAWS).pvalue > FALSE_ALARM


def test_no_proposal_is_rounded_out_of_the_support():
    """Gamma(0.1, 1) has a pole at 0, and next to it numbers that float32 rounds to 0."""
    p = ed.positive("p", 2)
    ebm = ed.compile(ed.Model((0.9 * ed.log(p) + p).sum()))
    chains = ed.sample(
        ebm, ed.MetropolisHastings(scale=20.0), key=jr.key(0), chains=16, warmup=0, draws=300
    )
    assert chains.stopped is None
    assert (chains.draws["p"] > 0).all() and np.isfinite(chains.stats["energy"]).all()
