"""Compiling: what is refused, what compiles once, and conditionals against the energy itself."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import paramax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

import energydsl as ed
from tests.language.expressions import NAMES, configuration, energies, model_of

RNG = np.random.default_rng(29)


def random(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ("ed.compile(s.sum())", TypeError, r"compile got .*s.sum.*; wrap it: ed.Model"),
        ("ed.compile(3)", TypeError, "compile got 3; wrap it"),
        ("ed.compile(ed.Model(s.sum()).condition(s=1))", ValueError, "Every site is clamped"),
        (
            "ed.compile(ed.Model(s.sum() + x[1]**2))",
            ValueError,
            r"2 sites are in no factor and have no finite list of levels, x\[0\] first.*Give them",
        ),
        (
            "ed.compile(ed.Model(s.sum() + x[1]**2).condition({x[0]: 0.0}))",
            ValueError,
            r"1 sites are in no factor .* x\[2\] first",
        ),
        ("ed.compile(ed.Model(-(x @ x)))", ValueError, "does not rise in every direction"),
        ("ed.compile(ed.Model(x.sum()))", ValueError, "does not rise in every direction"),
        ("ed.compile(ed.Model(0 * x.sum()))", ValueError, "no finite integral"),
        ("ed.compile(ed.Model(((x[1:] - x[:-1])**2).sum()))", ValueError, "does not rise"),
        ("ed.compile(ed.Model(x @ x + 3 * x[0] * x[1]))", ValueError, "check the signs"),
        ("ed.compile(a - 2 * b)", ValueError, "does not rise in every direction"),
    ],
)
def test_what_has_no_law_is_refused(untyped, wrong, error, message):
    s, x = ed.spin("s", 3), ed.real("x", 3)
    names = {"ed": ed, "s": s, "x": x, "a": ed.Model(x @ x), "b": ed.Model((x**2).sum())}
    with pytest.raises(error, match=message):
        eval(wrong, names)


def test_what_has_a_law_compiles():
    x = ed.real("x", 3)
    a, b = ed.Model(x @ x), ed.Model((x**2).sum())
    ed.compile(a - 0.5 * b)
    ed.compile(ed.Model(((x[1:] - x[:-1]) ** 2).sum()).condition({x[0]: 1.0}))
    ed.compile(ed.Model(((x[1:] - x[:-1]) ** 2).sum() + 1e-5 * x[0] ** 2))
    # Ill-conditioned is not improper.
    ed.compile(ed.Model(ed.Quadratic(np.diag([1e-5, 1.0, 1e5]))(x)))


def counted(function):
    """A jitted function, and how often it was traced."""
    traces = []

    @eqx.filter_jit
    def compiled(*arguments):
        traces.append(1)
        return function(*arguments)

    return compiled, traces


def rbm(weight, bias, scale, evidence=None):
    x, h = ed.binary("x", 3), ed.binary("h", 2)
    model = ed.Model(-scale * (x @ weight @ h) - bias @ x + 0.5 * h.sum()) / (1.0 + scale)
    return ed.compile(model if evidence is None else model.condition(evidence))


def test_new_parameter_values_do_not_recompile():
    energy, traces = counted(lambda ebm, x: ebm.energy(x))
    given = {"x": jnp.array([1, 0, 1], jnp.int8), "h": jnp.array([1, 1], jnp.int8)}
    ebm = rbm(random(3, 2), random(3), 0.7)
    first = energy(ebm, given)
    others = [rbm(random(3, 2), random(3), scale) for scale in (0.7, 1.0, 2)]
    assert all(energy(other, given) != first for other in others)
    assert len(traces) == 1
    energy(rbm(random(3, 2), random(3), random()), given)  # a scale that is an array
    assert len(traces) == 2
    for scale in (jnp.asarray(0.5), jnp.float32(0.5), np.asarray(0.5), 0.5 * jnp.ones(())):
        energy(rbm(random(3, 2), random(3), scale), given)
    assert len(traces) == 2


def test_replacing_parameters_does_not_recompile():
    energy, traces = counted(lambda ebm, x: ebm.energy(x))
    log_z, log_z_traces = counted(lambda ebm: ed.log_partition(ebm))
    x, network = ed.binary("x", 3), ed.Neural(eqx.nn.MLP(3, "scalar", 4, 1, key=jr.key(0)))
    J = ed.parameter("J", paramax.Parameterize(jnp.exp, jnp.zeros(())))
    ebm = ed.compile(ed.Model(ed.parameter("b", np.ones(3)) @ x + J * x[0] * x[1] + network(x)))
    other = ed.Neural(eqx.nn.MLP(3, "scalar", 4, 1, key=jr.key(1)))
    changes = {"b": [0, 0, 1], "J": paramax.Parameterize(jnp.exp, jnp.ones(())), "Neural": other}
    given = {"x": jnp.ones(3, jnp.int8)}
    found = [float(energy(ebm.replace({n: v}), given)) for n, v in changes.items()]
    found += [float(energy(ebm, given)), float(energy(ebm.replace(changes), given))]
    zs = [float(log_z(e)) for e in (ebm, ebm.replace(b=[0, 0, 1]), ebm.replace(changes))]
    assert len(set(found)) == 5 and len(set(zs)) == 3
    assert len(traces) == len(log_z_traces) == 1
    assert ebm.replace(b=[0, 0, 1]) is not ebm and ebm.parameters["b"].tolist() == [1, 1, 1]


def test_new_evidence_does_not_recompile():
    energy, traces = counted(lambda ebm, x: ebm.energy(x))
    weight, bias = random(3, 2), random(3)
    given = {"h": jnp.array([1, 1], jnp.int8)}
    values = [
        energy(rbm(weight, bias, 1.0, {"x": x}), given) for x in ([1, 0, 1], [0, 1, 1], [0, 0, 0])
    ]
    assert len(set(map(float, values))) == 3
    assert len(traces) == 1


def test_another_structure_does_recompile():
    energy, traces = counted(lambda ebm: ebm.energy({"s": jnp.ones(3)}))
    s = ed.spin("s", 3)
    for formula in ((s[1:] * s[:-1]).sum(), (s[[1, 2]] * s[[0, 1]]).sum(), s.sum() ** 2):
        energy(ed.compile(ed.Model(formula)))
    assert len(traces) == 3
    functions = [ed.apply(lambda v, k=k: (v**k).sum(), s) for k in (1, 2)]
    assert [int(energy(ed.compile(ed.Model(f)))) for f in functions] == [3, 3]
    assert len(traces) == 5


def test_gradients_through_the_energy():
    ebm = rbm(random(3, 2), random(3), 0.7)
    given = {"x": jnp.array([1, 0, 1]), "h": jnp.array([1, 0])}
    slope = eqx.filter_grad(lambda e: e.energy(given))(ebm)
    expected = -np.outer(given["x"], given["h"]) * 0.7 / 1.7
    np.testing.assert_allclose(slope.model.slots[1], expected, rtol=1e-5)

    x = ed.real("y", 3)
    smooth = ed.compile(ed.Model((x**4).sum() + x @ x))
    at = random(3)
    slope = jax.grad(lambda y: smooth.energy({"y": y}))(at)
    np.testing.assert_allclose(slope, 4 * at**3 + 2 * at, rtol=1e-5)
    np.testing.assert_allclose(smooth.score({"y": at})["y"], -slope, rtol=1e-6)


def test_models_may_be_compiled_inside_a_transformation():
    """A scan over couplings compiles once."""
    traces = []

    def chain(coupling, field):
        traces.append(1)
        s = ed.spin("s", 4)
        return ed.compile(ed.Model(-coupling * (s[1:] * s[:-1]).sum() - field * s.sum()))

    up, down = {"s": jnp.ones(4)}, {"s": -jnp.ones(4)}

    def study(coupling, field):
        ebm = chain(coupling, field)
        law = ebm.conditional("s", up)
        return ebm.energy(up), ebm.log_ratio(up, down), ed.log_partition(ebm), law.logits

    couplings, fields = jnp.array([0.0, 0.3, 1.0]), jnp.array([0.5, 0.0, -0.2])
    found = jax.jit(jax.vmap(study))(couplings, fields)
    assert len(traces) == 1
    for k, (j, h) in enumerate(zip(couplings, fields, strict=True)):
        alone = study(float(j), float(h))
        for a, b in zip(found, alone, strict=True):
            np.testing.assert_allclose(a[k], b, rtol=1e-5, atol=1e-6)


def test_temperature_may_be_swept_in_one_program():
    s = ed.spin("s", 3)
    model = ed.Model(-(s[1:] * s[:-1]).sum())
    temperatures = jnp.array([0.5, 1.0, 4.0])
    log_z = jax.vmap(lambda t: ed.log_partition(ed.compile(model / t)))(temperatures)
    expected = 3 * np.log(2) + 2 * np.log(np.cosh(1 / temperatures))
    np.testing.assert_allclose(log_z, expected, rtol=1e-5)


HELD = [
    {},
    {"b": 1},
    {"s": [1, -1, 1], "c": 2},
    {NAMES["s"][0]: -1, NAMES["c"][::2]: [1, 2]},
]


@settings(deadline=None, max_examples=3, suppress_health_check=[HealthCheck.too_slow])
@given(text=energies(), held=st.sampled_from(HELD), seed=st.integers(0, 2**20))
def test_conditionals_of_random_energies(text, held, seed):
    """What the factors say of one site is what the whole energy says."""
    model = model_of(text)
    ebm = ed.compile(model.condition(held) if held else model, budget=1)
    x = configuration(ebm.model, jr.key(seed))
    energy = jax.jit(ebm.energy)
    for v in ebm.structure.skeleton.free:
        if not v.domain.discrete and ebm.structure.degree_in(v) > 2:
            continue
        try:
            law = ebm.conditional(v.name, x)
        except ValueError as error:
            assert "has no finite integral" in str(error)
            continue
        for site in np.flatnonzero(~ebm.model.skeleton.mask(v)):

            def at(value, v=v, site=site):
                return float(energy({**x, v.name: x[v.name].at[site].set(value)}))

            if v.domain.discrete:
                expected = -np.array([at(int(level)) for level in v.domain.values])
                found = log_softmax(np.asarray(law.logits[site], np.float64))
                atol = 1e-5 * max(1.0, np.abs(expected).max())
                np.testing.assert_allclose(found, log_softmax(expected), rtol=1e-3, atol=atol)
            elif law.scale[site] < 10:
                middle = at(law.loc[site])
                for steps in (-1, 2):
                    rise = at(law.loc[site] + steps * law.scale[site]) - middle
                    atol = 2e-4 * max(1.0, abs(middle))
                    np.testing.assert_allclose(rise, steps**2 / 2, atol=atol)
