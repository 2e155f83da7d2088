"""Whether learning has failed, as far as the losses of its steps tell.

The steps are cut into blocks whose lengths double: one step, one, two, four, eight and so on. A
block is compared with earlier ones, so that what is called large follows the losses that were seen
and not the first of them, which may be zero; and the answer for a step depends on the losses up to
that step alone, and not on when one asks.
"""

from __future__ import annotations

import itertools
from typing import Literal, NamedTuple

import numpy as np

LossKind = Literal["measure", "difference", "other"]
"""What a loss says; see `AbstractObjective.loss_kind`."""

JUMP = 1e3
"""A loss has diverged if it exceeds the best block's median by this number of its scales."""

RISE = 10.0
"""A block of losses has diverged if all of them exceed that median by this number of scales."""

LEAST = 8
"""The fewest steps of a block that is judged as a whole."""

FALL, STEEP, FALLS, LEAST_FALL = 10.0, 1.5, 3, 64
"""A difference falls without bound if each of the medians of the last FALLS blocks was STEEP times
that of the block before, and the last, of LEAST_FALL steps, is below minus FALL nats per site."""

SLOWER = "give the optimizer a lower learning rate, or clip its gradients"

UNREACHED = (
    "samples no longer reach what data show, and each step widens the gap; take more steps k of a "
    "kernel that mixes, a lower learning rate, or weight decay"
)


class Failure(NamedTuple):
    """The first step whose loss shows that learning has failed, and what it shows."""

    step: int
    reason: str


class _Block(NamedTuple):
    median: float
    width: float
    """The largest loss minus the smallest."""


class Losses:
    """The losses seen so far, by block.

    Args:
        kind: what the loss says. A difference of energies is expected near 0, so that it may fail
            in both directions; other losses may fall as far as they do.
        sites: the number of sites that data show. Energies are in units of $k_B T$, so that a loss
            of one per site is no large one, whatever the losses before.
    """

    def __init__(self, kind: LossKind, sites: int) -> None:
        self.kind, self.sites = kind, max(1, sites)
        self.blocks: list[_Block] = []

    def failure(self, losses: np.ndarray, first: int) -> Failure | None:
        """The first failure at the steps from `first` on, given the losses of all steps so far."""
        while first < len(losses):
            number = first.bit_length()
            begin, end = _bounds(number)
            while len(self.blocks) < number:
                self._close(losses[slice(*_bounds(len(self.blocks)))])
            found = self._jump(losses[first:end], first)
            if found is None and end <= len(losses):
                found = self._slow(losses[begin:end], end)
            if found is not None:
                return found
            first = end
        return None

    def _close(self, losses: np.ndarray) -> None:
        values = losses.astype(float)
        self.blocks.append(_Block(float(np.median(values)), float(np.ptp(values))))

    def _best(self) -> tuple[float, float]:
        """The median and the scale of the block with the best losses: the lowest, or nearest 0."""
        if not self.blocks:
            return 0.0, np.inf
        if self.kind == "difference":
            best = min(self.blocks, key=lambda block: max(abs(block.median), block.width))
        else:
            best = min(self.blocks)
        return best.median, max(best.width, abs(best.median), float(self.sites))

    def _jump(self, losses: np.ndarray, first: int) -> Failure | None:
        median, scale = self._best()
        away = losses.astype(float) - median
        far = np.abs(away) if self.kind == "difference" else away
        bad = ~np.isfinite(away) | (far > JUMP * scale)
        if not bad.any():
            return None
        place = int(bad.argmax())
        why = "has diverged" if np.isfinite(away[place]) else "is not finite"
        hint = UNREACHED if -JUMP * scale > away[place] > -np.inf else SLOWER
        if not first + place:
            hint = "the starting parameters or the data do not suit this objective"
        return Failure(first + place, f"the loss {why} ({losses[place]:.4g}); {hint}")

    def _slow(self, losses: np.ndarray, end: int) -> Failure | None:
        """A failure that only a whole block shows."""
        if len(losses) < LEAST:
            return None
        median, scale = self._best()
        low = float(losses.min())
        if low > median + RISE * scale:
            text = f"it stays above {low:.4g} and was {median:.4g} before; {SLOWER}"
            return Failure(end - 1, f"the loss has diverged: {text}")
        if self.kind == "difference" and self._falls(losses):
            text = f"the loss falls without bound ({losses[-1]:.4g}): {UNREACHED}"
            return Failure(end - 1, text)
        return None

    def _falls(self, losses: np.ndarray) -> bool:
        medians = [block.median for block in self.blocks[-FALLS:]] + [float(np.median(losses))]
        steep = all(after <= STEEP * before < 0 for before, after in itertools.pairwise(medians))
        return len(losses) >= LEAST_FALL and steep and medians[-1] < -FALL * self.sites


def _bounds(number: int) -> tuple[int, int]:
    """The first step of a block, and the one after its last."""
    return (0, 1) if number == 0 else (1 << (number - 1), 1 << number)
