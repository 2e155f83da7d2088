"""When losses say that learning has failed, and when they do not."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import energydsl as ed
from energydsl.learning.divergence import Losses

RNG = np.random.default_rng(0)


def failure(losses, kind="other", sites=10, cuts=()):
    """The first failure in a run of these losses, computed in chunks with these ends."""
    watch = Losses(kind, sites)
    losses = np.asarray(losses, np.float32)
    for first, last in itertools.pairwise((0, *cuts, len(losses))):
        found = watch.failure(losses[:last], first)
        if found is not None:
            return found
    return None


T = np.arange(4000)
HEALTHY = {
    "a difference from exactly 0 that wanders": (
        np.where(T == 0, 0.0, 5 * np.sin(T / 50) + 20 * RNG.normal(size=T.size)),
        "difference",
    ),
    "a difference that is 0 for long": (
        np.where(T < 100, 0.0, RNG.normal(size=T.size)),
        "difference",
    ),
    "a difference that dips and recovers": (-5000 * np.exp(-T / 100), "difference"),
    "a difference that dips while chains begin to move": (
        -300 * np.exp(-((T - 60) ** 2) / 800) + RNG.normal(size=T.size),
        "difference",
    ),
    "a measure from a huge first value": (
        1e6 * np.exp(-T / 20) + 30 + RNG.normal(size=T.size),
        "measure",
    ),
    "a measure that falls below 0 for ever": (5 - T / 2 + RNG.normal(size=T.size), "measure"),
    "a measure with heavy tails": (50 + RNG.standard_t(2, size=T.size), "measure"),
    "a measure whose batches differ greatly": (np.exp(RNG.normal(4, 1, size=T.size)), "measure"),
    "a loss that collapses towards minus infinity": (-np.exp(T / 400), "other"),
    "a loss near 0": (1e-6 * RNG.normal(size=T.size) ** 2, "other"),
}  # fmt: skip


@pytest.mark.parametrize("name", HEALTHY)
def test_noise_is_no_divergence(name):
    losses, kind = HEALTHY[name]
    assert failure(losses, kind) is None


BROKEN = {
    "doubles at each step": (3 * 2.0**T[:100], "measure", 20, "has diverged"),
    "grows by a tenth at each step": (3 * 1.1 ** T[:800], "measure", 140, "has diverged"),
    "jumps and stays": (np.where(T < 1, 3.0, 900 + 50 * np.sin(T)), "measure", 15, "stays above"),
    "diverges after a huge first value": (
        np.where(T < 500, 1e6 * np.exp(-T / 20) + 30, 30 * 1.2 ** (T - 500.0).clip(0, 200)),
        "measure", 570, "has diverged",
    ),
    "jumps from 0": (np.where(T < 3, 0.0, 2e4), "difference", 3, "has diverged"),
    "falls at an even pace": (-5.0 * T, "difference", 127, "falls without bound.*no longer reach"),
    "falls ever faster": (-(1.5 ** T[:200]), "difference", 40, "has diverged.*no longer reach"),
    "swings ever wider": ((-1.3) ** T[:200], "difference", 60, "has diverged.*lower learning rate"),
    "is no number": (np.where(T == 70, np.nan, 1.0), "measure", 70, "is not finite"),
    "falls to minus infinity": (np.where(T == 70, -np.inf, 1.0), "measure", 70, "is not finite"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_divergence_is_noticed_early(name):
    losses, kind, latest, word = BROKEN[name]
    found = failure(losses, kind)
    assert found is not None and 0 < found.step <= latest
    assert re.search(word, found.reason), found.reason


@pytest.mark.parametrize("name", [*BROKEN, *HEALTHY])
def test_the_answer_does_not_depend_on_chunks(name):
    losses, kind, *_ = (BROKEN | HEALTHY)[name]
    whole = failure(losses, kind)
    assert failure(losses, kind, cuts=range(1, len(losses))) == whole
    assert failure(losses, kind, cuts=(1, 5, 64, 65)) == whole
    # A run that is resumed has not seen the earlier losses one chunk after another.
    first = len(losses) // 3
    if whole is None or whole.step >= first:
        assert Losses(kind, 10).failure(np.asarray(losses, np.float32), first) == whole


def test_more_sites_allow_more():
    losses = np.where(T < 1, 3.0, 900 + 50 * np.sin(T))
    assert failure(losses, "measure", sites=100) is None


KEY = jax.random.key(0)


def machine():
    s = ed.spin("s", 4)
    J, b = ed.parameter("J", 0.0), ed.parameter("b", 0.0)
    return ed.compile(ed.Model(-J * (s[1:] * s[:-1]).sum() - b * s.sum()))


def spins(n=100):
    return (2 * np.random.default_rng(0).integers(0, 2, (n, 4)) - 1).astype(np.int8)


@pytest.mark.parametrize("objective", [ed.MaximumLikelihood(), ed.ContrastiveDivergence()],
                         ids=lambda o: type(o).__name__)  # fmt: skip
def test_a_far_too_high_learning_rate_is_told_within_a_few_steps(objective):
    with pytest.warns(UserWarning, match=r"the loss has diverged.*lower learning rate"):
        _, history = ed.fit(machine(), objective, spins(), key=KEY, steps=100, progress=False,
                            optimizer=optax.sgd(1e3))  # fmt: skip
    assert len(history["loss"]) < 16


def test_contrastive_divergence_that_starts_at_exactly_0_goes_on():
    objective = ed.ContrastiveDivergence(start="persistent", chains=20)
    _, history = ed.fit(machine(), objective, spins(), key=KEY, steps=100, progress=False,
                        optimizer=optax.adam(0.1))  # fmt: skip
    assert history["loss"][0] == 0 and len(history["loss"]) == 100 and history.stopped is None


def test_samples_that_lose_sight_of_the_data_are_told():
    """Langevin steps far too short to follow a well that deepens at each step of learning."""
    y = ed.real("y")
    well = ed.Neural(lambda y: jnp.sqrt(1 + (y - 40.0) ** 2))
    ebm = ed.compile(ed.Model(ed.parameter("depth", 0.1) * well(y)))
    objective = ed.ContrastiveDivergence(
        kernel=ed.Langevin(step_size=1e-6), start="noise", chains=8
    )
    with pytest.warns(UserWarning, match="falls without bound.*no longer reach what data show"):
        ed.fit(ebm, objective, np.full(10, 40.0), key=KEY, steps=400, progress=False,
               optimizer=optax.adam(0.1))  # fmt: skip
