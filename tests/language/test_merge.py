"""Sums written term by term: the energy stays, what interacts stays, and the tree is small."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import energydsl as ed
from energydsl.analysis.structure import Structure
from energydsl.language.expression import post_order
from energydsl.language.merge import terms as merge

SITES, MANY = 6, merge.FEW + 3
RNG = np.random.default_rng(23)
S, C, Y = ed.spin("s", SITES), ed.categorical("c", SITES, levels=3), ed.real("y", (SITES, 2))
MATRIX = RNG.normal(size=(2, 2)).astype(np.float32)
STACK = RNG.normal(size=(MANY, 2, 2)).astype(np.float32)
TABLES = RNG.normal(size=(MANY, 3, 3)).astype(np.float32)
COUPLINGS = RNG.normal(size=SITES).astype(np.float32)
NETWORK = ed.Neural(lambda v: jnp.tanh(v @ jnp.ones(2)))


class Bond(ed.AbstractPotential):
    """A potential of a user's own, one object an edge."""

    weight: jax.Array

    def energy(self, a, b):
        return self.weight[0] * a * b + self.weight[1] * a


class Numpy:
    """What terms call, on arrays of NumPy in float64."""

    J = COUPLINGS.astype(float)
    tanh = staticmethod(np.tanh)

    @staticmethod
    def table(k, a, b):
        return -float(TABLES[k][a, b])

    @staticmethod
    def bond(k, a, b):
        return STACK[k, 0, 0] * a * b + STACK[k, 0, 1] * a

    @staticmethod
    def network(v):
        return np.tanh(v.sum())

    @staticmethod
    def steps(v):
        return np.cumsum(v)

    stack, matrix = STACK.astype(float), MATRIX.astype(float)


class Declared:
    """The same on views."""

    tanh = staticmethod(ed.tanh)

    def __init__(self):
        self.J = ed.parameter("J", COUPLINGS)

    @staticmethod
    def table(k, a, b):
        return ed.Table(log_potential=TABLES[k])(a, b)

    @staticmethod
    def bond(k, a, b):
        return Bond(jnp.asarray(STACK[k, 0]))(a, b)

    @staticmethod
    def network(v):
        return NETWORK(v)

    @staticmethod
    def steps(v):
        return ed.apply(jnp.cumsum, v)

    stack, matrix = STACK, MATRIX


TERMS = [
    lambda k, i, j, s, c, y, m: 0.1 * (k + 1) * s[i] * s[j],
    lambda k, i, j, s, c, y, m: m.J[i] * s[j] * s[i],
    lambda k, i, j, s, c, y, m: m.table(k, c[i], c[j]),
    lambda k, i, j, s, c, y, m: m.bond(k, s[i], s[j]),
    lambda k, i, j, s, c, y, m: m.network(y[i]),
    lambda k, i, j, s, c, y, m: m.network(y[i]) * s[j],
    lambda k, i, j, s, c, y, m: (m.steps(y[i]) * y[j]).sum(),
    lambda k, i, j, s, c, y, m: y[i] @ m.stack[k] @ y[j],
    lambda k, i, j, s, c, y, m: y[i] @ m.matrix @ y[j],
    lambda k, i, j, s, c, y, m: (m.matrix @ y[i]) @ m.stack[k, 0],
    lambda k, i, j, s, c, y, m: ((m.stack[k] @ m.matrix) @ y[i]).sum(),
    lambda k, i, j, s, c, y, m: ((y[i : i + 1] - m.stack[k]) ** 2).sum(0)[1],
    lambda k, i, j, s, c, y, m: (y[i] * s[j] - 0.5 * y[j])[::-1][0] / 3.0,
    lambda k, i, j, s, c, y, m: (c[i] == c[j]) * 0.7 + s[i],
    lambda k, i, j, s, c, y, m: (y[[i, j]] * y[:2].T).sum() * (c[i] == k % 3),
    lambda k, i, j, s, c, y, m: m.tanh(y @ y[i]).sum() - 1.5,
    lambda k, i, j, s, c, y, m: s.sum() * 0.5,
]
"""Of a number, two sites, the variables, and what is called."""


def declared(terms, pairs, signs):
    """The sum as a loop of Python writes it."""
    total, m = 0, Declared()
    for k, ((i, j), sign) in enumerate(zip(pairs, signs, strict=True)):
        for term in terms:
            one = TERMS[term](k, i, j, S, C, Y, m)
            total = total + one if sign > 0 else total - one
    return total


def configuration(seed):
    rng = np.random.default_rng(seed)
    return {
        "s": rng.choice([-1, 1], SITES),
        "c": rng.integers(0, 3, SITES),
        "y": rng.normal(size=(SITES, 2)),
    }


def in_numpy(terms, pairs, signs, x):
    return sum(
        sign * TERMS[term](k, i, j, x["s"], x["c"], x["y"], Numpy)
        for k, ((i, j), sign) in enumerate(zip(pairs, signs, strict=True))
        for term in terms
    )


sites = st.integers(0, SITES - 1)


@settings(deadline=None, max_examples=15)
@given(
    terms=st.lists(st.integers(0, len(TERMS) - 1), min_size=1, max_size=2, unique=True),
    pairs=st.lists(st.tuples(sites, sites), min_size=MANY, max_size=MANY),
    minus=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, 2**20),
)
def test_the_energy_is_the_sum_of_the_terms(terms, pairs, minus, seed):
    signs = np.where(np.random.default_rng(seed).random(MANY) < minus, -1, 1)
    model = ed.Model(declared(terms, pairs, signs) + 0.0 * S.sum())
    x = configuration(seed)
    energy = model.energy({v.name: x[v.name] for v in model.variables})
    # float32 against float64: a hundred terms of order 10.
    np.testing.assert_allclose(energy, in_numpy(terms, pairs, signs, x), rtol=1e-4, atol=2e-3)
    assert len(list(post_order(model.skeleton.root))) < 30 * len(terms)


def scopes(model):
    """Who is in each factor, over all batches, in an order of its own."""
    structure = Structure(model)
    return sorted(tuple(np.unique(row)) for f in structure.factors for row in structure.scope(f))


@pytest.mark.parametrize("term", range(len(TERMS)))
def test_scopes_and_degrees_are_those_of_the_terms_by_themselves(term, monkeypatch):
    rng = np.random.default_rng(term)
    pairs, signs = rng.integers(0, SITES, (MANY, 2)).tolist(), rng.choice([-1, 1], MANY)
    merged = ed.Model(declared([term], pairs, signs))
    monkeypatch.setattr(merge, "FEW", 10**9)
    written = ed.Model(declared([term], pairs, signs))
    assert scopes(merged) == scopes(written)
    first, second = Structure(merged), Structure(written)
    assert len(first.factors) <= 8 < len(second.factors)
    np.testing.assert_array_equal(first.edges, second.edges)
    for v in merged.variables:
        assert first.degree_in(v) == second.degree_in(v)


def test_edges_written_one_by_one_are_the_edge_list():
    i, j = RNG.integers(0, 40, (2, 90))
    i, j = i[i != j], j[i != j]
    w = RNG.normal(size=len(i)).astype(np.float32)
    s = ed.spin("s", 40)
    loop = ed.Model(sum(float(w[k]) * s[i[k]] * s[j[k]] for k in range(len(i))))
    vector = ed.Model((w * s[i] * s[j]).sum())
    assert loop == vector and hash(loop) == hash(vector)
    assert str(loop) == str(vector)


def test_few_terms_stay_as_they_are_written():
    s = ed.spin("s", 20)
    few = sum(0.5 * s[k] * s[k + 1] for k in range(merge.FEW - 1))
    assert str(few) in str(ed.Model(few))
    bonds = sum((ed.roll(S, k) * S).sum() for k in (1, 2))
    assert str(bonds) in str(ed.Model(bonds))


def test_a_declared_array_stays_one_and_learns_as_one():
    J = ed.parameter("J", COUPLINGS)
    model = ed.Model(sum(J[k % SITES] * S[k % SITES] for k in range(MANY)) + J @ S)
    assert list(model.parameters) == ["J"]
    slope = jax.grad(lambda j: model.replace(J=j).energy({"s": np.ones(SITES)}))(
        jnp.asarray(COUPLINGS)
    )
    counts = np.bincount(np.arange(MANY) % SITES) + 1.0
    np.testing.assert_allclose(slope, counts)


def test_tables_are_stacked_and_one_that_is_used_twice_stays_one():
    tables = [ed.Table(t) for t in TABLES]
    model = ed.Model(sum(t(C[k % 5], C[k % 5 + 1]) for k, t in enumerate(tables)))
    assert {n: v.shape for n, v in model.parameters.items()} == {"Table": (MANY, 3, 3)}

    tied = ed.Model(sum(tables[0](C[k % 5], C[k % 5 + 1]) for k in range(MANY)))
    assert {n: v.shape for n, v in tied.parameters.items()} == {"Table": (3, 3)}

    again = sum(t(C[k % 5], C[k % 5 + 1]) for k, t in enumerate(tables)) + tables[0](C[3], C[1])
    shapes = [v.shape for v in ed.Model(again * 1.0).parameters.values()]
    assert sorted(shapes) == [(3, 3), (MANY - 1, 3, 3)]

    fixed = sum(ed.Table(ed.fixed(t))(C[0], C[1]) for t in TABLES)
    assert ed.Model(fixed).parameter_count == 0
    assert ed.Model(sum(ed.Table(t)(C[0], C[1]) for t in TABLES)).parameter_count == MANY * 9


def test_a_part_that_is_shared_by_a_sum_and_another_stays_tied():
    tables = [ed.Table(t) for t in TABLES]
    total = sum(t(C[k % 5], C[k % 5 + 1]) for k, t in enumerate(tables))
    twice = ed.Model(total + ed.exp(0.01 * total))
    assert twice.parameter_count == MANY * 9
    terms = [t(C[k % 5], C[k % 5 + 1]) for k, t in enumerate(tables)]
    both = ed.Model(sum(terms) + ed.tanh(sum(t * S[0] for t in terms)))
    assert both.parameter_count == MANY * 9


def test_potentials_of_one_form_are_one_call_with_their_numbers_stacked():
    bonds = [Bond(jnp.asarray(STACK[k, 0])) for k in range(MANY)]
    model = ed.Model(sum(b(S[k % SITES], S[0]) for k, b in enumerate(bonds)))
    assert {n: v.shape for n, v in model.parameters.items()} == {"Bond.weight": (MANY, 2)}
    slope = jax.grad(lambda p: model.replace(p).energy({"s": np.ones(SITES)}))(
        dict(model.parameters)
    )
    np.testing.assert_allclose(slope["Bond.weight"], 1.0)


def test_normalised_densities_stay_so():
    import numpyro.distributions as dist

    y = ed.real("y", MANY)
    locs = np.linspace(-1, 1, MANY)
    law = sum(ed.LogDensity(dist.Normal(float(m), 0.5))(y[k]) for k, m in enumerate(locs))
    ebm = ed.compile(ed.Model(law))
    assert abs(float(ed.log_partition(ebm))) < 1e-5
    assert len(ebm.structure.factors) == 1


def test_what_many_terms_share_is_computed_once():
    calls = []

    def hidden(v):
        calls.append(1)
        return jnp.tanh(v)

    h = ed.apply(hidden, Y[0])
    model = ed.Model(sum(h[k % 2] * S[k % SITES] * 0.5 for k in range(2 * merge.FEW)))
    calls.clear()
    x = {"y": np.ones((SITES, 2)), "s": np.ones(SITES)}
    np.testing.assert_allclose(model.energy(x), merge.FEW * np.tanh(1.0), rtol=1e-5)
    assert len(calls) == 1

    both = h, ed.apply(hidden, Y[1])
    count = 4 * merge.FEW
    model = ed.Model(sum(both[k // 2 % 2][k % 2] * S[k % SITES] * 0.5 for k in range(count)))
    calls.clear()
    np.testing.assert_allclose(model.energy(x), count / 2 * np.tanh(1.0), rtol=1e-5)
    assert len(calls) == 2
    assert max(node.size for node in post_order(model.skeleton.root)) <= count


def test_a_node_that_nothing_is_known_of_stays_as_it_is():
    model = ed.Model(sum((Y[k % SITES] * k).max() for k in range(MANY)))
    y = RNG.normal(size=(SITES, 2))
    expected = sum((y[k % SITES] * k).max() for k in range(MANY))
    np.testing.assert_allclose(model.energy({"y": y}), expected, rtol=1e-5)


def test_large_terms_stay(monkeypatch):
    monkeypatch.setattr(merge, "MAX_ELEMENTS", MANY * SITES - 1)
    shifts = sum(0.1 * (S * ed.roll(S, k)).sum() for k in range(MANY))
    assert "int[" not in str(ed.Model(shifts))


def test_sums_inside_functions_and_products_are_merged_too():
    total = sum(0.01 * S[k % SITES] * S[0] for k in range(MANY))
    model = ed.Model(-2.0 * total + ed.exp(total) / 3.0)
    assert len(str(model)) < 400
    value = 0.01 * MANY
    np.testing.assert_allclose(
        model.energy({"s": np.ones(SITES)}), -2 * value + np.exp(value) / 3, rtol=1e-5
    )


def test_numbers_never_decide_the_structure():
    def of(numbers):
        return ed.Model(sum(c * S[k % SITES] for k, c in enumerate(numbers)))

    assert of([1] * MANY) == of(range(MANY)) == of(np.linspace(-1, 1, MANY))


def test_thousands_of_edges_and_tables_are_a_few_batches():
    count = 3_000
    s, c = ed.spin("s", count), ed.categorical("c", count, levels=2)
    i, j = RNG.integers(0, count, (2, count))
    edges = sum((-1) ** k * 0.1 * s[a] * s[b] for k, (a, b) in enumerate(zip(i, j, strict=True)))
    table = np.ones((2, 2), np.float32)
    tables = sum(ed.Table(k * table)(c[k], c[k - 1]) for k in range(300))
    model = ed.Model(edges - tables)
    structure = Structure(model)
    assert len(structure.factors) <= 4
    assert len(str(model)) < 500
    x = {"s": np.ones(count, int), "c": np.zeros(count, int)}
    assert len(jax.make_jaxpr(model.energy)(x).eqns) < 150
    np.testing.assert_allclose(model.energy(x), -300 * 299 / 2, rtol=1e-6)


def test_one_term_many_times_is_counted_with_its_signs():
    total = S.sum() - 1.0
    for k in range(MANY):
        total = total - S.sum() if k % 3 else total + S.sum()
    minus = sum(k % 3 > 0 for k in range(MANY))
    energy = ed.Model(total).energy({"s": np.ones(SITES)})
    np.testing.assert_allclose(energy, SITES * (1 + MANY - 2 * minus) - 1.0)
