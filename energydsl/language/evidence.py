"""Evidence: the values at which sites of a model are clamped, checked and combined."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl._types import is_traced, same_values, unmasked
from energydsl.language.expression import as_expression, sites_of
from energydsl.language.variable import Variable


class Clamp(NamedTuple):
    """Sites of one variable, and the values at which they are held."""

    variable: Variable
    sites: np.ndarray
    values: Array


class Held(NamedTuple):
    """Clamped variables: arrays of their full shapes, and True at the sites that are clamped.

    An input without a value has a mask only.
    """

    evidence: dict[str, Array]
    clamped: dict[str, np.ndarray]


def together(parts: Sequence[Held]) -> Held:
    """The evidence of several models in one.

    Raises:
        ValueError: two of them clamp one variable at different sites or values.
    """
    whole = Held({}, {})
    for part in parts:
        for name, values in part.evidence.items():
            mask = part.clamped[name]
            if name in whole.clamped and not (
                np.array_equal(mask, whole.clamped[name])
                and same_values(whole.evidence[name], values)
            ):
                raise ValueError(
                    f"Two models hold {name!r} at different values or sites; "
                    "add them first, then condition the sum."
                )
            whole.clamped[name], whole.evidence[name] = mask, values
    return whole


def clamps(variables: Sequence[Variable], pairs: Iterable[tuple[Any, Any]]) -> list[Clamp]:
    """The clamps of each variable, from pairs of a view or a name and its value.

    Raises:
        TypeError, ValueError: see `Model.condition`.
    """
    by_name: dict[str, list[Clamp]] = {}
    for where, value in pairs:
        variable, sites = _located(variables, where)
        _check_whole_events(variable, sites)
        what = f"The value of {where}"
        values = variable.domain.check(_filled(value, sites.shape, what), sites.shape, what)
        by_name.setdefault(variable.name, []).append(Clamp(variable, sites, values))
    return [_joined(held) for held in by_name.values()]


def _located(variables: Sequence[Variable], where: Any) -> tuple[Variable, np.ndarray]:
    if isinstance(where, str):
        found = [v for v in variables if v.name == where]
        if found:
            return found[0], np.arange(found[0].size).reshape(found[0].shape)
        where_text = repr(where)
    else:
        variable, sites = sites_of(as_expression(where))
        if variable in variables:
            return variable, sites
        where_text = str(variable)
    raise ValueError(
        f"condition got {where_text}, which is not in the model; its variables are "
        f"{[str(v) for v in variables]}."
    )


def _filled(value: Any, shape: tuple[int, ...], what: str) -> Any:
    """The value as an array; a single number is broadcast to the shape of the view."""
    if isinstance(value, jax.Array):
        return jnp.broadcast_to(value, shape) if value.ndim == 0 else value
    array = np.asarray(unmasked(value, what))
    return np.broadcast_to(array, shape) if array.ndim == 0 else array


def _check_whole_events(variable: Variable, sites: np.ndarray) -> None:
    """Refuse sites that are not whole events with their entries in order."""
    k = variable.domain.event_ndim
    if k and sites.shape[sites.ndim - k :] == variable.event_shape:
        rows = sites.reshape(-1, math.prod(variable.event_shape))
        if (rows == rows[:, :1] + np.arange(rows.shape[1])).all():
            return
    if k:
        raise ValueError(
            f"condition holds part of a {variable.domain} of {variable.name!r}, or its entries in "
            "another order. The entries constrain each other, so hold whole ones."
        )


def _joined(held: list[Clamp]) -> Clamp:
    """Clamps of one variable as one, or an error where two of them disagree."""
    variable = held[0].variable
    sites = np.concatenate([clamp.sites.ravel() for clamp in held])
    values = jnp.concatenate([clamp.values.ravel() for clamp in held])
    order = np.argsort(sites, kind="stable")
    again = order[1:][sites[order][1:] == sites[order][:-1]]
    before = order[:-1][sites[order][1:] == sites[order][:-1]]
    if not len(again):
        return Clamp(variable, sites, values)
    first = variable.describe(int(sites[again[0]]))
    if is_traced(values):
        raise ValueError(
            f"condition holds {first} more than once, at values that are not known inside jax.jit, "
            "jax.vmap or another transformation; hold each site once."
        )
    known = np.asarray(values)
    differ = np.flatnonzero(known[again] != known[before])
    if len(differ):
        a, b = before[differ[0]], again[differ[0]]
        raise ValueError(
            f"condition holds {variable.describe(int(sites[a]))} at {known[a]} and at {known[b]}; "
            "give each site one value."
        )
    return Clamp(variable, sites, values)
