"""A pair of rules on a box, the finer one for the integral and the rougher one for its error."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

NODES = np.array(
    [1.0, 0.942882415695480, np.sqrt(2 / 3), 0.641853342345781, np.sqrt(1 / 5), 0.236383199662150]
)
ENDS = [0.0158271919734802, 0.0942738402188500, 0.155071987336585, 0.188821573960182]
MIDDLE = [0.199773405226859, 0.224926465333340, 0.242611071901408]
FINE = np.array(ENDS + MIDDLE)
ROUGH = np.array([77.0, 0.0, 432.0, 0.0, 625.0, 0.0, 672.0]) / 1470
"""Nodes, and the weights of a rule of 13 and of one of 7 points, on one half of an interval.

Both rules have points at the ends of the interval, so that they see a jump anywhere inside it.

Source: Gander & Gautschi (2000), BIT 40(1), 84-101.
"""

AXIS = np.concatenate([-NODES, [0.0], NODES[::-1]])
WEIGHTS, ROUGHER = (np.concatenate([half, half[-2::-1]]) for half in (FINE, ROUGH))

POINTS = 13
"""Points along each axis of a cell."""


class ProductRule(NamedTuple):
    """Points of [-1, 1]^d and their weights in the product of rules of 13 points.

    For each axis, `changes` are the weights with 7 points along that axis, minus those.
    """

    points: np.ndarray
    weights: np.ndarray
    changes: np.ndarray


def product_rule(dim: int) -> ProductRule:
    """The rule on a box of some dimensions."""
    points = np.stack(np.meshgrid(*[AXIS] * dim, indexing="ij"), axis=-1).reshape(-1, dim)

    def product(factors: list[np.ndarray]) -> np.ndarray:
        weights = np.ones(1)
        for factor in factors:
            weights = np.multiply.outer(weights, factor).ravel()
        return weights

    weights = product([WEIGHTS] * dim)
    mixed = [product([ROUGHER if i == k else WEIGHTS for i in range(dim)]) for k in range(dim)]
    return ProductRule(points, weights, np.stack(mixed) - weights)


def compared(rule: ProductRule, seen: Array) -> tuple[Array, Array, Array, Array]:
    """Both rules on values of integrands, (cells, points, problems), as if cells were [-1, 1]^d.

    The error is at most ten times the change from the finer rule to the rougher one, at most the
    integral of the distance from the mean, and less than either where the change is so small that
    the integrand must be smooth, as in QUADPACK.

    Returns:
        The integral; the change along each axis; the error; its lean, see `Cells`.
    """
    value = jnp.einsum("q,nqp->np", rule.weights, seen)
    gaps = jnp.einsum("dq,nqp->npd", rule.changes, seen)
    mean = value / rule.weights.sum()
    rough = jnp.einsum("q,nqp->np", rule.weights, jnp.abs(seen - mean[:, None]))[..., None]
    part = jnp.abs(gaps) / jnp.where(rough > 0, rough, 1.0)
    parts = rough * jnp.minimum(jnp.minimum(1.0, 10 * part), (200 * part) ** 1.5)
    error = jnp.sum(parts, axis=-1)
    lean = jnp.sum(parts * jnp.sign(gaps), axis=-1) / jnp.where(error > 0, error, 1.0)
    return value, gaps, error, lean


def points_in(rule: ProductRule, low: Array, high: Array) -> Array:
    """The rule's points in cells: (cells, points, problems, dimensions)."""
    middle, half = (low + high)[:, None] / 2, (high - low)[:, None] / 2
    return middle + half * rule.points[:, None, :]
