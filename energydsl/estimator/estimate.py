"""log Z where it must be estimated."""

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
        ebm: what to normalise.
        method: how; ``ed.AIS()`` if not given.
        key: a `jax.random.key`; the same key gives the same estimate.

    Returns:
        A value that says its error and its kind, which is never "exact".

    Raises:
        TypeError, ValueError: a method that does not fit the model, or an energy that is seen not
            to grow far out.
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
