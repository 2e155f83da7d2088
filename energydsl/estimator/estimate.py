"""Estimates of log Z."""

from __future__ import annotations

import time
import warnings

import jax.random as jr
import numpy as np
from jax import Array

from energydsl._messages import brief, described
from energydsl._types import check_key
from energydsl.analysis.value_checks import no_growth
from energydsl.compiler.ebm import EBM, check_ebm
from energydsl.estimator.ais import AIS
from energydsl.estimator.base import STANDING, AbstractEstimator
from energydsl.normalizer.log_z import LogZ


@described
def estimate_log_partition(
    ebm: EBM,
    method: AbstractEstimator | None = None,
    *,
    key: Array,
    seconds: float | None = None,
) -> LogZ:
    """Estimate or bound log Z.

    With `seconds`, the method is repeated with about twice the work each time (more temperatures,
    particles or iterations), as long as the next round is expected to end in time; compiling
    counts. The last and most careful round is returned. Of proven bounds, the best of all rounds
    are returned. The first round is always carried out, even if it takes longer.

    Args:
        ebm: the compiled model.
        method: the estimator; by default ``ed.AIS()``.
        key: a `jax.random.key`; the same key gives the same estimate, apart from the number of
            rounds that a given time allows.
        seconds: the time to spend; None for one round.

    Returns:
        The estimate or the bounds; the kind is never "exact". `LogZ` says what each kind means,
        and its `doubts` why this result cannot be trusted. Doubts that more work may remove also
        come as a warning.

    Raises:
        TypeError, ValueError: the method does not fit the model; no weight is above zero; or the
            energy is seen not to grow at infinity, so that log Z does not exist.
    """
    check_ebm(ebm, "estimate_log_partition")
    check_key(key, "estimate_log_partition", ebm)
    method = AIS() if method is None else method
    if not isinstance(method, AbstractEstimator):
        raise TypeError(
            f"estimate_log_partition got the method {brief(method)}; expected one such as ed.AIS()."
        )
    if seconds is not None and not (np.isscalar(seconds) and 0 < seconds < np.inf):
        raise ValueError(
            f"estimate_log_partition got seconds={seconds!r}; expected a number above zero."
        )
    lost = no_growth(ebm.structure, ebm.model)
    if lost is not None:
        raise ValueError(f"log Z does not exist: {lost}.")
    if seconds is None:
        return _checked(method.estimate(ebm, key=key), method)
    return _checked(_rounds(ebm, method, seconds, key=key), method)


def _rounds(ebm: EBM, method: AbstractEstimator, seconds: float, *, key: Array) -> LogZ:
    """The last of as many rounds as the time allows, each with twice the work of the one before."""
    began, found, used = time.perf_counter(), None, 0.0
    for number in range(64):
        started = time.perf_counter()
        # Twice the work takes at most about twice the time of a round that also compiled.
        if found is not None and started - began + 2 * used > seconds:
            break
        new = method.estimate(ebm, key=jr.fold_in(key, number))
        found = new if found is None else new.sharpened(found)
        method, used = method.doubled(), time.perf_counter() - started
    assert found is not None
    return found


def _checked(found: LogZ, method: AbstractEstimator) -> LogZ:
    """The result; an error if there is none, a warning of doubts that more work may remove."""
    name = type(method).__name__
    more = "give it more work (temperatures, particles, chains, restarts), or take another method"
    if not np.isfinite(found.value):
        raise ValueError(
            f"{name} found no estimate: {'; '.join(found.doubts)}. If the model allows any state "
            f"at all, {more}."
        )
    noticed = [doubt for doubt in found.doubts if doubt not in STANDING]
    if noticed:
        warnings.warn(f"{name}: {'; '.join(noticed)}: {more}.", stacklevel=3)
    return found
