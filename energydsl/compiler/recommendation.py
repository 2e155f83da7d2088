"""The list of kernels in the order in which they are recommended.

Both `EBM.explain` and the default choice of a kernel use this list. It is defined in the compiler,
below the kernels, because `EBM.explain` needs it; `energydsl.kernel` fills it.
"""

from __future__ import annotations

from typing import Any, Protocol

from energydsl._types import Refusal


class Sampler(Protocol):
    """What a kernel must provide to be recommended."""

    @property
    def name(self) -> str:
        """The name shown by `EBM.explain`."""
        ...

    def applies(self, ebm: Any) -> str | Refusal:
        """The reason to use it for this EBM, or the reason why it does not apply."""
        ...


SAMPLERS: list[Sampler] = []
"""The library's kernels in the order in which they are recommended."""


def samplers(ebm: Any) -> dict[str, str | Refusal]:
    """For each sampler the reason for or against it, the most recommended first."""
    return {sampler.name: sampler.applies(ebm) for sampler in SAMPLERS}
