"""The contract of an estimator of log Z."""

from __future__ import annotations

import abc

import equinox as eqx
import numpy as np
from jax import Array

from energydsl._messages import brief
from energydsl.compiler.ebm import EBM
from energydsl.kernel.base import AbstractKernel
from energydsl.normalizer.log_z import LogZ

LONG_CHAINS = (
    "its chains start where long chains of the kernel ended, in place of exact draws, so that the "
    "upper end holds only if these have reached the model's distribution"
)
LOOPS = "the factors form loops, so this is neither exact nor a bound"

STANDING = LONG_CHAINS, LOOPS
"""Doubts that follow from the method and the model before anything is drawn or computed. More work
does not remove them, so that they come without a warning."""


class AbstractEstimator(eqx.Module):
    """A method that estimates or bounds log Z."""

    @abc.abstractmethod
    def estimate(self, ebm: EBM, *, key: Array) -> LogZ:
        """Log Z with its error; its kind is never "exact".

        Raises:
            TypeError, ValueError: the estimator's own arguments do not fit the model.
        """

    @abc.abstractmethod
    def doubled(self) -> AbstractEstimator:
        """The same method with about twice the work, for a better result."""


def check_settings(method: AbstractEstimator, **least: int) -> None:
    """Raise unless an estimator's kernel is one, and these fields are large enough integers."""
    kernel = getattr(method, "kernel", None)
    if kernel is not None and not isinstance(kernel, AbstractKernel):
        raise TypeError(
            f"{type(method).__name__} got the kernel {brief(kernel)}; expected one such as "
            "ed.Gibbs(). Other settings are given by name."
        )
    for name, smallest in least.items():
        count = getattr(method, name)
        whole = isinstance(count, int | np.integer) and not isinstance(count, bool)
        if not whole or count < smallest:
            raise ValueError(
                f"{type(method).__name__} got {name}={count!r}; expected a whole number of at "
                f"least {smallest}."
            )
