"""Matrix products."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import scipy.sparse as sp
from jax import Array

from energydsl.language.expression.leaf import as_expression
from energydsl.language.expression.operation import MULTIPLY, Text, as_float, bracket
from energydsl.language.expression.tree import Expression, make, makes


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class MatMul(Expression):
    """A matrix product; between two variables it couples every pair of sites."""

    def combine(self, *values: Array) -> Array:
        return jnp.matmul(*map(as_float, values))

    def text(self, *operands: Text) -> Text:
        left, right = bracket(operands[0], MULTIPLY), bracket(operands[1], MULTIPLY + 1)
        return f"{left} @ {right}", MULTIPLY


@makes("matmul")
def matmul(left: object, right: Any) -> Any:
    """The product ``left @ right`` of vectors and matrices; the left one may be a stack of them."""
    if sp.issparse(left):
        return make("sparse", left, right)
    if sp.issparse(right):
        return make("sparse", right.T, left)
    a, b = as_expression(left), as_expression(right)
    if a.ndim > 2 and b.ndim in (1, 2) and a.shape[-1] == b.shape[0]:
        product = matmul(a.reshape(-1, a.shape[-1]), b)
        return product.reshape(*a.shape[:-1], *b.shape[1:])
    if not (1 <= a.ndim <= 2 and 1 <= b.ndim <= 2) or a.shape[-1] != b.shape[0]:
        raise ValueError(
            f"@ got shapes {a.shape} and {b.shape}; expected vectors or matrices whose inner "
            "sizes agree; the left one may be a stack of matrices."
        )
    return MatMul((a, b), a.shape[:-1] + b.shape[1:])
