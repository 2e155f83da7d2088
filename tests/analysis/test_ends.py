"""Draws at the ends of a domain, against exact draws from SciPy rounded to float32."""

import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats as st

import energydsl as ed
from energydsl.analysis.ends import SHARE, near_ends, said_of_ends

POSITIVE = ed.positive("p").variable
UNIT = ed.interval("u", low=0.0, high=1.0).variable
WIDE = ed.interval("w", low=-3.0, high=5.0).variable
SIMPLEX = ed.simplex("s", 3).variable
RNG = np.random.default_rng(0)
TINY = np.finfo(np.float32).tiny


def drawn(law, keep=lambda x: np.ones(len(x), bool)):
    """Draws as float32 holds them: what it cannot hold is lost, as it is from a chain."""
    x = np.asarray(law.rvs(100_000, random_state=RNG), np.float32)
    return x[keep(x)]


CROWDED = {
    "gamma": (POSITIVE, drawn(st.gamma(0.03), lambda x: x > TINY)),
    "beta": (UNIT, drawn(st.beta(0.1, 0.1), lambda x: (x > TINY) & (x < 1))),
    "upper end alone": (UNIT, drawn(st.beta(2.0, 0.2), lambda x: x < 1)),
    "lower end of a wide interval": (
        WIDE,
        drawn(st.beta(0.15, 2.0, loc=-3, scale=8), lambda x: x > -3),
    ),
    "dirichlet": (SIMPLEX, drawn(st.dirichlet([0.1, 0.1, 0.1]))),
}
ROOMY = {
    "exponential": (POSITIVE, drawn(st.expon())),
    "gamma": (POSITIVE, drawn(st.gamma(0.3))),
    "heavy tail": (POSITIVE, np.abs(drawn(st.cauchy()))),
    "uniform": (UNIT, drawn(st.uniform())),
    "wide interval": (WIDE, drawn(st.uniform(-3, 8))),
    "dirichlet": (SIMPLEX, drawn(st.dirichlet([1.0, 1.0, 1.0]))),
    "real": (ed.real("x").variable, drawn(st.norm(0, 1e30))),
    "spin": (ed.spin("t").variable, np.ones(10, np.int8)),
}


@pytest.mark.parametrize("name", CROWDED)
def test_draws_that_crowd_at_an_end_are_seen(name):
    variable, values = CROWDED[name]
    assert near_ends(variable, values) > SHARE
    assert variable.name in said_of_ends(variable, values)


@pytest.mark.parametrize("name", ROOMY)
def test_draws_within_what_float32_resolves_are_not(name):
    # Of 100,000 uniform numbers 1.2 lie within the margin of an end on average: 200 are no chance.
    variable, values = ROOMY[name]
    assert near_ends(variable, values) < SHARE / 10
    assert said_of_ends(variable, values) is None


def test_a_run_whose_draws_crowd_at_an_end_warns_and_is_diagnosed():
    p = ed.positive("p", 3)
    ebm = ed.compile(ed.Model(ed.LogDensity(dist.Gamma(0.03, 1.0))(p)))
    with pytest.warns(UserWarning, match="of the draws of 'p' lie at the ends of positive"):
        chains = ed.sample(ebm, ed.Langevin(), key=jr.key(0), chains=8, draws=500, warmup=500)
    assert "ends" in [finding.name for finding in ed.diagnose(chains).findings]
