"""Sparse matrices in block-tridiagonal form, and their exact recursions in dense blocks.

Rows and columns are numbered so that two of them with a common entry lie within a band, and are cut
into blocks at least as wide as the band; so only neighbouring blocks have common entries. Each step
of a recursion works on one block and the one before it, in a compiled loop. The entries of the
inverse are computed where the matrix has entries, which is what derivatives of its log-determinant
need, and nowhere else.
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import scipy.sparse.csgraph as csgraph
from jax import Array, lax
from scipy.linalg import get_lapack_funcs

from energydsl.analysis import graph
from energydsl.analysis.joint_states import int32

NARROWEST = 32
"""The least width of a block, so that a step does more than it costs to begin one."""

SMALL = 16
"""The most rows of a matrix that is factorised by LAPACK, whose threads wait for each other."""

ROUNDING = 16.0
"""The rounding error of an entry of a block that is assumed, in units of float64's precision."""


class Band(eqx.Module):
    """The places of the entries of a matrix in block-tridiagonal form.

    The entry of row i and column j belongs to block k, the later one of the blocks of i and j. Its
    place is given in the window of blocks k - 1 and k. Entries are held as an array (block, slot),
    in which slots that are not used have 0.

    Args:
        size: the number of rows and columns.
        width: the rows of a block; no two with a common entry may be further apart.
        rows: the row of each entry.
        columns: the column of each entry.
    """

    size: int = eqx.field(static=True)
    width: int = eqx.field(static=True)
    slots: Array
    """The slot of each entry in the flat array of entries."""
    places: Array
    """The row and the column of each slot in its window, (block, 2, slot)."""

    def __init__(self, size: int, width: int, rows: np.ndarray, columns: np.ndarray) -> None:
        self.size, self.width = size, width
        block = np.maximum(rows, columns) // width
        order = np.argsort(block, kind="stable")
        counts = np.bincount(block, minlength=self.blocks)
        rank = np.arange(len(block)) - np.repeat(np.cumsum(counts) - counts, counts)
        most = int(counts.max(initial=1))
        slots = np.empty(len(block), np.int64)
        slots[order] = block[order] * most + rank
        places = np.full((2, self.blocks * most), width)
        places[:, slots] = np.stack([rows, columns]) - (block - 1) * width
        self.slots = int32(slots)
        self.places = int32(places.reshape(2, self.blocks, most).transpose(1, 0, 2))

    @property
    def blocks(self) -> int:
        """The number of blocks."""
        return -(-self.size // self.width)

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the array of entries."""
        return self.places.shape[0], self.places.shape[2]

    @property
    def beyond(self) -> Array:
        """1 at the rows of the last block that are beyond the matrix, (block, row)."""
        rows = np.arange(self.blocks * self.width).reshape(self.blocks, self.width)
        return jnp.asarray(rows >= self.size, float)

    def window(self, entries: Array, places: Array, beyond: Array) -> Array:
        """Blocks k - 1 and k of the matrix, without the entries of block k - 1 alone."""
        row, column = places
        empty = jnp.zeros((2 * self.width, 2 * self.width))
        return empty.at[row, column].add(entries) + jnp.diag(jnp.pad(beyond, (self.width, 0)))

    def split(self, vector: Array) -> Array:
        """A vector as (block, row), with 0 beyond its end."""
        return jnp.pad(vector, (0, self.blocks * self.width - self.size)).reshape(-1, self.width)

    def joined(self, parts: Array) -> Array:
        """A vector that was split."""
        return parts.ravel()[: self.size]


class Numbering(NamedTuple):
    """Numbers of the nodes of a graph within their components, and the band of each component."""

    place: np.ndarray
    width: np.ndarray


def numbering(nodes: int, edges: np.ndarray, component: np.ndarray, count: int) -> Numbering:
    """Numbers that keep neighbours near each other.

    Nodes in no component (-1) come last. The nodes of each component are numbered from 0.

    Source: reverse Cuthill-McKee, George & Liu (1981), chapter 4.
    """
    place = np.arange(nodes)
    if len(edges):
        near = csgraph.reverse_cuthill_mckee(graph.adjacency(nodes, edges), symmetric_mode=True)
        place[near] = np.arange(nodes)
    last = np.where(component < 0, count, component)
    by_component = np.lexsort([place, last])
    start = np.searchsorted(last[by_component], np.arange(count + 1))
    place[by_component] = np.arange(nodes) - start[last[by_component]]
    width = np.zeros(count, np.int64)
    left, right = edges.T
    np.maximum.at(width, component[left], np.abs(place[left] - place[right]))
    return Numbering(place, width)


class Factored(NamedTuple):
    """The inverses of the diagonal blocks of L, where A = L L', and L^-1 b.

    `before` and `solved` hold those that precede each block, `last` and `end` those of the last.
    """

    before: Array
    solved: Array
    last: Array
    end: Array
    log_det: Array
    square: Array

    @property
    def whitened(self) -> Array:
        """L^-1 b as (block, row)."""
        return jnp.concatenate([self.solved[1:], self.end[None]])


def cholesky(band: Band, entries: Array, right: Array) -> Factored:
    """A = L L' and L^-1 b; NaN from the first block on that is not positive definite.

    Args:
        band: the places of the entries, those on and below the diagonal only.
        entries: the entries of A.
        right: b, (block, row).
    """

    def step(carry: tuple, inputs: tuple) -> tuple[tuple, tuple]:
        root, solved = carry
        below, schur = _schur(band, root, *inputs[:3])
        new = _inverse_root(schur)
        ahead = new @ (inputs[3] - below @ solved)
        numbers = -jnp.sum(jnp.log(jnp.diagonal(new))), jnp.sum(ahead**2)
        return (new, ahead), (root, solved, *numbers)

    start = jnp.eye(band.width), jnp.zeros(band.width)
    (last, end), (before, solved, logs, squares) = lax.scan(
        step, start, (entries, band.places, band.beyond, right)
    )
    return Factored(before, solved, last, end, 2 * jnp.sum(logs), jnp.sum(squares))


def _schur(
    band: Band, root: Array, entries: Array, places: Array, beyond: Array
) -> tuple[Array, Array]:
    """The block of L below the diagonal, and the Schur complement of the diagonal block."""
    window, w = band.window(entries, places, beyond), band.width
    half = window[w:, w:]
    below = window[w:, :w] @ root.T
    return below, half + half.T - jnp.diag(jnp.diagonal(half)) - below @ below.T


def _inverse_root(matrix: Array) -> Array:
    """L^-1, where the matrix is L L'; by halves, as products are what runs fastest."""
    n = len(matrix)
    if n <= SMALL:
        lower = jnp.linalg.cholesky(matrix)
        return lax.linalg.triangular_solve(lower, jnp.eye(n), left_side=True, lower=True)
    h = n // 2
    first = _inverse_root(matrix[:h, :h])
    below = matrix[h:, :h] @ first.T
    last = _inverse_root(matrix[h:, h:] - below @ below.T)
    return jnp.block([[first, jnp.zeros((h, n - h))], [-last @ (below @ first), last]])


def first_failure(band: Band, entries: Array) -> int | None:
    """The first row at which a leading part of the matrix is not positive definite; not traced."""
    found = cholesky(band, entries, jnp.zeros((band.blocks, band.width)))
    failed = np.isnan(np.concatenate([found.before[1:], found.last[None]])).any(axis=(1, 2))
    if not failed.any():
        return None
    k = int(np.argmax(failed))
    schur = _schur(band, found.before[k], entries[k], band.places[k], band.beyond[k])[1]
    (factorise,) = get_lapack_funcs(("potrf",), (np.asarray(schur),))
    order = factorise(np.asarray(schur))[1]
    return k * band.width + max(order - 1, 0)


class Moments(NamedTuple):
    """What follows from the inverse of A: its entries where A has some, its diagonal, A^-1 b."""

    entries: Array
    diagonal: Array
    mean: Array


def moments(band: Band, entries: Array, found: Factored) -> Moments:
    """The selected entries of the inverse, by a recursion from the last block to the first.

    Source: Takahashi, Fagan & Chen (1973); Rue & Held (2005), section 2.3.5.
    """

    def step(carry: tuple, inputs: tuple) -> tuple[tuple, tuple]:
        inverse, mean = carry
        root, solved, values, places, beyond = inputs
        w = band.width
        link = root @ band.window(values, places, beyond)[w:, :w].T
        path = root.T @ link
        cross = -inverse @ path.T
        row, column = places
        picked = jnp.concatenate([cross, inverse], axis=1)[row - w, column]
        ahead = root.T @ root - path @ cross
        earlier = root.T @ (solved - link @ mean)
        return (ahead, earlier), (picked, jnp.diagonal(inverse), mean)

    start = found.last.T @ found.last, found.last.T @ found.end
    inputs = found.before, found.solved, entries, band.places, band.beyond
    return Moments(*lax.scan(step, start, inputs, reverse=True)[1])


def upper_solve(band: Band, entries: Array, found: Factored, right: Array) -> Array:
    """L'^-1 b for b as (block, row)."""

    def step(carry: Array, inputs: tuple) -> tuple[Array, Array]:
        root, target, values, places = inputs
        row, column = places
        # Entries in the block's own columns, which have places from the width on, are left out.
        own = jnp.where(column < band.width, values * carry[row - band.width], 0.0)
        link = jnp.zeros(2 * band.width).at[column].add(own)[: band.width]
        return root.T @ (target - root @ link), carry

    shifted = jnp.concatenate([jnp.zeros((1, band.width)), right[:-1]])
    inputs = found.before, shifted, entries, band.places
    return lax.scan(step, found.last.T @ right[-1], inputs, reverse=True)[1]


class Inverse(NamedTuple):
    """The log of |det A|, the entries of the inverse's transpose where A has some, and `loss`.

    `loss` estimates the error of the logarithm: the sum of the rounding errors of the blocks'
    entries, `ROUNDING` units each, times the derivatives of the logarithm in them.
    """

    log_det: Array
    entries: Array
    loss: Array


def inverse(band: Band, entries: Array) -> Inverse:
    """The log-determinant and the inverse of a matrix that need not be symmetric.

    No rows are exchanged between blocks, nor between the halves of a block: the leading parts of
    the matrix must be invertible, and at least as well conditioned as the whole.

    Args:
        band: the places of the entries, of an even width: pairs of rows are not separated.
        entries: the entries of A.
    """
    w = band.width

    def ahead(before: Array, inputs: tuple) -> tuple[Array, tuple]:
        window = band.window(*inputs)
        fill = window[w:, :w] @ before @ window[:w, w:]
        new, log_det = _inverse(window[w:, w:] - fill)
        return new, (before, log_det)

    def back(inner: Array, inputs: tuple) -> tuple[Array, tuple]:
        before, values, places, beyond = inputs
        window = band.window(values, places, beyond)
        left, right = window[w:, :w] @ before, before @ window[:w, w:]
        lower, upper = -inner @ left, -right @ inner
        row, column = places
        whole = jnp.block([[jnp.zeros((w, w)), upper], [lower, inner]])
        sizes = jnp.abs(window[w:, w:]) + jnp.abs(left) @ jnp.abs(window[:w, w:])
        loss = jnp.sum(sizes * jnp.abs(inner.T))
        return before - upper @ left, (whole[column, row], loss)

    inputs = entries, band.places, band.beyond
    last, (before, logs) = lax.scan(ahead, jnp.eye(w), inputs)
    _, (picked, losses) = lax.scan(back, last, (before, *inputs), reverse=True)
    return Inverse(jnp.sum(logs), picked, ROUNDING * jnp.finfo(float).eps * jnp.sum(losses))


def _inverse(matrix: Array) -> tuple[Array, Array]:
    """The inverse and the log of |det|; by halves, as products are what runs fastest."""
    n = len(matrix)
    if n <= SMALL:
        factors, _, order = lax.linalg.lu(matrix)
        ahead = lax.linalg.triangular_solve(
            factors, jnp.eye(n)[order], left_side=True, lower=True, unit_diagonal=True
        )
        found = lax.linalg.triangular_solve(factors, ahead, left_side=True, lower=False)
        return found, jnp.sum(jnp.log(jnp.abs(jnp.diagonal(factors))))
    h = n // 4 * 2
    first, log_first = _inverse(matrix[:h, :h])
    left, right = matrix[h:, :h] @ first, first @ matrix[:h, h:]
    last, log_last = _inverse(matrix[h:, h:] - left @ matrix[:h, h:])
    upper = -right @ last
    found = jnp.block([[first - upper @ left, upper], [-last @ left, last]])
    return found, log_first + log_last
