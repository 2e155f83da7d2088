"""Tables that hold an energy for every combination of levels."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import paramax
from jax import Array

from energydsl._messages import described
from energydsl._types import is_traced
from energydsl.language.domain import AbstractDomain
from energydsl.language.expression import Apply, Expression, Origin, as_expression, owned, sites_of
from energydsl.language.expression.operation import as_float
from energydsl.language.potential.base import AbstractPotential


class _Lookup(eqx.Module):
    """The entry of a table for the values of sites; indices count from each lowest level."""

    domains: tuple[AbstractDomain, ...] = eqx.field(static=True)

    @property
    def name(self) -> str:
        return "Table"

    def energy(self, table: Array, *values: Array) -> Array:
        return table[tuple(_level(d, v) for d, v in zip(self.domains, values, strict=True))]


def _level(domain: AbstractDomain, value: Array) -> Array:
    """The index of a level, counted from 0, from its value."""
    levels = domain.values
    step = int(levels[1] - levels[0]) if len(levels) > 1 else 1
    if (np.diff(levels) == step).all():
        return ((value - int(levels[0])) / step).astype(jnp.int32)
    return jnp.searchsorted(jnp.asarray(levels, value.dtype), value)


@described
class Table(AbstractPotential):
    r"""A table of energies over the levels of finite views: $E(a, b, \dots) = T[a, b, \dots]$.

    Views that are arrays make a batch of factors. The table's last axes, one for each view, are
    indexed by levels; axes before them are a batch too, so that every edge may have a table of its
    own.

    Args:
        energy: $T$; each of its last axes is as long as its view's domain has levels. Unit:
            $k_B T$.
        log_potential: $-T$, instead of `energy`; -inf forbids a combination.

    Raises:
        ValueError: both or neither of the two are given, or the axes do not match the levels.
    """

    table: Any

    def __init__(self, energy: object = None, *, log_potential: object = None) -> None:
        if (energy is None) == (log_potential is None):
            raise ValueError("Table takes either energy= or log_potential=, one of the two.")
        given = energy if log_potential is None else log_potential
        if not isinstance(given, Array | paramax.AbstractUnwrappable | Expression):
            # Negated by NumPy, as one JAX operation for each of many tables would be slow.
            given = np.asarray(given, dtype=jax.dtypes.canonicalize_dtype(float))
        elif isinstance(given, Array):
            given = as_float(given)
        if log_potential is not None:
            given = _negated(given)
        self.table = jnp.asarray(given) if isinstance(given, np.ndarray) else given
        values = paramax.unwrap(given)
        if not isinstance(values, Expression) and not is_traced(values):
            _refuse_certain(np.asarray(values))

    def energy(self, *levels: Array) -> Array:
        """The table's entry at these levels, which count from 0."""
        return paramax.unwrap(self.table)[levels]

    def __call__(self, *views: Expression) -> Expression:
        expected = tuple(_domain(v).levels for v in views)
        shape = paramax.unwrap(self.table).shape
        if shape[len(shape) - len(views) :] != expected:
            raise ValueError(
                f"Table of shape {shape} was called on {len(views)} views with {expected} levels; "
                f"its last axes must be {expected}."
            )
        self._check_possible(len(views))
        return self.factor(*views)

    def factor(self, *views: Expression) -> Expression:
        """The factors of views that fit, also if no combination is possible, as in some files."""
        domains = tuple(_domain(v) for v in views)
        table = owned(self.table, "", Origin.new("Table"), infinite=True)
        return Apply.of(_Lookup(domains), (table, *views), (len(views), *(0 for _ in views)))

    def _check_possible(self, axes: int) -> None:
        """Refuse a table, or one of a batch, that forbids every combination."""
        values = paramax.unwrap(self.table)
        if isinstance(values, Expression) or is_traced(values):
            return
        energies = np.asarray(values)
        forbidden = np.isposinf(energies).all(
            axis=tuple(range(energies.ndim - axes, energies.ndim))
        )
        if forbidden.any():
            which = (
                f", at {tuple(np.argwhere(forbidden)[0].tolist())} of its batch" * forbidden.ndim
            )
            raise ValueError(
                f"Table of shape {energies.shape} forbids every combination{which}: each has an "
                "infinite energy (a log_potential of -inf), so that no configuration has a "
                "probability above 0. Leave one of them finite."
            )


def _negated(table: Any) -> Any:
    """Minus a table; a wrapped table remains wrapped, and frozen if it was."""
    if isinstance(table, paramax.NonTrainable):
        return paramax.NonTrainable(-table.tree)
    if isinstance(table, paramax.AbstractUnwrappable):
        return paramax.Parameterize(jnp.negative, table)
    return -table


def _refuse_certain(energies: np.ndarray) -> None:
    if np.isneginf(energies).any():
        raise ValueError(
            "Table got an energy of -inf. To make a combination certain, forbid the others "
            "(log_potential=-inf)."
        )


def _domain(view: Expression) -> AbstractDomain:
    """The domain of a view, which must have finitely many levels."""
    domain = sites_of(as_expression(view))[0].domain
    if domain.levels is None:
        raise TypeError(
            f"Table was called on {view}, of domain {domain}; expected a view of a finite "
            "variable (spin, binary, categorical or integer)."
        )
    return domain
