"""Finite sites summed out under gradient kernels: marginal energy, draws, and what is refused."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats
from scipy.special import logsumexp

import energydsl as ed
from energydsl._types import Refusal
from energydsl.kernel import summed as summed_module
from energydsl.kernel.choose import choose
from energydsl.kernel.summed import ForestSum, Marginal, PlanSum, sum_of
from tests.kernel.test_invariance import mixed_model, moved, moved_alone
from tests.oracles.enumerate import chisquare_pvalue, count_states

FALSE_ALARM = 1e-6  # chance that a correct kernel fails one of these tests
DRAWS = 40_000
RNG = np.random.default_rng(5)
POINTS = np.array([-2.3, 0.4, 1.1, 3.0, -0.2])
TRANSITIONS = np.array([[0.7, 0.2, 0.1], [0.0, 0.6, 0.4], [0.3, 0.3, 0.4]])
OFFSETS = np.array([-1.0, 0.5, 2.0])
QUIET = {"key": jax.random.key(0), "progress": False, "warmup": 2, "draws": 2, "chains": 2}

normal = ed.LogDensity(dist.Normal)


class Case(NamedTuple):
    """A model with its energy in NumPy, of reals y and finite states z, (states, sites)."""

    model: ed.Model
    y: dict[str, np.ndarray]
    names: dict[str, int]
    levels: list
    energy: Callable[[dict[str, np.ndarray], np.ndarray], np.ndarray]
    kind: type


def labels():
    """A mixture: given the means, the labels are independent. One point has a known label."""
    weights = np.array([0.2, 0.5, 0.3])
    k, mu = ed.categorical("k", 5, levels=3), ed.real("mu", 3)
    model = ed.Model(
        normal(mu, OFFSETS, 1.5)
        + ed.LogDensity(dist.Categorical)(k, weights)
        + normal(POINTS, mu[k], 0.8)
    )

    def energy(y, z):
        prior = scipy.stats.norm(OFFSETS, 1.5).logpdf(y["mu"]).sum()
        seen = scipy.stats.norm(y["mu"][z], 0.8).logpdf(POINTS).sum(1)
        return -(prior + np.log(weights[z]).sum(1) + seen)

    levels = [range(3)] * 3 + [(1,)] + [range(3)]
    y = {"mu": np.array([-1.5, 0.3, 1.7])}
    return Case(model.condition({k[3]: 1}), y, {"k": 5}, levels, energy, ForestSum)


def hidden_chain():
    """A forbidden move, and moves and emissions that depend on a positive site."""
    z, t = ed.categorical("z", 5, levels=3), ed.positive("t")
    with np.errstate(divide="ignore"):
        bonds = -np.log(TRANSITIONS)
    model = ed.Model(
        ed.Table(bonds)(z[:-1], z[1:]).sum()
        + 0.6 * t * (z[:-1] == z[1:]).sum()
        + ed.LogDensity(dist.Gamma)(t, 2.0, 1.0)
        + normal(POINTS, ed.Table(OFFSETS)(z), t)
    )

    def energy(y, z):
        moves = bonds[z[:, :-1], z[:, 1:]] + 0.6 * y["t"] * (z[:, :-1] == z[:, 1:])
        seen = scipy.stats.norm(OFFSETS[z], y["t"]).logpdf(POINTS).sum(1)
        return moves.sum(1) - scipy.stats.gamma(2.0).logpdf(y["t"]) - seen

    return Case(model, {"t": np.array(0.7)}, {"z": 5}, [range(3)] * 5, energy, ForestSum)


def branches():
    """A tree of two domains, with branches below its root, and fields that are sites."""
    left, right = np.array([0, 0, 0, 1, 4, 4]), np.array([3, 1, 4, 2, 5, 6])
    weights, table = RNG.normal(size=6), RNG.normal(size=(2, 3))
    s, c, x = ed.spin("s", 7), ed.categorical("c", levels=3), ed.real("x", 7)
    model = ed.Model(
        (weights * s[left] * s[right]).sum() + x @ s + ed.Table(table)(s[5], c) + (x**4).sum()
    )

    def energy(y, z):
        s, c = z[:, :7], z[:, 7]
        pairs = (weights * s[:, left] * s[:, right]).sum(1)
        return pairs + s @ y["x"] + table[(s[:, 5] + 1) // 2, c] + (y["x"] ** 4).sum()

    y = {"x": RNG.normal(size=7)}
    return Case(model, y, {"s": 7, "c": 1}, [(-1, 1)] * 7 + [range(3)], energy, ForestSum)


def ring():
    """A cycle, which is no forest, and a clamped real site."""
    s, x = ed.spin("s", 5), ed.real("x", 5)
    bonds = RNG.normal(size=5)
    model = ed.Model(
        (bonds * s * ed.roll(s, 1)).sum() + ((x - 0.5 * s) ** 2).sum() + (x**4).sum()
    ).condition({x[2]: 0.4})

    def energy(y, z):
        pairs = (bonds * z * np.roll(z, 1, axis=1)).sum(1)
        return pairs + ((y["x"] - 0.5 * z) ** 2).sum(1) + (y["x"] ** 4).sum()

    y = {"x": np.array([0.3, -0.8, 0.4, 1.1, 0.1])}
    return Case(model, y, {"s": 5}, [(-1, 1)] * 5, energy, PlanSum)


CASES = {f.__name__: f() for f in (labels, hidden_chain, branches, ring)}
by_name = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def states_of(case):
    return np.array(list(itertools.product(*case.levels)))


def marginal(case, y):
    return -logsumexp(-case.energy(y, states_of(case)))


def configuration(case, z):
    """The configuration with the finite states z, (..., site)."""
    x, start = {n: jnp.asarray(a, float) for n, a in case.y.items()}, 0
    for v in case.model.skeleton.free:
        if size := case.names.get(v.name):
            part = z[..., start : start + size]
            x[v.name] = jnp.asarray(part.reshape((*z.shape[:-1], *v.shape)), v.domain.dtype)
            start += size
    return x


@by_name
def test_the_marginal_energy_and_its_slope(case):
    """F by visiting every state; its slope by differences of that, in float64."""
    ebm = ed.compile(case.model)
    found = sum_of(ebm)
    assert isinstance(found, case.kind)
    x = configuration(case, states_of(case)[-1])
    of = eqx.filter_jit(lambda y, e, s: Marginal(e, s).energy(x | y))
    value, slope = jax.value_and_grad(of)({n: x[n] for n in case.y}, ebm, found)
    assert value == pytest.approx(marginal(case, case.y), rel=1e-5)
    for name, at in case.y.items():
        held = case.model.skeleton.mask(next(v for v in case.model.variables if v.name == name))
        for place in np.ndindex(at.shape):
            step = np.zeros(at.shape)
            step[place] = 1e-5
            ends = [marginal(case, case.y | {name: at + sign * step}) for sign in (1, -1)]
            expected = 0.0 if held[place] else (ends[0] - ends[1]) / 2e-5
            assert slope[name][place] == pytest.approx(expected, rel=1e-3, abs=1e-4)


@by_name
def test_the_finite_sites_are_drawn_exactly(case):
    ebm = ed.compile(case.model)
    states = states_of(case)
    x = configuration(case, states[-1])
    xs = jax.tree.map(lambda a: jnp.broadcast_to(a, (DRAWS, *a.shape)), x)
    draw = eqx.filter_jit(lambda s, e, xs, k: s.draw(e, xs, key=k))
    after = draw(sum_of(ebm), ebm, xs, jax.random.key(1))
    assert all(np.array_equal(after[n], xs[n]) for n in case.y)
    assert all(after[n].dtype == xs[n].dtype for n in xs)
    drawn = np.concatenate([np.asarray(after[n]).reshape(DRAWS, -1) for n in case.names], axis=1)
    energies = case.energy(case.y, states)
    law = np.exp(-energies - logsumexp(-energies))
    counts = count_states(drawn.astype(int), states)
    assert chisquare_pvalue(counts, law, DRAWS) > FALSE_ALARM


@pytest.mark.parametrize(
    "kernel",
    [
        ed.Langevin(step_size=0.5, summed=True),
        pytest.param(ed.NUTS(step_size=0.5, max_tree_depth=3, summed=True), marks=pytest.mark.slow),
        pytest.param(
            ed.Cycle(ed.Langevin(step_size=0.5, summed=True), ed.Gibbs()), marks=pytest.mark.slow
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "mover",
    [pytest.param(moved, id="together"),
     pytest.param(moved_alone, id="alone", marks=pytest.mark.slow)],
)  # fmt: skip
def test_a_mixed_law_is_left_invariant(kernel, mover):
    model, law, weights, xs = mixed_model()
    after = mover(ed.compile(model), kernel, xs)
    assert all(np.mean(np.asarray(after[n] != xs[n])) > 0.2 for n in xs)
    bits = np.asarray(after["h"]).astype(int)
    assert chisquare_pvalue(count_states(bits, law.states), law.probs, DRAWS) > FALSE_ALARM
    residual = np.asarray(after["y"]) - bits @ weights
    assert scipy.stats.kstest(residual, "norm").pvalue > FALSE_ALARM


@pytest.mark.slow
def test_chains_tell_the_joint_energy_and_resume_alike(tmp_path):
    case = CASES["labels"]
    ebm, kernel = ed.compile(case.model), ed.Langevin(summed=True)
    whole = ed.sample(ebm, kernel, **QUIET | {"draws": 12})
    expected = jax.vmap(jax.vmap(ebm.energy))({n: jnp.asarray(a) for n, a in whole.draws.items()})
    assert np.allclose(whole.stats["energy"], expected, rtol=1e-5)
    assert (whole.draws["k"][..., 3] == 1).all()
    ed.sample(ebm, kernel, **QUIET | {"draws": 5}, checkpoint=tmp_path)
    resumed = ed.sample(ebm, kernel, **QUIET | {"draws": 12}, checkpoint=tmp_path)
    assert all(np.array_equal(whole.draws[n], resumed.draws[n]) for n in whole.draws)


def test_labels_are_summed_out_by_default():
    ebm = ed.compile(CASES["labels"].model * 1.0 + ed.Model((ed.real("mu", 3) ** 4).sum()))
    kernel, reason = choose(ebm)
    assert kernel == ed.NUTS(summed=True)
    assert reason.startswith("its discrete sites are summed out exactly, as trees, and drawn")
    said = ebm.explain().as_dict()["samplers"]
    assert next(iter(said.items())) == ("NUTS(summed=True)", reason)


def test_a_ring_is_summed_by_a_rule_for_log_z(monkeypatch):
    ebm = ed.compile(CASES["ring"].model)
    said = ebm.explain().as_dict()
    assert "by enumeration of 1 component" in said["samplers"]["NUTS(summed=True)"]
    monkeypatch.setattr(summed_module, "MAX_OPERATIONS", 10.0)
    refused = sum_of(ebm)
    assert isinstance(refused, Refusal)
    assert "operations in each gradient, by enumeration of 1 component; at most 10" in str(refused)


@pytest.mark.parametrize(
    ("energy", "reason"),
    [
        (lambda: -ed.spin("s", 3).sum(), "leaves out 3 free sites, .*no free site is continuous"),
        (
            lambda: (ed.real("y") - (v := ed.spin("v", (9, 9))).sum()) ** 2
            + (v[1:] * v[:-1]).sum() + ed.real("y") ** 4,
            "leaves out 81 free sites, .*cannot be summed out",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_summed_out_is_refused(energy, reason):
    with pytest.raises(ValueError, match=reason):
        ed.sample(ed.compile(ed.Model(energy())), ed.NUTS(summed=True), **QUIET)


def test_a_model_without_discrete_sites_has_nothing_to_sum():
    ebm = ed.compile(ed.Model((ed.real("y") ** 4).sum()))
    with pytest.raises(TypeError, match=r"NUTS.*does not apply: no free site is discrete with"):
        ed.sample(ebm, ed.NUTS(summed=True), **QUIET)
    refused = ebm.explain().as_dict()["samplers_refused"]
    assert "no free site is discrete" in refused["NUTS(summed=True)"]


@pytest.mark.usefixtures("untyped")
def test_the_setting_is_true_or_false():
    settings: dict[str, Any] = {"summed": "k"}
    with pytest.raises(TypeError, match="Langevin got summed='k'; expected True or False"):
        ed.Langevin(**settings)


def test_the_move_and_the_draw_have_keys_of_their_own(monkeypatch):
    """In the runs of all chains, and of one chain within other kernels."""
    seen = []

    def record(owner, name):
        real = getattr(owner, name)

        def recorded(self, *arguments, **settings):
            seen.append(settings.get("key", arguments[0]))
            return real(self, *arguments, **settings)

        monkeypatch.setattr(owner, name, recorded)

    k, y = ed.categorical("k", 3, levels=2), ed.real("y", 3)
    ebm = ed.compile(ed.Model(((y - k) ** 2).sum()))
    kernel, key = ed.Langevin(summed=True), jax.random.key(3)
    x = ebm.start(key=key)
    xs = jax.tree.map(lambda a: a[None], x)
    ensemble, state = kernel.ensemble(ebm), kernel.init(ebm, x, key=key, warmup=0)
    carry = ensemble.start(ebm, xs, key=key, warmup=0)
    record(ed.Langevin, "randoms")
    record(type(ensemble.sum), "draw")
    ensemble.advance(ebm, None, carry, key=key)
    kernel.step(ebm, x, state, key=key)
    assert len(seen) == 4
    for pair in (seen[:2], seen[2:]):
        assert len({tuple(jax.random.key_data(k).tolist()) for k in [key, *pair]}) == 3
