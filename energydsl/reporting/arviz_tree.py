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

from energydsl._messages import described
from energydsl._types import Quantity
from energydsl.compiler.ebm import EBM, log_partition
from energydsl.language.variable import Variable
from energydsl.normalizer import Intractable, error_of
from energydsl.reporting.groups import groups_of
from energydsl.run.sampling import Chains, check_chains

if TYPE_CHECKING:
    import xarray

SAMPLED = ("chain", "draw")
"""The leading dimensions of all draws."""

CHEAP = 1e8
"""The largest number of operations for which exact log Z is added to a tree's attributes."""


@described
def to_arviz(
    chains: Chains,
    *,
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Any] | None = None,
    observed: Mapping[str, Any] | None = None,
    deterministics: Mapping[str, Quantity] | None = None,
    predictive: Mapping[str, Any] | None = None,
    prior: Chains | None = None,
) -> xarray.DataTree:
    r"""Convert chains to the `xarray.DataTree` that ArviZ reads; `to_netcdf` saves it.

    The groups, each present if there is something in it:

    - ``posterior``: the draws, with NaN at the clamped sites of a variable of which others are
      free, and the values of `deterministics`;
    - ``sample_stats``: ``lp`` (minus the model's energy), ``model_energy``, and the kernel's
      statistics under ArviZ's names. ``energy`` is the Hamiltonian of NUTS, as `arviz.bfmi` and
      `arviz.plot_energy` read it, and is absent for kernels that have none;
    - ``observed_data``: what the model was conditioned on, with NaN at the sites that are free, and
      the arrays of `observed`;
    - ``log_likelihood``: $\log p(y_i \mid x)$ for each draw, where an observation's factor is a
      normalised density, for `arviz.loo` and `arviz.compare`;
    - ``posterior_predictive``: the arrays of `predictive`;
    - ``prior`` and ``prior_predictive``: the draws of `prior`, those of observed variables apart.

    A description of the run, as JSON, is in ``tree.attrs["energydsl"]``.

    Args:
        chains: the result of `energydsl.sample`.
        dims: names for the axes of variables, such as ``{"s": ["row", "column"]}``, in addition to
            those that were declared with the variables.
        coords: labels along such a dimension, such as ``{"row": [...]}``.
        observed: further observed data to be stored with the draws, by name.
        deterministics: functions of one configuration, as in ``keep=`` of `energydsl.sample`, which
            are evaluated at every draw.
        predictive: the result of `energydsl.predictive`.
        prior: chains of the model without its condition: ``ed.sample(ed.compile(model), ...)``.

    Raises:
        TypeError: `prior` is not chains.
        ValueError: a name is unknown or used twice, or a length does not match.
    """
    import xarray as xr

    check_chains(chains, "to_arviz")
    groups = groups_of(chains, observed or {}, deterministics or {}, predictive or {}, prior)
    own, labels = _declared(chains.ebm.model.variables)
    names = {name for arrays in groups.values() for name in arrays}
    given = _checked_dims(dims or {}, names)
    coords = labels | _checked_coords(coords or {}, own | given)
    tree = xr.DataTree.from_dict(
        {
            group: _dataset(group, arrays, _axes(group, arrays, own, given), coords)
            for group, arrays in groups.items()
        }
    )
    tree.attrs = {"energydsl": json.dumps(record_of(chains))}
    return tree


def _declared(
    variables: Sequence[Variable],
) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[Any, ...]]]:
    """The names of axes, and their labels, that were declared with the variables."""
    dims, labels = {}, {}
    for v in variables:
        for axis, own in (v.axes or {}).items():
            if own is not None and labels.setdefault(axis, own) != own:
                raise ValueError(
                    f"The axis {axis!r} of {v.name!r} was declared with other labels than that of "
                    "another variable; give one of the two axes another name."
                )
        if v.axes is not None:
            dims[v.name] = tuple(v.axes)
    return dims, labels


def _axes(
    group: str,
    arrays: dict[str, np.ndarray],
    declared: dict[str, tuple[str, ...]],
    given: dict[str, tuple[str, ...]],
) -> dict[str, tuple[str, ...]]:
    """The names of the axes of a group's arrays, as far as they have names.

    A quantity may have a variable's name and another shape, so that declared names are used where
    they fit. The log-likelihoods of events of several sites have fewer axes than their variable.
    """
    lead = 0 if group.endswith("data") else len(SAMPLED)
    ranks = {name: array.ndim - lead for name, array in arrays.items()}
    whole = {n: own for n, own in declared.items() if ranks.get(n) == len(own)} | given
    if group != "log_likelihood":
        return whole
    return {n: own[: ranks[n]] for n, own in (declared | given).items() if n in ranks}


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
        coords={dim: np.asarray(labels) for dim, labels in coords.items() if dim in sizes},
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


def record_of(chains: Chains) -> dict[str, Any]:
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
        "lost": [{"chain": lost.chain, "step": lost.step} for lost in chains.lost],
    }


def _log_z(ebm: EBM) -> dict[str, Any] | None:
    """Log Z with its kind and error, if there is a rule for it and it is cheap; else None."""
    if isinstance(ebm.normalizer, Intractable) or ebm.normalizer.operations > CHEAP:
        return None
    value, error = float(log_partition(ebm)), error_of(ebm.model, ebm.normalizer)
    return {"value": value, "kind": ebm.normalizer.kind, "error": error}
