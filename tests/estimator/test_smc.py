"""SMC against exact log Z."""

import jax.random as jr
import numpy as np
import pytest

import energydsl as ed
from energydsl.estimator.smc import _passed
from tests.estimator.models import gas, glass, mixed, one_site, potts, slow


@pytest.mark.parametrize("kind", [gas, *map(slow, (potts, mixed, one_site))])
def test_smc_agrees_with_enumeration(kind):
    model, exact = kind(np.random.default_rng(0))
    found = ed.estimate_log_partition(ed.compile(model), ed.SMC(), key=jr.key(0))
    assert abs(found.value - exact) < 6 * found.standard_error + 1e-5
    assert found.standard_error < 0.05 and found.kind == "estimate" and found.doubts == ()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [glass, gas, potts, mixed], ids=lambda k: k.__name__)
def test_intervals_cover_ninety_in_a_hundred(kind):
    covered = 0
    for seed in range(100):
        model, exact = kind(np.random.default_rng(seed))
        found = ed.estimate_log_partition(ed.compile(model), ed.SMC(), key=jr.key(seed))
        covered += found.lower <= exact <= found.upper
    assert covered >= 90


@pytest.mark.slow
def test_small_populations_on_a_coarse_ladder_are_unbiased():
    """Five particles are resampled at nearly every rung; the mean of many populations is Z."""
    model, exact = glass(np.random.default_rng(1), n=5)
    method = ed.SMC(particles=5, replicates=4000, conditional=0.3)
    found = ed.estimate_log_partition(ed.compile(model), method, key=jr.key(0))
    assert abs(found.value - exact) < 5 * found.standard_error
    assert found.standard_error < 0.03
    # Another ladder for other numbers is passed by the same program.
    before = _passed._cached._cache_size()
    other, exact = glass(np.random.default_rng(2), n=5, scale=1.5)
    found = ed.estimate_log_partition(ed.compile(other), method, key=jr.key(1))
    assert abs(found.value - exact) < 5 * found.standard_error
    assert _passed._cached._cache_size() == before


def test_mistakes_are_said():
    with pytest.raises(ValueError, match="SMC got particles=1; expected a whole number of at lea"):
        ed.SMC(particles=1)
    with pytest.raises(ValueError, match=r"SMC got conditional=1\.0; expected a share"):
        ed.SMC(conditional=1.0)
