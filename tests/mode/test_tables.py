"""The methods for finite models beside every state, on random tables."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energydsl.mode.crossover import crossed
from energydsl.mode.diffusion import dual
from energydsl.mode.expansion import expanded, guarantee, not_metric
from energydsl.mode.flow import minimum_cut
from energydsl.mode.graph_cut import turned_cut
from energydsl.mode.pairs import Pairs, bare, gauge
from energydsl.mode.roof import roof
from tests.mode.small import every_energy, finite, submodular

SEEDS = given(seed=st.integers(0, 2**32 - 1))
MANY = settings(deadline=None, max_examples=200)
CLOSE = {"rel": 1e-10, "abs": 1e-10}


def fields(rng, levels, forbid=0.2):
    """A field at each site, in which some levels may be forbidden."""
    found = []
    for site, count in enumerate(levels):
        field = rng.normal(size=count)
        if rng.random() < forbid and count > 1:
            field[rng.integers(count)] = np.inf
        found.append(((site,), field))
    return found


def some_pairs(rng, count, share=0.7):
    """Pairs of sites, in either order, some of them twice."""
    pairs = [e for e in itertools.combinations(range(count), 2) if rng.random() < share]
    pairs += [e for e in pairs if rng.random() < 0.2]
    return [e[::-1] if rng.random() < 0.5 else e for e in pairs]


def cuttable(rng):
    """Levels, and fields and pairs that are submodular in a hidden order of the levels."""
    two = rng.random() < 0.6
    levels = np.full(rng.integers(2, 7), 2) if two else rng.integers(1, 5, size=rng.integers(2, 6))
    turned, factors = rng.random(len(levels)) < 0.5, fields(rng, levels)
    for i, j in some_pairs(rng, len(levels)):
        table = submodular(rng, levels[i], levels[j])
        if two and rng.random() < 0.3:
            table[(0, 1) if rng.random() < 0.5 else (1, 0)] = np.inf
            table[0, 1] = np.inf if rng.random() < 0.3 else table[0, 1]
            table[0, 0] = np.inf if rng.random() < 0.2 else table[0, 0]
        table = table[::-1] if turned[i] else table
        factors.append(((i, j), table[:, ::-1] if turned[j] else table))
    return levels, factors


@SEEDS
@MANY
def test_a_cut_finds_the_lowest_energy_of_submodular_pairs(seed):
    levels, factors = cuttable(np.random.default_rng(seed))
    pairs, energy = Pairs.of(finite(levels, factors)), every_energy(levels, factors)[1]
    turned = gauge(bare(pairs))
    assert turned is not None
    found = turned_cut(pairs, turned)
    value = pairs.energy(found.states)
    if np.isinf(energy.min()):
        assert np.isinf(value)
    else:
        assert value == pytest.approx(energy.min(), **CLOSE)
        assert found.excess <= pairs.margin


@SEEDS
@MANY
def test_the_energy_of_pairs_is_that_of_the_factors(seed):
    rng = np.random.default_rng(seed)
    levels, factors = cuttable(rng)
    pairs, (states, energy) = Pairs.of(finite(levels, factors)), every_energy(levels, factors)
    k = rng.integers(len(states))
    assert pairs.energy(states[k]) == pytest.approx(energy[k], **CLOSE)
    assert finite(levels, factors).energy(states[k]) == pytest.approx(energy[k], **CLOSE)
    turned = rng.random(len(levels)) < 0.5
    back = np.where(turned, levels - 1 - states[k], states[k])
    assert pairs.reversed(turned).energy(back) == pytest.approx(energy[k], **CLOSE)
    assert bare(pairs).energy(states[k]) == pytest.approx(energy[k], **CLOSE)
    # Fields and pairs of either order, each pair once.
    assert (pairs.edges[:, 0] < pairs.edges[:, 1]).all()
    assert len(np.unique(pairs.edges, axis=0)) == len(pairs.edges)


def test_a_frustrated_loop_and_labels_have_no_gauge():
    loop = [((i, (i + 1) % 3), [[1.0, -1.0], [-1.0, 1.0]]) for i in range(3)]
    assert gauge(Pairs.of(finite([2] * 3, loop))) is None
    chain = loop[:2]
    assert gauge(Pairs.of(finite([2] * 3, chain))) is not None
    unlike = [((0, 1), 1.0 - np.eye(3))]
    assert gauge(Pairs.of(finite([3, 3], unlike))) is None
    hard = [((0, 1), np.where(np.tri(3, k=1), 0.0, np.inf))]
    assert gauge(bare(Pairs.of(finite([3, 3], hard)))) is None


def random_capacities(rng, nodes):
    """Arcs between all nodes, and from the source and to the sink, of very unequal capacities."""
    ends = [(i, j) for i in range(nodes + 2) for j in range(nodes + 2) if i != j]
    arcs = np.array([e for e in ends if e[1] != nodes and e[0] != nodes + 1]).T
    capacities = rng.exponential(size=arcs.shape[1]) * 10.0 ** rng.uniform(-6, 3, arcs.shape[1])
    return arcs, np.where(rng.random(len(capacities)) < 0.4, 0.0, capacities)


@SEEDS
@settings(deadline=None, max_examples=100)
def test_the_cut_has_the_least_capacity_although_flows_are_integers(seed):
    rng = np.random.default_rng(seed)
    nodes = int(rng.integers(1, 7))
    arcs, capacities = random_capacities(rng, nodes)
    hard = rng.random(len(capacities)) < 0.1
    capacities = np.where(hard, np.inf, capacities)
    found = minimum_cut(nodes, arcs, capacities)

    def capacity(source):
        side = np.append(source, [True, False])
        return capacities[side[arcs[0]] & ~side[arcs[1]]].sum()

    every = [capacity(np.array(s)) for s in itertools.product([False, True], repeat=nodes)]
    least, total = min(every), capacities[np.isfinite(capacities)].sum()
    if np.isfinite(least):
        assert capacity(found.source) <= least + 1e-13 * total
        assert found.excess <= 1e-12 * total


def metric_model(rng):
    """Fields, and pairs whose tables are distances between labels, with unequal label counts."""
    levels = rng.integers(2, 5, size=rng.integers(2, 6))
    factors = fields(rng, levels)
    for i, j in some_pairs(rng, len(levels)):
        place = rng.normal(size=(4, 2))
        distance = np.linalg.norm(place[:, None] - place, axis=-1)
        if rng.random() < 0.5:
            distance = rng.exponential() * (1 - np.eye(4))
        factors.append(((i, j), distance[: levels[i], : levels[j]]))
    return levels, factors


@SEEDS
@MANY
def test_expansion_ends_where_no_move_helps_and_keeps_its_guarantee(seed):
    rng = np.random.default_rng(seed)
    levels, factors = metric_model(rng)
    pairs, (states, energy) = Pairs.of(finite(levels, factors)), every_energy(levels, factors)
    assert not_metric(pairs) is None
    found = expanded(pairs, (pairs.sites + 5 * rng.random(pairs.sites.shape)).argmin(axis=1))
    value = pairs.energy(found)
    assert energy.min() <= value + 1e-10
    for label in range(levels.max()):
        moves = ((states == found) | (states == label)).all(axis=1)
        assert value <= energy[moves].min() + 1e-10
    assert guarantee(pairs, value) <= energy.min() + 1e-10


def test_the_guarantee_is_that_of_the_paper():
    # Potts: at most twice the pairs of the mode. Fields count from their lowest values.
    factors = [((0,), [3.0, 5.0]), ((1,), [2.0, 1.0]), ((0, 1), 0.5 + 2.0 * (1 - np.eye(2)))]
    pairs = Pairs.of(finite([2, 2], factors))
    assert guarantee(pairs, 6.5) == pytest.approx(4.5 + (6.5 - 4.5) / 2)
    uneven = [((0, 1), [[0.0, 1.0, 3.0], [1.0, 0.0, 2.0], [3.0, 2.0, 0.0]])]
    assert guarantee(Pairs.of(finite([3, 3], uneven)), 3.0) == pytest.approx(3.0 / 6)
    assert guarantee(Pairs.of(finite([2, 2], [((0, 1), [[0.0, 1.0], [1.0, 0.5]])])), 0) == -np.inf
    assert guarantee(Pairs.of(finite([2, 2], [((0, 1), [[0.0, 1.0], [0.0, 0.0]])])), 0) == -np.inf


def test_what_is_no_metric_is_named():
    squares = (np.arange(3)[:, None] - np.arange(3)) ** 2.0
    factors = [((1, 2), 1 - np.eye(3)), ((0, 1), squares)]
    pairs = Pairs.of(finite([3] * 3, factors))
    assert pairs.edges[not_metric(pairs)].tolist() == [0, 1]
    assert not_metric(Pairs.of(finite([3] * 3, factors[:1]))) is None
    # A label's energy with itself counts, too.
    assert not_metric(Pairs.of(finite([2, 2], [((0, 1), [[1.0, 0.8], [0.8, 1.0]])]))) == 0


def any_model(rng, most=4, arity=3):
    """Fields, pairs and triples of any energies, some of which forbid."""
    levels = rng.integers(1, most, size=rng.integers(2, 6))
    factors = fields(rng, levels)
    for _ in range(rng.integers(1, 7)):
        size = min(int(rng.integers(2, arity + 1)), len(levels))
        scope = tuple(rng.permutation(len(levels))[:size].tolist())
        table = rng.normal(size=levels[list(scope)])
        table = np.where(rng.random(table.shape) < rng.choice([0.0, 0.2]), np.inf, table)
        factors.append((scope, table))
    return levels, factors


@SEEDS
@MANY
def test_the_dual_bound_is_never_above_the_lowest_energy(seed):
    levels, factors = any_model(np.random.default_rng(seed))
    model, (_, energy) = finite(levels, factors), every_energy(levels, factors)
    found = dual(model, energy.min() if np.isfinite(energy.min()) else 1e3)
    assert found.bound <= energy.min() + model.margin
    assert (found.states < levels).all()


@SEEDS
@MANY
def test_the_dual_bound_of_a_tree_is_tight(seed):
    rng = np.random.default_rng(seed)
    levels = rng.integers(2, 4, size=6)
    factors = fields(rng, levels, forbid=0.3)
    for i in range(1, 6):
        j = int(rng.integers(i))
        factors.append(((j, i), rng.normal(size=(levels[j], levels[i]))))
    model, (_, energy) = finite(levels, factors), every_energy(levels, factors)
    found = dual(model, energy.min())
    assert found.bound == pytest.approx(energy.min(), abs=1e-4)


def two_level_model(rng):
    count = int(rng.integers(2, 7))
    levels, factors = np.full(count, 2), fields(rng, np.full(count, 2))
    for scope in some_pairs(rng, count):
        table = rng.normal(size=(2, 2))
        table = np.where(rng.random((2, 2)) < rng.choice([0.0, 0.15]), np.inf, table)
        factors.append((scope, table))
    return levels, factors


@SEEDS
@MANY
def test_the_roof_is_below_and_some_mode_has_the_levels_that_it_knows(seed):
    rng = np.random.default_rng(seed)
    levels, factors = two_level_model(rng)
    pairs, (states, energy) = Pairs.of(finite(levels, factors)), every_energy(levels, factors)
    found = roof(pairs)
    assert found.bound <= energy.min() + pairs.margin
    if not np.isfinite(energy.min()):
        return
    best = states[energy <= energy.min() + 1e-10]
    assert (best[:, found.known] == found.states[found.known]).all(axis=1).any()
    other = states[rng.integers(len(states))]
    assert pairs.energy(found.improved(other)) <= pairs.energy(other) + 1e-10


@SEEDS
@MANY
def test_the_roof_is_exact_without_frustration(seed):
    rng = np.random.default_rng(seed)
    levels, factors = np.full(5, 2), fields(rng, np.full(5, 2), forbid=0.0)
    turned = rng.random(5) < 0.5
    for i, j in some_pairs(rng, 5):
        table = submodular(rng, 2, 2)
        table = table[::-1] if turned[i] else table
        factors.append(((i, j), table[:, ::-1] if turned[j] else table))
    found = roof(Pairs.of(finite(levels, factors)))
    assert found.bound == pytest.approx(every_energy(levels, factors)[1].min(), **CLOSE)


@SEEDS
@MANY
def test_crossing_gives_the_best_choice_of_clusters(seed):
    rng = np.random.default_rng(seed)
    levels, factors = any_model(rng)
    model = finite(levels, factors)
    one, other = rng.integers(0, levels), rng.integers(0, levels)
    found = crossed(model, [one, other])
    value = model.energy(found)
    # Clusters of sites at which the two differ, joined by the factors.
    part = {i: {i} for i in np.flatnonzero(one != other)}
    for scope, _ in factors:
        joined = set().union(*(part[s] for s in scope if s in part))
        part |= dict.fromkeys(joined, joined)
    clusters = {frozenset(c) for c in part.values()}
    choices = itertools.product([one, other], repeat=len(clusters))
    energies = []
    for choice in choices:
        mixed = one.copy()
        for cluster, source in zip(clusters, choice, strict=True):
            mixed[list(cluster)] = source[list(cluster)]
        energies.append(model.energy(mixed))
    if np.isfinite(model.energy(one)) or np.isfinite(model.energy(other)):
        assert value == pytest.approx(min(energies), **CLOSE)
