"""The samplers that are recommended where none is given, the first of the list first.

`explain` and the default choice read this one list. It stands here, before the kernels, because an
EBM explains itself; the kernels enter themselves where they are exported.
"""

from __future__ import annotations

from typing import Any, Protocol

from energydsl._types import Refusal


class Sampler(Protocol):
    """What a kernel says of itself."""

    @property
    def name(self) -> str:
        """The word for it in `EBM.explain`."""
        ...

    def applies(self, ebm: Any) -> str | Refusal:
        """What speaks for it on this EBM, or why it does not move every free site."""
        ...


SAMPLERS: list[Sampler] = []
"""The library's kernels in the order in which they are recommended."""


def samplers(ebm: Any) -> dict[str, str | Refusal]:
    """What each sampler says of an EBM, the recommended one first."""
    return {sampler.name: sampler.applies(ebm) for sampler in SAMPLERS}
