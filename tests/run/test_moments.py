"""Running moments of a run against those of its draws."""

import jax
import numpy as np
import pytest

import energydsl as ed

KEY = jax.random.key(3)
RUN = dict(key=KEY, chains=3, warmup=5, progress=False)


@pytest.fixture(scope="module")
def ebm():
    s, y = ed.spin("s", (2, 3)), ed.real("y", 2)
    field = np.linspace(-0.5, 0.4, 6).reshape(2, 3)
    return ed.compile(
        ed.Model((field * s).sum() + ((y - 1000.0) ** 2).sum() / 2 - 0.2 * s[0] @ s[1])
    )


def agrees(moments, draws):
    assert moments.count == draws.shape[1]
    np.testing.assert_allclose(moments.mean, draws.mean(axis=1), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(moments.variance, draws.var(axis=1, ddof=1), rtol=1e-3, atol=1e-5)


def both(function):
    return {"s": ed.Moments(lambda x: x["s"]), "y": ed.Moments(lambda x: x["y"]), "all": function}


@pytest.mark.parametrize("thin", [1, 3])
def test_moments_are_those_of_the_draws_after_warmup(ebm, thin):
    """The real sites are far from 0 beside their width, where sums of squares would lose digits."""
    whole = ed.sample(ebm, draws=40, thin=thin, **RUN)
    kept = ed.sample(ebm, draws=40, thin=thin, keep=both(lambda x: x["y"].sum()), **RUN)
    assert kept.draws.keys() == {"all"} and kept.moments.keys() == {"s", "y"}
    for name in ("s", "y"):
        agrees(kept.moments[name], whole.draws[name].astype(float))
    assert "moments of s" in repr(kept)


def test_moments_alone_are_kept_in_chunks_of_any_length(ebm, monkeypatch):
    keep = {"y": ed.Moments(lambda x: x["y"])}
    once = ed.sample(ebm, draws=30, keep=keep, **RUN)
    monkeypatch.setattr("energydsl.run.loop.CHUNK_SECONDS", 0.0)
    again = ed.sample(ebm, draws=30, keep=keep, **RUN)
    assert not once.draws and once.stats["energy"].shape == (3, 30)
    np.testing.assert_array_equal(once.moments["y"].mean, again.moments["y"].mean)
    np.testing.assert_array_equal(once.moments["y"].variance, again.moments["y"].variance)


def test_a_resumed_run_has_the_moments_of_all_draws(ebm, tmp_path):
    keep = {"y": ed.Moments(lambda x: x["y"])}
    whole = ed.sample(ebm, draws=20, keep=keep, **RUN)
    ed.sample(ebm, draws=8, keep=keep, checkpoint=tmp_path, **RUN)
    resumed = ed.sample(ebm, draws=20, keep=keep, checkpoint=tmp_path, **RUN)
    np.testing.assert_array_equal(whole.moments["y"].mean, resumed.moments["y"].mean)
    assert resumed.moments["y"].count == 20
    draws = {"y": lambda x: x["y"]}
    with pytest.raises(ValueError, match="keep"):
        ed.sample(ebm, draws=20, keep=draws, checkpoint=tmp_path, **RUN)


def test_one_draw_has_no_variance(ebm):
    chains = ed.sample(ebm, draws=1, keep={"y": ed.Moments(lambda x: x["y"])}, **RUN)
    assert np.isnan(chains.moments["y"].variance).all()
    assert np.isfinite(chains.moments["y"].mean).all()


def test_moments_need_a_function():
    with pytest.raises(TypeError, match=r"Moments got 'y'; expected a function"):
        ed.Moments("y")
