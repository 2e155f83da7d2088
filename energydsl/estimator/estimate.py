"""Estimates of log Z."""

from __future__ import annotations

from jax import Array

from energydsl._types import check_key
from energydsl.analysis.value_checks import no_growth
from energydsl.compiler.ebm import EBM, check_ebm
from energydsl.estimator.ais import AIS
from energydsl.estimator.base import AbstractEstimator
from energydsl.normalizer.log_z import LogZ


def estimate_log_partition(
    ebm: EBM, method: AbstractEstimator | None = None, *, key: Array
) -> LogZ:
    """Estimate log Z, with its error.

    Args:
        ebm: the compiled model.
        method: the estimator; by default ``ed.AIS()``.
        key: a `jax.random.key`; the same key gives the same estimate.

    Returns:
        The estimate with its error; its kind is never "exact".

    Raises:
        TypeError, ValueError: the method does not fit the model, or the energy is seen not to
            grow at infinity, so that log Z does not exist.
    """
    check_ebm(ebm, "estimate_log_partition")
    check_key(key, "estimate_log_partition", ebm)
    method = AIS() if method is None else method
    if not isinstance(method, AbstractEstimator):
        raise TypeError(
            f"estimate_log_partition got the method {method!r}; expected one such as ed.AIS()."
        )
    lost = no_growth(ebm.structure, ebm.model)
    if lost is not None:
        raise ValueError(f"log Z does not exist: {lost}.")
    return method.estimate(ebm, key=key)
