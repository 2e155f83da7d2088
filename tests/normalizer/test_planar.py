"""Planar spins without a field, against enumeration and against NumPy's transfer matrices."""

import itertools

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import Delaunay

import energydsl as ed
from energydsl.analysis import graph
from energydsl.normalizer import evaluate
from energydsl.normalizer.evaluate import log_partition_of, marginals_of
from energydsl.normalizer.planar import _turns
from tests.normalizer.rules import applies, chosen, memory, plans, reason, value


def enumerated(nodes, ends, couplings):
    """log Z, and the mean of s_i s_j of each edge."""
    s = np.array(list(itertools.product([-1, 1], repeat=nodes)), float)
    pairs = s[:, ends[:, 0]] * s[:, ends[:, 1]]
    logs = pairs @ couplings
    log_z = np.logaddexp.reduce(logs)
    return log_z, np.exp(logs - log_z) @ pairs


def triangulated(nodes, seed, kept=1.0):
    """Some of the edges of the Delaunay triangulation of random points."""
    rng = np.random.default_rng(seed)
    corners = Delaunay(rng.normal(size=(nodes, 2))).simplices
    edges = {tuple(sorted(p)) for c in corners.tolist() for p in itertools.combinations(c, 2)}
    edges = [e for e in sorted(edges) if rng.random() < kept]
    return np.array(edges or [(0, 1)])


@settings(deadline=None, max_examples=30)
@given(
    nodes=st.integers(4, 9),
    seed=st.integers(0, 10**6),
    kept=st.sampled_from([0.5, 0.8, 1.0]),
    scale=st.sampled_from([0.0, 0.1, 1.0, 2.0]),
)
def test_the_determinant_of_turns_is_the_square_of_the_sum_over_states(nodes, seed, kept, scale):
    ends = triangulated(nodes, seed, kept)
    couplings = scale * np.random.default_rng(seed + 1).normal(size=len(ends))
    first, second, signs = _turns(ends)
    matrix = np.eye(2 * len(ends))
    matrix[first, second] -= signs * np.tanh(couplings)[first // 2]
    sign, log_det = np.linalg.slogdet(matrix)
    found = nodes * np.log(2) + np.log(np.cosh(couplings)).sum() + log_det / 2
    assert sign == 1
    assert found == pytest.approx(enumerated(nodes, ends, couplings)[0], rel=1e-9, abs=1e-9)


@settings(deadline=None, max_examples=20)
@given(nodes=st.integers(4, 30), seed=st.integers(0, 10**6), kept=st.sampled_from([0.6, 1.0]))
def test_no_edges_of_a_drawing_cross(nodes, seed, kept):
    ends = triangulated(nodes, seed, kept)
    place = graph.planar_drawing(nodes, ends)
    a, b = place[ends[:, 0]], place[ends[:, 1]]

    def turn(p, q, r):
        return np.sign((q[..., 0] - p[..., 0]) * (r[..., 1] - p[..., 1])
                       - (q[..., 1] - p[..., 1]) * (r[..., 0] - p[..., 0]))  # fmt: skip

    i, j = np.triu_indices(len(ends), 1)
    apart = np.array([not set(ends[k]) & set(ends[m]) for k, m in zip(i, j, strict=True)], bool)
    i, j = i[apart], j[apart]
    sides = turn(a[i], b[i], a[j]), turn(a[i], b[i], b[j])
    others = turn(a[j], b[j], a[i]), turn(a[j], b[j], b[i])
    # Two edges on one line have no side.
    crossing = (sides[0] * sides[1] <= 0) & (others[0] * others[1] <= 0) & np.any(sides, axis=0)
    assert not crossing.any()


def test_a_graph_that_is_not_planar_has_no_drawing():
    with pytest.raises(ValueError, match="not planar"):
        graph.planar_drawing(5, np.array(list(itertools.combinations(range(5), 2))))


GRAPHS = [
    nx.complete_graph(4),
    nx.wheel_graph(8),
    nx.octahedral_graph(),
    nx.cubical_graph(),
    nx.complete_bipartite_graph(2, 5),
    nx.path_graph(4),
    nx.star_graph(6),
    nx.cycle_graph(5),
    nx.barbell_graph(4, 1),
    nx.Graph(triangulated(11, 5).tolist()),
]
"""The components of one model, so that one program answers them all."""


class Union:
    """The graphs side by side, with a coupling for each edge and a second one for every third."""

    def __init__(self):
        starts = np.cumsum([0, *(len(g) for g in GRAPHS)])
        parts = [np.array(nx.convert_node_labels_to_integers(g).edges) for g in GRAPHS]
        self.ends = np.concatenate([e + k for e, k in zip(parts, starts, strict=False)])
        self.parts, self.sizes = parts, np.diff(starts)
        s, (i, j) = ed.spin("s", int(starts[-1])), self.ends.T
        self.count = len(self.ends)
        flat = ed.parameter("J", np.zeros(self.count, np.float32))
        again = ed.parameter("K", np.zeros(len(i[::3]), np.float32))
        energy = 2.0 - (flat * s[i] * s[j]).sum()
        # Written from the other end, as an energy of equal spins.
        self.ebm = ed.compile(ed.Model(energy - (again * (s[j[::3]] == s[i[::3]])).sum()))
        self.alone = plans(self.ebm, "planar")

    def exact(self, couplings):
        log_z, means, start = -2.0, [], 0
        for ends, size in zip(self.parts, self.sizes, strict=True):
            one = enumerated(size, ends, couplings[start : start + len(ends)])
            log_z, start = log_z + one[0], start + len(ends)
            means.append(one[1])
        return log_z, np.concatenate(means)


@pytest.fixture(scope="module")
def union():
    return Union()


def test_log_z_and_its_slopes_are_those_of_the_sum_over_states(union):
    rng = np.random.default_rng(0)

    @jax.jit
    def answer(first, second):
        model = union.ebm.replace(J=first, K=second).model
        return log_partition_of(model, union.alone, np.dtype(np.float64))

    slope = jax.jit(jax.grad(answer))
    assert applies(union.ebm, "planar")
    for scale in (0.0, 0.3, 1.0, 3.0):
        first = np.float32(scale * rng.normal(size=union.count))
        first[::5] = 0.0
        second = np.float32(rng.normal(size=len(first[::3])))
        # 1 where equal is (1 + s s') / 2.
        couplings = first.astype(float)
        couplings[::3] += second.astype(float) / 2
        log_z, means = union.exact(couplings)
        log_z += second.astype(float).sum() / 2
        assert float(answer(first, second)) == pytest.approx(log_z, rel=1e-9, abs=1e-9)
        np.testing.assert_allclose(slope(first, second), means, atol=2e-6)


def test_each_spin_is_up_with_probability_one_half(union):
    laws = marginals_of(union.ebm.model, union.alone)
    assert laws["s"].shape == (sum(union.sizes), 2) and (np.asarray(laws["s"]) == 0.5).all()


ROWS, COLUMNS = 5, 40
RNG = np.random.default_rng(2)
DOWN, RIGHT = RNG.normal(size=(ROWS - 1, COLUMNS)), RNG.normal(size=(ROWS, COLUMNS - 1))
DOWN, RIGHT = (np.float32(a).astype(float) for a in (DOWN, RIGHT))


def strip(down, right):
    s = ed.spin("s", (ROWS, COLUMNS))
    energy = -(down * np.float32(DOWN) * s[1:] * s[:-1]).sum()
    return ed.Model(energy - (right * np.float32(RIGHT) * s[:, 1:] * s[:, :-1]).sum())


def transferred(down, right):
    """log Z by products of transfer matrices of the columns, in log space."""
    s = np.array(list(itertools.product([-1, 1], repeat=ROWS)), float)
    logs = np.zeros(len(s))
    for k in range(COLUMNS):
        if k:
            links = (s * right * RIGHT[:, k - 1]) @ s.T
            logs = np.logaddexp.reduce(links + logs[None, :], axis=1)
        logs = logs + (s[:, 1:] * s[:, :-1]) @ (down * DOWN[:, k])
    return np.logaddexp.reduce(logs)


@pytest.fixture(scope="module")
def spin_glass():
    ebm = ed.compile(strip(ed.parameter("down", 0.5), ed.parameter("right", 0.5)))
    return ebm, plans(ebm, "planar")


def test_a_spin_glass_of_many_blocks_and_its_second_derivatives(spin_glass):
    ebm, alone = spin_glass
    assert alone.plans[0].band.blocks > 10

    def of(p):
        model = ebm.replace(down=p[0], right=p[1]).model
        return log_partition_of(model, alone, np.dtype(np.float64))

    with jax.enable_x64(True):
        p = jnp.array([0.75, 0.5])
        found, slope, bend = jax.jit(lambda p: (of(p), jax.grad(of)(p), jax.hessian(of)(p)))(p)
    assert float(found) == pytest.approx(transferred(0.75, 0.5), rel=1e-12)
    h, unit, q = 1e-3, np.eye(2), np.array([0.75, 0.5])
    for i in range(2):
        ends = [transferred(*(q + k * h * unit[i])) for k in (-2, -1, 1, 2)]
        expected = (ends[0] - 8 * ends[1] + 8 * ends[2] - ends[3]) / (12 * h)
        assert slope[i] == pytest.approx(expected, rel=1e-7)
        for j in range(2):
            corners = [
                transferred(*(q + h * (u * unit[i] + v * unit[j])))
                for u in (-1, 1)
                for v in (-1, 1)
            ]
            crossed = (corners[0] - corners[1] - corners[2] + corners[3]) / (4 * h**2)
            assert bend[i, j] == pytest.approx(crossed, rel=1e-4, abs=1e-4)


def test_a_value_that_lost_its_digits_is_never_given(spin_glass):
    ebm, alone = spin_glass
    answers = {}
    for cold in (0.125, 1.0, 2.0, 4.0, 8.0, 16.0, 64.0):
        model = ebm.replace(down=cold, right=-cold).model
        answers[cold] = float(log_partition_of(model, alone, np.dtype(np.float64)))
        if not np.isnan(answers[cold]):
            assert answers[cold] == pytest.approx(transferred(cold, -cold), rel=1e-9)
    assert not np.isnan([answers[c] for c in (0.125, 1.0, 2.0)]).any()
    assert np.isnan(answers[64.0])
    said = evaluate.trouble(ebm.replace(down=64.0, right=-64.0).model, alone)
    assert "loses digits" in said and "200 planar spins" in said


def test_ferromagnets_are_exact_at_any_temperature():
    """Two states of lowest energy remain: log Z = J * edges + log 2, beyond float64's reach."""
    s = ed.spin("s", (3, 12))
    j = ed.parameter("j", 50.0)
    ebm = ed.compile(ed.Model(-j * (s[1:] * s[:-1]).sum() - j * (s[:, 1:] * s[:, :-1]).sum()))
    assert value(ebm, "planar") == pytest.approx(50.0 * (24 + 33) + np.log(2), rel=1e-12)


def test_it_is_chosen_where_elimination_is_too_wide():
    s, w = ed.spin("s", (32, 32)), ed.parameter("w", 0.5)
    down, right = (s[1:] * s[:-1]).sum(), (s[:, 1:] * s[:, :-1]).sum()
    ebm = ed.compile(ed.Model(-w * down - 0.25 * right))
    assert chosen(ebm) == {"planar"}
    taken = memory(ebm)
    assert taken < ebm.normalizer.bytes < 2 * taken
    assert "the determinant does not give a mode" in reason(ebm, "planar", question="mode")
    assert ed.map_configuration(ebm).method == "graph cut"


def grid(*more, clamp=None):
    s = ed.spin("s", (3, 3))
    energy = (s[1:] * s[:-1]).sum() + (s[:, 1:] * s[:, :-1]).sum()
    for term in more:
        energy = energy + term(s)
    model = ed.Model(energy)
    return model if clamp is None else model.condition({s[clamp]: 1})


def complete(n):
    s = ed.spin("s", n)
    i, j = np.triu_indices(n, 1)
    return ed.Model((s[i] * s[j]).sum())


REFUSED = {
    "field": (
        lambda: grid(lambda s: 0.1 * s[1, 1]),
        "no field is not shown for the factor of s[1, 1]",
    ),
    "learnt field": (
        lambda: grid(lambda s: ed.parameter("h", 0.0) * s[1, 1]),
        "no field is not shown for the factor of s[1, 1]",
    ),
    "clamped": (lambda: grid(clamp=(0, 0)), "no field is not shown for the factor of s[1, 0]"),
    "table": (
        lambda: grid(lambda s: ed.Table(np.eye(2))(s[0, 0], s[0, 1])),
        "no field is not shown for the factor of s[0, 0], s[0, 1]",
    ),
    "four spins": (
        lambda: grid(lambda s: s[0, 0] * s[0, 1] * s[1, 0] * s[1, 1]),
        "more than two spins in the factor of s[0, 0], s[0, 1], s[1, 0] and more",
    ),
    "five": (lambda: complete(5), "its interactions do not form a planar graph"),
    "bits": (
        lambda: ed.Model((ed.binary("b", 4)[1:] * ed.binary("b", 4)[:-1]).sum()),
        "b[0] is not a spin",
    ),
    "alone": (lambda: ed.Model(0.0 * ed.spin("s", 1).sum()), "one spin has no interactions"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_another_form_is_refused_with_the_reason(case):
    model, why = REFUSED[case]
    assert reason(ed.compile(model()), "planar") == why


def test_evidence_far_from_any_free_spin_makes_no_field():
    """A clamped pair is a constant, and energies of single spins may be constants as well."""
    s = ed.spin("s", 6)
    free = (s[1:4] * s[:3]).sum() + (s**2).sum()
    model = ed.Model(free + 0.7 * s[4] * s[5]).condition({s[4:]: np.array([1, -1])})
    ebm = ed.compile(model)
    assert applies(ebm, "planar")
    expected = 4 * np.log(2) + 3 * np.log(np.cosh(1.0)) - 6 + 0.7
    assert value(ebm, "planar") == pytest.approx(expected, rel=1e-7)
    assert reason(ebm, "planar", question="draw") == "the determinant does not give draws"
