"""Matrix products, dense and sparse."""

from __future__ import annotations

import dataclasses
from typing import Any, NoReturn

import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jax import Array

from energydsl.language.expression.leaf import as_expression
from energydsl.language.expression.operation import MULTIPLY, Text, as_float, bracket
from energydsl.language.expression.tree import Expression, makes


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class MatMul(Expression):
    """A matrix product; between two variables it couples every pair of sites."""

    def combine(self, *values: Array) -> Array:
        return jnp.matmul(*map(as_float, values))

    def text(self, *operands: Text) -> Text:
        left, right = bracket(operands[0], MULTIPLY), bracket(operands[1], MULTIPLY + 1)
        return f"{left} @ {right}", MULTIPLY


@dataclasses.dataclass(frozen=True)
class SparseProduct:
    """The first half, ``x @ S``, of ``x @ S @ y`` with a SciPy sparse matrix S.

    Each stored entry of S couples two sites; entries that are not stored make no factor.
    """

    left: Expression
    matrix: sp.sparray | sp.spmatrix

    def __matmul__(self, right: Expression) -> Expression:
        m: Any = sp.coo_array(self.matrix)
        left, (rows, columns) = self.left, m.coords
        if left.shape != (m.shape[0],) or getattr(right, "shape", None) != (m.shape[1],):
            raise ValueError(
                f"x @ S @ y got x {left.shape}, S {m.shape}, y {getattr(right, 'shape', '?')}; "
                "expected x of S's rows and y of S's columns."
            )
        return (np.asarray(m.data) * left[rows] * right[columns]).sum()

    def __getattr__(self, name: str) -> NoReturn:
        raise TypeError(
            "A sparse matrix is used between two views: write x @ S @ y. For another use of S, "
            "write out its entries: (S.data * x[S.row] * y[S.col]).sum()."
        )


@makes("matmul")
def matmul(left: object, right: Any) -> Any:
    """The product ``left @ right`` of vectors and matrices; the left one may be a stack of them."""
    a = as_expression(left)
    if sp.issparse(right):
        return SparseProduct(a, right)
    b = as_expression(right)
    if a.ndim > 2 and b.ndim in (1, 2) and a.shape[-1] == b.shape[0]:
        product = matmul(a.reshape(-1, a.shape[-1]), b)
        return product.reshape(*a.shape[:-1], *b.shape[1:])
    if not (1 <= a.ndim <= 2 and 1 <= b.ndim <= 2) or a.shape[-1] != b.shape[0]:
        raise ValueError(
            f"@ got shapes {a.shape} and {b.shape}; expected vectors or matrices whose inner "
            "sizes agree; the left one may be a stack of matrices."
        )
    return MatMul((a, b), a.shape[:-1] + b.shape[1:])
