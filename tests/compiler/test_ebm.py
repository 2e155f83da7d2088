"""The EBM's own functions, beyond what its parts' tests show."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energydsl as ed
from tests.oracles.enumerate import exact_law
from tests.sweep.cases import CASES, pack


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_log_prob_sums_to_one_over_a_batch(wrap):
    case = CASES[0]
    ebm = ed.compile(case.model)
    law = exact_law(case.energy, case.levels)
    log_probs = wrap(jax.vmap(ebm.log_prob))(pack(case.model, law.states))
    np.testing.assert_allclose(jnp.exp(log_probs).sum(), 1.0, rtol=1e-5)
    np.testing.assert_allclose(np.exp(log_probs), law.probs, rtol=1e-4)


def test_log_ratio_needs_no_normalizer():
    s = ed.spin("s", (60, 60))
    ebm = ed.compile(
        ed.Model(-0.5 * (s * ed.roll(s, 1, 0)).sum() - 0.5 * (s * ed.roll(s, 1, 1)).sum())
    )
    up, down = np.ones((60, 60), int), np.ones((60, 60), int)
    down[0] = -1
    assert float(ebm.log_ratio({"s": up}, {"s": down})) == pytest.approx(120.0)
    with pytest.raises(ed.IntractableError, match=r"enumeration: 2\^3600 states; budget 2\^20"):
        ebm.log_prob({"s": up})


def test_the_score_is_minus_the_gradient():
    y, s = ed.real("y", 3), ed.spin("s")
    ebm = ed.compile(ed.Model(0.5 * (y**2).sum() - 2.0 * s * y[0]))
    score = ebm.score({"y": np.array([1.0, 2.0, 3.0]), "s": np.array(1)})
    np.testing.assert_allclose(score["y"], [1.0, -2.0, -3.0], rtol=1e-6)
    spins = ed.compile(ed.Model(-s * 0.3))
    with pytest.raises(TypeError, match="every free variable is discrete"):
        spins.score({"s": np.array(1)})


def test_conditionals_of_views():
    c, y = ed.categorical("c", 2, levels=3), ed.real("y", 2)
    table = np.array([0.0, 1.0, -0.5])
    model = ed.Model(ed.Table(table)(c).sum() + (y**2).sum() - 1.5 * ((c[0] == 2) * y[0]))
    ebm = ed.compile(model)
    x = {"c": np.array([2, 0]), "y": np.array([0.4, 0.0])}
    law = ebm.conditional(c[0], x)
    weights = np.exp(-table + np.array([0, 0, 1.5 * 0.4]))
    np.testing.assert_allclose(law.probs, weights / weights.sum(), rtol=1e-5)
    normal = ebm.conditional("y", x)
    np.testing.assert_allclose(normal.loc, [0.75, 0.0], atol=1e-6)
    np.testing.assert_allclose(normal.scale, np.sqrt([0.5, 0.5]), rtol=1e-6)
    with pytest.raises(ValueError, match="free variables are"):
        ebm.conditional("q", x)
    quartic = ed.compile(ed.Model((y**4).sum()))
    with pytest.raises(TypeError, match="no known family"):
        quartic.conditional(y[0], {"y": np.zeros(2)})
    s = ed.spin("s")
    falling = ed.compile(ed.Model((s * y**2).sum() + 0.5 * (y**2).sum()))
    with pytest.raises(ValueError, match=r"of y has no finite integral: .* at 2 of 2 sites"):
        falling.conditional("y", {"y": np.zeros(2), "s": -1})
    rising = falling.conditional("y", {"y": np.zeros(2), "s": 1})
    np.testing.assert_allclose(rising.scale, 3**-0.5, rtol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), pytest.param((3, 1), marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize(
    "formula",
    [
        "ed.tanh(s @ W).sum()",
        "ed.apply(lambda v: jnp.tanh(v.sum() + 0.3) ** 2, s)",
        "ed.Table(T)(s, s.T).sum()",
        "ed.Table(np.stack([T, 2 * T, T.T][: s.shape[-1]]))(s, s[:1]).sum()",
        "ed.Table(T)(s[..., :1], s).sum() + (s.mean() * s[:1]).sum() ** 2",
    ],
)
def test_conditionals_of_variables_with_axes_of_length_one(formula, shape):
    s = ed.spin("s", shape)
    table = np.array([[0.3, -0.2], [1.0, 0.1]], np.float32)
    weights = np.linspace(-1, 1, 2 * shape[-1], dtype=np.float32).reshape(-1, 2)
    model = ed.Model(eval(formula, {"s": s, "T": table, "W": weights, **globals()}))
    ebm = ed.compile(model)
    x = np.resize([1, -1, -1], shape)
    law = ebm.conditional("s", {"s": x})
    for at in np.ndindex(shape):
        y = np.stack([x, x])
        y[(0, *at)], y[(1, *at)] = -1, 1
        energies = [float(model.energy({"s": one})) for one in y]
        expected = np.exp(-np.array(energies))
        np.testing.assert_allclose(law.probs[at], expected / expected.sum(), rtol=1e-5)
    ed.sample(ebm, ed.Gibbs(), key=jax.random.key(0), chains=2, warmup=0, draws=1, progress=False)


def test_a_conditional_beside_a_forbidden_pair():
    a, e = ed.categorical("a", levels=3), ed.categorical("e", levels=3)
    table = np.zeros((3, 3), np.float32)
    table[0, 1] = -np.inf
    ebm = ed.compile(ed.Model(ed.Table(log_potential=table)(a, e)))
    probs = ebm.conditional("a", {"a": 1, "e": 1}).probs
    np.testing.assert_allclose(probs, [0, 0.5, 0.5], rtol=1e-6)

    table[:, 1] = -np.inf
    ebm = ed.compile(ed.Model(ed.Table(log_potential=table)(a, e)))
    with pytest.raises(ValueError, match="The conditional of a has no level that is allowed"):
        ebm.conditional("a", {"a": 1, "e": 1})


def test_clamped_real_sites_are_explained_beside_discrete_ones_that_interact():
    r, d = ed.real("r", 3), ed.binary("d", 3)
    model = ed.Model((r**2).sum() / 2 - (r * d).sum() - 0.3 * (d[1:] * d[:-1]).sum())
    held = ed.compile(model.condition(r=np.array([0.1, 0.2, 0.3])))
    assert held.explain().as_dict()["values"] == ["attractive"]
    partly = ed.compile(model.condition({r[:2]: np.array([0.1, 0.2])}).condition({r[2]: 0.3}))
    assert partly.explain().as_dict()["values"] == ["attractive"]


@pytest.mark.parametrize(
    "x, message",
    [
        ({"s": np.ones(2)}, r"dtype float64.*convert it"),
        ({"s": np.array([1, 0, -1])}, r"shape \(3,\); expected \(2,\)"),
        ({"s": np.array([1, 0])}, r"outside spin in 1 of 2 places.*first at \(1,\)"),
        ({}, r"lacks \['s'\]"),
        ({"s": np.ones(2, int), "t": np.ones(2)}, r"unknown \['t'\]"),
    ],
)
def test_a_bad_configuration_is_explained(x, message):
    ebm = ed.compile(ed.Model(-ed.spin("s", 2).sum()))
    with pytest.raises((ValueError, TypeError), match=message):
        ebm.check(x)


def test_explain_is_a_table_and_data():
    s = ed.spin("s", (4, 2))
    ebm = ed.compile(ed.Model(-0.3 * (s[1:] * s[:-1]).sum()))
    text, data = str(ebm.explain()), ebm.explain().as_dict()
    assert "2 alike, each of 4 sites of spin" in text and "of 2 components" in text
    assert data["components"][0]["forest"] and data["interactions"] == 6
    assert next(iter(data["samplers"])) == "Gibbs"


def test_unbounded_quadratics_are_refused_at_compile():
    y = ed.real("y", 2)
    with pytest.raises(ValueError, match="does not rise in every direction"):
        ed.compile(ed.Model(0.5 * y[0] ** 2 - 0.5 * y[1] ** 2))
    with pytest.raises(ValueError, match="does not rise in every direction"):
        ed.compile(ed.Model((y[0] - y[1]) ** 2))
    a, b = ed.Model(0.5 * (y**2).sum()), ed.Model((y**2).sum())
    with pytest.raises(ValueError, match="does not rise in every direction"):
        ed.compile(a - 0.6 * b)
    ed.compile(a - 0.4 * b)


def test_one_entry_of_a_simplex_is_a_law_of_all():
    c = ed.simplex("c", (2, 3))
    ebm = ed.compile(ed.Model(c[0, 1] + 2.0 * c[1, 2]))
    assert ebm.structure.covered.all() and ebm.structure.component_sizes.tolist() == [3, 3]
    with pytest.raises(ValueError, match=r"3 sites are in no factor.*c\[1, 0\] first"):
        ed.compile(ed.Model(1.0 * c[0, 1]))


def test_sites_without_factors():
    y, s = ed.real("y", 3), ed.spin("s", 3)
    with pytest.raises(ValueError, match=r"2 sites are in no factor.*y\[1\] first"):
        ed.compile(ed.Model(y[0] ** 2))
    ebm = ed.compile(ed.Model(-0.5 * s[0]))
    np.testing.assert_allclose(ed.log_partition(ebm), np.log(2 * np.cosh(0.5) * 4), rtol=1e-6)
