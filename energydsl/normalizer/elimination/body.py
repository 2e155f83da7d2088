"""Bodies: the index arrays of runs of batches, as what compiled loops go through."""

from __future__ import annotations

import equinox as eqx
from jax import Array

from energydsl.analysis.joint_states import int32
from energydsl.normalizer.elimination.batches import Shape
from energydsl.normalizer.elimination.layout import Layout
from energydsl.normalizer.elimination.schedule import Run


class Body(eqx.Module):
    """A `Run` as a pytree; inside its loops, one of its batches."""

    shape: Shape = eqx.field(static=True)
    layout: Layout | None = eqx.field(static=True)
    kind: int = eqx.field(static=True)
    base: Array
    pattern: Array
    begin: Array
    first: Array
    others: Array
    strides: Array

    def __init__(self, run: Run) -> None:
        self.shape, self.layout, self.kind = run.shape, run.layout, run.kind
        for name in ("base", "pattern", "begin", "first", "others", "strides"):
            setattr(self, name, int32(getattr(run, name)))

    @property
    def arranged(self) -> Layout:
        """The layout of a wide step."""
        assert self.layout is not None, "the step is not wide"
        return self.layout
