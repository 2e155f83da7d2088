"""What values prove: attractive couplings and zero fields, without tolerance."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest

import energydsl as ed
from energydsl.analysis import value_checks as values
from energydsl.analysis.structure import Structure
from energydsl.analysis.value_checks import has_zero_field, is_attractive, no_growth

S, B = ed.spin("s", 4), ed.binary("b", 4)
C, N = ed.categorical("c", 4, levels=2), ed.integer("n", 4, low=3, high=4)


def asked(question, energy, **evidence):
    model = ed.Model(energy)
    model = model.condition(**evidence) if evidence else model
    return question(Structure(model), model)


def pair(table):
    """A table over levels 0 < 1 of the first two sites."""
    return ed.Table(np.array(table, np.float64))(B[0], B[1])


@pytest.mark.parametrize(
    "energy",
    [
        -0.3 * (S[1:] * S[:-1]).sum(),
        -0.3 * (S[1:] * S[:-1]).sum() + np.array([5.0, -2, 0, 1]) @ S,
        -(S @ np.full((4, 4), 0.2) @ S),
        -(B[1:] * B[:-1]).sum() + 3.0 * B.sum(),
        ((N[1:] - N[:-1]) ** 2).sum(),
        (C[1:] != C[:-1]).sum(),
        abs(S[1:] - S[:-1]).sum(),
        0.0 * (S[1:] * S[:-1]).sum(),
        S.sum() * 2.0,
        pair([[0, 1], [1, 2]]),
        pair([[0, 0.5], [0.5, 1 - 2.0**-20]]),
        pair([[0, np.inf], [np.inf, 0]]),
        pair([[np.inf, np.inf], [1, 0]]),
        -(S[0] * B[0]) - S[1] * B[1],
    ],
    ids=range(14),
)
def test_attractive_models(energy):
    assert asked(is_attractive, energy)


@pytest.mark.parametrize(
    "energy",
    [
        0.3 * (S[1:] * S[:-1]).sum(),
        np.array([-1, -1, 1e-30]) @ (S[1:] * S[:-1]),
        pair([[0, 0.5], [0.5, 1 + 2.0**-20]]),
        pair([[np.inf, 0], [0, 0]]) + pair([[0, 0], [0, np.inf]]),
        pair([[0, 0], [0, np.inf]]),
        (C[1:] == C[:-1]).sum(),
        -(S[0] * S[1] * S[2]),
        -(S[0] * S[1]) + ed.exp(S.sum()),
        -(ed.categorical("d", 3, levels=3)[1:] == ed.categorical("d", 3, levels=3)[:-1]).sum(),
        -(S[1:] * S[:-1]).sum() + ed.integer("m", low=0, high=5) * 1.0,
        -(S[1:] * S[:-1]).sum() + ed.real("x") ** 2,
        (S[0] * B[0]) - S[1] * B[1],
    ],
    ids=range(12),
)
def test_models_that_are_not_attractive(energy):
    assert not asked(is_attractive, energy)


def test_a_table_that_is_almost_attractive_is_not():
    for gap in (1e-3, 1e-6, 2.0**-23):
        table = np.array([[0.0, 1.0], [1.0, 2.0]], np.float32)
        corner = np.array([[0.0, 0.0], [0.0, 2 * gap]])
        assert asked(is_attractive, pair(table - corner))
        assert not asked(is_attractive, pair(table + corner))


def test_parallel_factors_count_together():
    repelled, drawn = 0.5 * B[0] * B[1], -0.75 * B[1] * B[0]
    assert not asked(is_attractive, repelled)
    assert asked(is_attractive, repelled + drawn)
    assert asked(is_attractive, repelled + ed.Table([[0.0, 0.0], [0.0, -0.5]])(B[1], B[0]))
    assert not asked(is_attractive, repelled - 0.25 * B[0] * B[1])
    # Cancellation to a float32's last place is seen.
    tiny = np.float32(1e-8) * B[0] * B[1]
    assert not asked(is_attractive, 1.0 * B[0] * B[1] + tiny - 1.0 * B[0] * B[1])
    assert asked(is_attractive, 1.0 * B[0] * B[1] - tiny - 1.0 * B[0] * B[1])


def test_orientation_does_not_matter():
    table = np.array([[0.0, 2.0], [-1.0, 0.5]])
    for a, b in itertools.permutations(range(4), 2):
        assert asked(is_attractive, ed.Table(table)(B[a], B[b])) == (0.5 <= 2 - 1)


def test_evidence_takes_a_pair_out():
    energy = -(S[1:] * S[:-1]).sum() + 2.0 * S[0] * S[3]
    assert not asked(is_attractive, energy)
    model = ed.Model(energy).condition({S[3]: -1})
    assert is_attractive(Structure(model), model)
    triple = ed.Model(-(S[0] * S[1] * S[2]))
    for value, attractive in ((1, True), (-1, False)):
        held = triple.condition({S[2]: value})
        assert is_attractive(Structure(held), held) is attractive


@pytest.mark.parametrize("seed", range(20))
def test_attraction_of_random_tables_by_their_definition(seed):
    rng = np.random.default_rng(seed)
    tables = rng.integers(-3, 4, size=(3, 2, 2)) * 0.5
    a, b = rng.permutation(4)[:2]
    energy = sum(ed.Table(table)(B[a], B[b]) for table in tables)
    total = tables.sum(axis=0)
    assert asked(is_attractive, energy) == (total[0, 0] + total[1, 1] <= total[0, 1] + total[1, 0])


@pytest.mark.parametrize(
    "energy",
    [
        0.3 * (S[1:] * S[:-1]).sum(),
        (np.array([0.3, -2, 1e-9]) * S[1:] * S[:-1]).sum() + 4.0,
        S[0] * S[1] * S[2] * S[3],
        S @ np.full((4, 4), 0.1) @ S,
        ed.softplus(0.37 * S[1:] * S[:-1]).sum(),
        ed.exp(0.1 * S.sum() ** 2),
        ((B[1:] - B[:-1]) ** 2).sum(),
        (C[1:] == C[:-1]).sum(),
        ed.Table(np.array([[0.1, np.inf], [np.inf, 0.1]]))(B[0], B[1]),
        ed.apply(lambda v: jnp.abs(v.sum()), S),
    ],
    ids=range(10),
)
def test_models_without_a_field(energy):
    assert asked(has_zero_field, energy)


@pytest.mark.parametrize(
    "energy",
    [
        (S[1:] * S[:-1]).sum() + 1e-30 * S[2],
        (S[1:] * S[:-1]).sum() - np.array([0, 0, 0, 1e-7]) @ S,
        S[0] * S[1] * S[2],
        (B[1:] * B[:-1]).sum(),
        ed.Table(np.array([[0.1, 0.0], [0.0, 0.1000001]]))(B[0], B[1]),
        ed.exp(0.1 * S.sum()),
        (S[1:] * S[:-1]).sum() + ed.real("x") ** 2,
        (S[1:] * S[:-1]).sum() + (ed.categorical("d", levels=3) == 1),
    ],
    ids=range(8),
)
def test_models_with_a_field(energy):
    assert not asked(has_zero_field, energy)


def test_fields_that_cancel_between_factors_are_not_seen():
    assert not asked(has_zero_field, (S[1:] * S[:-1]).sum() + S[0] - S[0])
    # The product of sums is four factors, three of them with a field.
    assert not asked(has_zero_field, ((B[1:] - 0.5) * (B[:-1] - 0.5)).sum())


def test_evidence_makes_fields():
    model = ed.Model((S[1:] * S[:-1]).sum())
    assert has_zero_field(Structure(model), model)
    held = model.condition({S[0]: 1})
    assert not has_zero_field(Structure(held), held)
    two = ed.Model(S[0] * S[1] * S[2] * S[3]).condition({S[:2]: [1, -1]})
    assert has_zero_field(Structure(two), two)


def test_what_is_too_wide_to_try_is_not_shown(monkeypatch):
    wide = ed.spin("w", 40)
    assert not asked(has_zero_field, ed.exp(0.01 * wide.sum() ** 2))
    monkeypatch.setattr(values, "MAX_TERMS", 15)
    assert asked(has_zero_field, S[0] * S[1])
    assert not asked(has_zero_field, S[0] * S[1] * S[2] * S[3])


def test_values_that_are_traced_prove_nothing():
    answers = []

    @jax.jit
    def ask(coupling):
        model = ed.Model(coupling * (S[1:] * S[:-1]).sum())
        structure = Structure(model)
        answers.append((is_attractive(structure, model), has_zero_field(structure, model)))
        return coupling

    ask(-1.0)
    assert answers == [(False, False)]


def test_new_values_give_new_answers():
    def model(coupling):
        return ed.Model(coupling * (S[1:] * S[:-1]).sum())

    structure = Structure(model(-1.0))
    assert is_attractive(structure, model(-2.0))
    assert not is_attractive(structure, model(0.5))


X, T = ed.real("x", 2), ed.spin("t", 3)
SMOOTH = eqx.nn.MLP(2, "scalar", 8, 2, activation=jnp.tanh, key=jr.key(0))
GROWS = [
    (X**4).sum(),
    abs(X).sum(),
    ed.Neural(SMOOTH)(X) + 1e-6 * (X**2).sum(),
    ed.LogDensity(dist.Cauchy(0.0, 1.0))(X).sum(),
    ed.LogDensity(dist.StudentT(0.1, 0.0, 1.0))(X).sum(),
    ed.LogDensity(dist.MultivariateStudentT(1.0, jnp.zeros(2), jnp.eye(2)))(X),
    (X**4).sum() - X[0] * T.sum() + ed.positive("p"),
    -ed.logaddexp(-((X - 3) ** 2).sum(), -((X + 3) ** 2).sum()),
    ed.exp(X).sum() + ed.exp(-X).sum(),
    T.sum() * 1.0,
]
DOES_NOT = [
    -(X**4).sum(),
    (X**3).sum(),
    ed.Neural(SMOOTH)(X),
    ed.log(1 + abs(X)).sum(),
    X[0] ** 4 + 0.1 * X[1] ** 3,
    -(X**3).sum() - X[0] * T.sum() + ed.positive("p"),
]


@pytest.mark.parametrize("energy", GROWS, ids=str)
def test_energies_that_grow(energy):
    model = ed.Model(energy)
    assert no_growth(Structure(model), model) is None


@pytest.mark.parametrize("energy", DOES_NOT, ids=str)
def test_energies_that_do_not_grow(energy):
    model = ed.Model(energy)
    assert "far out along x[" in no_growth(Structure(model), model)


@pytest.mark.slow
def test_an_energy_that_does_not_grow_is_told_where_its_integral_is_asked_for():
    ebm = ed.compile(ed.Model(ed.Neural(SMOOTH)(X)))
    said = r"does not grow far out along x\[0\].*0\.01 \* \(x @ x\) would make it finite"
    assert "does not grow far out" in str(ebm.explain())
    with pytest.raises(ValueError, match=said):
        ed.estimate_log_partition(ebm, key=jr.key(0))
    with pytest.raises(ValueError, match=said):
        ed.fit(ebm, ed.MaximumLikelihood(), np.zeros((4, 2), np.float32), key=jr.key(0))
    with pytest.raises(ValueError, match="no finite integral"):
        ed.log_partition(ebm)
