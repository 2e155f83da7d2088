"""Convolutions, written so that each result depends on the elements under the kernel only."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from energydsl.language.expression.leaf import as_expression
from energydsl.language.expression.rearrange import flat
from energydsl.language.expression.tree import Expression

MODES = ("full", "same", "valid")

BOUNDARIES: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "fill": lambda at, size: np.clip(at, 0, size - 1),
    "wrap": lambda at, size: at % size,
    "symm": lambda at, size: np.minimum(at % (2 * size), 2 * size - 1 - at % (2 * size)),
}
"""For each rule, the element that stands at a place outside of an axis of this size."""


def conv(x: object, kernel: object, mode: str = "same", boundary: str = "fill") -> Expression:
    r"""The convolution $(k * x)_i = \sum_j k_j\,x_{i-j}$, as by `scipy.signal.convolve2d`.

    Each element of the result depends on as many elements of `x` as the kernel has, so that an
    energy of it remains local: deblurring is ``((y - ed.conv(x, k))**2).sum() / (2 * s**2)``.

    Args:
        x: an expression of one axis or more.
        kernel: an array, a parameter or another expression, with as many axes as `x`.
        mode: ``"same"``: the result has the shape of `x`, centred; ``"valid"``: only where the
            kernel lies within `x`; ``"full"``: wherever it overlaps `x`.
        boundary: the elements beyond the ends of `x`: ``"fill"``: zeros; ``"wrap"``: a periodic
            lattice; ``"symm"``: mirrored.

    Raises:
        ValueError: the numbers of axes differ, the kernel is larger than `x`, or a mode or boundary
            is unknown.
    """
    x = as_expression(x)
    kernel = as_expression(np.asarray(kernel) if isinstance(kernel, list | tuple) else kernel)
    _check(x, kernel, mode, boundary)
    axes = [_along(n, k, mode, boundary) for n, k in zip(x.shape, kernel.shape, strict=True)]
    shape = tuple(len(places) for places, _ in axes)
    positions = np.zeros((1,) * 2 * x.ndim, np.int64)
    inside = np.ones((1,) * 2 * x.ndim, bool)
    for axis, (places, held) in enumerate(axes):
        stretched = [1] * 2 * x.ndim
        stretched[axis], stretched[x.ndim + axis] = places.shape
        positions = positions * x.shape[axis] + places.reshape(stretched)
        inside = inside & held.reshape(stretched)
    windows = flat(x)[positions.reshape(*shape, -1)]
    weights = flat(kernel)
    if not inside.all():
        weights = weights * inside.reshape(*shape, -1)
    return (weights * windows).sum(-1)


def _along(size: int, width: int, mode: str, boundary: str) -> tuple[np.ndarray, np.ndarray]:
    """For each result along an axis and each entry of the kernel, the element that it weighs.

    The second array is False where there is none.
    """
    first, count = {
        "full": (0, size + width - 1),
        "same": ((width - 1) // 2, size),
        "valid": (width - 1, size - width + 1),
    }[mode]
    at = np.arange(first, first + count)[:, None] - np.arange(width)
    inside = (boundary != "fill") | ((at >= 0) & (at < size))
    return BOUNDARIES[boundary](at, size), np.broadcast_to(inside, at.shape)


def _check(x: Expression, kernel: Expression, mode: str, boundary: str) -> None:
    if not x.ndim or x.ndim != kernel.ndim:
        raise ValueError(
            f"conv got x of shape {x.shape} and a kernel of shape {kernel.shape}; expected as many "
            "axes in both, one at least. For one kernel along one axis of an image, give the "
            "kernel the shape (n, 1)."
        )
    if math.prod(kernel.shape) == 0 or any(
        k > n for n, k in zip(x.shape, kernel.shape, strict=True)
    ):
        raise ValueError(
            f"conv got a kernel of shape {kernel.shape} for x of shape {x.shape}; expected a "
            "kernel that is no larger than x along any axis, and not empty."
        )
    if mode not in MODES or boundary not in BOUNDARIES:
        raise ValueError(
            f"conv got mode={mode!r}, boundary={boundary!r}; expected a mode of {MODES} and a "
            f"boundary of {tuple(BOUNDARIES)}."
        )
