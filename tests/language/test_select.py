"""Arrays indexed by variables: mixtures and tables as they are written on paper."""

import itertools

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.special
from numpyro.distributions import constraints

import energydsl as ed
from energydsl.language.expression.range import lies_in

RNG = np.random.default_rng(8)
MU = np.array([-1.0, 0.5, 2.0], np.float32)
T3 = RNG.normal(size=(3, 4, 3)).astype(np.float32)
K, Z, B, L = 2, np.array([0, 2, 1, 1, 0]), np.array([1, 0, 1]), 3
LABELS = {"k": K, "z": Z, "b": B, "l": L}
KNOWN = {"rows": np.array([2, 0, 1]), "cols": np.array([[0], [3]])}


def views():
    return {
        "k": ed.categorical("k", levels=3),
        "z": ed.categorical("z", 5, levels=3),
        "b": ed.binary("b", 3),
        "l": ed.integer("l", low=0, high=3),
    }


@pytest.mark.parametrize("whole", ["parameter", "variable", "data"])
@pytest.mark.parametrize(
    "formula",
    [
        "mu[k]", "mu[z]", "mu[z[1:]]", "mu[b]", "mu[z.reshape(5, 1)]", "(mu**2)[k] + mu[::-1][k]",
        "t[k]", "t[z]", "t[:, l]", "t[..., z]", "t[k, l]", "t[z, l, k]", "t[1:, l, z]",
        "t[:, l, 1:]", "t[z, :2]", "t[z[1:, None], l]", "t[:, 0][z[1:], z[:-1]]",
        "t[k, 0]", "t[0, l]", "t[-1, 2, k]", "t[rows, l]", "t[z[2:], rows]", "t[:, rows, z[:3]]",
        "t[rows[:, None], l, z]", "t[rows, z[:3], 1]", "t[1:, cols, z]", "t[rows, z[:3], ::2]",
    ],
)  # fmt: skip
def test_a_variable_selects_as_in_numpy(whole, formula):
    expected = eval(formula, {"mu": MU, "t": T3, **LABELS, **KNOWN})
    arrays = {"mu": MU, "t": T3}
    if whole == "parameter":
        held = {n: ed.parameter(n, a) for n, a in arrays.items()}
    elif whole == "variable":
        held = {n: ed.real(n, a.shape) for n, a in arrays.items()}
    else:
        held = {n: ed.take(a, np.arange(len(a)), axis=0) for n, a in arrays.items()}
    expression = eval(formula, views() | held | KNOWN)
    assert expression.shape == expected.shape
    weights = RNG.normal(size=expected.shape)
    model = ed.Model((weights * expression).sum())
    values = {v.name: (LABELS | arrays)[v.name] for v in model.variables}
    np.testing.assert_allclose(
        model.energy(values), (weights * expected).sum(), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
def test_take_is_for_arrays(array):
    k = views()["k"]
    model = ed.Model(ed.take(array(MU), k) + ed.take(array(T3), k, axis=-1).sum())
    expected = MU[K] + T3[..., K].sum()
    np.testing.assert_allclose(model.energy({"k": K}), expected, rtol=1e-5)


def normal(x, mean):
    return (x - mean) ** 2 / 2


def test_a_mixture_reads_as_on_paper_and_is_exact():
    z, data = ed.categorical("z", 4, levels=3), np.array([-1.2, 0.3, 2.5, 0.1])
    mu = ed.parameter("mu", MU)
    ebm = ed.compile(ed.Model(((data - mu[z]) ** 2).sum() / 2))
    energies = normal(data[:, None], MU.astype(float))
    expected = scipy.special.logsumexp(-energies, axis=1).sum()
    np.testing.assert_allclose(ed.log_partition(ebm), expected, rtol=1e-6)
    marginal = np.asarray(ebm.conditional("z", {"z": np.zeros(4, int)}).probs)
    np.testing.assert_allclose(marginal, scipy.special.softmax(-energies, axis=1), atol=1e-5)
    assert str(ebm.model).splitlines()[0] == "Model: E = ((f32[4] - mu[z])**2).sum() / 2"


def test_unknown_means_given_the_labels_are_gaussian():
    """The sum over labels of the Gaussian integrals over data and means, with dense algebra."""
    z, x, mu = ed.categorical("z", 3, levels=2), ed.real("x", 3), ed.real("mu", 2)
    coupling = np.array([0.3, -0.2, 0.5])
    ebm = ed.compile(
        ed.Model(((x - mu[z]) ** 2).sum() / 2 + (mu**2).sum() / 8 - (coupling * x).sum())
    )
    assert ebm.normalizer.kind == "exact"
    total = []
    for labels in itertools.product(range(2), repeat=3):
        design = np.zeros((3, 5))
        design[:, :3], design[np.arange(3), 3 + np.array(labels)] = np.eye(3), -1
        precision = design.T @ design + np.diag([0, 0, 0, 0.25, 0.25])
        pull = np.concatenate([coupling, [0, 0]])
        total.append(
            2.5 * np.log(2 * np.pi)
            - np.linalg.slogdet(precision)[1] / 2
            + pull @ np.linalg.solve(precision, pull) / 2
        )
    np.testing.assert_allclose(ed.log_partition(ebm), scipy.special.logsumexp(total), rtol=1e-6)


def test_what_is_selected_of_positive_numbers_is_positive():
    k, scale, x = ed.categorical("k", levels=2), ed.positive("scale", 2), ed.real("x")
    given = ed.LogDensity(dist.Normal)(x, 0.0, scale[k]) + ed.LogDensity(dist.LogNormal(0.0, 1.0))(
        scale
    )
    ebm = ed.compile(ed.Model(given + ed.LogDensity(dist.CategoricalProbs)(k, np.full(2, 0.5))))
    # Every variable is drawn from a normalised density, given earlier ones.
    assert ebm.normalizer.kind == "exact" and ed.log_partition(ebm) == 0
    assert not lies_in(ed.real("m", 2)[k], constraints.positive)


def test_known_rows_of_a_selection_leave_each_element_a_factor_of_its_own():
    """Every site has its own row of a table, and touches only its own entry of an array."""
    z, m = ed.categorical("z", 3, levels=4), ed.real("m", (3, 4))
    b = ed.parameter("b", T3[..., 0])
    ebm = ed.compile(ed.Model(b[np.arange(3), z].sum()))
    assert len(ebm.structure.edges) == 0
    expected = scipy.special.logsumexp(-T3[..., 0].astype(float), axis=1).sum()
    np.testing.assert_allclose(ed.log_partition(ebm), expected, rtol=1e-6)
    joined = ed.compile(ed.Model((m[np.arange(3), z] ** 2).sum() + (m**2).sum())).structure.edges
    # A label interacts with the four means of its own row, and these with each other.
    blocks = ([*range(4 * row, 4 * row + 4), 12 + row] for row in range(3))
    expected = [list(pair) for block in blocks for pair in itertools.combinations(block, 2)]
    assert sorted(joined.tolist()) == sorted(expected)


def test_each_element_of_a_selection_is_a_factor_of_its_own():
    z, a = ed.categorical("z", 6, levels=3), ed.parameter("a", RNG.normal(size=(3, 3)))
    ebm = ed.compile(ed.Model(a[z[1:], z[:-1]].sum()))
    assert ebm.structure.edges.tolist() == [[i, i + 1] for i in range(5)]
    step = np.exp(-np.asarray(ebm.parameters["a"], float))
    expected = np.log(np.linalg.matrix_power(step, 5).sum())
    np.testing.assert_allclose(ed.log_partition(ebm), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("line", "error", "message"),
    [
        ("mu[k + 1]", TypeError, r"got k \+ 1, which is computed; expected a view .*count from 0"),
        ("mu[k == 1]", TypeError, "which is computed"),
        ("mu[ed.spin('s')]", TypeError, r"got s, which is spin; .*levels=3"),
        ("mu[ed.real('r')]", TypeError, "got r, which is real"),
        ("mu[ed.count('n')]", TypeError, "got n, which is count"),
        ("mu[ed.integer('i', low=-1, high=1)]", TypeError, "count from 0"),
        ("mu[l]", ValueError, r"got l, which is integer.*, for an axis of 3 entries"),
        ("t[k, :, 0]", TypeError, r"Apply the other parts first: A\[:, :, 0\]\[k\]"),
        ("t[k, :, k]", TypeError, "variables and known integers side by side"),
        ("t[np.arange(3) > 1, l]", TypeError, "beside a mask"),
        ("t[k, None, l]", TypeError, "a new axis"),
        ("t[4, l]", IndexError, "out of bounds"),
        ("t[np.arange(2), z]", ValueError, "variables and arrays of an index have shapes"),
        ("mu[k, k]", IndexError, "2 parts for an expression of 1 axes"),
        ("ed.take(mu, k, axis=1)", ValueError, r"axis 1 for an expression of shape \(3,\)"),
        ("t[z, z[1:]]", ValueError, "of an index have shapes .* do not broadcast"),
    ],
)  # fmt: skip
def test_a_wrong_index_is_told(line, error, message):
    held = {"mu": ed.parameter("mu", MU), "t": ed.parameter("t", T3), "ed": ed, "np": np}
    with pytest.raises(error, match=message):
        eval(line, views() | held)
