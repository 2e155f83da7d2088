"""Structure: who interacts with whom, found from the energy's form alone."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import networkx as nx
import numpy as np
import numpyro.distributions as dist
import pytest

import energydsl as ed
from energydsl.analysis import structure as structure_module
from energydsl.analysis.structure import Structure

MATRIX = np.ones((3, 3), np.float32)


def structure_of(energy, **evidence):
    model = ed.Model(energy)
    return Structure(model.condition(**evidence) if evidence else model)


def named(structure):
    """Edges by the names of their sites."""
    return {tuple(map(structure.describe, edge)) for edge in structure.edges.tolist()}


def test_edges_are_the_pairs_that_share_a_factor():
    s, t = ed.spin("s", (2, 2)), ed.spin("t")
    structure = structure_of((s[0] * s[1]).sum() + s[0, 0] * t + s.sum())
    assert named(structure) == {
        ("s[0, 0]", "s[1, 0]"),
        ("s[0, 1]", "s[1, 1]"),
        ("s[0, 0]", "t"),
    }
    assert structure.component_sizes.tolist() == [3, 2]
    assert structure.pairwise
    assert structure.forest
    assert structure.width_bound == 1
    assert structure.planar is True
    assert structure.covered.all()


def test_a_zero_weight_is_still_an_edge():
    s = ed.spin("s", 3)
    edges = structure_of(s @ np.zeros((3, 3)) @ s).edges
    assert len(edges) == 3


def test_sites_are_numbered_across_variables():
    a, b, c = ed.spin("a", (2, 3)), ed.binary("b"), ed.categorical("c", 2, levels=5)
    structure = structure_of(a.sum() * b + (c == 1).sum())
    assert structure.sites == 9
    assert structure.offset == {"a": 0, "b": 6, "c": 7}
    assert [structure.describe(k) for k in (0, 5, 6, 8)] == ["a[0, 0]", "a[1, 2]", "b", "c[1]"]
    assert structure.levels.tolist() == [2] * 7 + [5] * 2
    assert structure_of(ed.real("x", 2) @ ed.real("x", 2)).levels.tolist() == [0, 0]


def test_what_is_elementwise_does_not_join_sites():
    x = ed.real("x", 3)
    for energy in (
        (x**2).sum() - x.sum(),
        ed.exp(x).sum(),
        ed.where(x > 0, x, x**2).sum(),
        ed.LogDensity(dist.StudentT(3.0, jnp.zeros(3), 1.0))(x),
        (ed.roll(x, 1) ** 2).sum(),
        (x[:, None] * MATRIX).sum(),
        x @ MATRIX[0],
        (x / x.shape[0]).mean(),
    ):
        assert len(structure_of(energy).edges) == 0


def test_what_is_not_looked_into_joins_all_its_sites():
    x = ed.real("x", 3)
    network = eqx.nn.MLP(3, "scalar", 3, 1, key=jr.key(0))
    for energy in (
        ed.exp(x.sum()),
        x.sum() ** 2,
        ed.Neural(network)(x),
        ed.apply(jnp.sum, x),
        ed.apply(lambda v: v**2, x).sum(),
        ed.LogDensity(dist.MultivariateNormal(jnp.zeros(3), jnp.eye(3)))(x),
        ed.logaddexp(x.sum(), 0.0),
    ):
        assert len(structure_of(energy).edges) == 3


def test_entries_of_one_simplex_are_joined():
    p = ed.simplex("p", (2, 3))
    structure = structure_of(-ed.log(p).sum())
    assert structure.component_sizes.tolist() == [3, 3]
    assert len(structure.edges) == 6


def test_pairwise_counts_distinct_free_sites():
    s = ed.spin("s", 4)
    triple = (s[:2] * s[1:3] * s[2:]).sum()
    assert not structure_of(triple).pairwise
    assert structure_of((s[[0, 1]] * s[[1, 2]] * s[[0, 2]]).sum()).pairwise
    held = ed.Model(triple).condition({s[1]: 1, s[2]: -1})
    assert Structure(held).pairwise
    assert structure_of(s @ np.ones((4, 4)) @ s).pairwise
    assert not structure_of(s.sum() ** 2).pairwise
    assert structure_of(0.3 * s[0] + 1.0).pairwise


def test_evidence_cuts_edges_and_components():
    s = ed.spin("s", 5)
    chain = ed.Model((s[1:] * s[:-1]).sum())
    cut = Structure(chain.condition({s[2]: 1}))
    assert cut.component_sizes.tolist() == [2, 2]
    assert cut.component_of.tolist() == [0, 0, -1, 1, 1]
    assert cut.free.tolist() == [True, True, False, True, True]
    ring = ed.Model((s * ed.roll(s, 1)).sum())
    assert not Structure(ring).forest
    assert Structure(ring).sides is None
    assert Structure(ring.condition({s[2]: 1})).forest


@pytest.mark.parametrize("free", [[1, 2, 3], [0, 1, 3], [0, 1, 2, 3], [0, 3]], ids=str)
def test_a_crowded_factor_keeps_its_free_sites_together(monkeypatch, free):
    monkeypatch.setattr(structure_module, "MAX_PAIRS", 0)
    s = ed.spin("s", 4)
    held = {s[k]: 1 for k in range(4) if k not in free}
    model = ed.Model(ed.exp(s.sum()))
    structure = Structure(model.condition(held) if held else model)
    assert structure.crowded
    assert structure.component_sizes.tolist() == [len(free)]
    assert len(set(structure.colours[free])) == len(free)
    assert structure.width_bound == len(free) - 1
    assert structure.sides is None
    assert structure.planar is None
    assert not structure.forest


def test_a_site_in_no_factor_is_seen():
    s = ed.spin("s", 4)
    structure = structure_of(s[1] * s[2])
    assert structure.covered.tolist() == [False, True, True, False]
    assert structure.component_sizes.tolist() == [1, 2, 1]


@pytest.mark.parametrize("seed", range(6))
def test_random_pairwise_models_against_networkx(seed):
    rng = np.random.default_rng(seed)
    nodes, count = int(rng.integers(2, 60)), int(rng.integers(1, 90))
    i, j = rng.integers(nodes, size=(2, count))
    s = ed.spin("s", nodes)
    structure = structure_of((rng.normal(size=count) * s[i] * s[j]).sum())
    g = nx.empty_graph(nodes)
    g.add_edges_from((a, b) for a, b in zip(i.tolist(), j.tolist(), strict=True) if a != b)

    assert {tuple(e) for e in structure.edges.tolist()} == {tuple(sorted(e)) for e in g.edges}
    parts = sorted(len(p) for p in nx.connected_components(g))
    assert sorted(structure.component_sizes.tolist()) == parts
    assert structure.forest == nx.is_forest(g)
    assert (structure.sides is not None) == nx.is_bipartite(g)
    assert structure.planar == nx.check_planarity(g)[0]
    assert (
        structure.colours[structure.edges[:, 0]] != structure.colours[structure.edges[:, 1]]
    ).all()
    assert structure.pairwise


def test_structures_compare_by_form():
    s = ed.spin("s", 3)

    def build(scale):
        return Structure(ed.Model(scale * (s[1:] * s[:-1]).sum()))

    assert build(0.5) == build(2.0)
    assert hash(build(0.5)) == hash(build(2.0))
    assert build(0.5) != Structure(ed.Model(s.sum()))
    normal, cauchy = (
        Structure(ed.Model(ed.LogDensity(q)(ed.real("x"))))
        for q in (dist.Normal(0, 1), dist.Cauchy(0, 1))
    )
    assert normal.quadratic
    assert not cauchy.quadratic
    assert normal != cauchy


def test_parts_of_a_structure_are_told_apart():
    s, t = ed.spin("s", 3), ed.real("t", 3)
    whole = Structure(ed.Model((s[1:] * s[:-1]).sum() + (s * t).sum()))
    keep = tuple(np.arange(f.size) > 0 for f in whole.factors)
    part = whole.part(whole.of_variables("s"), keep)
    assert part == whole.part(whole.of_variables("s"), keep)
    assert hash(part) == hash(whole.part(whole.of_variables("s"), keep))
    assert part != whole
    assert part != whole.part(whole.of_variables("t"), keep)
    assert part != whole.part(whole.of_variables("s"), tuple(np.ones_like(k) for k in keep))
    assert part.partial
    assert not whole.partial
    assert [f.size for f in part.factors] == [1, 2]
    np.testing.assert_array_equal(part.edges, [[1, 2]])
    np.testing.assert_array_equal(part.component_sizes, [1, 2])
