"""Declared parameters: constraints, freezing by name, what is listed, and uses of one array."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import paramax
import pytest

import energydsl as ed
from energydsl.language.constraint import shown

RNG = np.random.default_rng(0)
A = RNG.normal(size=(4, 4)).astype(np.float32)
SYMMETRIC = (A + A.T) / 2
HOLLOW = SYMMETRIC * (1 - np.eye(4, dtype=np.float32))
FLAT = np.outer([1.0, 2, -1, 0.5], [0.3, 0.0, 1.0, 2.0]).astype(np.float32)

KINDS = {
    "symmetric": (SYMMETRIC, {"symmetric": True}, 10, "(4, 4) symmetric"),
    "hollow": (HOLLOW, {"symmetric": True, "zero_diagonal": True}, 6,
               "(4, 4) symmetric with zero diagonal"),
    "no diagonal": (A * (1 - np.eye(4)), {"zero_diagonal": True}, 12, "(4, 4) with zero diagonal"),
    "batch": (np.stack([SYMMETRIC] * 3), {"symmetric": True}, 30, "(3, 4, 4) symmetric"),
    "positive": (np.abs(A), {"positive": True}, 16, "(4, 4) positive"),
    "number": (0.4, {"positive": True}, 1, "positive"),
    "attractive": (np.abs(HOLLOW), {"symmetric": True, "zero_diagonal": True, "positive": True}, 6,
                   "(4, 4) symmetric and positive with zero diagonal"),
    "bounded": (np.tanh(A), {"bounded": (-1, 1)}, 16, "(4, 4) between -1 and 1"),
    "bounded hollow": (np.tanh(HOLLOW) * 0.4 + 3 * (1 - np.eye(4)),
                       {"symmetric": True, "zero_diagonal": True, "bounded": (2, 4)}, 6,
                       "(4, 4) symmetric and between 2 and 4 with zero diagonal"),
    "low rank": (FLAT, {"low_rank": 1}, 8, "(4, 4) of rank 1"),
    "factors": (FLAT, {"low_rank": 1}, 8, "(4, 4) of rank 1"),
}  # fmt: skip
"""Initial values with constraints, how many numbers are learnt, and the words that are printed."""


def model_of(kind, init=None):
    """An energy in which each entry of W has its own function of x."""
    value, constraints, *_ = KINDS[kind]
    if kind == "factors":
        value = (np.array([[1.0], [2], [-1], [0.5]]), np.array([[0.3], [0.0], [1.0], [2.0]]))
    W = ed.parameter("W", value if init is None else init, **constraints)
    return ed.Model((W * np.sin(ed.real("x", W.shape)) + ed.real("x", W.shape) ** 4).sum())


def point(model):
    shape = np.shape(model.parameters["W"])
    return {"x": np.random.default_rng(1).normal(size=shape)}


def at_stored(model, change):
    """The model with its unconstrained numbers changed."""
    held = [r.name == "W" for r in model.skeleton.slots].index(True)
    return eqx.tree_at(lambda m: m.slots[held], model, change(model.slots[held]))


@pytest.mark.parametrize("kind", KINDS)
def test_the_energy_uses_the_constrained_value(kind):
    value, _, count, words = KINDS[kind]
    model = model_of(kind)
    np.testing.assert_allclose(model.parameters["W"], value, rtol=1e-6, atol=2e-7)
    assert model.parameter_count == count
    assert f"{count} parameters: W {words}" in str(model).splitlines()[-1]
    x = point(model)
    expected = (np.asarray(value, float) * np.sin(x["x"]) + x["x"] ** 4).sum()
    assert float(model.energy(x)) == pytest.approx(expected, rel=2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_that_is_read_can_be_given_back(kind):
    model = model_of(kind)
    again = model.replace(model.parameters)
    np.testing.assert_allclose(
        again.parameters["W"], model.parameters["W"], rtol=2e-6, atol=1e-6
    )  # two roundings of the unconstrained numbers
    assert jax.tree.structure(again) == jax.tree.structure(model)


@pytest.mark.parametrize("kind", KINDS)
def test_learning_keeps_the_constraint_and_lowers_the_energy(kind):
    model = model_of(kind)
    x = point(model)
    slope = jax.grad(lambda W: at_stored(model, lambda _: W).energy_of(x))(model.stored["W"])
    after = at_stored(model, lambda W: jax.tree.map(lambda a, g: a - 0.1 * g, W, slope))
    assert float(after.energy(x)) < float(model.energy(x))
    # A value that violates the constraint would be refused.
    after.replace(W=after.parameters["W"])


def test_a_pair_of_a_symmetric_matrix_is_one_number():
    x = ed.real("x", 4)
    W = ed.parameter("W", HOLLOW, symmetric=True, zero_diagonal=True)
    model = ed.Model(-(x @ W @ x) + (x**4).sum())
    at = np.array([1.0, -2.0, 0.5, 3.0])

    def energy(slots):
        return eqx.tree_at(lambda m: m.slots, model, slots).energy({"x": at})

    with jax.enable_x64(False):
        slope = eqx.filter_grad(energy)(model.slots)
    (held,) = (s for s in slope if hasattr(s, "free"))
    np.testing.assert_allclose(held.free, np.triu(-2 * np.outer(at, at), 1), rtol=1e-6)
    for i, j in ((0, 1), (2, 3)):
        step = np.zeros((4, 4), np.float32)
        step[i, j] = step[j, i] = 0.5
        rise = model.replace(W=HOLLOW + step).energy({"x": at}) - model.energy({"x": at})
        assert float(rise) == pytest.approx(0.5 * float(held.free[i, j]), rel=1e-4)


def test_the_derivative_through_replace_is_that_of_the_symmetric_part():
    x = ed.real("x", 3)
    model = ed.Model(-(x @ ed.parameter("W", np.eye(3), symmetric=True) @ x) + (x**4).sum())
    at, shift = np.array([1.0, 2.0, -1.0]), np.arange(9.0).reshape(3, 3)
    slope = jax.grad(lambda W: model.replace(W=W).energy({"x": at}))(jnp.eye(3))
    np.testing.assert_allclose(slope, -np.outer(at, at), rtol=1e-6)
    found = jax.vmap(lambda t: model.replace(W=jnp.eye(3) + t * shift).energy({"x": at}))(
        jnp.arange(2.0)
    )
    expected = float(found[0]) - at @ shift @ at
    assert float(found[1]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("positive", [True, False])
def test_numbers_of_every_size_are_kept(positive):
    values = np.geomspace(1e-6, 1e6, 200).astype(np.float32)
    constraint = {"positive": True} if positive else {"bounded": (0, 2e6)}
    found = np.asarray(ed.parameter("v", values, **constraint).value.unwrap())
    # The logarithm, below 16, is rounded to 2**-21 at most; so are the exponential and the ends.
    np.testing.assert_allclose(found, values, rtol=2e-6)


@pytest.mark.parametrize(
    ("constraint", "low", "high"),
    [({"positive": True}, 0.0, np.inf), ({"bounded": (-0.3, 0)}, -0.3, 0.0),
     ({"bounded": (0, 0.1)}, 0.0, 0.1), ({"bounded": (100, 101)}, 100.0, 101.0)],
)  # fmt: skip
def test_the_ends_are_never_reached(constraint, low, high):
    middle = 1.0 if high == np.inf else (low + high) / 2
    held = ed.parameter("v", np.full(5, middle), **constraint).value
    far = eqx.tree_at(lambda h: h.free, held, jnp.array([-1e30, -200.0, 0.0, 200.0, 1e30]))
    value = np.asarray(jax.jit(lambda h: h.unwrap())(far))
    assert (value > np.float32(low)).all() and (value < np.float32(high)).all()
    again = np.asarray(far.at(value, "v").unwrap())
    np.testing.assert_allclose(again, value, rtol=1e-5)


def test_a_product_that_is_symmetric_up_to_rounding_is_symmetric():
    B = RNG.normal(size=(100, 50)).astype(np.float32)
    product = B @ np.diag(RNG.normal(size=50).astype(np.float32)) @ B.T
    kept = np.asarray(ed.parameter("W", product, symmetric=True).value.unwrap())
    np.testing.assert_array_equal(kept, kept.T)
    np.testing.assert_allclose(kept, product, atol=1e-5 * np.abs(product).max())


def test_a_matrix_of_low_rank_stays_so():
    left, right = RNG.normal(size=(5, 2)), RNG.normal(size=(7, 2))
    W = ed.parameter("W", (left @ right.T).astype(np.float32), low_rank=2).value
    assert (W.left.shape, W.right.shape, W.count) == ((5, 2), (7, 2), 24)
    np.testing.assert_allclose(W.unwrap(), left @ right.T, rtol=1e-4, atol=1e-5)
    # Of equal size, so that one rate of learning suits both.
    np.testing.assert_allclose(
        np.linalg.norm(W.left, axis=0), np.linalg.norm(W.right, axis=0), rtol=1e-5
    )
    x = ed.real("x", 5)
    model = ed.Model((x @ ed.parameter("W", (left, right), low_rank=2)).sum() + x @ x)
    np.testing.assert_allclose(
        model.replace(W=(2 * left, right)).parameters["W"], 2 * left @ right.T, rtol=1e-5
    )
    # One factor may begin at 0: the derivative in it is not 0.
    zero = ed.parameter("W", (left, 0 * right), low_rank=2)
    assert not np.asarray(zero.value.unwrap()).any()


MISTAKES = {
    "asymmetric": (A, {"symmetric": True},
                   r"Parameter 'W' is symmetric, but the given array has .* at \(0, 1\) and .* at "
                   r"\(1, 0\).*\(W \+ W.T\) / 2"),
    "diagonal": (SYMMETRIC, {"symmetric": True, "zero_diagonal": True},
                 r"zero diagonal, but the given array has .* at \(0, 0\)"),
    "not square": (np.ones((3, 4)), {"symmetric": True},
                   r"symmetric=True and the shape \(3, 4\); expected a square matrix"),
    "vector": (np.ones(3), {"zero_diagonal": True}, r"zero_diagonal=True and the shape \(3,\)"),
    "negative": (A, {"positive": True}, r"is positive, but is given -.*; expected numbers above 0"),
    "zero": (0.0, {"positive": True}, "is positive, but is given 0; expected numbers above 0"),
    "end": ([0.5, 1.0], {"bounded": (0, 1)},
            r"is given 1 at \(1,\); expected numbers above 0 and below 1, these two not included"),
    "outside": (-0.1, {"bounded": (0, 1)}, "is given -0.1; expected numbers above 0 and below 1"),
    "full rank": (np.eye(3), {"low_rank": 2},
                  r"of a higher one: its singular values begin with 1, 1, 1. Give.*factors"),
    "lower rank": (np.zeros((3, 3)), {"low_rank": 2}, "rank below 2. Learning would never move"),
    "dead": ((np.eye(3, 2) * [1, 0],) * 2, {"low_rank": 2}, "common column of zeros"),
    "rank of a vector": (np.ones(3), {"low_rank": 1}, r"expected a matrix of at least 1 rows"),
    "rank too high": (np.ones((3, 2)), {"low_rank": 3}, "at least 3 rows and columns"),
    "factors": ((np.ones((3, 2)), np.ones((4, 1))), {"low_rank": 2},
                r"factors of shapes \(3, 2\) and \(4, 1\); expected \(n, 2\) and \(m, 2\)"),
    "rank 0": (np.eye(3), {"low_rank": 0}, "low_rank=0; expected a whole number"),
    "two ranges": (0.5, {"positive": True, "bounded": (0, 1)}, "give one of the two"),
    "reversed": (0.5, {"bounded": (1, 0)}, r"bounded=\(1, 0\); expected low below high"),
    "no room": (0.5, {"bounded": (1, 1 + 1e-9)}, "with numbers of float32 between them"),
    "half-line": (0.5, {"bounded": (0, np.inf)}, "expected finite ends.*positive=True"),
    "NaN": (np.nan, {"positive": True}, "expected finite numbers"),
    "low rank and symmetric": (FLAT, {"low_rank": 1, "symmetric": True}, "declare one factor F"),
    "low rank and diagonal": (FLAT, {"low_rank": 1, "zero_diagonal": True}, "of higher rank"),
    "low rank and positive": (FLAT, {"low_rank": 1, "positive": True}, "two positive factors"),
    "low rank and bounded": (FLAT, {"low_rank": 1, "bounded": (0, 1)}, "two bounded factors"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_value_or_a_constraint_that_does_not_fit_is_told(mistake):
    init, constraints, said = MISTAKES[mistake]
    with pytest.raises(ValueError, match=f"(?s){said}"):
        ed.parameter("W", init, **constraints)


def test_settings_of_a_wrong_type_are_told(untyped):
    with pytest.raises(TypeError, match="symmetric=1; expected True or False"):
        ed.parameter("W", SYMMETRIC, symmetric=1)
    with pytest.raises(TypeError, match=r"bounded=3; expected two numbers, bounded=\(low, high\)"):
        ed.parameter("W", 1.0, bounded=3)
    wrapper = paramax.Parameterize(jnp.exp, jnp.zeros(()))
    with pytest.raises(TypeError, match="positive= and a paramax wrapper"):
        ed.parameter("W", wrapper, positive=True)
    with pytest.raises(TypeError, match=r"nonnegative.*above 0 are positive=True"):
        ed.parameter("W", 1.0, nonnegative=True)


def test_what_replace_is_given_obeys_the_constraint():
    ebm = ed.compile(model_of("hollow"))
    with pytest.raises(ValueError, match="'W' is symmetric, but the given array has"):
        ebm.replace(W=A)
    with pytest.raises(ValueError, match=r"replace got shape \(3, 3\) for 'W'; expected \(4, 4\)"):
        ebm.replace(W=np.zeros((3, 3)))
    with pytest.raises(ValueError, match="replace got NaN for 'W'"):
        ebm.replace(W=np.full((4, 4), np.nan))
    with pytest.raises(ValueError, match="an infinity for 'W'"):
        ebm.replace(W=np.full((4, 4), np.inf))
    with pytest.raises(TypeError, match="dtype complex64 for 'W'"):
        ebm.replace(W=1j * HOLLOW)
    low = model_of("low rank")
    with pytest.raises(ValueError, match=r"of a higher one.*factors \(L, R\)"):
        low.replace(W=np.eye(4))
    with pytest.raises(TypeError, match=r"inside a JAX transformation.*factors \(L, R\)"):
        jax.jit(lambda W: low.replace(W=W).energy(point(low)))(FLAT)
    with pytest.raises(ValueError, match=r"replace got shape \(4, 2\) for 'W'; expected \(4, 1\)"):
        low.replace(W=(np.ones((4, 2)), np.ones((4, 2))))
    # Of lower rank is less than was asked for, and no violation.
    assert not np.asarray(low.replace(W=np.zeros((4, 4))).parameters["W"]).any()


def test_new_values_do_not_recompile():
    traces = []

    @eqx.filter_jit
    def energy(ebm, x):
        traces.append(1)
        return ebm.energy(x)

    ebm = ed.compile(model_of("attractive"))
    x = point(ebm)
    found = {float(energy(ebm.replace(W=k * np.abs(HOLLOW)), x)) for k in (1, 2, 3)}
    assert len(found) == 3 and len(traces) == 1


def test_a_density_with_a_constrained_parameter_is_normalised():
    x, z = ed.real("x", 3), ed.real("z", 3)

    def scaled(**constraint):
        scale = ed.parameter("scale", 0.5, **constraint)
        energy = ed.LogDensity(dist.Normal)(x, 0.0, scale * np.exp(z / (1 + z**2)))
        return ed.compile(ed.Model(energy.sum() + ed.LogDensity(dist.Normal)(z, 0.0, 1.0).sum()))

    for constraint in ({"positive": True}, {"bounded": (0, 2)}):
        assert float(ed.log_partition(scaled(**constraint))) == 0.0
    for constraint in ({}, {"bounded": (-1, 1)}):
        assert not isinstance(scaled(**constraint).normalizer, ed.Exact)
    hollow = ed.parameter("W", np.ones((2, 2)) - np.eye(2), zero_diagonal=True, positive=True)
    assert not hollow.value.positive and hollow.value.limits == (0.0, np.inf)
    apart = ed.parameter("W", 1.5 * (1 - np.eye(2)), zero_diagonal=True, bounded=(1, 2))
    assert not apart.value.positive and apart.value.limits == (0.0, 2)


def test_a_bounded_parameter_is_a_probability():
    b, p = ed.binary("b", 2), ed.parameter("p", 0.3, bounded=(0, 1))
    y = ed.binary("y", 2)
    model = ed.Model(
        (ed.LogDensity(dist.Bernoulli)(y, 0.5 * p * (1 + b))).sum()
        + ed.LogDensity(dist.Bernoulli)(b, 0.5).sum()
    )
    assert float(ed.log_partition(ed.compile(model))) == pytest.approx(0.0, abs=1e-7)


def field():
    """A model with two fields, a network and data between them."""
    s, y = ed.spin("s", 3), ed.real("y", 2)
    b, c = ed.parameter("b", np.ones(3)), ed.parameter("c", 0.5, positive=True)
    net = ed.Neural(eqx.nn.MLP(2, "scalar", 3, 1, key=jr.key(0)))
    data = np.arange(3.0)
    energy = -(b * data) @ s - c * s.sum() - 2.0 * (b @ s) * y[0] + net(y) + y @ y
    return ed.Model(energy)


def learnt_names(model):
    held = zip(model.skeleton.slots, model.learnt, strict=True)
    return [r.name for r, mask in held if any(jax.tree.leaves(mask))]


def test_parameters_are_what_learns_and_what_is_frozen():
    model = field()
    assert list(model.parameters) == ["b", "c", "Neural"] == learnt_names(model)
    assert model.parameters.fixed == ()
    frozen = model.freeze("b", "Neural")
    assert list(frozen.parameters) == ["b", "c", "Neural"]
    assert frozen.parameters.fixed == ("b", "Neural")
    assert "fixed=['b', 'Neural']" in repr(frozen.parameters)
    assert learnt_names(frozen) == ["c"] and frozen.parameter_count == 1
    assert re.search(r"b \(3,\) fixed, c positive, Neural \(\d+ numbers\) fixed", str(frozen))
    flat, form = jax.tree.flatten(frozen.parameters)
    assert jax.tree.unflatten(form, flat).fixed == ("b", "Neural")


def test_freezing_is_undone():
    model = field()
    again = model.freeze("b", "Neural").unfreeze("Neural", "b")
    assert again == model and again.parameter_count == model.parameter_count
    fixed = ed.Model(ed.fixed(ed.parameter("b", np.ones(2))) @ ed.spin("s", 2))
    assert fixed.parameters.fixed == ("b",) and fixed.unfreeze("b").parameters.fixed == ()
    net = ed.fixed(ed.Neural(eqx.nn.MLP(2, "scalar", 3, 1, key=jr.key(0))))
    held = ed.Model(net(ed.real("y", 2)))
    assert held.parameters.fixed == ("Neural",) and held.parameter_count == 0
    assert learnt_names(held.unfreeze("Neural")) == ["Neural"]


def test_frozen_parameters_have_no_derivative_and_take_new_values():
    ebm = ed.compile(field()).freeze("b", "Neural")
    x = {"s": np.array([1, -1, 1]), "y": np.array([0.1, 0.2])}
    slope = eqx.filter_grad(lambda e: e.energy(x))(ebm).model.parameters
    assert not any(np.asarray(a).any() for a in jax.tree.leaves((slope["b"], slope["Neural"])))
    assert float(slope["c"])
    moved = ebm.replace(b=np.zeros(3))
    assert moved.parameters.fixed == ("b", "Neural")
    assert float(moved.energy(x)) != float(ebm.energy(x))


def test_a_frozen_part_stays_frozen_in_a_sum():
    model = field().freeze("b", "Neural")
    for made in (2.0 * model, model + ed.Model(ed.spin("t", 2).sum()), model.condition(y=[0, 0])):
        assert made.parameters.fixed == ("b", "Neural"), made
    other = ed.Model(0.5 * field().expression)
    assert other.parameters.fixed == ()
    s, net = ed.spin("s", 2), ed.Neural(eqx.nn.MLP(2, "scalar", 3, 1, key=jr.key(0)))
    one = ed.Model(net(s))
    with pytest.raises(ValueError, match="'Neural' is fixed in one place and learnt in another"):
        one.freeze("Neural") + one
    b = ed.parameter("b", np.ones(2))
    with pytest.raises(ValueError, match="'b' is fixed in one place and learnt in another"):
        ed.Model(b @ s).freeze("b") + ed.Model(b @ s)


def test_frozen_terms_are_no_batch_with_learnt_ones():
    s = ed.categorical("s", 40, levels=2)
    tables = [ed.Table(np.full(2, float(k))) for k in range(40)]
    apart = sum(t(s[k]) for k, t in enumerate(tables[:20]))
    frozen = ed.Model(apart).freeze("Table")
    both = frozen + ed.Model(sum(t(s[k + 20]) for k, t in enumerate(tables[20:])))
    assert both.parameter_count == 40 and both.parameters.fixed == ("Table",)


def test_frozen_networks_are_no_batch_with_learnt_ones():
    y = ed.real("y", 20)
    nets = [ed.Neural(eqx.nn.Linear("scalar", "scalar", key=jr.key(k))) for k in range(20)]
    terms = [net(y[k]) for k, net in enumerate(nets)]
    some = ed.Model(sum(terms[:8]))
    both = some.freeze(*some.parameters) + ed.Model(sum(terms[8:]))
    assert both.parameter_count == 2 * 12


@pytest.mark.parametrize("shared", [True, False])
def test_a_batch_of_frozen_networks_is_frozen(shared):
    y = ed.real("y", 20)
    nets = [ed.Neural(eqx.nn.Linear("scalar", "scalar", key=jr.key(k))) for k in range(20)]
    terms = [(nets[0] if shared else net)(y[k]) for k, net in enumerate(nets)]
    parts = [ed.Model(sum(terms[:10])), ed.Model(sum(terms[10:]))]
    frozen = [part.freeze(*part.parameters) for part in parts]
    twice = frozen[0] + frozen[0]  # the same functions, which its own terms have
    for whole in (sum(frozen), twice):
        assert whole.parameters and whole.parameter_count == 0
    assert sum(parts).parameter_count == (2 if shared else 40)


def test_only_what_is_not_frozen_is_learnt():
    rng = np.random.default_rng(0)
    s = ed.spin("s", 3)
    b, c = ed.parameter("b", np.ones(3)), ed.parameter("c", 0.1)
    ebm = ed.compile(ed.Model(-b @ s - c * (s[1:] * s[:-1]).sum())).freeze("b")
    data = rng.choice([-1, 1], (50, 3))
    run = dict(key=jr.key(0), steps=5, progress=False)
    learnt, _ = ed.fit(ebm, ed.MaximumLikelihood(), data, **run)
    np.testing.assert_array_equal(learnt.parameters["b"], np.ones(3))
    assert float(learnt.parameters["c"]) != float(ebm.parameters["c"])
    more, _ = ed.fit(learnt.unfreeze("b"), ed.MaximumLikelihood(), data, **run)
    assert (np.asarray(more.parameters["b"]) != 1).all()
    with pytest.raises(ValueError, match="nothing to learn"):
        ed.fit(ebm.freeze("c"), ed.MaximumLikelihood(), data, **run)


def test_names_that_are_unknown_are_told(untyped):
    ebm = ed.compile(field())
    for method in (ebm.freeze, ebm.unfreeze):
        name = method.__name__
        with pytest.raises(ValueError, match=f"^{name} got J; the parameters are b, c, Neural"):
            method("b", "J")
        with pytest.raises(ValueError, match=f"{name} got no name; expected names"):
            method()
        with pytest.raises(ValueError, match=rf"{name} got \['b'\]; expected names"):
            method(["b"])
    with pytest.raises(KeyError, match="'J' is no parameter; the parameters are"):
        ebm.parameters["J"]
    with pytest.raises(ValueError, match=r"Two parameters are named 'b', of shapes \(2,\) and"):
        s = ed.spin("s", 2)
        ed.Model(ed.parameter("b", np.ones(2)) @ s + ed.parameter("b", np.ones(2)) @ s)


def test_a_parameter_that_is_used_twice_is_one_array(tmp_path):
    s, t = ed.spin("s", 3), ed.spin("t", 3)
    W = ed.parameter("W", HOLLOW[:3, :3], symmetric=True, zero_diagonal=True)
    model = ed.Model(-(s @ W @ t) - s @ (W @ s)) + ed.Model(-(t @ W @ t))
    assert model.parameter_count == 3 and list(model.parameters) == ["W"]
    x = {"s": np.array([1, -1, 1]), "t": np.array([1, 1, -1])}
    expected = -x["s"] @ HOLLOW[:3, :3] @ x["t"]
    expected -= sum(x[n] @ HOLLOW[:3, :3] @ x[n] for n in "st")
    assert float(model.energy(x)) == pytest.approx(expected, rel=1e-5)
    twice = model.replace(W=2 * HOLLOW[:3, :3])
    assert float(twice.energy(x)) == pytest.approx(2 * expected, rel=1e-5)
    ed.save(twice, tmp_path / "W.safetensors")
    again = ed.load(tmp_path / "W.safetensors", ed.compile(model))
    np.testing.assert_array_equal(again.parameters["W"], twice.parameters["W"])
    assert float(again.energy(x)) == float(twice.energy(x))


@pytest.mark.parametrize("kind", ["attractive", "bounded", "low rank"])
def test_a_file_gives_back_every_bit(kind, tmp_path):
    model = model_of(kind)
    learnt = at_stored(model, lambda W: jax.tree.map(lambda a: 1.37 * a, W))
    ed.save(learnt, tmp_path / "p.safetensors")
    again = ed.load(tmp_path / "p.safetensors", model)
    np.testing.assert_array_equal(again.parameters["W"], learnt.parameters["W"])
    other = ed.Model((ed.parameter("W", FLAT) * ed.real("x", (4, 4)) ** 2).sum())
    with pytest.raises(
        ValueError, match=r"of another model.*W: absent in the file, shape \(4, 4\)"
    ):
        ed.load(tmp_path / "p.safetensors", other)


def test_a_checkpoint_knows_the_constraint(tmp_path):
    s, data = ed.spin("s", 2), np.ones((4, 2), int)
    run = dict(key=jr.key(0), steps=2, checkpoint=tmp_path, progress=False)

    def ebm(init, **constraint):
        return ed.compile(ed.Model(-ed.parameter("J", init, **constraint) * s.sum()))

    ed.fit(ebm(0.5, positive=True), ed.MaximumLikelihood(), data, **run)
    with pytest.raises(ValueError, match="another run: model's parameters"):
        ed.fit(ebm(0.5, bounded=(0, 1)), ed.MaximumLikelihood(), data, **run)
    with pytest.raises(ValueError, match="another run"):
        ed.fit(ebm(0.5), ed.MaximumLikelihood(), data, **run)


def test_exact_log_z_differentiates_through_a_constraint():
    s = ed.spin("s", 2)
    J = ed.parameter("J", 0.7, positive=True)
    ebm = ed.compile(ed.Model(-J * s[0] * s[1]))
    slope = eqx.filter_grad(ed.log_partition)(ebm).model.stored["J"].free
    # log Z = log(4 cosh J), and dJ/da = J.
    assert float(slope) == pytest.approx(0.7 * np.tanh(0.7), rel=1e-6)
    assert shown(3.0) == 3.0
