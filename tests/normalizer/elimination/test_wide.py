"""Wide steps: numbers or logarithms, places that are used again, and blocks that repeat."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.special import logsumexp

import energydsl as ed
from energydsl.normalizer.elimination import steps
from energydsl.normalizer.elimination.arena import Arena
from energydsl.normalizer.elimination.blocks import loops
from energydsl.normalizer.evaluate import draw, log_partition_of, marginals_of, mode_of, prepare
from tests.normalizer.rules import memory, plans
from tests.oracles.enumerate import chisquare_pvalue

FALSE_ALARM = 1e-6
ROWS, COLUMNS = 5, 62
STATES = np.array(list(itertools.product((-1, 1), repeat=ROWS)))


class Strip:
    """A strip of spins with couplings and fields that all differ, and its transfer matrices."""

    def __init__(self, scale=1.0, zeros=False, height=0.0):
        rng = np.random.default_rng(5)
        self.down = scale * rng.normal(size=(ROWS - 1, COLUMNS)).astype(np.float32)
        self.right = scale * rng.normal(size=(ROWS, COLUMNS - 1)).astype(np.float32)
        self.field = scale * rng.normal(size=(ROWS, COLUMNS)).astype(np.float32)
        own = STATES @ self.field.astype(float) + (STATES[:, 1:] * STATES[:, :-1]) @ self.down
        if zeros:  # no two spins up side by side in the first row
            first = STATES[:, 0]
            forbidden = np.where((first[:, None] == 1) & (first == 1), -np.inf, 0.0)
        else:
            forbidden = np.zeros((len(STATES),) * 2)
        self.zeros, self.own, self.height = zeros, own + height * (ROWS - 1), height
        self.between = [
            (STATES * self.right[:, k]) @ STATES.T + forbidden for k in range(COLUMNS - 1)
        ]

    def energy(self, s, right, field):
        total = -(right * s[:, 1:] * s[:, :-1]).sum() - (self.down * s[1:] * s[:-1]).sum()
        total = total - (field * s).sum()
        table = np.zeros((2, 2))
        table[1, 1] = -np.inf if self.zeros else 0.0
        high = ed.Table(log_potential=np.full((2, 2), self.height))(s[1:], s[:-1]).sum()
        return total + high + ed.Table(log_potential=table)(s[0, 1:], s[0, :-1]).sum()

    def compiled(self, right=None, field=None):
        s = ed.spin("s", (ROWS, COLUMNS))
        right, field = (
            mine if given is None else given
            for mine, given in ((self.right, right), (self.field, field))
        )
        return ed.compile(ed.Model(self.energy(s, right, field)))

    def passes(self, reduce):
        """For each column, the sums of all columns before it and after it, (column, state)."""
        before, after = [np.zeros(len(STATES))], [np.zeros(len(STATES))]
        for k in range(COLUMNS - 1):
            weights = (before[-1] + self.own[:, k])[:, None] + self.between[k]
            before.append(reduce(weights, 0))
            weights = (after[-1] + self.own[:, -1 - k])[None] + self.between[-1 - k]
            after.append(reduce(weights, 1))
        return np.array(before), np.array(after[::-1])

    @property
    def log_z(self):
        return logsumexp(
            self.passes(lambda a, axis: logsumexp(a, axis=axis))[0][-1] + self.own[:, -1]
        )

    @property
    def up(self):
        """The probability of each spin to be 1."""
        before, after = self.passes(lambda a, axis: logsumexp(a, axis=axis))
        laws = np.exp(before + after + self.own.T - self.log_z)
        return (laws @ (STATES == 1)).T


STRIPS = {
    "numbers": Strip(),
    "far apart": Strip(scale=60.0),
    "forbidden states": Strip(zeros=True),
}


@pytest.fixture(
    params=["numbers", pytest.param("far apart", marks=pytest.mark.slow), "forbidden states"],
    scope="module",
)
def strip(request):
    found = STRIPS[request.param]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "WIDE", 64)
        ebm = found.compiled()
        plan = plans(ebm, "elimination")
        passes = plan.plans[0].sums.passes
        assert passes.reused and any(body.layout for loop in passes.loops for body in loop)
        assert any(len(loop[0].base) > 1 for loop in passes.loops), "no block repeats"
        numbers = prepare(ebm.model, plan)[0].numbers
    assert bool(numbers) == (request.param == "numbers")
    return found, ebm, plan


def value(ebm, plan):
    return log_partition_of(ebm.model, plan, np.dtype(np.float64))


def test_log_z_and_marginals(strip):
    law, ebm, plan = strip
    assert float(value(ebm, plan)) == pytest.approx(law.log_z, rel=1e-12)
    found = marginals_of(ebm.model, plan)["s"].reshape(ROWS, COLUMNS, 2)
    np.testing.assert_allclose(found[..., 1], law.up, atol=1e-10)


def test_gradients_are_marginals_and_pairs(strip):
    law, _, plan = strip

    def of(field):
        return value(law.compiled(field=field), plan).astype(jnp.float32)

    found = jax.grad(of)(jnp.asarray(law.field))
    np.testing.assert_allclose(found, 2 * law.up - 1, atol=2e-6)


def test_a_mode_has_the_least_energy(strip):
    law, ebm, plan = strip
    best = (law.passes(np.max)[0][-1] + law.own[:, -1]).max()
    found = mode_of(ebm.model, plan)
    assert -float(ebm.energy(found)) == pytest.approx(best, rel=1e-5)


def test_draws_have_the_marginals(strip):
    law, ebm, plan = strip
    prepared = prepare(ebm.model, plan)
    keys = jr.split(jr.key(1), 6_000)
    drawn = jax.vmap(lambda k: draw(ebm.model, plan, prepared, key=k)["s"])(keys)
    up = (np.asarray(drawn) == 1).sum(0)
    for count, p in zip(up.ravel(), law.up.ravel(), strict=True):
        if 0.01 < p < 0.99:
            pvalue = chisquare_pvalue(
                np.array([count, len(keys) - count]), np.array([p, 1 - p]), len(keys)
            )
            assert pvalue > FALSE_ALARM / law.up.size


@pytest.mark.slow
def test_the_bound_of_terms_is_never_below_how_far_they_are_apart(monkeypatch):
    """Numbers are used where products of tables just do not leave the range of float64."""
    monkeypatch.setattr(steps, "WIDE", 64)
    used = []
    for scale in (1, 4, 8, 12, 16, 20, 24, 40):
        law = Strip(scale=float(scale))
        ebm = law.compiled()
        plan = plans(ebm, "elimination")
        used.append(bool(prepare(ebm.model, plan)[0].numbers))
        assert float(value(ebm, plan)) == pytest.approx(law.log_z, rel=1e-12)
    assert used == sorted(used, reverse=True) and used[0] and not used[-1] and sum(used) > 2


def test_messages_that_no_exponential_could_hold_are_numbers_with_a_scale(monkeypatch):
    """Each table has the weight e^2000, so that the first messages, of narrow steps, overflow."""
    monkeypatch.setattr(steps, "WIDE", 64)
    law = Strip(height=2000.0)
    ebm = law.compiled()
    plan = plans(ebm, "elimination")
    assert bool(prepare(ebm.model, plan)[0].numbers)
    assert float(value(ebm, plan)) == pytest.approx(law.log_z, rel=1e-12)


def glass(side):
    rng = np.random.default_rng(side)
    s = ed.spin("s", (side, side))
    down, right = rng.normal(size=(side - 1, side)), rng.normal(size=(side, side - 1))
    field = ed.parameter("field", rng.normal(size=(side, side)))
    energy = (down * s[1:] * s[:-1]).sum() + (right * s[:, 1:] * s[:, :-1]).sum()
    return ed.Model(energy - (field * s).sum())


@pytest.mark.slow
def test_log_z_alone_takes_little_memory_and_what_needs_more_is_refused():
    model = glass(13)
    most = ed.compile(model).normalizer.plans[0].most_bytes
    ebm = ed.compile(model, memory=int(most / 2))
    plan = ebm.normalizer.plans[0]
    assert plan.sums.alone is not None and 2 * plan.bytes < plan.most_bytes == most
    assert memory(ebm, derivatives=False) < plan.bytes
    assert memory(ebm) < plan.most_bytes < 3 * memory(ebm)
    assert np.isfinite(ed.log_partition(ebm))
    for ask in (
        lambda: ed.marginals(ebm),
        lambda: ed.map_configuration(ebm),
        lambda: eqx.filter_grad(ed.log_partition)(ebm),
    ):
        with pytest.raises(ed.IntractableError, match="of memory; budget"):
            ask()
    with pytest.raises(ValueError, match="of memory; budget"):
        ed.sample(ebm, ed.ExactDraws(), key=jr.key(0), progress=False)
    with pytest.raises(ed.IntractableError, match="log Z within the budget, but not its deriv"):
        jax.grad(lambda m: ed.log_partition(ebm.replace(field=m)))(jnp.zeros((13, 13)))


def test_loops_give_back_the_sequence():
    rng = np.random.default_rng(0)
    for text in ("a", "aaaa", "abab", "aabaabaab", "xaaabaaabaaaby", "abcabcabcab", "aab" * 70):
        assert_given_back(text)
    for _ in range(50):
        assert_given_back("".join(rng.choice(list("ab"), rng.integers(1, 30))))
    assert [len(block) for block in loops("xaaabaaabaaaby")] == [1, 2, 1]
    assert [places.shape for places in loops("xaaabaaabaaaby")[1]] == [(3, 3), (3, 1)]


def assert_given_back(text):
    order = []
    for block in loops(text):
        for repeat in range(len(block[0])):
            for places in block:
                assert len({text[k] for k in places.ravel()}) == 1
                order += places[repeat].tolist()
    assert order == list(range(len(text)))


def test_messages_in_the_arena_never_overlap():
    rng = np.random.default_rng(1)
    arena, alive = Arena(reused=True), {}
    for _ in range(300):
        size = int(rng.integers(1, 20))
        begin = arena.take(size)
        assert begin + size <= arena.size
        assert all(begin + size <= b or b + n <= begin for b, n in alive.items())
        alive[begin] = size
        for gone in rng.permutation(list(alive))[: rng.integers(0, 3)].tolist():
            arena.give_back([gone])
            del alive[gone]
    kept = Arena(reused=False)
    places = [kept.take(3) for _ in range(3)]
    kept.give_back(places[:1])
    assert kept.take(2) == 9
