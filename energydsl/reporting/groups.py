"""What stands in each group of ArviZ's tree, and under which names."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from energydsl._types import Quantity
from energydsl.compiler.ebm import EBM
from energydsl.kernel.hamiltonian import AbstractHamiltonianKernel
from energydsl.reporting.pointwise import log_likelihood, observations
from energydsl.run.predictive import flat_draws, not_kept
from energydsl.run.quantities import evaluated
from energydsl.run.sampling import Chains, check_chains

MAX_NUMBERS = 20_000_000
"""The largest number of log-likelihoods that a tree has: draws times observations."""


def groups_of(
    chains: Chains,
    observed: Mapping[str, Any],
    deterministics: Mapping[str, Quantity],
    predictive: Mapping[str, Any],
    prior: Chains | None,
) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of each group of the tree that is not empty."""
    before = {} if prior is None else _prior(prior)
    held, seen = _evidence(chains.ebm), set(chains.ebm.model.observed)
    if clash := sorted(seen & observed.keys()):
        raise ValueError(
            f"observed got {clash}, which the model was conditioned on: these values are in the "
            "tree already."
        )
    groups = {
        "posterior": _free(chains) | _evaluated(chains, deterministics),
        "sample_stats": {},
        "observed_data": {n: a for n, a in held.items() if n in seen} | dict(observed),
        "constant_data": {n: a for n, a in held.items() if n not in seen},
        "log_likelihood": _log_likelihood(chains),
        "posterior_predictive": dict(predictive),
        "prior": {n: a for n, a in before.items() if n not in seen},
        "prior_predictive": {n: a for n, a in before.items() if n in seen},
    }
    plain = {group: {n: _plain(a) for n, a in arrays.items()} for group, arrays in groups.items()}
    whole = plain | {"sample_stats": _statistics(chains)}
    return {group: arrays for group, arrays in whole.items() if arrays}


def _free(chains: Chains) -> dict[str, np.ndarray]:
    """The draws, with NaN at the clamped sites of a partly clamped variable.

    ArviZ warns of draws that are constant, and gives NaN without a warning for NaN.
    """
    skeleton, drawn = chains.ebm.model.skeleton, dict(chains.draws)
    for v in skeleton.free:
        mask, own = skeleton.mask(v), drawn.get(v.name, np.zeros(()))
        if mask.any() and own.shape[2:] == v.shape and own.dtype == v.domain.draw_dtype:
            number = np.promote_types(own.dtype, np.float32)
            drawn[v.name] = np.where(mask, np.asarray(np.nan, number), own.astype(number))
    return drawn


def _prior(prior: Chains) -> dict[str, np.ndarray]:
    check_chains(prior, "to_arviz(prior=...)")
    return prior.draws


def _statistics(chains: Chains) -> dict[str, np.ndarray]:
    """The statistics of each draw, by the names that ArviZ expects."""
    energy, others = (
        chains.stats["energy"],
        {k: a for k, a in chains.stats.items() if k != "energy"},
    )
    if isinstance(chains.kernel, AbstractHamiltonianKernel):
        others["energy"] = others.pop("hamiltonian")
    return {"lp": -energy, "model_energy": energy} | others


def _evaluated(chains: Chains, functions: Mapping[str, Quantity]) -> dict[str, np.ndarray]:
    """The values of functions of one configuration at every draw."""
    if not functions:
        return {}
    if clash := sorted(functions.keys() & chains.draws.keys()):
        raise ValueError(f"deterministics got {clash}, which are names of draws; expected others.")
    lead, xs = chains.stats["energy"].shape, flat_draws(chains, "deterministics")
    values = evaluated(functions, xs, "deterministics")
    return {name: a.reshape(*lead, *a.shape[1:]) for name, a in values.items()}


def _log_likelihood(chains: Chains) -> dict[str, np.ndarray]:
    """The log-likelihood of each observation; nothing if the chains kept no configurations."""
    found = observations(chains.ebm.model)
    if not found or not_kept(chains) or not chains.stats["energy"].size:
        return {}
    count = chains.stats["energy"].size * sum(len(o.order) for o in found)
    if count > MAX_NUMBERS:
        warnings.warn(
            f"The tree has no log-likelihoods: one for each observation and draw is {count:,} "
            f"numbers; at most {MAX_NUMBERS:,} are computed. Thin the draws to have them.",
            stacklevel=4,
        )
        return {}
    return log_likelihood(chains, found)


def _evidence(ebm: EBM) -> dict[str, np.ndarray]:
    """The values of clamped sites; NaN at the free sites of a partly clamped variable."""
    model, held = ebm.model, {}
    for v in model.variables:
        mask = model.skeleton.mask(v)
        if mask.any():
            values = np.asarray(model.evidence[v.name])
            number = np.promote_types(values.dtype, np.float32)
            blank = np.asarray(np.nan, number)
            held[v.name] = values if mask.all() else np.where(mask, values.astype(number), blank)
    return held


def _plain(values: Any) -> np.ndarray:
    """The values in a dtype that ArviZ can subtract and netCDF can store."""
    array = np.asarray(values)
    if array.dtype == bool:
        return array.astype(np.int8)
    # NumPy reports the kind of bfloat16 and similar dtypes as "void".
    return array.astype(np.float32) if array.dtype.kind == "V" else array
