"""Chains on disk: read back as they were, and never half a file."""

import os

import arviz as az
import jax
import numpy as np
import pytest

import energydsl as ed


@pytest.fixture(scope="module")
def chains():
    ebm = ed.compile(ed.Model(-0.3 * ed.spin("s", 3).sum()))
    return ed.sample(ebm, key=jax.random.key(0), warmup=1, draws=5, progress=False)


def test_what_is_saved_reads_back(chains, tmp_path):
    ed.to_netcdf(chains, tmp_path / "chains.nc", dims={"s": ["site"]}, coords={"site": list("abc")})
    with az.from_netcdf(tmp_path / "chains.nc") as read:
        assert np.array_equal(read["posterior"]["s"], chains.draws["s"])
        assert list(read["posterior"]["site"].values) == list("abc")
    assert [path.name for path in tmp_path.iterdir()] == ["chains.nc"]


def test_a_full_disk_leaves_an_earlier_file_as_it_was(chains, tmp_path, monkeypatch):
    path = tmp_path / "chains.nc"
    ed.to_netcdf(chains, path)
    good = path.read_bytes()

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        ed.to_netcdf(chains, path)
    assert path.read_bytes() == good and list(tmp_path.iterdir()) == [path]
