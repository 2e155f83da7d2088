"""Draws near the ends of a domain, where its dtype holds too few numbers."""

from __future__ import annotations

from functools import lru_cache

import jax.numpy as jnp
import numpy as np
from numpyro.distributions import constraints

from energydsl.language.domain import AbstractDomain
from energydsl.language.variable import Variable

MARGIN = 3.0
"""Draws this near to the last coordinate that a dtype resolves count as near an end."""

SHARE = 2e-3
"""A larger share of draws near an end means that a share of about this size is missing there."""

REACH, STEP = 750.0, 0.25
"""Unconstrained coordinates are tried up to the first, in steps of the second."""

RESOLVED = 0.1
"""A coordinate is resolved where the bijection can be undone to this precision."""


def near_ends(variable: Variable, values: np.ndarray) -> float:
    """The share of values so near an end of the domain that more may lie beyond than is drawn.

    A density with a pole at an end, such as that of Gamma(0.03, 1) at 0, has mass where the dtype
    holds no numbers. Draws then crowd at the last numbers that it holds.

    Args:
        variable: what was drawn.
        values: any number of draws, in the variable's dtype.

    Returns:
        A share of all entries; 0 for domains without ends.
    """
    domain, values = variable.domain, np.asarray(values)
    if domain.transform is None or domain.real_line or not values.size:
        return 0.0
    if domain.constraint == constraints.simplex:
        # The last entry is what the others leave of 1, so all are resolved as numbers near 1 are.
        return float((values < np.finfo(values.dtype).eps * np.exp(MARGIN)).mean())
    if domain.event_ndim:
        return 0.0
    low, high = _resolved(domain)
    with np.errstate(divide="ignore"):
        z = np.asarray(domain.transform.inv(jnp.asarray(values)))
    return float(((z < low + MARGIN) | (z > high - MARGIN)).mean())


@lru_cache(maxsize=64)
def _resolved(domain: AbstractDomain) -> tuple[float, float]:
    """The ends of the unconstrained coordinates that the domain's dtype resolves."""
    ends = []
    for sign in (-1.0, 1.0):
        z = jnp.asarray(sign * np.arange(0.0, REACH, STEP), domain.dtype)
        back = np.asarray(domain.transform.inv(domain.transform(z)))
        good = np.abs(back - np.asarray(z)) < RESOLVED
        ends.append(float(z[int(np.argmin(good)) - 1] if not good.all() else sign * np.inf))
    return ends[0], ends[1]


def said_of_ends(variable: Variable, values: np.ndarray) -> str | None:
    """What is missed near the ends of a variable's domain, in words; None where nothing is."""
    share = near_ends(variable, values)
    if share <= SHARE:
        return None
    return (
        f"{share:.1%} of the draws of {variable.name!r} lie at the very ends of {variable.domain}, "
        f"next to the last numbers that {variable.domain.dtype} resolves there. The density has "
        "more mass beyond them, which no draw can show, so averages that depend on it are wrong. "
        "Declare a variable that resolves the ends, such as the logarithm as ed.real with its "
        "Jacobian in the energy, or run under jax.enable_x64(True)"
    )
