"""Chains whose energy became NaN: they stop alone, and the others go on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Int

from energydsl._types import Configuration


@dataclasses.dataclass(frozen=True)
class Lost:
    """A chain that stopped because its energy became NaN.

    Attributes:
        chain: its number in the run.
        step: the number of steps, of warmup and after it, that it made with good energies.
        last: its configuration then.
        draws: its draws until then, (draw, ...), as in `Chains.draws`.
    """

    chain: int
    step: int
    last: Configuration
    draws: dict[str, np.ndarray]

    def __str__(self) -> str:
        return (
            f"the energy of chain {self.chain} became NaN in step {self.step + 1}; its "
            f"{len(next(iter(self.draws.values()))):,} draws until then are in chains.lost"
        )


class Fallen(eqx.Module):
    """Where each chain of a run stopped; the step is -1 for those that go on."""

    steps: Int[Array, " chain"]
    xs: Configuration

    @staticmethod
    def none(xs: Configuration) -> Fallen:
        """No chain has stopped."""
        return Fallen(jnp.full(len(next(iter(xs.values()))), -1), xs)

    @property
    def mask(self) -> np.ndarray:
        """Which chains have stopped."""
        return np.asarray(self.steps) >= 0

    @property
    def reason(self) -> str:
        """The reason why a run stops of which every chain has stopped."""
        steps = np.asarray(self.steps)
        return (
            f"stopped after {steps.max()} steps: the energies of all chains became NaN, that of "
            f"chain {steps.argmin()} first, in step {steps.min() + 1}"
        )

    def joined(self, chain: int, step: int, xs: Configuration) -> Fallen:
        """With one more chain, which was last good after `step` steps, at its part of `xs`."""
        here = {n: a.at[chain].set(xs[n][chain]) for n, a in self.xs.items()}
        return Fallen(self.steps.at[chain].set(step), here)

    def told(self, draws: Mapping[str, np.ndarray], warmup: int, thin: int) -> tuple[Lost, ...]:
        """Each chain that has stopped, with its own rows of the draws (chain, draw, ...)."""
        return tuple(
            Lost(
                int(c),
                step := int(self.steps[c]),
                {n: a[c] for n, a in self.xs.items()},
                {n: a[c, : max(0, step - warmup) // thin] for n, a in draws.items()},
            )
            for c in np.flatnonzero(self.mask)
        )

    def left_out(
        self,
        draws: dict[str, np.ndarray],
        stats: dict[str, np.ndarray],
        last: Configuration,
        warmup: int,
        thin: int,
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], Configuration]:
        """The results of the chains that go on; if none does, those of all until the first stopped.

        Draws and statistics have the axes (chain, draw, ...).
        """
        if self.mask.all():
            rows = max(0, int(self.steps.min()) - warmup) // thin
            early = {n: a[:, :rows] for n, a in draws.items()}
            return early, {n: a[:, :rows] for n, a in stats.items()}, self.xs
        kept = ~self.mask
        return (
            {n: a[kept] for n, a in draws.items()},
            {n: a[kept] for n, a in stats.items()},
            {n: a[kept] for n, a in last.items()},
        )


def first_broken(energies: np.ndarray, fallen: Fallen) -> dict[int, int]:
    """The chains whose energies, (chain, row), become NaN, each with the first such row."""
    broken = np.isnan(energies)
    fresh = np.flatnonzero(broken.any(axis=1) & ~fallen.mask)
    return {int(chain): int(broken[chain].argmax()) for chain in fresh}
