"""Symmetric positive definite matrices."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from numpyro.distributions import constraints

from energydsl.language.domain.continuous import AbstractContinuous


@dataclasses.dataclass(frozen=True)
class PositiveDefinite(AbstractContinuous):
    """Symmetric positive definite matrices in the last two axes of the shape.

    Densities are with respect to the entries of the lower triangle.
    """

    event_ndim: ClassVar[int] = 2

    @property
    def constraint(self) -> Any:
        return constraints.positive_definite

    @property
    def name(self) -> str:
        return "positive_definite"

    @property
    def support(self) -> str:
        return "symmetric positive definite matrices in the last two axes"

    def check_shape(self, shape: tuple[int, ...], name: str) -> None:
        super().check_shape(shape, name)
        if shape[-1] != shape[-2]:
            raise ValueError(
                f"Variable {name!r} got shape {shape}; matrices are square, so expected the last "
                "two axes to be equal."
            )
