"""Conversion of chains to ArviZ's tree of datasets.

Names and sizes are checked first, because xarray would align or drop data without an error. ArviZ
and xarray are imported when first used, because their import is slow.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

import jax.random as jr
import numpy as np

from energydsl.compiler.ebm import EBM, log_partition
from energydsl.normalizer import Intractable, error_of
from energydsl.run.sampling import Chains, check_chains

if TYPE_CHECKING:
    import xarray

SAMPLED = ("chain", "draw")
"""The leading dimensions of all draws."""

MASK = "_clamped"
"""The suffix of the name of a variable's mask of clamped sites."""

CHEAP = 1e8
"""The largest number of operations for which exact log Z is added to a tree's attributes."""


def to_arviz(
    chains: Chains,
    *,
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Any] | None = None,
    observed: Mapping[str, Any] | None = None,
) -> xarray.DataTree:
    """Convert chains to the `xarray.DataTree` that ArviZ reads; `to_netcdf` saves it.

    The group posterior contains the draws; sample_stats the energy, ``lp`` (minus the energy) and
    the kernel's statistics; constant_data the values of clamped sites, with a mask if only a part
    of a variable is clamped; observed_data the arrays of `observed`. A description of the run, as
    JSON, is in ``tree.attrs["energydsl"]``.

    Args:
        chains: the result of `energydsl.sample`.
        dims: names for the axes of variables, such as ``{"s": ["row", "column"]}``.
        coords: labels along such a dimension, such as ``{"row": [...]}``.
        observed: observed data to be stored with the draws, by name.

    Raises:
        ValueError: a name is unknown or used twice, or a length does not match.
    """
    import xarray as xr

    check_chains(chains, "to_arviz")
    groups = _groups(chains, observed or {})
    names = {name for arrays in groups.values() for name in arrays}
    dims = _checked_dims(dims or {}, names)
    dims = {f"{name}{MASK}": own for name, own in dims.items()} | dims
    coords = _checked_coords(coords or {}, dims)
    tree = xr.DataTree.from_dict(
        {group: _dataset(group, arrays, dims, coords) for group, arrays in groups.items()}
    )
    tree.attrs = {"energydsl": json.dumps(_record(chains))}
    return tree


def _groups(chains: Chains, observed: Mapping[str, Any]) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of each group of the tree that is not empty."""
    groups = {
        "posterior": {name: _plain(a) for name, a in chains.draws.items()},
        "sample_stats": chains.stats | {"lp": -chains.stats["energy"]},
        "constant_data": _clamped(chains.ebm),
        "observed_data": {name: _plain(a) for name, a in observed.items()},
    }
    return {group: arrays for group, arrays in groups.items() if arrays}


def _clamped(ebm: EBM) -> dict[str, np.ndarray]:
    """The evidence, and a mask of the clamped sites for each partly clamped variable."""
    model, held = ebm.model, {}
    for v in model.variables:
        mask = model.skeleton.mask(v)
        if mask.any():
            held[v.name] = np.asarray(model.evidence[v.name])
        if mask.any() and not mask.all():
            held[f"{v.name}{MASK}"] = mask
    return held


def _plain(values: Any) -> np.ndarray:
    """The values in a dtype that ArviZ can subtract and netCDF can store."""
    array = np.asarray(values)
    if array.dtype == bool:
        return array.astype(np.int8)
    # NumPy reports the kind of bfloat16 and similar dtypes as "void".
    return array.astype(np.float32) if array.dtype.kind == "V" else array


def _dataset(
    group: str,
    arrays: dict[str, np.ndarray],
    dims: dict[str, tuple[str, ...]],
    coords: dict[str, Any],
) -> xarray.Dataset:
    import arviz as az

    lead = [] if group.endswith("data") else list(SAMPLED)
    shapes = {name: array.shape[len(lead) :] for name, array in arrays.items()}
    axes = {
        name: dims.get(name, tuple(f"{name}_dim_{i}" for i in range(len(shape))))
        for name, shape in shapes.items()
    }
    sizes = _sizes(shapes, axes)
    for dim in sizes.keys() & coords.keys():
        if len(coords[dim]) != sizes[dim]:
            raise ValueError(
                f"coords[{dim!r}] has {len(coords[dim])} labels; expected {sizes[dim]}, the size "
                "of that dimension."
            )
    return az.dict_to_dataset(
        arrays,
        dims={name: list(own) for name, own in axes.items()},
        coords={dim: labels for dim, labels in coords.items() if dim in sizes},
        sample_dims=lead,
        inference_library=sys.modules["energydsl"],
        check_conventions=False,
    )


def _checked_dims(dims: Mapping[str, Sequence[str]], names: set[str]) -> dict[str, tuple[str, ...]]:
    for name in names:
        if "/" in name or name in SAMPLED:
            raise ValueError(
                f"Something drawn or observed is named {name!r}, which is reserved in a tree ('/' "
                "separates groups; chain and draw are dimensions). Rename it."
            )
    unknown = sorted(dims.keys() - names)
    if unknown:
        raise ValueError(f"dims got {unknown}; expected some of {sorted(names)}.")
    for name, own in dims.items():
        if isinstance(own, str):
            raise ValueError(f"dims[{name!r}] is {own!r}; expected a list: [{own!r}].")
    return {name: tuple(own) for name, own in dims.items()}


def _checked_coords(coords: Mapping[str, Any], dims: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    known = {dim for own in dims.values() for dim in own}
    unknown = sorted(coords.keys() - known)
    if unknown:
        raise ValueError(f"coords got {unknown}; expected some of dims' names: {sorted(known)}.")
    return dict(coords)


def _sizes(shapes: dict[str, tuple[int, ...]], axes: dict[str, tuple[str, ...]]) -> dict[str, int]:
    """The size of each dimension of one dataset; raises if names or sizes clash."""
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        own = axes[name]
        if len(own) != len(shape) or len(set(own)) != len(own):
            raise ValueError(
                f"dims[{name!r}] is {list(own)}; expected {len(shape)} different names, one for "
                f"each axis of its shape {shape}."
            )
        for dim, size in zip(own, shape, strict=True):
            if dim in SAMPLED or dim in shapes:
                raise ValueError(
                    f"An axis of {name!r} is called {dim!r}, which is already the name of "
                    f"something else. Give it another in dims[{name!r}]."
                )
            # xarray would align the two and pad the shorter one with NaN.
            if sizes.setdefault(dim, size) != size:
                raise ValueError(
                    f"The dimension {dim!r} has {size} entries in {name!r} and {sizes[dim]} in "
                    "another variable. Give the two different names in dims."
                )
    return sizes


def _record(chains: Chains) -> dict[str, Any]:
    """A description of the run as JSON data."""
    ebm = chains.ebm
    return {
        "version": metadata.version("energydsl"),
        "model": str(ebm.model),
        "normalizer": str(ebm.normalizer),
        "log_z": _log_z(ebm),
        "kernel": str(chains.kernel),
        "key": np.asarray(jr.key_data(chains.key)).tolist(),
        "warmup": chains.warmup,
        "thin": chains.thin,
        "seconds": chains.seconds,
        "stopped": chains.stopped,
    }


def _log_z(ebm: EBM) -> dict[str, Any] | None:
    """Log Z with its kind and error, if there is a rule for it and it is cheap; else None."""
    if isinstance(ebm.normalizer, Intractable) or ebm.normalizer.operations > CHEAP:
        return None
    value, error = float(log_partition(ebm)), error_of(ebm.model, ebm.normalizer)
    return {"value": value, "kind": ebm.normalizer.kind, "error": error}
