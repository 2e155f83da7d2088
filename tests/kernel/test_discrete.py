"""Kernels for finite sites that are led by predicted changes of the energy."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import energydsl as ed
from energydsl.analysis.differences import predicted_changes, unpredictable
from tests.kernel.test_invariance import DRAWS, FALSE_ALARM, moved, moved_alone
from tests.oracles.enumerate import chisquare_pvalue, count_states, exact_draws, exact_law

RNG = np.random.default_rng(11)
FEATURES, HIDDEN = 3 + 2 + 2 * 3 + 1, 5
W, V = 0.7 * RNG.normal(size=(FEATURES, HIDDEN)), 1.5 * RNG.normal(size=HIDDEN)
BANNED = np.where([[0, 1, 0], [0, 0, 0]], np.inf, RNG.normal(size=(2, 3)))
"""The first label is not 1 where the first spin is down."""

S, B = ed.spin("s", 3), ed.binary("b", 2)
C, N = ed.categorical("c", 3, levels=3), ed.integer("n", low=-1, high=2)


def network(s, b, c, n):
    hot = jax.nn.one_hot(c[:2], 3).ravel()
    seen = jnp.concatenate([s, b, hot, n[None]])
    return jnp.tanh(seen @ jnp.asarray(W, jnp.float32)) @ jnp.asarray(V, jnp.float32)


MODEL = ed.Model(
    ed.apply(network, S, B, C, N)
    + ed.Table(BANNED)(S[0], C[0])
    + 0.4 * (C[1] == C[2]).sum()
    + 0.3 * N**2 * S[1]
).condition({C[2]: 2, B[1]: 1})
LEVELS = [(-1, 1)] * 3 + [(0, 1)] + [range(3)] * 2 + [range(-1, 3)]
NAMES = "s", "b", "c", "n"


def energy(states):
    """The same energy in NumPy; a state has the free sites in the order of `LEVELS`."""
    s, b, c, n = states[:, :3], states[:, 3:4], states[:, 4:6], states[:, 6:]
    hot = np.eye(3)[c].reshape(len(states), -1)
    seen = np.concatenate([s, b, np.ones_like(b), hot, n], axis=1)
    return (
        np.tanh(seen @ W) @ V
        + BANNED[(s[:, 0] + 1) // 2, c[:, 0]]
        + 0.4 * (c[:, 1] == 2)
        + 0.3 * n[:, 0] ** 2 * s[:, 1]
    )


def configuration(states):
    ones = np.ones((len(states), 1), int)
    parts = {
        "s": states[:, :3],
        "b": np.hstack([states[:, 3:4], ones]),
        "c": np.hstack([states[:, 4:6], 2 * ones]),
        "n": states[:, 6],
    }
    dtypes = {v.name: v.domain.dtype for v in ed.compile(MODEL).structure.skeleton.free}
    return {n: jnp.asarray(a, dtypes[n]) for n, a in parts.items()}


def states_of(xs):
    xs = {n: np.asarray(a, int) for n, a in xs.items()}
    assert (xs["c"][:, 2] == 2).all() and (xs["b"][:, 1] == 1).all()
    return np.hstack([xs["s"], xs["b"][:, :1], xs["c"][:, :2], xs["n"][:, None]])


@pytest.fixture(scope="module")
def law():
    return exact_law(energy, LEVELS)


@pytest.fixture(scope="module")
def ebm():
    return ed.compile(MODEL)


KERNELS = ed.GibbsWithGradients(), ed.DiscreteLangevin(step_size=0.7)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.name)
@pytest.mark.parametrize(
    "mover",
    [pytest.param(moved, id="together"),
     pytest.param(moved_alone, id="alone", marks=pytest.mark.slow)],
)  # fmt: skip
def test_the_law_is_left_invariant(kernel, mover, law, ebm):
    before = exact_draws(law.states, law.probs, DRAWS, seed=1)
    after = states_of(mover(ebm, kernel, configuration(before)))
    assert chisquare_pvalue(count_states(after, law.states), law.probs, DRAWS) > FALSE_ALARM
    assert ((after != before).mean(axis=0) > 0.1).all()


@pytest.mark.slow
def test_the_statistic_sees_that_the_test_is_left_out(law, ebm):
    before = exact_draws(law.states, law.probs, DRAWS, seed=1)
    kernel = ed.DiscreteLangevin(step_size=0.7, adjusted=False)
    after = states_of(moved(ebm, kernel, configuration(before)))
    allowed = law.probs > 0
    seen = count_states(after, law.states)[allowed]
    assert chisquare_pvalue(seen, law.probs[allowed], seen.sum()) < FALSE_ALARM


@pytest.mark.slow
def test_chains_reach_every_likely_state_at_the_acceptance_rate_asked_for(ebm, law):
    chains = ed.sample(
        ebm, ed.DiscreteLangevin(), key=jr.key(3), chains=8, warmup=300, draws=1000, progress=False
    )
    assert chains.stats["acceptance_rate"].mean() == pytest.approx(0.574, abs=0.08)
    after = {n: a.reshape(-1, *a.shape[2:]) for n, a in chains.draws.items()}
    seen = count_states(states_of(after), law.states)
    assert seen[law.probs > 0.01].all()
    np.testing.assert_allclose(
        chains.stats["energy"].ravel(), energy(states_of(after)), rtol=1e-4, atol=1e-4
    )


def test_predicted_changes_are_exact_for_small_factors():
    """Against every single change, computed one by one."""
    pair = RNG.normal(size=(3, 4)).astype(np.float32)
    model = ed.Model(
        ed.Table(pair)(C[:2], N).sum()
        + 0.5 * (C[1:] == C[:-1]).sum()
        + (np.arange(2.0) * (S[1:] - 0.3) ** 2 * S[:-1]).sum()
        + ed.exp(0.5 * N) * B[0]
        - B[1] * S.sum()
    )
    ebm = ed.compile(model)
    values = {v.name: v.domain.values for v in ebm.structure.skeleton.free}
    predict = jax.jit(lambda x: predicted_changes(ebm.model.energy_anywhere, x, values)[1])
    energy = jax.jit(ebm.energy)
    for seed in range(3):
        x = ebm.start(key=jr.key(seed))
        predicted = predict(x)
        for name, levels in values.items():
            for site in range(np.size(x[name])):
                flat = np.asarray(x[name]).ravel()
                others = [np.where(np.arange(flat.size) == site, v, flat) for v in levels]
                true = [float(energy({**x, name: o.reshape(x[name].shape)})) for o in others]
                row = np.asarray(predicted[name][site])
                np.testing.assert_allclose(row - row[0], np.subtract(true, true[0]), atol=1e-5)


def test_embeddings_and_one_hot_vectors_predict_alike():
    """For a network, the prediction is the derivative in the one-hot vectors."""
    table = RNG.normal(size=(3, 4)).astype(np.float32)
    mix = RNG.normal(size=(12, 2)).astype(np.float32)

    def joined(embedded):
        return jnp.tanh(embedded.ravel() @ mix).sum()

    def smooth(hot):
        return joined(hot @ table)

    ways = {
        "one-hot": lambda c: smooth(jax.nn.one_hot(c, 3)),
        "compared": lambda c: smooth((c[:, None] == jnp.arange(3)).astype(float)),
        "embedded": lambda c: joined(jnp.asarray(table)[c]),
        "relu": lambda c: smooth(jax.nn.relu(jax.nn.one_hot(c, 3))),
    }
    c = jnp.array([2, 0, 1], jnp.int8)
    expected = jax.grad(smooth)(jax.nn.one_hot(c, 3))
    for way in ways.values():
        ebm = ed.compile(ed.Model(ed.apply(way, C)))
        found = predicted_changes(ebm.model.energy_anywhere, {"c": c}, {"c": np.arange(3)})[1]
        gap = found["c"] - expected
        np.testing.assert_allclose(gap, np.broadcast_to(gap[:, :1], gap.shape), atol=1e-5)


def looped(c):
    return jax.lax.fori_loop(0, 3, lambda i, total: total + c[i] * jnp.float32(0.2), 0.0)


def test_labels_that_predict_nothing_are_refused():
    ebm = ed.compile(ed.Model(ed.apply(looped, C) + 0.1 * S.sum()))
    assert unpredictable(ebm.structure) == {"c"}
    assert ed.GibbsWithGradients().moves(ebm).tolist() == [True] * 0 + [
        v.name != "c" for v in ebm.structure.variables for _ in range(v.size)
    ]
    with pytest.raises(ValueError, match=r"labels of c in a way that predicts no change .*loop"):
        ed.sample(ebm, ed.GibbsWithGradients(), key=jr.key(0))
    with pytest.raises(TypeError, match=r"DiscreteLangevin cannot move 'c': .*predicts no change"):
        ed.sample(ebm, ed.DiscreteLangevin(variables=("c",)), key=jr.key(0))
    both = ed.Cycle(ed.DiscreteLangevin(), ed.MetropolisHastings())
    assert ed.sample(ebm, both, key=jr.key(0), warmup=2, draws=2, progress=False).stopped is None


X = ed.real("x", 2)


@pytest.mark.parametrize("kernel", [ed.GibbsWithGradients, ed.DiscreteLangevin])
@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"variables": ("t",)}, ValueError, r"'t' is no free variable; .*\['x', 's'\]"),
        ({"variables": ("x",)}, TypeError, r"'x' is real, which has no levels.*by NUTS: ed.Cycle"),
        ({"variables": "s"}, TypeError, "variables='s'; expected names"),
        ({"variables": ("s",)}, ValueError, "leaves out 2 .*names only s"),
        ({}, ValueError, r"leaves out 2 free sites, x\[0\] first: it moves finite sites only"),
    ],
)
def test_what_cannot_be_moved_is_said(kernel, settings, error, message):
    ebm = ed.compile(ed.Model((X**2).sum() - 0.2 * S.sum() * X.sum()))
    with pytest.raises(error, match=message):
        ed.sample(ebm, kernel(**settings), key=jr.key(0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step_size": 0.0}, "step_size=0.0; expected a number above 0"),
        ({"step_size": -1}, "step_size=-1"),
        ({"step_size": "a"}, "step_size='a'"),
        ({"target": 1.0}, "target=1.0; expected a rate between 0 and 1"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=f"DiscreteLangevin got {message}"):
        ed.DiscreteLangevin(**settings)


@pytest.mark.slow
def test_a_cycle_with_reals_leaves_them_to_others():
    """The energy of a point of finite sites is recomputed after reals have moved."""
    ebm = ed.compile(ed.Model(((X - S[:2]) ** 2).sum() + 0.3 * S.sum()))
    cycle = ed.Cycle(ed.GibbsWithGradients(), ed.NUTS(max_tree_depth=2))
    chains = ed.sample(ebm, cycle, key=jr.key(0), warmup=20, draws=20, chains=2, progress=False)
    x, s = (chains.draws[n].astype(float) for n in "xs")
    found = ((x - s[..., :2]) ** 2).sum(-1) + 0.3 * s.sum(-1)
    np.testing.assert_allclose(chains.stats["energy"], found, rtol=1e-4, atol=1e-5)
