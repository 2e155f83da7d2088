"""Detection of draws near the ends of a domain, which floating-point numbers do not resolve."""

from __future__ import annotations

from functools import lru_cache

import jax.numpy as jnp
import numpy as np
from numpyro.distributions import constraints

from energydsl.language.domain import AbstractDomain
from energydsl.language.variable import Variable

MARGIN = 3.0
"""Draws within this distance of the last coordinate that a dtype resolves are near an end."""

SHARE = 2e-3
"""The share of draws near an end above which about as much probability is missing beyond it."""

REACH, STEP = 750.0, 0.25
"""The largest unconstrained coordinate that is tested, and the distance between those tested."""

RESOLVED = 0.1
"""A coordinate is resolved if applying the bijection and its inverse changes it by less."""


def near_ends(variable: Variable, values: np.ndarray) -> float:
    """The share of values that are near an end of the domain.

    A density with a pole at an end, such as that of Gamma(0.03, 1) at 0, has probability between
    the end and the numbers of the dtype that are nearest to it. Many draws are then those numbers.

    Args:
        variable: the variable that was drawn.
        values: draws in the variable's dtype, in any number.

    Returns:
        The share of all entries; 0 for domains without ends.
    """
    domain, values = variable.domain, np.asarray(values)
    if domain.transform is None or domain.real_line or not values.size:
        return 0.0
    if domain.constraint == constraints.simplex:
        # The entries sum to 1, so their resolution is that of numbers near 1.
        return float((values < np.finfo(values.dtype).eps * np.exp(MARGIN)).mean())
    if domain.event_ndim:
        return 0.0
    low, high = _resolved(domain)
    with np.errstate(divide="ignore"):
        z = np.asarray(domain.transform.inv(jnp.asarray(values)))
    return float(((z < low + MARGIN) | (z > high - MARGIN)).mean())


@lru_cache(maxsize=64)
def _resolved(domain: AbstractDomain) -> tuple[float, float]:
    """The smallest and largest unconstrained coordinates that the domain's dtype resolves."""
    ends = []
    for sign in (-1.0, 1.0):
        z = jnp.asarray(sign * np.arange(0.0, REACH, STEP), domain.dtype)
        back = np.asarray(domain.transform.inv(domain.transform(z)))
        good = np.abs(back - np.asarray(z)) < RESOLVED
        ends.append(float(z[int(np.argmin(good)) - 1] if not good.all() else sign * np.inf))
    return ends[0], ends[1]


def said_of_ends(variable: Variable, values: np.ndarray) -> str | None:
    """A message if draws miss probability near the ends of the domain; None if they do not."""
    share = near_ends(variable, values)
    if share <= SHARE:
        return None
    return (
        f"{share:.1%} of the draws of {variable.name!r} lie at the ends of {variable.domain}, "
        f"next to the last numbers that {variable.domain.dtype} resolves there. The density has "
        "more probability beyond these numbers, so averages that depend on it are wrong. "
        "Declare a variable that resolves the ends, such as the logarithm as ed.real with its "
        "Jacobian in the energy, or run under jax.enable_x64(True)"
    )
