"""Two pictures restored: how far errors fall, and the law that is sampled."""

import arviz as az
import numpy as np
import pytest

import energydsl as ed
from models_zoo import ising_denoise as zoo
from tests.oracles import ising as oracle
from tests.zoo.words import check_words


@pytest.mark.parametrize("diagonal", [None, -0.2])
def test_the_energy_is_that_of_the_paper(diagonal):
    x, y = np.random.default_rng(0).choice([-1, 1], size=(2, 5, 6))
    ebm = ed.compile(zoo.declare((5, 6), flips=0.2, coupling=0.7, diagonal=diagonal))
    pairs = 0.0
    for i in range(5):
        for j in range(6):
            for di, dj, weight in ((0, 1, 0.7), (1, 0, 0.7), (1, 1, diagonal), (1, -1, diagonal)):
                if weight and i + di < 5 and 0 <= j + dj < 6:
                    pairs += weight * x[i, j] * x[i + di, j + dj]
    expected = -pairs - 0.5 * np.log(0.8 / 0.2) * (x * y).sum()
    assert float(ebm.energy({"x": x, "y": y})) == pytest.approx(expected, rel=1e-5)


def test_neighbours_of_the_infinite_lattice_agree_as_onsager_says():
    couplings = np.array([0.05, 0.3, 0.47, 0.7, 1.4])
    exact = [-oracle.onsager_energy(k) / 2 for k in couplings]
    np.testing.assert_allclose(zoo.lattice_agreement(couplings), exact, rtol=1e-9)


def test_the_coupling_is_found_through_the_noise():
    # The noise is averaged over 131,200 pixels; its effect on J is below 0.05 (seen: 0.03).
    clean = zoo.pictures()["horse"]
    flip = np.random.default_rng(0).random(clean.shape) < 0.1
    found = zoo.matched_coupling(np.where(flip, -clean, clean), 0.1)
    assert found == pytest.approx(zoo.matched_coupling(clean, 0.0), abs=0.05)


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
def test_errors_fall(tmp_path):
    numbers = zoo.main(out=tmp_path, chains=2, draws=50, thin=1)
    check_words(zoo, numbers)
    # Over ten seeds, horse has 44 +- 3 and page 2.90 +- 0.05: seven standard deviations each.
    assert numbers["horse"]["fold"] > 20
    assert numbers["page"]["fold"] > 2.5
    for name, clean in zoo.pictures().items():
        assert numbers[name]["mode_kind"] == "proven"
        assert numbers[name]["energy_mode"] < numbers[name]["energy_drawn"]
        assert numbers[name]["error_mode"] < numbers[name]["error_noisy"] / 2
        spread = np.sqrt(0.1 * 0.9 / clean.size)
        assert numbers[name]["error_noisy"] == pytest.approx(0.1, abs=5.3 * spread)
        with az.from_netcdf(tmp_path / f"{name}.nc") as tree:
            x = tree["posterior"]["x"]
            assert x.dims == ("chain", "draw", "row", "column")
            assert x.shape == (2, 50, *clean.shape)
            seen = np.mean(tree["constant_data"]["y"].values != clean)
        assert seen == pytest.approx(numbers[name]["error_noisy"])
    assert (tmp_path / "restored.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
def test_diagonal_neighbours_gain_on_thin_strokes(tmp_path, monkeypatch):
    page = {"page": zoo.pictures()["page"]}
    monkeypatch.setattr(zoo, "pictures", lambda: page)
    numbers = zoo.main(out=tmp_path, chains=2, draws=50, thin=4, neighbours=8)
    # 3.25 +- 0.08 over other seeds, where nearest neighbours have 2.98 +- 0.05.
    assert numbers["page"]["fold"] > 3.0
