"""Chains as a netCDF file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from energydsl._messages import described
from energydsl.reporting.arviz_tree import to_arviz
from energydsl.run.files import write_whole
from energydsl.run.sampling import Chains

DEFLATED = {"zlib": True, "complevel": 1}


@described
def to_netcdf(
    chains: Chains,
    path: str | PathLike[str],
    *,
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Any] | None = None,
    observed: Mapping[str, Any] | None = None,
) -> None:
    """Save chains as a compressed netCDF file, which ``arviz.from_netcdf`` reads.

    The file contains the tree of `to_arviz`. It is written atomically: if the disk is full, an
    earlier file of the same name is unchanged, and an error is raised. (If the HDF5 library wrote
    to the disk itself, a full disk would end the process.)

    Args:
        chains: the result of `energydsl.sample`.
        path: the file, usually with the ending ``.nc``.
        dims: as in `to_arviz`.
        coords: as in `to_arviz`.
        observed: as in `to_arviz`.

    Raises:
        OSError: the file cannot be written.
        ValueError: names or lengths do not fit, as in `to_arviz`.
    """
    tree = to_arviz(chains, dims=dims, coords=coords, observed=observed)
    encoding = {node.path: dict.fromkeys(node.data_vars, DEFLATED) for node in tree.leaves}
    write_whole(Path(path), tree.to_netcdf(engine="h5netcdf", encoding=encoding))
