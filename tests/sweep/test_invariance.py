"""Every lowering leaves the exact law invariant: one sweep from exact draws changes no count."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import energydsl as ed
from energydsl.sweep import colour_blocks, dense, gather
from energydsl.sweep.dense import DenseSweep
from energydsl.sweep.gather import GatherSweep
from energydsl.sweep.lattice import LatticeSweep, join, split
from tests.oracles.enumerate import chisquare_pvalue, count_states, exact_draws, exact_law
from tests.sweep.cases import CASES, ONE_SWEEP, pack, unpack

FALSE_ALARM = 1e-6  # chance that a correct sweep fails one of these tests
DRAWS = 100_000

COUPLED_INSIDE = [c for c in CASES if c.name not in ("two layers", "RBM")]
"""Those in which two sites of one variable interact."""

by_name = pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)


@eqx.filter_jit
def one_sweep(sweep, structure, model, xs, key):
    tables = sweep.load(structure, model)
    return sweep.unpack(sweep.sweep(structure, tables, sweep.pack(xs), key=key))


def planned(kind, ebm, blocks=None):
    """The sweep of one lowering, whatever the others cost."""
    return kind.plan(ebm.structure, blocks).build()


def pvalue_after_one_sweep(case, sweep, structure):
    law = exact_law(case.energy, case.levels)
    before = exact_draws(law.states, law.probs, DRAWS, seed=1)
    after = one_sweep(sweep, structure, case.model, pack(case.model, before), jax.random.key(2))
    counts = count_states(unpack(case.model, after), law.states)
    return chisquare_pvalue(counts, law.probs, DRAWS)


@by_name
def test_the_chosen_lowering_leaves_the_law_invariant(case):
    ebm = ed.compile(case.model)
    assert ebm.sweep.lowering == case.lowering
    assert pvalue_after_one_sweep(case, ebm.sweep, ebm.structure) > FALSE_ALARM


@pytest.mark.parametrize("case", ONE_SWEEP, ids=lambda c: c.name)
def test_shifts_and_padded_blocks(case):
    ebm = ed.compile(case.model)
    assert ebm.sweep.lowering == case.lowering
    assert pvalue_after_one_sweep(case, ebm.sweep, ebm.structure) > FALSE_ALARM


@by_name
def test_gathering_serves_every_graph(case):
    ebm = ed.compile(case.model)
    sweep = planned(GatherSweep, ebm)
    assert pvalue_after_one_sweep(case, sweep, ebm.structure) > FALSE_ALARM


def test_blocks_of_many_levels_are_drawn_in_parts(monkeypatch):
    """Each of the four sites, of three levels, alone, and each once."""
    monkeypatch.setattr(gather, "MEASURED", 3)
    case = next(c for c in CASES if c.name == "Potts chain")
    ebm = ed.compile(case.model)
    sweep = planned(GatherSweep, ebm)
    size = ebm.structure.sites
    drawn = np.concatenate([np.asarray(block.sites).ravel() for block in sweep.blocks])
    assert np.array_equal(np.sort(drawn[drawn < size]), np.arange(size))
    assert all(block.sites.shape[-1] == 1 for block in sweep.blocks)
    assert pvalue_after_one_sweep(case, sweep, ebm.structure) > FALSE_ALARM


def test_layers_of_a_dense_energy(monkeypatch):
    monkeypatch.setattr(dense, "DENSE_DEGREE", 1)
    case = next(c for c in CASES if c.name == "RBM")
    ebm = ed.compile(case.model)
    sweep = planned(DenseSweep, ebm)
    assert pvalue_after_one_sweep(case, sweep, ebm.structure) > FALSE_ALARM


def test_an_rbm_of_some_size_is_lowered_to_layers():
    x, h = ed.binary("x", 64), ed.binary("h", 16, latent=True)
    ebm = ed.compile(ed.Model(-(x @ np.ones((64, 16)) @ h)))
    assert (ebm.sweep.lowering, ebm.sweep.note) == ("dense", "2 layers")


@pytest.mark.parametrize("case", COUPLED_INSIDE, ids=lambda c: c.name)
def test_the_statistic_sees_coupled_sites_drawn_at_once(case):
    """The power of the tests above: a sweep with one colour for all is wrong, and seen to be."""
    ebm = ed.compile(case.model)
    everything = [
        type(b)(b.variable, np.arange(b.variable.size))
        for b in {b.variable: b for b in colour_blocks(ebm.structure)}.values()
    ]
    wrong = planned(GatherSweep, ebm, everything)
    assert pvalue_after_one_sweep(case, wrong, ebm.structure) < FALSE_ALARM


@by_name
def test_packing_is_undone_by_unpacking(case):
    ebm = ed.compile(case.model)
    xs = jax.vmap(lambda k: ebm.start(key=k))(jax.random.split(jax.random.key(0), 3))
    back = ebm.sweep.unpack(ebm.sweep.pack(xs))
    assert all(np.array_equal(xs[n], back[n]) and xs[n].dtype == back[n].dtype for n in xs)


@pytest.mark.parametrize("shape", [(5,), (4, 6), (5, 7), (3, 4, 5)])
def test_sublattices_hold_each_site_once(shape):
    array, cell = np.arange(np.prod(shape)).reshape(shape), (2,) * len(shape)
    assert np.array_equal(join(jnp.asarray(split(array, cell)), cell, shape), array)


def test_clamped_sites_of_a_lattice_stay_and_the_rest_keeps_its_law():
    s = ed.spin("s", (3, 3))
    pairs = (s[1:] * s[:-1]).sum() + 0.5 * (s[:, 1:] * s[:, :-1]).sum()
    model = ed.Model(-0.6 * pairs).condition({s[0, :]: [1, -1, 1], s[2, 2]: -1})
    held = np.array([1, -1, 1, 0, 0, 0, 0, 0, -1])

    def energy(free):
        x = np.tile(held, (len(free), 1))
        x[:, held == 0] = free
        x = x.reshape(-1, 3, 3)
        return -0.6 * (x[:, 1:] * x[:, :-1]).sum((1, 2)) - 0.3 * (x[:, :, 1:] * x[:, :, :-1]).sum(
            (1, 2)
        )

    law = exact_law(energy, [(-1, 1)] * 5)
    ebm = ed.compile(model)
    assert ebm.sweep.lowering == "lattice"
    full = np.tile(held, (DRAWS, 1))
    full[:, held == 0] = exact_draws(law.states, law.probs, DRAWS, seed=4)
    for sweep in (ebm.sweep, planned(GatherSweep, ebm)):
        xs = one_sweep(sweep, ebm.structure, model, pack(model, full), jax.random.key(5))
        after = unpack(model, xs)
        assert (after[:, held != 0] == held[held != 0]).all()
        counts = count_states(after[:, held == 0], law.states)
        assert chisquare_pvalue(counts, law.probs, DRAWS) > FALSE_ALARM


def gaussian_models():
    """Name, model, and the precision and mean of its Gaussian law."""
    rng = np.random.default_rng(5)
    root = rng.normal(size=(5, 5))
    precision, linear = root @ root.T + np.eye(5), rng.normal(size=5)
    y = ed.real("y", 5)
    yield "dense", ed.Model(ed.Quadratic(precision, linear)(y)), precision, linear
    chain = 2.0 * np.eye(6) - 0.8 * (np.eye(6, k=1) + np.eye(6, k=-1))
    z = ed.real("z", 6)
    walk = ed.Model((z**2).sum() - 0.8 * (z[1:] * z[:-1]).sum() - 0.3 * z.sum())
    yield "lattice", walk, chain, np.full(6, 0.3)


@pytest.mark.parametrize("name, model, precision, linear", list(gaussian_models()))
def test_real_sites_keep_their_gaussian(name, model, precision, linear):
    """Projections of the swept draws against their exact normal law."""
    ebm = ed.compile(model)
    rng = np.random.default_rng(6)
    covariance = np.linalg.inv(precision)
    mean = covariance @ linear
    before = rng.multivariate_normal(mean, covariance, size=DRAWS)
    variable = model.variables[0].name
    xs = {variable: jnp.asarray(before, float)}
    after = np.asarray(one_sweep(ebm.sweep, ebm.structure, model, xs, jax.random.key(7))[variable])
    directions = [*np.eye(len(mean)), np.ones(len(mean)), rng.normal(size=len(mean))]
    for d in directions:
        scaled = (after @ d - mean @ d) / np.sqrt(d @ covariance @ d)
        pvalue = scipy.stats.kstest(scaled, "norm").pvalue
        assert pvalue > FALSE_ALARM / len(directions)


@pytest.mark.parametrize("kind", [DenseSweep, GatherSweep], ids=lambda k: k.lowering)
def test_a_mixed_model_keeps_its_law(kind, monkeypatch):
    """Bits and a real site: p(h) by summing the Gaussian out, y given h Gaussian."""
    monkeypatch.setattr(dense, "DENSE_DEGREE", 1)
    weights = np.array([[1.0, -0.5, 0.7]])
    y, h = ed.real("y", 1), ed.binary("h", 3)
    model = ed.Model(0.5 * (y**2).sum() - y @ weights @ h + 0.4 * h.sum())
    ebm = ed.compile(model)
    law = exact_law(lambda s: -0.5 * (s @ weights[0]) ** 2 + 0.4 * s.sum(1), [(0, 1)] * 3)
    bits = exact_draws(law.states, law.probs, DRAWS, seed=8)
    rng = np.random.default_rng(9)
    reals = bits @ weights[0] + rng.normal(size=DRAWS)
    xs = {"y": jnp.asarray(reals[:, None], float), "h": jnp.asarray(bits, jnp.int8)}
    after = one_sweep(planned(kind, ebm), ebm.structure, model, xs, jax.random.key(10))
    h_after = np.asarray(after["h"])
    counts = count_states(h_after, law.states)
    assert chisquare_pvalue(counts, law.probs, DRAWS) > FALSE_ALARM
    mixture = np.sort(np.asarray(after["y"])[:, 0])

    def cdf(v):
        centres = law.states @ weights[0]
        return (law.probs * scipy.stats.norm.cdf(v[:, None] - centres)).sum(1)

    assert scipy.stats.kstest(mixture, cdf).pvalue > FALSE_ALARM


@pytest.mark.parametrize(
    ("name", "kind"),
    [("two layers", LatticeSweep), ("irregular graph", GatherSweep), ("RBM", DenseSweep)],
)
def test_chains_at_temperatures_of_their_own(name, kind, monkeypatch):
    """Energies are multiplied by a number for each chain, which its neighbours do not share."""
    monkeypatch.setattr(dense, "DENSE_DEGREE", 1)
    case = next(c for c in CASES if c.name == name)
    ebm, betas = ed.compile(case.model), [1.0, 0.3, 1.7]
    laws = [exact_law(lambda s, b=b: b * case.energy(s), case.levels) for b in betas]
    before = [exact_draws(law.states, law.probs, DRAWS, seed=k) for k, law in enumerate(laws)]
    mixed = np.stack(before, axis=1).reshape(-1, before[0].shape[1])

    @eqx.filter_jit
    def run(sweep, structure, model, xs, betas, key):
        tables = sweep.load(structure, model)
        state = sweep.sweep(structure, tables, sweep.pack(xs), key=key, betas=betas)
        return sweep.unpack(state), sweep.energies(structure, model, state)

    each = jnp.asarray(betas * DRAWS)
    xs = pack(case.model, mixed)
    parts = planned(kind, ebm), ebm.structure, case.model
    after, energies = run(*parts, xs, each, jax.random.key(3))
    after = unpack(case.model, after)
    np.testing.assert_allclose(energies, case.energy(after), rtol=1e-4, atol=1e-4)
    for k, law in enumerate(laws):
        counts = count_states(after[k::3], law.states)
        assert chisquare_pvalue(counts, law.probs, DRAWS) > FALSE_ALARM
        assert (after[k::3] != before[k]).any(axis=1).mean() > 0.2


@by_name
def test_gathered_energies_are_those_of_the_model(case):
    """With a site clamped, whose entry in the state is the evidence."""
    v = case.model.variables[0]
    view = ed.variable(v.name, v.domain, v.shape).reshape(-1)
    free = exact_law(case.energy, case.levels).states[::7]
    ebm = ed.compile(case.model.condition({view[0]: case.levels[0][1]}))
    states = free.copy()
    states[:, 0] = case.levels[0][1]
    sweep = planned(GatherSweep, ebm)
    found = sweep.energies(ebm.structure, ebm.model, sweep.pack(pack(case.model, states)))
    np.testing.assert_allclose(found, case.energy(states), rtol=1e-4, atol=1e-4)


def test_gathered_energies_of_factors_that_see_no_site():
    """Three times the same parameter, which is one entry for all factors of its batch."""
    s, field = ed.spin("s", 3), ed.parameter("h", np.array([0.5, 0.7]))
    ebm = ed.compile(ed.Model((s[1:] * s[:-1]).sum() + field[np.array([1, 1, 1])].sum()))
    xs = {"s": jnp.asarray([[1, 1, -1], [1, 1, 1]], jnp.int8)}
    sweep = planned(GatherSweep, ebm)
    found = sweep.energies(ebm.structure, ebm.model, sweep.pack(xs))
    np.testing.assert_allclose(found, [2.1, 4.1], rtol=1e-6)
