"""Products with SciPy sparse matrices: only stored entries make factors."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import scipy.sparse as sp

from energydsl.language.expression.leaf import Data, as_expression
from energydsl.language.expression.reduction import Sum
from energydsl.language.expression.tree import Expression, makes

PADDED, SLACK = 16, 1_000_000
"""All rows are as long as the longest. This may take PADDED numbers for each stored one, and SLACK
more."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SparseProduct(Sum):
    """``S @ x`` for a sparse matrix S: each element is a sum over the stored entries of its row."""

    lengths: np.ndarray = dataclasses.field(kw_only=True)
    """The number of entries of each row; those that follow are padding."""

    @property
    def key(self) -> tuple:
        return (self.axes,)

    def __matmul__(self, other: object) -> Expression:
        """``x @ S @ y``: one factor of two sites for each stored entry."""
        if not isinstance(other, Expression):
            return super().__matmul__(other)
        if other.shape != self.shape:
            raise ValueError(
                f"x @ S @ y got S with {self.size} columns and y of shape {other.shape}; expected "
                "y of S's columns."
            )
        weights, picked = self.children[0].children
        assert isinstance(weights, Data)
        used = np.arange(picked.shape[1]) < self.lengths[:, None]
        rows = np.repeat(np.arange(self.size), self.lengths)
        return (weights.value[used] * picked[used] * other[rows]).sum()


@makes("sparse")
def sparse_product(matrix: sp.sparray | sp.spmatrix, operand: object) -> SparseProduct:
    """The product of a sparse matrix and a vector."""
    x = as_expression(operand)
    s: Any = sp.csr_array(matrix)
    if x.shape != (s.shape[1],):
        raise ValueError(
            f"@ got a sparse matrix of shape {s.shape} and a view of shape {x.shape}; expected a "
            f"vector of {s.shape[1]} elements."
        )
    s.sum_duplicates()
    lengths = np.diff(s.indptr)
    width = max(int(lengths.max(initial=0)), 1)
    if len(lengths) * width > PADDED * s.nnz + SLACK:
        raise ValueError(
            f"@ got a sparse matrix of shape {s.shape} with {s.nnz} entries, of which one row has "
            f"{width}; rows are padded to the longest. Write long rows apart: "
            "S[long].toarray() @ x."
        )
    weights, columns = _padded(s, lengths, width)
    product = as_expression(weights) * x[columns]
    return SparseProduct((product,), (len(lengths),), (1,), lengths=lengths)


def _padded(s: Any, lengths: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The entries and the columns of each row, filled up with zeros.

    These stand in the row's first column, so that they join no other sites.
    """
    used = np.arange(width) < lengths[:, None]
    first = np.append(s.indices, 0)[np.minimum(s.indptr[:-1], s.nnz)]
    columns = np.repeat(np.where(lengths > 0, first, 0)[:, None], width, axis=1)
    weights = np.zeros(columns.shape, s.dtype)
    columns[used], weights[used] = s.indices, s.data
    return weights, columns
