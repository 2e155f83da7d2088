"""Models: parameters, the algebra of energies, conditioning, equality, printing."""

import copy
import pickle
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import paramax
import pytest

import energydsl as ed

RNG = np.random.default_rng(11)


def slopes(model, x):
    return eqx.filter_grad(lambda m: m.energy(x))(model).parameters


def random(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


class TestParameters:
    def test_a_parameter_used_twice_is_one_leaf(self):
        x, y = ed.binary("x", 3), ed.binary("y", 3)
        b = ed.parameter("b", np.ones(3))
        model = ed.Model(b @ x + (b * y).sum() + ed.Linear(b)(x))
        assert list(model.parameters) == ["b"] and model.parameter_count == 3
        slope = slopes(model, {"x": [1, 0, 1], "y": [1, 1, 0]})
        np.testing.assert_allclose(slope["b"], [3, 1, 2])

    def test_equal_arrays_are_two_parameters_and_one_array_of_two_potentials_is_one(self):
        x, b = ed.binary("x", 3), random(3)
        model = ed.Model(ed.Linear(np.ones(3))(x), ed.Linear(np.ones(3))(x))
        assert list(model.parameters) == ["Linear.bias", "Linear_2.bias"]
        assert list(ed.Model(ed.Linear(b)(x), ed.Linear(b)(x)).parameters) == ["Linear.bias"]
        # What a potential owns learns, where the same array beside it is data.
        assert ed.Model(ed.Linear(b)(x), b @ x).parameter_count == 3

    def test_the_tie_survives_the_algebra(self):
        b, x = ed.parameter("b", random(3)), ed.binary("x", 3)
        expert = ed.Model(b @ x)
        model = (expert + ed.Model(b @ x) * 2 - expert / 4) + expert
        assert list(model.parameters) == ["b"]
        np.testing.assert_allclose(slopes(model, {"x": [1, 1, 0]})["b"], [3.75, 3.75, 0])

    def test_a_network_in_two_models_that_are_added_is_one(self):
        f = ed.Neural(eqx.nn.MLP(3, "scalar", 4, 1, key=jr.key(0)))
        x, y = ed.real("x", 3), ed.real("y", 3)
        assert list((ed.Model(f(x)) + ed.Model(f(y))).parameters) == ["Neural"]

    def test_potentials_of_one_array_and_other_settings_are_two(self):
        class Power(ed.AbstractPotential):
            weight: jax.Array
            power: int = eqx.field(static=True)

            def energy(self, x):
                return (self.weight * x**self.power).sum()

        x, w = ed.real("x", 3), random(3)
        model = ed.Model(Power(w, 1)(x), Power(w, 2)(x))
        assert list(model.parameters) == ["Power", "Power_2"]
        np.testing.assert_allclose(model.energy({"x": 2 * np.ones(3)}), 6 * w.sum(), rtol=1e-5)

    def test_potentials_are_named_by_their_kind(self):
        x, c = ed.real("x", 3), ed.categorical("c", levels=2)
        first, second = (eqx.nn.MLP(3, "scalar", 4, 1, key=jr.key(k)) for k in range(2))
        a = ed.Model(ed.Quadratic(np.eye(3), np.ones(3))(x) + ed.Neural(first)(x))
        b = ed.Model(
            ed.Neural(second)(x)
            + ed.Quadratic(np.eye(3), np.ones(3))(x)
            + ed.LogDensity(dist.Normal(jnp.zeros(3), 1.0))(x)
            + ed.Table(np.ones(2))(c)
            + ed.apply(jnp.sum, x)
        )
        names = ["Quadratic.precision", "Quadratic.linear", "Neural"]
        others = ["Neural_2", "Quadratic_2.precision", "Quadratic_2.linear", "Normal.loc"]
        others += ["Normal.scale", "Table"]
        assert list(a.parameters) == names
        assert list((a + b).parameters) == names + others
        assert (a + b).parameters["Neural_2"].network.layers[0].weight is second.layers[0].weight
        taken = ed.Model(ed.Linear(np.ones(3))(x) + ed.parameter("Linear", np.ones(3)) @ x)
        assert list(taken.parameters) == ["Linear_2.bias", "Linear"]

    def test_numbers_and_data_are_not_learnt(self):
        x = ed.real("x", 3)
        values = [0.5, 2, np.float32(0.5), np.float64(3), np.int64(2)]
        for value in (*values, jnp.float32(0.5), np.ones(3), random(3)):
            model = ed.Model((value * x).sum())
            assert model.parameter_count == 0 and not model.parameters
            array = isinstance(value, jax.Array | np.ndarray)
            assert model.skeleton.slots[0].kind == ("data" if array else "number")

    def test_data_numbers_and_parameters_are_told_apart_by_the_structure(self):
        s, values = ed.spin("s", 3), np.float32(0.5)
        kinds = [values, np.full((), values), ed.parameter("a", values), ed.parameter("b", values)]
        kinds.append(ed.fixed(ed.parameter("a", values)))
        models = [ed.Model((value * s).sum()) for value in kinds]
        assert len({m.skeleton.digest for m in models}) == 5

    def test_equal_numbers_are_told_apart_so_that_values_are_no_structure(self):
        s = ed.spin("s", 3)

        def model(j, h):
            return ed.Model(j * (s[1:] * s[:-1]).sum() + h * s.sum())

        assert model(0.5, 0.5) == model(0.5, 0.25)
        assert model(1, 1) == model(1.5, 0)

    @pytest.mark.parametrize("value", [0.5, [0.5, 1.0, -2.0], np.ones(3), random(3)], ids=type)
    def test_fixed_freezes(self, untyped, value):
        x = ed.real("x", 3)
        held = ed.fixed(ed.parameter("held", value))
        formulas = [
            held * x,
            -held * x,
            held + x * held,
            x / (2 - held / 8),
            held**2 * x,
            ed.Table(ed.fixed(np.ones(2)))(ed.spin("s")) * x,
            ed.Linear(ed.fixed(value))(x),
        ]
        for formula in formulas:
            model = ed.Model(formula.sum())
            assert model.parameter_count == 0
            given = {v.name: np.ones(v.shape, int) for v in model.variables}
            assert all(not s.any() for s in jax.tree.leaves(slopes(model, given)))
        model = ed.Model((-held * x).sum())
        total = np.broadcast_to(value, 3).sum()
        np.testing.assert_allclose(model.energy({"x": np.ones(3)}), -total)
        np.testing.assert_array_equal(model.parameters["held"], np.float32(value))
        assert str(model).endswith("fixed")
        twice = model.replace(held=2 * np.asarray(value))
        np.testing.assert_allclose(twice.energy({"x": np.ones(3)}), -2 * total)

    def test_fixed_freezes_a_network(self):
        network = eqx.nn.MLP(3, "scalar", 4, 1, key=jr.key(0))
        model = ed.Model(ed.fixed(ed.Neural(network))(ed.real("x", 3)))
        assert model.parameter_count == 0
        x = {"x": jnp.ones(3)}
        assert all(not s.any() for s in jax.tree.leaves(slopes(model, x)) if eqx.is_array(s))
        np.testing.assert_allclose(model.energy(x), network(x["x"]), rtol=1e-6)

    def test_views_cannot_be_fixed(self, untyped):
        with pytest.raises(TypeError, match="marks parameters, not views"):
            ed.fixed(ed.spin("s"))

    def test_wrappers_constrain(self):
        raw, x = random(3, 3), ed.real("x", 3)

        def symmetric(w):
            return (w + w.T) / 2 - jnp.diag(jnp.diag(w))

        model = ed.Model(x @ ed.parameter("W", paramax.Parameterize(symmetric, raw)) @ x)
        given = {"x": RNG.normal(size=3).astype(np.float32)}
        expected = given["x"] @ np.asarray(symmetric(raw)) @ given["x"]
        np.testing.assert_allclose(model.energy(given), expected, rtol=1e-4)
        assert model.parameter_count == 9
        slope = jax.tree.leaves(slopes(model, given))[0]
        np.testing.assert_allclose(np.diag(slope), 0.0, atol=1e-6)
        np.testing.assert_array_equal(paramax.unwrap(model.parameters)["W"], symmetric(raw))

    def test_gradients_reach_every_kind_of_parameter(self):
        x = ed.real("x", 3)
        network = eqx.nn.MLP(3, "scalar", 4, 1, key=jr.key(0))
        positive = ed.parameter("positive", paramax.Parameterize(jnp.exp, random(3)))
        model = ed.Model(
            ed.parameter("b", random(3)) @ x
            + ed.Neural(network)(x)
            + ed.LogDensity(dist.Normal(jnp.zeros(3), jnp.ones(3)))(x)
            + (positive * x).sum()
        )
        given = {"x": jnp.full(3, 1.7)}
        learnt = eqx.filter(slopes(model, given), eqx.is_inexact_array)
        assert len(jax.tree.leaves(learnt)) == 1 + 4 + 2 + 1
        assert all(s.any() for s in jax.tree.leaves(learnt))
        # The same through new values, which may be traced.
        through = eqx.filter_grad(lambda p: model.replace(p).energy(given))(model.parameters)
        for a, b in zip(jax.tree.leaves(learnt), jax.tree.leaves(through), strict=True):
            np.testing.assert_array_equal(a, b)

    def test_names_are_printed(self):
        x, h = ed.binary("x", 3), ed.binary("h", 2)
        W, b, J = ed.parameter("W", np.ones((3, 2))), ed.parameter("b", np.ones(3)), 0.5
        model = ed.Model(-(x @ W @ h) - ed.fixed(b) @ x - J * ed.parameter("J", 1) * h[0] * h[1])
        assert str(model) == (
            "Model: E = -(x @ W @ h) - b @ x - 0.5 * J * h[0] * h[1]\n"
            "  x: binary[3]\n  h: binary[2]\n"
            "  7 parameters: W (3, 2), b (3,) fixed, J"
        )
        found = ed.compile(model).explain()
        assert found.as_dict()["parameters"] == ["W (3, 2)", "b (3,) fixed", "J"]
        assert "x @ W @ h" in str(found)
        assert "7 numbers in W (3, 2), b (3,) fixed, J" in str(found)

    def test_the_mapping_is_read_only_and_says_what_there_is(self, untyped):
        model = ed.Model(ed.parameter("b", np.ones(3)) @ ed.real("x", 3))
        with pytest.raises(KeyError, match=r"'W' is no parameter; the parameters are \['b'\]"):
            model.parameters["W"]
        with pytest.raises(TypeError, match="does not support item assignment"):
            model.parameters["b"] = np.zeros(3)
        assert dict(model.parameters).keys() == {"b"} and len(model.parameters) == 1
        assert jax.tree.leaves(model.parameters)[0] is model.parameters["b"]

    def test_replace_takes_what_parameters_shows(self):
        x = ed.real("x", 3)
        positive = paramax.Parameterize(jnp.exp, random(3))
        network = eqx.nn.MLP(3, "scalar", 4, 1, key=jr.key(0))
        other = eqx.nn.MLP(3, "scalar", 4, 1, key=jr.key(1))
        model = ed.Model(
            (ed.parameter("a", positive) * x).sum(),
            ed.Linear(np.ones(3))(x),
            ed.Neural(network)(x),
            0.3 * x.sum(),
        )
        at = {"x": np.ones(3)}
        assert model.replace(model.parameters).energy(at) == model.energy(at)
        new = model.replace({"Linear.bias": [1, 2, 3]}, Neural=ed.Neural(other))
        assert new == model and model.parameters["Linear.bias"].tolist() == [1, 1, 1]
        gap = 3 + other(jnp.ones(3)) - network(jnp.ones(3))
        np.testing.assert_allclose(new.energy(at) - model.energy(at), gap, rtol=1e-4)
        halved = model.replace(a=paramax.Parameterize(jnp.exp, positive.args[0] - jnp.log(2)))
        gap = -np.exp(np.asarray(positive.args[0])).sum() / 2
        np.testing.assert_allclose(halved.energy(at) - model.energy(at), gap, rtol=1e-4)

    @pytest.mark.parametrize(
        ("given", "error", "message"),
        [
            ({"V": 1}, ValueError, "replace got V; the parameters are J, W, Neural"),
            ({"W": np.ones(2)}, ValueError, r"shape \(2,\) for 'W'; expected \(3,\)"),
            ({"W": [1, np.nan, 1]}, ValueError, "NaN for 'W'"),
            ({"W": [1, np.inf, 1]}, ValueError, "an infinity for 'W'"),
            ({"W": [1j, 0, 0]}, TypeError, "dtype complex128 for 'W'; expected real"),
            ({"W": ["a", "b", "c"]}, TypeError, "for 'W'; expected real numbers"),
            (
                {"J": 0.3},
                TypeError,
                "float for 'J', which is Parameterize; expected a value of the same",
            ),
            ({"Neural": 3}, TypeError, "int for 'Neural', which is Neural"),
            (
                {"J": paramax.Parameterize(jnp.tanh, 1.0)},
                TypeError,
                "of the same type and structure",
            ),
        ],
    )
    def test_replace_refuses_what_does_not_fit(self, untyped, given, error, message):
        x = ed.real("x", 3)
        J = ed.parameter("J", paramax.Parameterize(jnp.exp, jnp.zeros(())))
        network = ed.Neural(eqx.nn.MLP(3, "scalar", 4, 1, key=jr.key(0)))
        model = ed.Model(J * (ed.parameter("W", np.ones(3)) @ x) + network(x))
        with pytest.raises(error, match=message):
            model.replace(given)

    def test_parameters_travel(self):
        x, W = ed.real("x", 3), ed.parameter("W", np.ones(3))
        copied, loaded = copy.deepcopy(W), pickle.loads(pickle.dumps(W))
        assert list(ed.Model(W @ x + copied @ x + loaded @ x).parameters) == ["W"]
        model = ed.Model(W @ x)
        assert pickle.loads(pickle.dumps(model)) == model
        assert list((pickle.loads(pickle.dumps(model)) + model).parameters) == ["W"]

    @pytest.mark.parametrize(
        ("wrong", "error", "message"),
        [
            ("ed.parameter('a b', 1)", ValueError, "'a b'; expected a Python identifier"),
            ("ed.parameter(3, 1)", ValueError, "the name 3"),
            ("ed.parameter('W', x)", TypeError, "'W' got the expression x"),
            ("ed.parameter('W', 'a')", TypeError, "'W'"),
            ("ed.parameter('W', 1j)", TypeError, "'W' has dtype complex"),
            (
                "ed.parameter('W', [1, np.nan])",
                ValueError,
                r"'W' of shape \(2,\) has nan at \(1,\)",
            ),
            ("ed.parameter('W', exp(jnp.full(3, 1e3)))", ValueError, "'W' .* has inf at"),
            (
                "ed.parameter('W', paramax.NonTrainable((jnp.ones(1), jnp.ones(2))))",
                TypeError,
                "of tuple; expected",
            ),
            (
                "ed.Model((W + other) @ x)",
                ValueError,
                r"Two parameters are named 'W', of shapes \(3,\) and \(\)",
            ),
            (
                "ed.Model(W @ x + ed.fixed(W) @ x)",
                ValueError,
                "'W' is fixed in one place and learnt",
            ),
            (
                "ed.Model(W @ x) + ed.Model(W @ x).replace(W=np.zeros(3))",
                ValueError,
                "'W' has two values",
            ),
            ("ed.Model(ed.parameter('x', 1.0) * x.sum())", ValueError, "both named 'x'"),
            ("exp(jnp.ones(3)) * x", TypeError, r'W = ed.parameter\("W", wrapper\)'),
            ("ed.fixed(np.ones(3)) * x", TypeError, "write the array itself"),
            (
                "ed.Neural(lambda v: v.sum())(x) + ed.LogDensity(Held(W))(x)",
                TypeError,
                "contains the expression W",
            ),
        ],
    )
    def test_a_mistake_is_caught_where_it_is_written(self, untyped, wrong, error, message):
        class Held(eqx.Module):
            w: object

            def log_prob(self, v):
                return v.sum()

        names = {"ed": ed, "np": np, "jnp": jnp, "x": ed.real("x", 3), "paramax": paramax}
        names |= {"W": ed.parameter("W", np.ones(3)), "other": ed.parameter("W", 1.0)}
        names |= {"exp": lambda a: paramax.Parameterize(jnp.exp, a), "Held": Held}
        with pytest.raises(error, match=message):
            eval(wrong, names)

    def test_a_temperature_may_be_learnt(self):
        x, T = ed.real("x", 3), ed.parameter("T", 2.0)
        model = ed.Model(x.sum()) / T + ed.Model(T * (x**2).sum())
        assert list(model.parameters) == ["T"]
        np.testing.assert_allclose(slopes(model, {"x": np.ones(3)})["T"], -3 / 4 + 3)
        with pytest.raises(ValueError, match="T = T; expected a number other than 0"):
            ed.Model(x.sum()) / ed.parameter("T", 0.0)
        held = model.condition({x[0]: 1.0})
        assert list(held.parameters) == ["T"] and held.replace(T=1.0) == held


class TestEvaluation:
    def test_configurations_may_be_lists_and_any_dtype(self):
        s = ed.spin("s", 3)
        model = ed.Model((random(3) * s).sum())
        energies = [
            model.energy({"s": given})
            for given in ([1, -1, 1], np.int64([1, -1, 1]), jnp.float32([1, -1, 1]))
        ]
        assert energies[0] == energies[1] == energies[2]

    @pytest.mark.parametrize(
        ("given", "error", "message"),
        [
            ({}, ValueError, r"lacks \['s', 't'\]; the free variables are \['s', 't'\]"),
            ({"s": 1, "t": 1, "u": 0}, ValueError, r"has the unknown \['u'\]"),
            ({"s": 1, "q": 0}, ValueError, r"lacks \['t'\] and has the unknown \['q'\]"),
            ({"s": [1, 1, 1], "t": 1}, ValueError, r"'s' got .* \(3,\); expected \(2,\).*vmap"),
            ({"s": [[1, 1]], "t": 1}, ValueError, r"shape \(1, 2\); expected \(2,\)"),
            ([1, 1], TypeError, r"a dict of arrays, one for each of \['s', 't'\]; got list"),
        ],
    )
    def test_a_wrong_configuration_is_refused(self, untyped, given, error, message):
        model = ed.Model(ed.spin("s", 2).sum() * ed.spin("t"))
        with pytest.raises(error, match=message):
            model.energy(given)

    def test_batches_are_vmap(self):
        s = ed.spin("s", 3)
        model = ed.Model((s[1:] * s[:-1]).sum())
        batch = np.sign(RNG.normal(size=(5, 3)))
        energies = jax.vmap(model.energy)({"s": batch})
        np.testing.assert_allclose(energies, (batch[:, 1:] * batch[:, :-1]).sum(1))


class TestAlgebra:
    @pytest.mark.parametrize(
        ("formula", "numbers"),
        [
            ("a + b", "a + b"),
            ("sum([a, b, a])", "2 * a + b"),
            ("2 * a", "2 * a"),
            ("a * 0.3", "0.3 * a"),
            ("np.float32(0.3) * a", "0.3 * a"),
            ("np.array(0.3) * a", "0.3 * a"),
            ("jnp.array(0.3) * a", "0.3 * a"),
            ("a / 4", "a / 4"),
            ("a / jnp.array(4.0)", "a / 4"),
            ("ed.parameter('J', 0.5) * a", "a / 2"),
            ("a * ed.fixed(ed.parameter('J', 0.5))", "a / 2"),
            ("b - 0.1 * a", "b - 0.1 * a"),
            ("-a", "-a"),
            ("(a + b) / 2 - b", "(a - b) / 2"),
            ("a + x.sum()", "a + at['x'].sum()"),
            ("x.sum() + a", "a + at['x'].sum()"),
            ("x.sum() - a", "at['x'].sum() - a"),
            ("a - x.sum()", "a - at['x'].sum()"),
            ("ed.Model(a, b, x.sum())", "a + b + at['x'].sum()"),
            ("ed.mixture(a, b)", "-np.logaddexp(np.log(0.5) - a, np.log(0.5) - b)"),
            ("ed.mixture(a, b, weights=[1, 3])", "-np.logaddexp(-a, np.log(3) - b)"),
            (
                "ed.mixture(a, b, a, weights=np.array([0.2, 0.3, 0.5]))",
                "-np.logaddexp(np.log(0.7) - a, np.log(0.3) - b)",
            ),
        ],
    )
    def test_energies_follow_the_formula(self, formula, numbers):
        x, at = ed.real("x", 3), {"x": RNG.normal(size=3).astype(np.float32)}
        a = ed.Model((random(3) * x).sum() + (x**2).sum())
        b = ed.Model(ed.exp(x * 0.5).sum() + (x**4).sum())
        symbols = {"np": np, "jnp": jnp, "ed": ed, "x": x, "at": at}
        model = eval(formula, symbols | {"a": a, "b": b})
        values = {"a": float(a.energy(at)), "b": float(b.energy(at))}
        expected = eval(numbers, symbols | values)
        np.testing.assert_allclose(model.energy(at), expected, rtol=2e-5, atol=1e-5)

    def test_models_meet_on_variables_of_the_same_name(self):
        model = ed.Model(ed.spin("s", 2).sum()) + ed.Model(ed.spin("s", 2)[0] * ed.spin("t"))
        assert [v.name for v in model.variables] == ["s", "t"]
        assert model.energy({"s": [1, -1], "t": -1}) == -1

    @pytest.mark.parametrize(
        "other",
        [ed.spin("s", 3), ed.binary("s", 2), ed.spin("s", 2, latent=True)],
        ids=lambda v: str(v.variable),
    )
    def test_a_clash_names_both(self, other):
        a, b = ed.Model(ed.spin("s", 2).sum()), ed.Model(other.sum())
        with pytest.raises(ValueError, match="Two variables are named 's'") as caught:
            a + b
        assert str(ed.spin("s", 2).variable) in str(caught.value)
        assert str(other.variable) in str(caught.value)
        with pytest.raises(ValueError, match="Two variables are named 's'"):
            ed.Model(ed.spin("s", 2).sum() + other.sum())

    def test_mixture_weights_that_are_a_parameter_are_learnt(self):
        s, w = ed.spin("s", 2), np.array([0.2, 0.8])
        up, down = ed.Model(-s.sum()), ed.Model(s.sum())
        simplex = ed.parameter("w", paramax.Parameterize(jax.nn.softmax, jnp.log(w)))
        each = [ed.parameter("u", 0.2), 0.8]
        learnt = (simplex, 2), (ed.parameter("w", w), 2), (each, 1)
        for weights, count in (*learnt, (list(w), 0), (w, 0), (jnp.asarray(w), 0)):
            model = ed.mixture(up, down, weights=weights)
            assert model.parameter_count == count
            expected = -np.log(0.2 * np.exp(2) + 0.8 * np.exp(-2))
            np.testing.assert_allclose(model.energy({"s": [1, 1]}), expected, rtol=1e-5)
        with pytest.raises(ValueError, match="expected positive numbers"):
            ed.mixture(up, down, weights=ed.parameter("w", [0.5, -0.5]))

    @pytest.mark.parametrize(
        ("wrong", "error", "message"),
        [
            ("ed.Model()", ValueError, "Model got no energy"),
            ("ed.Model(3.0)", TypeError, "Model got float; expected a scalar expression"),
            ("ed.Model(s)", ValueError, r"an energy of shape \(2,\); .*\.sum\(\)"),
            ("ed.Model(0 * ed.parameter('J', 1.0))", ValueError, "depends on no variable"),
            ("a + 3", TypeError, "Model got int"),
            ("3 + a", TypeError, "Model got int"),
            ("a - None", TypeError, "Model got NoneType"),
            ("a + s", ValueError, r"an energy of shape \(2,\)"),
            ("a * a", TypeError, r"write a \+ b"),
            ("a * 'x'", TypeError, "got 'x'"),
            ("a * np.ones(3)", ValueError, r"an energy of shape \(3,\)"),
            ("np.ones(3) * a", ValueError, r"an energy of shape \(3,\)"),
            ("a * np.nan", ValueError, "has nan"),
            ("a / 0", ValueError, "T = 0; expected a number other than 0"),
            ("a / jnp.zeros(())", ValueError, "expected a number other than 0"),
            ("ed.mixture(a)", ValueError, "got 1 models; expected at least two"),
            ("ed.mixture(a, a, weights=[1.0])", ValueError, "got 1 weights for 2 models"),
            ("ed.mixture(a, a, weights=[1, 0])", ValueError, r"\[1, 0\]; expected positive"),
            ("ed.mixture(a, a, weights=[1, np.nan])", ValueError, "expected positive"),
            ("ed.mixture(a, ed.Model(ed.spin('t')))", ValueError, "models over .*s.* and .*t.*"),
            ("s * a", ValueError, r"an energy of shape \(2,\)"),
            ("ed.maximum(s, a)", TypeError, r"make it a model first: ed.Model\(expression\)"),
            ("s @ a", TypeError, "make it a model first"),
        ],
    )
    def test_a_mistake_is_caught_where_it_is_written(self, untyped, wrong, error, message):
        s = ed.spin("s", 2)
        names = {"ed": ed, "np": np, "jnp": jnp, "s": s, "a": ed.Model(s.sum())}
        with pytest.raises(error, match=message):
            eval(wrong, names)


class TestCondition:
    def model(self):
        s, t = ed.spin("s", (2, 2)), ed.spin("t", 2)
        return ed.Model(s[0] @ random(2, 2) @ t + (random(2, 2) * s).sum()), s, t

    def test_whole_variables_leave_the_configuration(self):
        model, _, _ = self.model()
        held = model.condition(t=[1, -1])
        s = np.array([[1, 1], [-1, 1]])
        np.testing.assert_array_equal(
            held.energy({"s": s}), model.energy({"s": s, "t": np.array([1, -1])})
        )
        with pytest.raises(ValueError, match=r"has the clamped \['t'\]"):
            held.energy({"s": s, "t": [1, -1]})

    def test_sites_stand_in_their_place(self):
        model, s, _ = self.model()
        held = model.condition({s[0, :]: 1, s[1, 0]: -1})
        given = {"s": -np.ones((2, 2)), "t": np.ones(2)}
        full = {"s": np.array([[1, 1], [-1, -1]]), "t": np.ones(2)}
        np.testing.assert_array_equal(held.energy(given), model.energy(full))

    @pytest.mark.parametrize(
        "again",
        [
            lambda m, s, t: m.condition({s[0, 0]: 1}).condition({s[0, 1]: -1, "t": [1, 1]}),
            lambda m, s, t: m.condition({s[0]: [-1, 1]}, t=[1, 1]).condition({s[0]: [1, -1]}),
            lambda m, s, t: m.condition({s[::-1][1]: jnp.array([1, -1])}, {"t": np.ones(2, int)}),
            lambda m, s, t: m.condition({s[[0, 0], [1, 0]]: [-1, 1]}).condition(t=1),
            lambda m, s, t: m.condition({s[np.array([[True, True], [False] * 2])]: [1, -1]}, t=1),
            lambda m, s, t: m.condition({s.T[:, 0]: [1, -1], t[:]: 1}),
        ],
        ids=range(6),
    )
    def test_again_and_by_any_view(self, again):
        model, s, t = self.model()
        held = again(model, s, t)
        full = {"s": np.array([[1, -1], [-1, 1]]), "t": np.ones(2)}
        np.testing.assert_allclose(
            held.energy({"s": [[0, 0], [-1, 1]]}), model.energy(full), rtol=1e-6
        )
        assert "s: spin[2, 2] 2 sites clamped" in str(held)
        assert "t: spin[2] clamped" in str(held)

    def test_a_variable_held_site_by_site_is_no_longer_free(self):
        model, _, t = self.model()
        held = model.condition({t[0]: 1}).condition({t[1]: -1})
        assert [v.name for v in held.skeleton.free] == ["s"]
        assert held == model.condition(t=[1, 1])

    def test_evidence_is_kept_by_the_algebra(self):
        model, _, _ = self.model()
        held = model.condition(t=[1, -1])
        mixtures = ed.mixture(held, held), ed.mixture(model, held)
        for made in (held + held, 2 * held, held / 2, held - 0.5 * held, model - held, *mixtures):
            assert [v.name for v in made.skeleton.free] == ["s"]
        np.testing.assert_allclose(
            (held + model).energy({"s": np.ones((2, 2))}),
            2 * held.energy({"s": np.ones((2, 2))}),
            rtol=1e-6,
        )
        with pytest.raises(ValueError, match="Two models hold 't' at different values or sites"):
            held + model.condition(t=[1, 1])

    def test_the_original_is_left_as_it_was(self):
        model, _, _ = self.model()
        model.condition(t=[1, -1])
        assert not model.evidence

    def test_a_simplex_is_held_whole(self):
        p = ed.simplex("p", (2, 3))
        model = ed.Model(-ed.log(p).sum())
        for view, value in ((p[0, 0], 0.5), (p[:, :2], 0.5), (p.T, 1 / 3), (p[0][::-1], 1 / 3)):
            with pytest.raises(ValueError, match=r"part of a simplex of 'p'.*hold whole ones"):
                model.condition({view: value})
        with pytest.raises(ValueError, match=r"value of p\[0\] has a value outside simplex"):
            model.condition({p[0]: [0.2, 0.3, 0.4]})
        held = model.condition({p[0]: [0.2, 0.3, 0.5]})
        np.testing.assert_allclose(
            held.energy({"p": np.full((2, 3), 1 / 3)}),
            -np.log([0.2, 0.3, 0.5]).sum() + 3 * np.log(3),
            rtol=1e-5,
        )

    @pytest.mark.parametrize(
        ("given", "error", "message"),
        [
            ("model.condition()", ValueError, "got nothing to hold"),
            (
                "model.condition(q=1)",
                ValueError,
                r"'q', which is not in the model.*'s: spin\[2, 2\]'",
            ),
            ("model.condition({ed.spin('s', 3): 1})", ValueError, r"s: spin\[3\], which is not in"),
            ("model.condition({-s: 1})", TypeError, "Expected a variable or a view of one"),
            ("model.condition({3: 1})", TypeError, "Expected a variable or a view"),
            ("model.condition({None: 1})", TypeError, "got None"),
            ("model.condition(t=[1, 1, 1])", ValueError, r"value of t has shape \(3,\); .*\(2,\)"),
            ("model.condition(t=0)", ValueError, r"value of t has a value outside spin"),
            ("model.condition({s[0]: [1, 2]})", ValueError, r"value of s\[0\] has a value outside"),
            ("model.condition(t=0.5)", TypeError, "takes integers"),
            ("model.condition(t=[1, np.nan])", TypeError, "takes integers"),
            ("model.condition(x=np.nan)", ValueError, "value of x has NaN"),
            (
                "model.condition({s[0, 0]: 1, s[:1, 0]: -np.ones(1, int)})",
                ValueError,
                r"condition holds s\[0, 0\] at 1 and at -1; give each site one value",
            ),
            ("model.condition({s[1]: 1}, s=[[1, 1], [1, -1]])", ValueError, r"s\[1, 1\] at 1 and"),
            ("model.condition({t[[0, 1, 1]]: [1, 1, -1]})", ValueError, r"t\[1\] at 1 and at -1"),
            ("model.condition({t: 1}, {'t': -1})", ValueError, r"t\[0\] at 1 and at -1"),
            ("model.condition({x: 0.5}, x=0.25)", ValueError, r"holds x at 0.5 and at 0.25"),
            (
                "model.condition(t=np.ma.array([1, 1], mask=[False, True]))",
                ValueError,
                r"value of t is a masked array with 1 of 2 entries masked, first at \(1,\)",
            ),
            ("model.condition(x=np.ma.masked)", ValueError, "value of x is a masked array"),
            (
                "model.energy({'s': np.ma.array(np.ones((2, 2)), mask=True), 't': [1, 1], 'x': 0})",
                ValueError,
                "'s' is a masked array with 4 of 4",
            ),
            ("s @ np.ma.array([1.0, 2.0], mask=[0, 1])", ValueError, "energy's array .* masked"),
            (
                "np.ma.array([1.0, 2.0], mask=[0, 1]) * s",
                TypeError,
                "A masked array goes to the right",
            ),
            (
                "ed.parameter('w', np.ma.array([1.0, 2.0], mask=[0, 1]))",
                ValueError,
                "Parameter 'w' is a masked array with 1 of 2",
            ),
        ],
    )
    def test_a_mistake_is_caught_where_it_is_written(self, untyped, given, error, message):
        model, s, t = self.model()
        x = ed.real("x")
        model = model + ed.Model(x**2)
        with pytest.raises(error, match=message):
            eval(given, {"model": model, "s": s, "t": t, "x": x, "ed": ed, "np": np})

    def test_a_site_may_be_held_more_than_once_at_one_value(self):
        model, s, t = self.model()
        shown = np.ma.array([1, -1], mask=False)
        held = model.condition({s[0, [0, 0]]: [-1, -1], s[:, 0]: -1}, {t[1]: -1}, t=shown)
        assert held.evidence["s"][:, 0].tolist() == [-1, -1]
        assert held.evidence["t"].tolist() == [1, -1]
        assert held == model.condition({s[:, 0]: -1}, t=shown)

    def test_a_later_condition_replaces_an_earlier_one(self):
        model, s, _ = self.model()
        held = model.condition({s[0]: [1, -1]}).condition({s[0, 1]: 1, s[1, 1]: -1})
        assert held.evidence["s"][0].tolist() == [1, 1]
        assert held.evidence["s"][1, 1] == -1
        assert held.skeleton.clamped["s"].tolist() == [[True, True], [False, True]]

    def test_a_site_held_twice_at_traced_values_is_refused(self):
        model, _, t = self.model()
        with pytest.raises(ValueError, match=r"t\[0\] more than once, at values .* not known"):
            jax.jit(lambda a: model.condition({t[0]: a, t[:1]: -a[None]}).evidence)(jnp.array(1))

    def test_evidence_may_be_traced(self):
        model, s, _ = self.model()
        full = {"s": np.ones((2, 2))}

        @jax.jit
        def energy(t, corner):
            return model.condition({s[0, 0]: corner}, t=t).energy(full)

        expected = model.energy({"s": np.array([[-1, 1], [1, 1]]), "t": np.array([1, -1])})
        np.testing.assert_allclose(energy(jnp.array([1, -1]), jnp.array(-1)), expected, rtol=1e-6)
        with pytest.raises(ValueError, match="add them first, then condition"):
            jax.jit(lambda t: (model.condition(t=t) + model.condition(t=t)).energy(full))(
                jnp.array([1, -1])
            )


class TestIdentity:
    def test_models_compare_and_hash_by_structure(self):
        def build(scale, n=3):
            s = ed.spin("s", n)
            return ed.Model(scale * (s[1:] * s[:-1]).sum() + random(n) @ s)

        assert build(0.5) == build(2.0)
        assert hash(build(0.5)) == hash(build(2.0))
        assert build(0.5) != build(0.5, 4)
        assert build(0.5) != "a model"

    @pytest.mark.parametrize(
        "other",
        [
            lambda s: (s[1:] * s[:-1]).sum() - random(3) @ s,
            lambda s: (s[2:] * s[:1]).sum() + random(3) @ s,
            lambda s: (s[[1, 2]] * s[[0, 1]]).sum() + random(3) @ s,
            lambda s: (s[1:] * s[:-1]).sum() + random(1) @ s[:1],
            lambda s: (s[1:] * s[:-1]).sum() + ed.parameter("b", random(3)) @ s,
            lambda s: (s[1:] * s[:-1]).sum(0) + random(3) @ s + 0.0,
        ],
        ids=range(6),
    )
    def test_another_structure_is_another_model(self, other):
        s = ed.spin("s", 3)
        assert ed.Model((s[1:] * s[:-1]).sum() + random(3) @ s) != ed.Model(other(s))

    def test_another_index_array_is_another_model(self):
        s = ed.spin("s", 4)

        def build(i, j):
            return ed.Model((s[np.array(i)] * s[np.array(j)]).sum())

        assert build([0, 1], [2, 3]) == build([0, 1], [2, 3])
        assert build([0, 1], [2, 3]) != build([0, 1], [3, 2])
        assert hash(build([0, 1], [2, 3])) != hash(build([0, 1], [3, 2]))

    def test_another_function_is_another_model(self):
        x = ed.real("x")
        assert ed.Model(ed.apply(jnp.sin, x)) == ed.Model(ed.apply(jnp.sin, x))
        assert ed.Model(ed.apply(jnp.sin, x)) != ed.Model(ed.apply(jnp.cos, x))
        square, cube = (ed.apply(lambda v, k=k: v**k, x) for k in (2, 3))
        assert ed.Model(square) != ed.Model(cube)
        families = [dist.Normal(0, 1), dist.Laplace(0, 1), dist.Cauchy(0, 1)]
        densities = [ed.Model(ed.LogDensity(q)(x)) for q in families]
        assert len({hash(m) for m in densities}) == 3
        assert densities[0] != densities[1]

    def test_another_activation_is_another_model(self):
        def build(activation, seed=0):
            network = eqx.nn.MLP(2, "scalar", 4, 1, activation=activation, key=jr.key(seed))
            return ed.Model(ed.Neural(network)(ed.real("x", 2)))

        assert build(jax.nn.relu) == build(jax.nn.relu, seed=1)
        assert build(jax.nn.relu) != build(jnp.tanh)

    def test_clamped_sites_are_structure_and_their_values_are_not(self):
        s = ed.spin("s", 3)
        model = ed.Model(s.sum())
        assert model.condition({s[0]: 1}) == model.condition({s[0]: -1})
        assert model.condition({s[0]: 1}) != model.condition({s[1]: 1})
        assert model.condition({s[0]: 1}) != model

    def test_latent_is_part_of_a_variable(self):
        def model(latent):
            return ed.Model(ed.spin("s", latent=latent) * 1.0)

        assert model(True) != model(False)
        assert "s: spin[] latent" in str(model(True))
        assert model(True).variables[0].latent

    def test_the_digest_is_the_same_in_every_process(self):
        code = (
            "import numpy as np, energydsl as ed, jax.numpy as jnp\n"
            "s = ed.spin('s', 4)\n"
            "m = ed.Model((s[np.array([0, 1])] * s[2:]).sum() + ed.apply(lambda v: v.sum(), s))\n"
            "print(m.condition({s[0]: 1}).skeleton.digest)"
        )
        runs = {
            subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=True
            ).stdout
            for _ in range(2)
        }
        assert len(runs) == 1

    def test_printing_shows_energy_variables_and_count(self):
        x, h = ed.binary("x", 3), ed.binary("h", 2, latent=True)
        model = ed.Model(-(x @ random(3, 2) @ h) - random(3) @ x)
        assert str(model) == repr(model)
        assert str(model) == (
            "Model: E = -(x @ f32[3,2] @ h) - f32[3] @ x\n"
            "  x: binary[3]\n"
            "  h: binary[2] latent\n"
            "  0 parameters"
        )
