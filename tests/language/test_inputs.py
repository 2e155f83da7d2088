"""Variables that are given: their declaration, and how models pass them on."""

import jax.random as jr
import numpy as np
import pytest

import energydsl as ed


def model(levels=3):
    x, y = ed.real("x", (2, levels), given=True), ed.categorical("y", 2, levels=levels)
    return ed.Model(ed.Table(-x)(y).sum())


def test_an_input_is_no_part_of_the_configuration():
    found = model()
    assert "x: real[2, 3] given" in str(found)
    assert [v.name for v in found.inputs] == ["x"] and found.missing_inputs == ["x"]
    ebm = ed.compile(found)
    assert "given" in str(ebm.explain())
    xs = np.arange(6.0).reshape(2, 3)
    assert list(ebm.given(x=xs).start(key=jr.key(0))) == ["y"]
    assert float(ebm.energy({"x": xs, "y": [2, 1]})) == -(2 + 4)
    assert float(found.given(x=xs).energy({"y": [2, 1]})) == -(2 + 4)
    assert float(found.condition(x=xs).energy({"y": [2, 1]})) == -(2 + 4)
    assert ebm.given(x=xs).model.missing_inputs == []


def test_values_in_a_configuration_count_before_those_that_were_given():
    xs = np.arange(6.0).reshape(2, 3)
    ebm = ed.compile(model()).given(x=-xs)
    assert float(ebm.energy({"x": xs, "y": [0, 2]})) == -(0 + 5)
    assert float(ebm.log_ratio({"x": xs, "y": [0, 2]}, {"y": [0, 2]})) == 10
    checked = ebm.check({"x": xs, "y": [0, 2]})
    assert list(checked) == ["y"]


def test_no_value_stands_in_for_a_missing_one():
    """Where an input is read inside, too, it is missed and not taken to be 0."""
    ebm = ed.compile(model())
    y = np.zeros(2, np.int8)
    for read in (ebm.model.blank, lambda: ebm.model.energy_of({"y": y}),
                 lambda: ebm.sweep.load(ebm.structure, ebm.model)):  # fmt: skip
        with pytest.raises(ValueError, match="input 'x' has no value"):
            read()


def test_every_domain_may_be_given():
    declared = [
        ed.spin("a", given=True),
        ed.binary("b", given=True),
        ed.categorical("c", levels=3, given=True),
        ed.integer("d", low=-1, high=2, given=True),
        ed.count("e", given=True),
        ed.real("f", given=True),
        ed.positive("g", given=True),
        ed.interval("h", low=0, high=2, given=True),
    ]
    values = {"a": -1, "b": 1, "c": 2, "d": -1, "e": 4, "f": 0.5, "g": 2.0, "h": 1.5}
    z = ed.spin("z")
    ebm = ed.compile(ed.Model(z * sum((k + 1.0) * v for k, v in enumerate(declared))))
    field = sum((k + 1.0) * v for k, v in enumerate(values.values()))
    assert ed.log_partition(ebm.given(values)) == pytest.approx(np.logaddexp(field, -field))
    with pytest.raises(ValueError, match="'g'"):
        ebm.given(values | {"g": -1.0})
    simplex, matrix = ed.simplex("p", 3, given=True), ed.positive_definite("m", (2, 2), given=True)
    both = ed.compile(ed.Model(z * (simplex[2] + matrix[0, 1])))
    found = ed.log_partition(both.given(p=[0.2, 0.3, 0.5], m=[[2, 0.25], [0.25, 1]]))
    assert found == pytest.approx(np.logaddexp(0.75, -0.75))


def test_models_that_are_added_share_their_inputs():
    x, y = ed.real("x", given=True), ed.spin("y", 2)
    a, b = ed.Model(-x * y[0]), ed.Model(-2 * x * y[1])
    for both in (a + b.condition(x=0.5), a.given(x=0.5) + b, 2 * (a + b).given(x=0.5) / 2):
        assert both.missing_inputs == []
        field = np.array([0.5, 1.0])
        assert ed.log_partition(ed.compile(both)) == pytest.approx(np.log(2 * np.cosh(field)).sum())
    assert (a - b).missing_inputs == ["x"] and (-a).missing_inputs == ["x"]
    with pytest.raises(ValueError, match="Two models hold 'x'"):
        a.given(x=0.5) + b.given(x=1.0)
    with pytest.raises(ValueError, match="Two variables are named 'x'"):
        a + ed.Model(-ed.real("x") * y[0])


def test_a_role_is_one_of_three():
    with pytest.raises(ValueError, match="latent=True and given=True"):
        ed.real("x", latent=True, given=True)
    with pytest.raises(ValueError, match="Every site is clamped"):
        ed.compile(ed.Model(ed.real("x", given=True) ** 2))


def test_an_input_is_given_whole():
    x, y = ed.real("x", 3, given=True), ed.spin("y", 3)
    found = ed.Model(-x @ y)
    with pytest.raises(ValueError, match="1 of the 3 sites of the input 'x'"):
        found.condition({x[0]: 1.0})
    again = found.given(x=[1, 2, 3]).condition({x[0]: 5.0})
    np.testing.assert_array_equal(again.evidence["x"], [5, 2, 3])
    with pytest.raises(ValueError, match="given got 'z'"):
        found.given(z=1)
    with pytest.raises(ValueError, match="inputs are none"):
        ed.Model(-y.sum()).given(x=1)


def test_the_clamped_sites_and_the_inputs_of_a_model_are_told_apart():
    x, y, w = ed.real("x", 2, given=True), ed.real("y", 2), ed.real("w")
    whole = ed.Model(((y - w * x) ** 2).sum() + w**2).given(x=[1, 2])
    held = whole.condition(y=[3, 4])
    assert held.observed == ["y"] and whole.observed == []
    assert held.unconditioned() == whole
    of_y = held.of_clamped_sites({"w": 2.0})
    assert [v.name for v in of_y.skeleton.free] == ["y"]
    np.testing.assert_array_equal(of_y.evidence["x"], [1, 2])
    assert float(of_y.energy({"y": [2.0, 5.0]})) == pytest.approx(0 + 1 + 4)


def test_a_wide_input_does_not_make_its_sites_interact():
    """50 sites with 300 inputs each: no pair of inputs is listed, and tables have one column."""
    x, y = ed.real("x", (50, 300), given=True), ed.categorical("y", 50, levels=4)
    weights = np.linspace(-1, 1, 1200).reshape(300, 4)
    ebm = ed.compile(ed.Model(ed.Table(-(x @ weights))(y).sum()))
    assert len(ebm.structure.edges) == 0 and not ebm.structure.crowded
    xs = np.random.default_rng(0).normal(size=(50, 300)).astype(np.float32)
    expected = np.logaddexp.reduce(xs.astype(float) @ weights.astype(np.float32), axis=1).sum()
    assert ed.log_partition(ebm.given(x=xs)) == pytest.approx(expected, rel=1e-6)


def test_the_setup_of_a_rule_is_shared_by_many_examples():
    """Beside few examples, enumerating one layer of a short chain pays; for many it does not."""

    def chain(given):
        x, y = ed.real("x", (12, 3), given=given), ed.categorical("y", 12, levels=3)
        model = ed.Model(ed.Table(-x)(y).sum() + ed.Table(np.eye(3))(y[:-1], y[1:]).sum())
        return ed.compile(model if given else model.condition(x=np.ones((12, 3))))

    few, many = chain(False), chain(True)
    assert "bipartite" in str(few.normalizer) and "elimination" in str(many.normalizer)
    found = ed.log_partition(many.given(x=np.ones((12, 3))))
    assert found == pytest.approx(float(ed.log_partition(few)), abs=1e-9)
