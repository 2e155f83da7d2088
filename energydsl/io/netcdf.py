"""Chains as a netCDF file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from energydsl.report.arviz_tree import to_arviz
from energydsl.run.files import write_whole
from energydsl.run.sampling import Chains

DEFLATED = {"zlib": True, "complevel": 1}


def to_netcdf(
    chains: Chains,
    path: str | PathLike[str],
    *,
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Any] | None = None,
    observed: Mapping[str, Any] | None = None,
) -> None:
    """Save chains as netCDF, which ``arviz.from_netcdf`` reads: the tree of `to_arviz`, deflated.

    The file is made in memory and written beside `path` before it takes its place, so that a full
    disk ends in an error that can be handled, with an earlier file of that name as it was. (The
    HDF5 library, writing to the disk itself, ends the process.)

    Args:
        chains: from `energydsl.sample`.
        path: of the file, usually ending in ``.nc``.
        dims: as `to_arviz` takes them.
        coords: as `to_arviz` takes them.
        observed: as `to_arviz` takes them.

    Raises:
        OSError: the file cannot be written.
        ValueError: names or lengths that do not fit, as `to_arviz` says.
    """
    tree = to_arviz(chains, dims=dims, coords=coords, observed=observed)
    encoding = {node.path: dict.fromkeys(node.data_vars, DEFLATED) for node in tree.leaves}
    write_whole(Path(path), tree.to_netcdf(engine="h5netcdf", encoding=encoding))
