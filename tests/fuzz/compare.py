"""Comparisons that say what was found and what was expected."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from tests.fuzz.sites import Site


class Failure(Exception):
    """An answer that the oracle contradicts."""


def typed(site: Site, array: np.ndarray) -> Any:
    whole = site.finite or site.domain == "count"
    return jnp.asarray(array, jnp.int32 if whole else jnp.float32)


def require(holds: bool, text: str) -> None:
    if not holds:
        raise Failure(text)


def agree(found: Any, expected: Any, tolerance: Any, what: str = "") -> None:
    """Equal within the tolerance; where NaN is expected nothing is claimed."""
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    require(found.shape == expected.shape, f"{what} shape {found.shape} for {expected.shape}")
    tolerance = np.broadcast_to(tolerance, expected.shape)
    with np.errstate(invalid="ignore"):
        right = (found == expected) | (np.abs(found - expected) <= tolerance)
    wrong = ~right & ~np.isnan(expected)
    if wrong.any():
        at = np.unravel_index(np.argmax(wrong), wrong.shape)
        raise Failure(
            f"{what} got {found[at]:.9g}, expected {expected[at]:.9g} +- {tolerance[at]:.1e} "
            f"({int(wrong.sum())} of {wrong.size})".strip()
        )
