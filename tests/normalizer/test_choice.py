"""log Z by independence and enumeration against NumPy's sum over all states."""

import dataclasses
import itertools
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import energydsl as ed
from energydsl.analysis.evaluation import as_double
from energydsl.language.domain import Positive
from tests.language.expressions import FINITE, energies, model_of
from tests.normalizer.rules import plans, reason, value
from tests.oracles.enumerate import exact_law
from tests.sweep.cases import CASES

RNG = np.random.default_rng(23)


def random(*shape):
    return np.float32(RNG.normal(size=shape))


def law_of(ebm):
    """The law by NumPy's sum, and its states as a batch of configurations."""
    free = ebm.structure.skeleton.free
    held = {v.name: ebm.model.skeleton.mask(v).ravel() for v in free}
    levels = [
        # What a clamped site holds in a configuration is ignored: once is enough.
        v.domain.values[:1] if held[v.name][k] else v.domain.values
        for v in free
        for k in range(v.size)
    ]
    starts = np.cumsum([0, *(v.size for v in free)])

    def batch(states):
        parts = zip(free, starts, starts[1:], strict=False)
        return {v.name: states[:, a:b].reshape(-1, *v.shape) for v, a, b in parts}

    def energy(states):
        with jax.enable_x64(True):
            return np.asarray(jax.jit(jax.vmap(as_double(ebm.model).energy))(batch(states)))

    law = exact_law(energy, levels)
    return law, batch(law.states)


def by_enumeration(ebm):
    """log Z by the rule itself, whatever the compiler chose."""
    return value(ebm, "enumeration")


def check(model, **options):
    ebm = ed.compile(model, **options)
    expected = law_of(ebm)[0].log_z
    found = ed.log_partition(ebm)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(by_enumeration(ebm), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_log_z_of_energies_written_a_second_time_in_numpy(case):
    ebm = ed.compile(case.model)
    expected = exact_law(case.energy, case.levels).log_z
    # The model's numbers are float32, the formula's float64.
    np.testing.assert_allclose(ed.log_partition(ebm), expected, rtol=1e-6)
    np.testing.assert_allclose(ed.log_partition(ebm), by_enumeration(ebm), rtol=1e-12)


S, B, C = ed.spin("s", (2, 2)), ed.binary("b", 3), ed.categorical("c", 2, levels=4)
N = ed.integer("n", 2, low=-1, high=2)
ENERGIES = {
    "field": random(2, 2) @ S[0] + (random(2) * S[1]).sum(),
    "one site": 0.7 * ed.spin("t"),
    "one level": ed.categorical("k", levels=1) * 1.5 + B.sum(),
    "pairs": S[0] @ random(2, 2) @ S[1],
    "bits": B @ random(3, 3) @ B + random(3) @ B,
    "labels": ed.Table(random(2, 4))(C).sum() + 0.5 * (C[0] == C[1]),
    "integers": 0.3 * (N[0] - N[1]) ** 2 + 0.1 * N.sum(),
    "components": S[0, 0] * S[0, 1] + 0.4 * B[0] * B[1] - B[2] + (C == 1).sum() + N[0] * N[1],
    "all together": ed.exp(0.1 * S.sum() + 0.2 * B.sum()) + ed.Table(random(4, 4))(C[0], N[1]),
    "uncovered sites": S[0, 0] * 1.0 + B[1] * B[2] + 0.0 * C[0],
    "constants": S.sum() + 3.0 + ed.exp(0.5) * 2,
    "forbidden": ed.Table(log_potential=np.where(np.eye(4), -np.inf, 0.5))(C[0], C[1]) + 0.1 * C[0],
}


@pytest.mark.parametrize("name", ENERGIES)
def test_log_z_is_the_sum_over_all_states(name):
    check(ed.Model(ENERGIES[name] if not ENERGIES[name].shape else ENERGIES[name].sum()))


@pytest.mark.parametrize("name", ["pairs", "bits", "labels", "integers", "components"])
def test_log_z_of_a_conditioned_model(name):
    model = ed.Model(ENERGIES[name])
    v = model.variables[-1]
    view = ed.variable(v.name, v.domain, v.shape)
    check(model.condition({view[(0,) * len(v.shape)]: v.domain.values[-1]}))
    if len(model.variables) > 1:
        check(model.condition({v.name: np.full(v.shape, v.domain.values[0])}))


@settings(deadline=None, max_examples=5, suppress_health_check=[HealthCheck.too_slow])
@given(text=energies(FINITE), held=st.sampled_from([{}, {"s": [1, -1, -1]}, {"b": 1, "c": 2}]))
def test_log_z_of_random_energies(text, held):
    model = model_of(text)
    check(model.condition(held) if held else model)


def test_parts_of_a_free_energy():
    """log p(v) = log Z(v held) - log Z."""
    x, h = ed.binary("x", 3), ed.binary("h", 4)
    model = ed.Model(-(x @ random(3, 4) @ h) - random(3) @ x - random(4) @ h)
    log_z = ed.log_partition(ed.compile(model))
    parts = [
        ed.log_partition(ed.compile(model.condition(x=list(v))))
        for v in itertools.product((0, 1), repeat=3)
    ]
    np.testing.assert_allclose(np.logaddexp.reduce(parts), log_z, rtol=1e-12)


def test_probabilities_sum_to_one():
    ebm = ed.compile(ed.Model(ENERGIES["components"]).condition({S[1]: [1, -1]}))
    _, xs = law_of(ebm)
    total = np.exp(np.asarray(jax.vmap(ebm.log_prob)(xs), np.float64)).sum()
    np.testing.assert_allclose(total, 1.0, rtol=1e-5)


def moments(ebm):
    """-E[dE/dparameter] by enumeration, for each learnable array."""
    law, xs = law_of(ebm)
    learnt, rest = eqx.partition(ebm.model, eqx.is_inexact_array)
    each = jax.vmap(jax.grad(lambda p, x: eqx.combine(p, rest).energy(x)), (None, 0))(learnt, xs)
    return [-np.tensordot(law.probs, np.asarray(g, np.float64), 1) for g in jax.tree.leaves(each)]


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("name", ["field", "bits", "components", "all together", "constants"])
def test_the_gradient_of_log_z_is_minus_the_mean_of_the_energys(name, compiled):
    energy = ENERGIES[name] if not ENERGIES[name].shape else ENERGIES[name].sum()
    ebm = ed.compile(ed.Model(energy))
    slope = eqx.filter_grad(ed.log_partition)
    found = (eqx.filter_jit(slope) if compiled else slope)(ebm)
    found = jax.tree.leaves(eqx.filter(found.model, eqx.is_inexact_array))
    expected = moments(ebm)
    assert len(found) == len(expected)
    for f, e in zip(found, expected, strict=True):
        assert f.dtype == np.float32
        np.testing.assert_allclose(f, e, rtol=1e-4, atol=1e-6)


def chain(coupling):
    s = ed.spin("s", 4)
    return ed.compile(ed.Model(-coupling * (s[1:] * s[:-1]).sum()))


def test_derivatives_of_a_chain_in_closed_form():
    """log Z = 4 log 2 + 3 log cosh J."""

    def log_z(j):
        return ed.log_partition(chain(j))

    js = jnp.array([-0.5, 0.3, 1.2])
    np.testing.assert_allclose(
        jax.vmap(log_z)(js), 4 * np.log(2) + 3 * np.log(np.cosh(js)), rtol=1e-6
    )
    np.testing.assert_allclose(jax.vmap(jax.grad(log_z))(js), 3 * np.tanh(js), rtol=1e-5)
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.grad(log_z)))(js), 3 * np.tanh(js), rtol=1e-5)
    curvature = jax.vmap(jax.hessian(log_z))(js)
    np.testing.assert_allclose(curvature, 3 / np.cosh(js) ** 2, rtol=1e-4)
    _, tangent = jax.jvp(log_z, (0.3,), (2.0,))
    np.testing.assert_allclose(tangent, 6 * np.tanh(0.3), rtol=1e-5)


def test_log_z_is_a_numpy_float64_that_arithmetic_keeps():
    first, second = ed.log_partition(chain(0.3)), ed.log_partition(chain(0.4))
    difference = second - first
    assert difference.dtype == np.float64
    exact = 3 * np.log(np.cosh(np.float64(np.float32(0.4))) / np.cosh(np.float64(np.float32(0.3))))
    np.testing.assert_allclose(difference, exact, rtol=1e-12)
    assert jax.jit(lambda j: ed.log_partition(chain(j)) * 2)(0.3).dtype == np.float32


def test_evidence_that_forbids_everything_has_log_z_of_minus_infinity():
    never = ed.Model(ed.Table(np.full((2, 2), np.inf))(B[0], B[1]) + 0.0 * B[2])
    assert ed.log_partition(ed.compile(never)) == -np.inf


def test_new_values_are_no_new_program(caplog):
    def compiled_programs(j):
        caplog.clear()
        with jax.log_compiles(True):
            ed.log_partition(chain(j))
        return sum("Finished XLA compilation" in r.message for r in caplog.records)

    compiled_programs(0.1)
    assert compiled_programs(0.2) == 0
    assert compiled_programs(jnp.float32(0.3)) > 0  # another structure: this one is learnt


def test_a_component_over_budget_is_intractable_with_its_reason():
    s = ed.spin("s", 12)
    ebm = ed.compile(ed.Model(s @ random(12, 12) @ s), budget=10)
    assert isinstance(ebm.normalizer, ed.Intractable)
    assert "2^12 states; budget 2^10" in ebm.normalizer.reason
    assert "12 sites are connected" in ebm.normalizer.reason
    with pytest.raises(ed.IntractableError, match=r"2\^12 states; budget 2\^10"):
        ed.log_partition(ebm)
    with pytest.raises(ed.IntractableError, match="budget"):
        ebm.log_prob({"s": np.ones(12)})
    assert isinstance(ed.compile(ebm.model, budget=12).normalizer, ed.Exact)


def test_the_largest_component_decides():
    s, t = ed.spin("s", 12), ed.spin("t", 3)
    ebm = ed.compile(ed.Model(s @ random(12, 12) @ s + t @ random(3, 3) @ t), budget=10)
    assert "2^12" in ebm.normalizer.reason


def test_a_site_that_is_not_finite_is_named():
    x, s = ed.real("x", 2), ed.spin("s", 2)
    ebm = ed.compile(ed.Model((x**4).sum() + x[1] * s[0] + ed.exp(x.sum() * s.sum())))
    assert "x[0] has no finite list of levels" in reason(ebm, "enumeration")


def test_many_independent_sites_are_fast():
    n = 10**5
    fields = RNG.normal(size=n).astype(np.float32)
    s = ed.spin("s", n)
    began = time.process_time()
    ebm = ed.compile(ed.Model(fields @ s))
    found = ed.log_partition(ebm)
    seconds = time.process_time() - began
    expected = np.logaddexp(np.float64(fields), -np.float64(fields)).sum()
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert "independent of 100,000 components" in str(ebm.normalizer)
    assert ebm.normalizer.operations < 1e7
    assert seconds < 30  # a loop over sites takes minutes


def test_many_small_components_are_enumerated_side_by_side():
    n = 3000
    w = random(n)
    s = ed.spin("s", (n, 3))
    ebm = ed.compile(ed.Model((w * s[:, 0] * s[:, 1] * s[:, 2]).sum()))
    expected = (3 * np.log(2) + np.log(np.cosh(np.float64(w)))).sum()
    np.testing.assert_allclose(ed.log_partition(ebm), expected, rtol=1e-12)


def test_equal_plans_are_one_program_and_others_are_not():
    one, other = (ed.compile(ed.Model(0.1 * S.sum())) for _ in range(2))
    assert one.normalizer == other.normalizer
    assert plans(one, "enumeration") != one.normalizer


@dataclasses.dataclass(frozen=True)
class Exponential(ed.AbstractRule):
    """Sites x > 0, each alone with an energy r x: Z = 1/r, times `scale` for a test."""

    name = "exponential"
    scale: float = 1.0

    def offer(self, structure):
        alone = structure.component_sizes == 1
        for v in structure.variables:
            if not isinstance(v.domain, Positive) or structure.degree_in(v) > 1:
                sites = structure.of_variables([v.name]) & structure.free
                alone[structure.component_of[sites]] = False
        return ed.Offer(
            operations=np.where(alone, 1.0, np.inf),
            reason=lambda component: "not linear in one positive site",
            plan=lambda components: (self.plan(structure, components),),
        )

    def plan(self, structure, components):
        inside = jnp.asarray(np.isin(structure.component_of, components))
        return ExponentialPlan(
            rule=self,
            structure=structure,
            components=jnp.asarray(components),
            operations=float(len(components)),
            bytes=8.0 * structure.sites,
            inside=inside,
        )


class ExponentialPlan(ed.AbstractPlan):
    inside: jax.Array

    def log_partition(self, model, fields=None):
        slope = jax.grad(model.energy_of)({v.name: jnp.ones(v.shape) for v in model.variables})
        rates = jnp.concatenate([slope[v.name].ravel() for v in model.variables])
        logs = jnp.log(self.rule.scale) - jnp.log(rates)
        return jnp.where(self.inside, logs, 0.0).sum()


def test_a_rule_of_ones_own_is_tried_beside_the_librarys(untyped):
    x, y = ed.positive("x", 3), ed.real("y")
    model = ed.Model((jnp.array([1.0, 2.0, 3.0]) * x).sum() + 0.5 * y**2)
    ebm = ed.compile(model, rules=[Exponential()])
    assert [p.rule.name for p in ebm.normalizer.plans] == ["exponential", "gaussian"]
    expected = -np.log(6.0) + np.log(2 * np.pi) / 2
    assert float(ed.log_partition(ebm)) == pytest.approx(expected, rel=1e-12)
    assert "not exponential" in str(ed.compile(ed.Model(y**2 / 2), rules=[Exponential()]).explain())
    with pytest.raises(TypeError, match="rule 'mine'"):
        ed.compile(model, rules=["mine"])


def test_rules_are_told_apart_by_their_settings_and_their_code():
    model = ed.Model(2.0 * ed.positive("x"))
    values = {}

    @dataclasses.dataclass(frozen=True)
    class Again(Exponential):
        """A rule written anew under the old name."""

    for rule in (Exponential(), Exponential(3.0), Again(5.0), Exponential()):
        ebm = ed.compile(model, rules=[rule])
        values[rule] = float(ed.log_partition(ebm))
        assert values[rule] == pytest.approx(np.log(rule.scale / 2), rel=1e-6)
        jitted = eqx.filter_jit(ed.log_partition)(ebm)
        assert jitted == pytest.approx(np.log(rule.scale / 2), rel=1e-6)
    first, second = (ed.compile(model, rules=[Exponential(s)]) for s in (1.0, 3.0))
    assert first.conclusions != second.conclusions
    assert first.conclusions == ed.compile(model, rules=[Exponential(1.0)]).conclusions


def test_a_rule_whose_settings_cannot_be_compared_is_refused():
    rule = Exponential(np.ones(2))
    with pytest.raises(TypeError, match="settings that cannot be compared"):
        ed.compile(ed.Model(2.0 * ed.positive("x")), rules=[rule])
