"""What `diagnose` says of the exchanges between replicas, and of masked rates of acceptance."""

import jax.random as jr
import numpy as np
import pytest

import energydsl as ed
from energydsl.reporting.diagnose import _of_steps

Y = ed.real("y")
WELLS = ed.compile(ed.Model(9.0 * (Y**2 - 1) ** 2), budget=0)


@pytest.mark.parametrize(("hottest", "draws", "found"), [(12.0, 400, False), (1e4, 60, True)])
def test_few_round_trips_are_told_with_the_worst_pair(hottest, draws, found):
    """Two replicas whose temperatures are far apart hardly ever exchange."""
    kernel = ed.ReplicaExchange(ed.Langevin(), (1.0, hottest))
    run = ed.sample(WELLS, kernel, key=jr.key(0), warmup=100, draws=draws, progress=False)
    trips = run.stats["round_trips"][:, -1]
    assert (trips.min() < 10) == found and (found or run.stats["round_trips"][:, 0].max() < 10)
    said = [f for f in ed.diagnose(run).findings if f.name == "round_trips"]
    assert len(said) == found
    if found:
        assert said[0].level == "warning"
        assert f"made {trips.min()} round trips" in said[0].message
        assert "between T = 1 and 1e+04" in said[0].message


def test_rates_of_kernels_that_were_not_chosen_do_not_count():
    rates = np.array([[np.nan, 0.9, np.nan], [np.nan, np.nan, 0.01]])
    assert not list(_of_steps({"acceptance_rate": rates}))
    assert [f.name for f in _of_steps({"acceptance_rate": rates / 100})] == ["acceptance"]
    assert not list(_of_steps({"acceptance_rate": np.full((2, 3), np.nan)}))
