"""The ArviZ tree: what stands where, what survives a file, and which names are refused."""

import dataclasses
import json
import warnings

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats as st

import energydsl as ed
from energydsl.reporting.arviz_tree import to_arviz
from tests.oracles.enumerate import exact_law


def grid():
    s, y = ed.spin("s", (3, 4)), ed.spin("y", (3, 4))
    model = ed.Model(-0.25 * (s[1:] * s[:-1]).sum() - 0.5 * (s * y).sum())
    return model.condition({s[0, :2]: 1}, y=np.ones((3, 4), int))


@pytest.fixture(scope="module")
def chains():
    ebm = ed.compile(grid())
    return ed.sample(ebm, ed.Gibbs(), key=jax.random.key(3), chains=2, draws=9, warmup=4, thin=2,
                     progress=False)  # fmt: skip


@pytest.fixture
def kept(chains):
    """The same run, had it kept these quantities."""

    def of(**draws):
        return dataclasses.replace(chains, draws=draws)

    return of


def test_groups_hold_draws_energies_and_evidence(chains):
    tree = to_arviz(chains, dims={"s": ["row", "column"]}, coords={"row": ["a", "b", "c"]})
    s, seen = tree["posterior"]["s"], tree["observed_data"]["s"]
    assert s.dims == ("chain", "draw", "row", "column") and seen.dims == ("row", "column")
    held = np.zeros((3, 4), bool)
    held[0, :2] = True
    np.testing.assert_array_equal(s, np.where(held, np.nan, chains.draws["s"]))
    np.testing.assert_array_equal(seen, np.where(held, 1, np.nan))
    assert s.sel(row="b").shape == (2, 9, 4)
    stats = tree["sample_stats"]
    np.testing.assert_array_equal(stats["model_energy"], chains.stats["energy"])
    np.testing.assert_array_equal(stats["lp"], -chains.stats["energy"])
    assert "energy" not in stats, "Gibbs has no Hamiltonian, which ArviZ would take it for"
    np.testing.assert_array_equal(tree["observed_data"]["y"], np.ones((3, 4)))
    assert set(tree.children) == {"posterior", "sample_stats", "observed_data"}


def test_arviz_warns_of_no_clamped_site(chains):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        said = az.summary(to_arviz(chains))
    assert said["mean"].isna().sum() == 2


def test_kernel_statistics_and_observed_data_are_kept(chains):
    accept = np.linspace(0, 1, 18).reshape(2, 9)
    chains = dataclasses.replace(chains, stats=chains.stats | {"accept": accept})
    tree = to_arviz(chains, observed={"image": [[True, False]]}, dims={"image": ["i", "j"]})
    np.testing.assert_array_equal(tree["sample_stats"]["accept"], accept)
    image = tree["observed_data"]["image"]
    assert image.dims == ("i", "j") and image.dtype == np.int8
    with pytest.raises(
        ValueError, match=r"observed got \['s'\], which the model was conditioned on"
    ):
        to_arviz(chains, observed={"s": [1]})


def test_the_record_says_how_the_draws_were_made(chains):
    record = json.loads(to_arviz(chains).attrs["energydsl"])
    assert record["kernel"] == "Gibbs()" and record["key"] == [0, 3]
    assert (record["warmup"], record["thin"], record["stopped"]) == (4, 2, None)
    assert "s * y" in record["model"] and record["normalizer"].startswith("exact by")
    assert set(record) >= {"version", "seconds"}


def test_exact_log_z_travels_with_its_kind(chains):
    pairs = [(r * 4 + c, r * 4 + 4 + c) for r in range(2) for c in range(4)]
    i, j = np.array(pairs).T
    law = exact_law(
        lambda s: -0.25 * (s[:, i] * s[:, j]).sum(1) - 0.5 * s.sum(1),
        [(1,)] * 2 + [(-1, 1)] * 10,
    )
    log_z = json.loads(to_arviz(chains).attrs["energydsl"])["log_z"]
    assert log_z["kind"] == "exact" and log_z["value"] == pytest.approx(law.log_z, rel=1e-10)


def test_an_intractable_log_z_is_absent():
    s = ed.spin("s", (8, 8))
    energy = -0.3 * (s[1:] * s[:-1]).sum() - 0.3 * (s[:, 1:] * s[:, :-1]).sum()
    ebm = ed.compile(ed.Model(energy - 0.1 * s.sum()), budget=5)
    run = ed.sample(ebm, ed.Gibbs(), key=jax.random.key(0), chains=1, draws=2, warmup=0,
                    progress=False)  # fmt: skip
    record = json.loads(to_arviz(run).attrs["energydsl"])
    assert record["log_z"] is None and record["normalizer"].startswith("intractable")


def test_a_file_gives_back_the_tree(chains, tmp_path):
    tree = to_arviz(chains, dims={"s": ["row", "column"]}, observed={"z": [0.5]})
    tree.to_netcdf(tmp_path / "chains.nc")
    with az.from_netcdf(tmp_path / "chains.nc") as read:
        assert read.identical(tree)
        assert read["posterior"]["s"].dtype == np.float32
        assert json.loads(read.attrs["energydsl"])["kernel"] == "Gibbs()"


def test_arviz_summarises_quantities_of_every_dtype(kept):
    rng = np.random.default_rng(0)
    half = np.asarray(jnp.asarray(rng.random((2, 9)), jnp.bfloat16))
    tree = to_arviz(kept(up=rng.random((2, 9)) > 0.5, m=rng.normal(size=(2, 9)), half=half))
    assert tree["posterior"]["up"].dtype == np.int8
    assert tree["posterior"]["half"].dtype == np.float32
    assert list(az.summary(tree).index) == ["up", "m", "half"]


def test_a_run_stopped_before_its_first_draw_can_be_saved(chains, tmp_path):
    none = dataclasses.replace(
        chains,
        draws={"s": chains.draws["s"][:, :0]},
        stats={"energy": chains.stats["energy"][:, :0]},
        stopped="interrupted after 0 of 9 draws",
    )
    to_arviz(none).to_netcdf(tmp_path / "none.nc")
    with az.from_netcdf(tmp_path / "none.nc") as read:
        assert read["posterior"]["s"].shape == (2, 0, 3, 4)


def test_a_quantity_may_bear_the_name_of_a_clamped_variable(kept):
    tree = to_arviz(kept(s=np.ones((2, 9))))
    assert tree["posterior"]["s"].shape == (2, 9) and tree["observed_data"]["s"].shape == (3, 4)


def test_variables_may_share_a_dimension_of_one_size(kept):
    tree = to_arviz(kept(a=np.ones((2, 9, 5)), b=np.ones((2, 9, 5))), dims={"a": ["k"], "b": ["k"]})
    assert tree["posterior"].sizes["k"] == 5


@pytest.mark.parametrize(
    ("draws", "options", "message"),
    [
        ({}, {"dims": {"t": ["i"]}}, r"dims got \['t'\]; expected some of \['a', 'b'"),
        ({}, {"dims": {"a": "i"}}, r"dims\['a'\] is 'i'; expected a list: \['i'\]"),
        ({}, {"dims": {"a": ["i"]}}, r"dims\['a'\] is \['i'\]; expected 2 different names"),
        ({}, {"dims": {"a": ["i", "i"]}}, r"dims\['a'\] is \['i', 'i'\]; expected 2 different"),
        ({}, {"dims": {"a": ["i", "j"], "b": ["j"]}}, r"'j' has 5 entries in 'b' and 4 in another"),
        ({}, {"dims": {"b": ["a_dim_0"]}}, r"'a_dim_0' has 5 entries in 'b' and 3 in another"),
        ({}, {"dims": {"b": ["chain"]}}, r"An axis of 'b' is called 'chain'"),
        ({}, {"dims": {"b": ["a"]}}, r"An axis of 'b' is called 'a', which is already the name of"),
        ({}, {"coords": {"i": [1]}}, r"coords got \['i'\]; expected some of dims' names: \[\]"),
        (
            {},
            {"dims": {"b": ["i"]}, "coords": {"i": "abc"}},
            r"coords\['i'\] has 3 labels; expected 5",
        ),
        ({"draw": (2, 9)}, {}, r"is named 'draw', which is reserved in a tree"),
        ({"a/b": (2, 9)}, {}, r"is named 'a/b', which is reserved"),
        ({}, {"observed": {"chain": [1]}}, r"is named 'chain'"),
    ],
)
def test_names_that_clash_are_refused(kept, draws, options, message):
    shapes = {"a": (2, 9, 3, 4), "b": (2, 9, 5)} | draws
    with pytest.raises(ValueError, match=message):
        to_arviz(kept(**{name: np.ones(shape) for name, shape in shapes.items()}), **options)


EFFECTS = np.array([2.5, -1.0, 0.3])
ERRORS = np.array([1.5, 0.7, 2.0])


def schools():
    """Three schools, of unequal errors, with named axes."""
    mu, tau = ed.real("mu"), ed.positive("tau")
    z, y = ed.real("z", 3, dims={"school": ["A", "B", "C"]}), ed.real("y", 3, dims="school")
    normal = ed.LogDensity(dist.Normal)
    return ed.Model(
        normal(mu, 0, 5)
        + ed.LogDensity(dist.HalfCauchy)(tau, 5)
        + normal(z, 0, 1)
        + normal(y, mu + tau * z, ERRORS)
    )


@pytest.fixture(scope="module")
def posterior():
    return ed.sample(
        ed.compile(schools().condition(y=EFFECTS)), ed.NUTS(), key=jax.random.key(0), chains=2,
        warmup=50, draws=200, progress=False,
    )  # fmt: skip


def test_a_directed_model_has_every_group_that_arviz_looks_for(posterior):
    prior = ed.sample(
        ed.compile(schools()), ed.ExactDraws(), key=jax.random.key(1), chains=1, draws=20, warmup=0,
        progress=False,
    )  # fmt: skip
    tree = to_arviz(
        posterior,
        dims={"theta": ["school"]},
        deterministics={"theta": lambda x: x["mu"] + x["tau"] * x["z"]},
        predictive=ed.predictive(posterior, key=jax.random.key(2)),
        prior=prior,
    )
    assert set(tree.children) == {
        "posterior", "sample_stats", "observed_data", "log_likelihood", "posterior_predictive",
        "prior", "prior_predictive",
    }  # fmt: skip
    assert set(tree["prior"].data_vars) == {"mu", "tau", "z"}
    assert list(tree["prior_predictive"].data_vars) == ["y"]
    for group in ("posterior_predictive", "log_likelihood", "prior_predictive", "observed_data"):
        assert tree[group]["y"].dims[-1] == "school", group
    assert tree["prior"]["z"].sizes == {"chain": 1, "draw": 20, "school": 3}
    assert list(tree["posterior"]["theta"]["school"].values) == ["A", "B", "C"]
    x = posterior.draws
    theta = x["mu"][..., None] + x["tau"][..., None] * x["z"]
    np.testing.assert_allclose(tree["posterior"]["theta"], theta, rtol=1e-6)
    expected = st.norm(theta.astype(float), ERRORS).logpdf(EFFECTS)
    np.testing.assert_allclose(tree["log_likelihood"]["y"], expected, rtol=2e-5, atol=2e-5)


def test_deterministics_receive_integers_that_do_not_overflow():
    """Draws of labels are kept in 8 bits, where the square of 100 would be 16."""
    n = ed.categorical("n", levels=101)
    ebm = ed.compile(ed.Model(ed.Table(-0.5 * np.arange(101.0))(n)))
    run = ed.sample(ebm, ed.ExactDraws(), key=jax.random.key(0), chains=1, draws=5, warmup=0,
                    progress=False)  # fmt: skip
    square = to_arviz(run, deterministics={"square": lambda x: x["n"] ** 2})["posterior"]["square"]
    np.testing.assert_array_equal(square, run.draws["n"].astype(int) ** 2)


def test_energy_is_the_hamiltonian_where_there_is_one(posterior):
    stats = to_arviz(posterior)["sample_stats"]
    np.testing.assert_array_equal(stats["energy"], posterior.stats["hamiltonian"])
    np.testing.assert_array_equal(stats["model_energy"], posterior.stats["energy"])
    assert "hamiltonian" not in stats
    assert set(map(str, stats.data_vars)) >= {"lp", "diverging", "tree_depth", "acceptance_rate"}


def test_arviz_compares_directed_models(posterior):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the shape of importance weights, for three schools
        loo = az.loo(to_arviz(posterior))
    assert np.isfinite(loo.elpd) and loo.n_data_points == 3


def test_observations_whose_density_is_not_known_to_be_one_are_told():
    beta, y = ed.real("beta"), ed.binary("y", 3)
    odds = ed.exp(np.arange(3.0) * beta)
    likelihood = ed.LogDensity(dist.Bernoulli)(y, probs=odds / (1 + odds))
    model = ed.Model(likelihood + 0.5 * beta**2).condition(y=np.array([0, 1, 1]))
    drawn = ed.sample(
        ed.compile(model),
        ed.Langevin(step_size=0.1),
        key=jax.random.key(0),
        chains=1,
        warmup=0,
        draws=3,
    )
    with pytest.warns(UserWarning, match=r"no log-likelihoods of some .* probs in \[0, 1\]"):
        tree = to_arviz(drawn)
    assert "log_likelihood" not in tree.children


def test_declared_axes_give_way_to_given_ones_and_to_other_shapes(posterior):
    other = dataclasses.replace(posterior, draws=posterior.draws | {"z": np.ones((2, 200))})
    assert to_arviz(other)["posterior"]["z"].dims == ("chain", "draw")
    tree = to_arviz(posterior, dims={"z": ["place"]}, coords={"school": ["x", "y", "z"]})
    assert tree["posterior"]["z"].dims == ("chain", "draw", "place")
    assert list(tree["observed_data"]["school"].values) == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        (
            "row",
            r"dims=\['row'\]; expected 2 different names, one for each axis of its shape \(2, 3",
        ),
        (["row", "row"], r"expected 2 different names"),
        ({"row": ["a"], "column": None}, r"got 1 labels for its axis 'row'; expected 2, its size"),
    ],
)
def test_names_of_axes_are_checked_where_they_are_declared(dims, message):
    with pytest.raises(ValueError, match=message):
        ed.real("x", (2, 3), dims=dims)


def test_one_axis_has_one_list_of_labels():
    a, b = ed.real("a", 2, dims={"i": ["p", "q"]}), ed.real("b", 2, dims={"i": ["q", "p"]})
    ebm = ed.compile(ed.Model(((a - b) ** 2).sum() + (b**2).sum()))
    chains = ed.sample(ebm, ed.Gibbs(), key=jax.random.key(0), chains=1, draws=1, progress=False)
    with pytest.raises(ValueError, match="The axis 'i' of 'b' was declared with other labels"):
        to_arviz(chains)
