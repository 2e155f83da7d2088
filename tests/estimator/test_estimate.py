"""The time that an estimate may take, and how its rounds are joined."""

import time

import jax.random as jr
import numpy as np
import pytest

import energydsl as ed
from energydsl.estimator.base import LONG_CHAINS, LOOPS, AbstractEstimator
from tests.estimator.models import one_site


class Clock:
    """A clock that only work moves."""

    now = 0.0


class Recorded(AbstractEstimator):
    """Each round takes `work` seconds of the clock and says how much that was."""

    work: float = 1.0
    kind: str = "estimate"

    def estimate(self, ebm, *, key):
        Clock.now += self.work
        lower = -self.work if self.work < 4 else -10.0
        if self.kind == "estimate":
            return ed.LogZ(self.work, 0.1, lower, 1.0, self.kind, 100.0)
        return ed.LogZ.proven(lower, 10 / self.work, self.kind)

    def doubled(self):
        return Recorded(2 * self.work, self.kind)


@pytest.fixture
def ebm(monkeypatch):
    monkeypatch.setattr(time, "perf_counter", lambda: Clock.now)
    return ed.compile(one_site(np.random.default_rng(0))[0])


def test_rounds_double_while_time_is_left(ebm):
    # Rounds of 1, 2 and 4 seconds end at 1, 3 and 7; the next would end at 15.
    for seconds, last in ((0.1, 1.0), (2.9, 1.0), (3.0, 2.0), (14.9, 4.0), (15.0, 8.0)):
        began = Clock.now
        found = ed.estimate_log_partition(ebm, Recorded(), key=jr.key(0), seconds=seconds)
        assert found.value == last and Clock.now - began <= max(seconds, 1.0)
        assert found.lower == (-last if last < 4 else -10.0)


def test_proven_bounds_keep_the_best_of_all_rounds(ebm):
    method = Recorded(kind="bounds")
    found = ed.estimate_log_partition(ebm, method, key=jr.key(0), seconds=7.0)
    assert (found.lower, found.upper, found.kind) == (-1.0, 2.5, "bounds")


class Doubtful(AbstractEstimator):
    """An estimate of 1 with some doubts."""

    doubts: tuple[str, ...]
    ess: float = 100.0

    def estimate(self, ebm, *, key):
        return ed.LogZ(1.0, 0.1, 0.5, 1.5, "estimate", self.ess, self.doubts)

    def doubled(self):
        return self


@pytest.mark.parametrize("ess", [1.0, 100.0, np.inf])
def test_every_doubt_warns_but_those_that_no_work_removes(ebm, ess):
    """However many effective chains there are."""
    with pytest.warns(UserWarning, match=r"^Doubtful: one; another: give it more work") as seen:
        doubts = (LOOPS, "one", LONG_CHAINS, "another")
        found = ed.estimate_log_partition(ebm, Doubtful(doubts, ess), key=jr.key(0))
    assert found.doubts == doubts and len(seen) == 1
    for quiet in ((), (LOOPS,), (LONG_CHAINS,)):
        assert ed.estimate_log_partition(ebm, Doubtful(quiet, ess), key=jr.key(0)).value == 1.0


def test_a_time_must_be_one(ebm):
    for seconds in (0, -1.0, np.inf):
        with pytest.raises(ValueError, match=r"got seconds=.*; expected a number above zero"):
            ed.estimate_log_partition(ebm, Recorded(), key=jr.key(0), seconds=seconds)


@pytest.mark.slow
def test_longer_times_give_closer_brackets():
    """Doubled work, without the clock."""
    model, exact = one_site(np.random.default_rng(0))
    method = ed.Bracket(chains=64, temperatures=2)
    spans = []
    for _ in range(3):
        found = ed.estimate_log_partition(ed.compile(model), method, key=jr.key(1))
        assert found.lower < exact < found.upper
        spans.append(found.upper - found.lower)
        method = method.doubled()
    assert spans == sorted(spans, reverse=True)
