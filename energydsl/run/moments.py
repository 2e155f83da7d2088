"""Running means and variances of quantities whose draws are not kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl._messages import brief
from energydsl._types import Quantity


class Moments:
    r"""A quantity of ``keep=`` of which only the mean and the variance over draws are kept.

    With ``keep={"s": Moments(lambda x: x["s"])}``, `sample` keeps two arrays of the quantity's
    shape for each chain, however many draws there are: ``chains.moments["s"]``, a
    `RunningMoments`. A million sites then take 8 MB a chain, where 1,000 draws take gigabytes.

    Args:
        function: a function of one configuration that returns one array of numbers.

    Raises:
        TypeError: the argument is not a function.
    """

    def __init__(self, function: Quantity) -> None:
        if not callable(function):
            raise TypeError(
                f"Moments got {brief(function)}; expected a function of one configuration, as in "
                'Moments(lambda x: x["s"]).'
            )
        self.function = function


@dataclasses.dataclass(frozen=True, eq=False)
class RunningMoments:
    r"""The mean and the variance of a quantity over the draws of each chain.

    Attributes:
        mean: $\bar f = \frac1n \sum_t f_t$, (chain, ...).
        variance: $\frac1{n-1} \sum_t (f_t - \bar f)^2$, (chain, ...); NaN for one draw.
        count: the number n of draws.

    Source: Welford (1962), Technometrics 4(3), 419-420, for the recursions.
    """

    mean: np.ndarray
    variance: np.ndarray
    count: int


class Running(eqx.Module):
    """The sums of a run in progress: for each quantity the mean, and the squares about it."""

    count: Array
    means: dict[str, Array]
    squares: dict[str, Array]

    @staticmethod
    def blank(shapes: Mapping[str, jax.ShapeDtypeStruct]) -> Running:
        """Before the first draw, for quantities of these shapes, (chain, ...)."""
        zeros = {n: jnp.zeros(s.shape, float) for n, s in shapes.items()}
        return Running(jnp.zeros((), jnp.int32), zeros, zeros)

    def with_draw(self, values: Mapping[str, Array]) -> Running:
        """After one more draw."""
        count = self.count + 1
        means, squares = {}, {}
        for name, old in self.means.items():
            away = values[name].astype(old.dtype) - old
            means[name] = old + away / count
            squares[name] = self.squares[name] + away * (values[name] - means[name])
        return Running(count, means, squares)

    def told(self, kept: np.ndarray) -> dict[str, RunningMoments]:
        """The moments of the chains marked in `kept`."""
        count = int(self.count)
        return {
            name: RunningMoments(
                np.asarray(self.means[name])[kept],
                np.asarray(self.squares[name])[kept] / (count - 1 if count > 1 else np.nan),
                count,
            )
            for name in self.means
        }
