"""Modes of compiled models beside every configuration, and what they say of themselves."""

import itertools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import energydsl as ed
from energydsl.analysis.evaluation import as_double

RNG = np.random.default_rng(7)


def every(ebm):
    """The lowest energy of all configurations of finite free sites, in NumPy's float64."""
    free = ebm.structure.skeleton.free
    levels = [v.domain.values for v in free for _ in range(v.size)]
    states = np.array(list(itertools.product(*levels)))
    xs, first = {}, 0
    for v in free:
        own = states[:, first : first + v.size].reshape(-1, *v.shape)
        xs[v.name] = jnp.asarray(own, v.domain.dtype)
        first += v.size
    with jax.enable_x64(True):
        return float(jax.jit(jax.vmap(as_double(ebm.model).energy_anywhere))(xs).min())


def attractive(rows=3, columns=3, signs=1.0, field=1.0):
    s = ed.spin("s", (rows, columns))
    down = (
        np.abs(RNG.normal(size=(rows - 1, columns)))
        * np.broadcast_to(signs, (rows, columns))[1:]
        * np.broadcast_to(signs, (rows, columns))[:-1]
    )
    across = (
        np.abs(RNG.normal(size=(rows, columns - 1)))
        * np.broadcast_to(signs, (rows, columns))[:, 1:]
        * np.broadcast_to(signs, (rows, columns))[:, :-1]
    )
    energy = -(down * s[1:] * s[:-1]).sum() - (across * s[:, 1:] * s[:, :-1]).sum()
    return s, ed.Model(energy - field * (RNG.normal(size=(rows, columns)) * s).sum())


def spins():
    return attractive()[1]


def clamped():
    s, model = attractive(3, 4)
    return model.condition({s[0, 1]: -1, s[2, 2]: 1})


def turned():
    return attractive(3, 3, RNG.choice([-1.0, 1.0], size=(3, 3)))[1]


def two_kinds():
    s, b = ed.spin("s", 4), ed.binary("b", 3)
    w = np.abs(RNG.normal(size=(4, 3)))
    return ed.Model(-(s @ w @ b) + RNG.normal(size=3) @ b - (RNG.normal(size=4) * s).sum())


def ordered():
    n, m = ed.integer("n", (2, 2), low=-1, high=2), ed.integer("m", 2, low=0, high=2)
    pairs = abs(n[1:] - n[:-1]).sum() + ((n[:, 0] - m) ** 2).sum() * 0.4
    fields = (RNG.normal(size=(2, 2)) * n).sum() + 0.3 * ((n[:, 1] - 1.2) ** 2).sum()
    return ed.Model(pairs + fields + 0.7 * abs(m[0] - m[1]) - 1.1 * m[1])


def hard():
    b = ed.binary("b", 6)
    table = np.array([[0.3, 0.0], [np.inf, -0.4]])
    ring = [ed.Table(jnp.asarray(table))(b[i], b[(i + 1) % 6]) for i in range(6)]
    return ed.Model(sum(ring[1:], ring[0]) + (RNG.normal(size=6) * b).sum())


CUTS = [spins, clamped, turned, two_kinds, ordered, hard]


@pytest.mark.parametrize("model", CUTS, ids=lambda f: f.__name__)
def test_a_graph_cut_is_the_lowest_of_all_energies(model):
    ebm = ed.compile(model(), budget=1)
    found = ed.map_configuration(ebm)
    assert found.proven and found.method.startswith("graph cut")
    assert found.bound == found.energy == pytest.approx(every(ebm), rel=1e-12, abs=1e-12)
    # The energy is that of the configuration, in float64, and evidence is in its place.
    assert float(ebm.energy(found.configuration)) == pytest.approx(found.energy, rel=1e-5)
    start = ebm.start(key=jr.key(0))
    for name, array in found.configuration.items():
        assert array.dtype == start[name].dtype and array.shape == start[name].shape
        mask = np.asarray(ebm.model.skeleton.mask(_variable(ebm, name)))
        np.testing.assert_array_equal(np.asarray(array)[mask], np.asarray(start[name])[mask])


def _variable(ebm, name):
    return next(v for v in ebm.structure.skeleton.free if v.name == name)


def potts():
    c = ed.categorical("c", (3, 2), levels=3)
    cut = 0.9 * (c[1:] != c[:-1]).sum() + 0.5 * (c[:, 1:] != c[:, :-1]).sum()
    return ed.Model(ed.Table(jnp.asarray(RNG.normal(size=(3, 2, 3))))(c).sum() + cut)


def unequal():
    c, d = ed.categorical("c", 3, levels=4), ed.categorical("d", 2, levels=3)
    place = RNG.normal(size=(4, 2))
    distance = np.linalg.norm(place[:, None] - place, axis=-1)
    pairs = ed.Table(jnp.asarray(distance[:, :3]))(c[:2], d).sum()
    pairs += ed.Table(jnp.asarray(1.3 * distance))(c[1:], c[:-1]).sum()
    fields = ed.Table(jnp.asarray(RNG.normal(size=(3, 4))))(c).sum()
    return ed.Model(pairs + fields - 0.4 * (d == 2).sum()).condition({c[1]: 3})


@pytest.mark.parametrize("model", [potts, unequal], ids=lambda f: f.__name__)
def test_alpha_expansion_is_between_its_bound_and_twice_that(model):
    ebm = ed.compile(model(), budget=1)
    found, least = ed.map_configuration(ebm), every(ebm)
    assert found.method.startswith("alpha-expansion")
    assert found.bound <= least + 1e-9 and least <= found.energy + 1e-9
    assert found.proven == (found.bound == found.energy)
    # Small models are solved, and the bound of dual decomposition is near.
    assert found.energy == pytest.approx(least, rel=1e-9)
    assert found.energy - found.bound < 0.2


def glass():
    s = ed.spin("s", (3, 3))
    down, across = RNG.normal(size=(2, 3)), RNG.normal(size=(3, 2))
    return ed.Model((down * s[1:] * s[:-1]).sum() + (across * s[:, 1:] * s[:, :-1]).sum())


def triples():
    s, c = ed.spin("s", 5), ed.categorical("c", 2, levels=3)
    table = jnp.asarray(RNG.normal(size=(2, 3, 3)))
    three = (RNG.normal(size=3) * s[2:] * s[1:-1] * s[:-2]).sum()
    return ed.Model(three + ed.Table(table)(s[0], c[0], c[1]) + 0.7 * s[4] * (c[1] == 1))


def forbidden():
    c = ed.categorical("c", 5, levels=3)
    table = np.where(np.eye(3), np.inf, RNG.normal(size=(3, 3)))
    return ed.Model(ed.Table(jnp.asarray(table))(c[1:], c[:-1]).sum() - 0.8 * (c == 1).sum())


@pytest.mark.parametrize("model", [glass, triples, forbidden], ids=lambda f: f.__name__)
def test_a_search_of_a_finite_model_has_a_bound(model):
    ebm = ed.compile(model(), budget=1)
    found, least = ed.map_configuration(ebm, key=jr.key(3)), every(ebm)
    assert found.method == "annealing from 16 starts"
    assert found.bound <= least + 1e-9
    assert found.energy == pytest.approx(least, rel=1e-9)
    assert found.proven == (found.bound == found.energy)
    again = ed.map_configuration(ebm, key=jr.key(3))
    for name, array in found.configuration.items():
        np.testing.assert_array_equal(array, again.configuration[name])


def test_components_with_exact_plans_keep_them():
    s, x = ed.spin("s", (3, 3)), ed.real("x", 2)
    field = RNG.normal(size=(3, 3))
    lattice = -(s[1:] * s[:-1]).sum() - (s[:, 1:] * s[:, :-1]).sum() - (field * s).sum()
    normal = 2.0 * (x[0] - 0.3) ** 2 + (x[1] - x[0]) ** 2
    ebm = ed.compile(ed.Model(lattice + normal), budget=1)
    found = ed.map_configuration(ebm)
    assert found.proven and found.method == "graph cut, gaussian of 1 component"
    np.testing.assert_allclose(found.configuration["x"], [0.3, 0.3], rtol=1e-6)
    alone = ed.map_configuration(ed.compile(ed.Model(lattice)))
    assert found.energy == pytest.approx(alone.energy, rel=1e-10, abs=1e-10)


def test_a_continuous_mode_is_local_and_has_no_bound():
    x = ed.real("x", 2)
    ebm = ed.compile(ed.Model(((x**2 - 1) ** 2).sum() - 0.3 * x[0] + 0.4 * x[0] * x[1] ** 2))
    found = ed.map_configuration(ebm, key=jr.key(0))
    assert not found.proven and found.bound == -np.inf
    assert found.method == "L-BFGS from 16 starts, a local minimum"
    a, b = np.meshgrid(*[np.linspace(-2, 2, 2001)] * 2)
    grid = (a**2 - 1) ** 2 + (b**2 - 1) ** 2 - 0.3 * a + 0.4 * a * b**2
    assert grid.min() - 1e-4 <= found.energy <= grid.min()


def test_the_mode_of_a_density_has_no_jacobian():
    # x^1.5 - 2 log x has its minimum where 1.5 x^0.5 = 2 / x.
    x, u = ed.positive("x"), ed.interval("u", low=0.0, high=2.0)
    energy = x**1.5 - 2 * ed.log(x) + 3 * (u - 0.5) ** 4 + 0.1 * u * x
    ebm = ed.compile(ed.Model(energy))
    found = ed.map_configuration(ebm, key=jr.key(0)).configuration
    a, b = np.meshgrid(np.linspace(0.9, 1.4, 2001), np.linspace(0.0, 0.6, 2001)[1:])
    grid = a**1.5 - 2 * np.log(a) + 3 * (b - 0.5) ** 4 + 0.1 * b * a
    row, column = np.unravel_index(grid.argmin(), grid.shape)
    np.testing.assert_allclose(
        [found["x"], found["u"]], [a[row, column], b[row, column]], atol=1e-3
    )


def test_mixed_sites_are_optimised_in_turn():
    k, x = ed.categorical("k", 3, levels=3), ed.real("x", 2)
    means = ed.take(jnp.asarray([-2.0, 0.5, 3.0]), k[:2])
    energy = ed.cosh(x - means).sum() + x[0] * x[1]
    energy = energy + 0.3 * (k[0] != k[1]) + 0.2 * (k[2] == k[0]) - 0.6 * (k == 2).sum()
    ebm = ed.compile(ed.Model(energy).condition({k[2]: 1}))
    found = ed.map_configuration(ebm, key=jr.key(1))
    assert found.method == "annealing and L-BFGS from 16 starts, a local minimum"
    a, b = np.meshgrid(*[np.linspace(-7, 7, 1401)] * 2, indexing="ij")
    least = np.inf
    for i, j in itertools.product(range(3), repeat=2):
        at = [-2.0, 0.5, 3.0]
        grid = np.cosh(a - at[i]) + np.cosh(b - at[j]) + a * b
        least = min(
            least, grid.min() + 0.3 * (i != j) + 0.2 * (i == 1) - 0.6 * ((i == 2) + (j == 2))
        )
    assert least - 1e-3 <= found.energy <= least + 1e-6
    assert not found.proven and found.configuration["k"][2] == 1


def test_sites_without_levels_are_annealed():
    n = ed.count("n", 2)
    ebm = ed.compile(ed.Model(0.3 * ((n - 4) ** 2).sum() + 0.1 * (n[0] * n[1] - 9) ** 2))
    found = ed.map_configuration(ebm, key=jr.key(0))
    a, b = np.meshgrid(np.arange(40), np.arange(40))
    least = (0.3 * ((a - 4.0) ** 2 + (b - 4.0) ** 2) + 0.1 * (a * b - 9.0) ** 2).min()
    assert found.energy == pytest.approx(least, rel=1e-6) and found.bound == -np.inf


def test_without_a_key_nothing_is_searched():
    ebm = ed.compile(glass(), budget=1)
    with pytest.raises(
        ed.IntractableError,
        match=r"no exact answer.*graph cut: the pairs are not submodular.*alpha-expansion: the "
        r"energies of s\[0, 0\] and s\[\d, \d\] are no metric.*search: it is random: give key=.*"
        r"write ed.map_configuration\(ebm, key=jax.random.key\(0\)\)",
    ):
        ed.map_configuration(ebm)
    with pytest.raises(ed.IntractableError, match="some factor has more than two free sites"):
        ed.map_configuration(ed.compile(triples(), budget=1))
    x = ed.real("x")
    with pytest.raises(ed.IntractableError, match="it needs finite sites; x has no finite list"):
        ed.map_configuration(ed.compile(ed.Model(ed.cosh(x) + x**4)))


def test_what_is_no_key_or_no_ebm_is_refused():
    with pytest.raises(TypeError, match="map_configuration got key=3; expected a key"):
        ed.map_configuration(ed.compile(spins(), budget=1), key=3)
    with pytest.raises(TypeError, match="compile it first"):
        ed.map_configuration(spins())


def test_where_every_configuration_is_forbidden_there_is_no_mode():
    b = ed.binary("b", 3)
    one, other = np.full((2, 2), np.inf), np.full((2, 2), np.inf)
    one[0, 0] = other[1, 1] = 0.0
    never = ed.Table(jnp.asarray(one))(b[0], b[1]) + ed.Table(jnp.asarray(other))(b[0], b[1])
    never = never - b[1] * b[2]
    with pytest.raises(ValueError, match="Every configuration has infinite energy"):
        ed.map_configuration(ed.compile(ed.Model(never), budget=1))
    c = ed.categorical("c", 3, levels=2)
    unlike = ed.Table(jnp.where(jnp.eye(2), jnp.inf, 0.0))
    ring = unlike(c[0], c[1]) + unlike(c[1], c[2]) + unlike(c[2], c[0])
    with pytest.raises(ValueError, match="found no configuration of finite energy at which"):
        ed.map_configuration(ed.compile(ed.Model(ring), budget=1), key=jr.key(0))


def test_an_energy_without_a_bound_has_no_mode():
    x = ed.positive("x", 2)
    energy = (x**1.5).sum() + 0.5 * ed.log(x).sum() + 0.1 * x[0] * x[1]
    with pytest.raises(ValueError, match="falls without a bound, so that there is no mode"):
        ed.map_configuration(ed.compile(ed.Model(energy)), key=jr.key(0))
