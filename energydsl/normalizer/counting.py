"""Plans that enumerate the joint states of some finite sites and sum out the other sites.

All components of a plan are enumerated in parallel: at step t each component is in its own t-th
joint state, so that a million similar components take as many steps as one.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array, lax

from energydsl._types import Configuration
from energydsl.analysis.joint_states import States
from energydsl.language.model import Model
from energydsl.normalizer.base import AbstractPlan, Fields, uniform

Numbers = np.ndarray | float

CHUNK = 2**20
"""The largest array, in numbers, for the states evaluated at once, unless one state needs more."""

TABLE = 2**21
"""The largest number of cumulative probabilities that are stored for draws."""

INTERMEDIATE = 3.2
"""How many arrays with one number per factor and state are in memory at once, with gradients."""


class AbstractCountingPlan(AbstractPlan):
    """A plan that sums exp(-F(t)) over the joint states t of the enumerated sites.

    F(t) is the free energy of the t-th state: the other sites are summed out.
    """

    states: States
    width: int = eqx.field(static=True)
    """The number of states that are evaluated at once."""

    @abc.abstractmethod
    def energies(self, model: Model, t: Array, fields: Fields | None = None) -> Array:
        """F of each component at its t-th state; `t` is one number or one per component."""

    @abc.abstractmethod
    def lowest(self, model: Model, t: Array) -> Array:
        """The lowest energy of each component whose enumerated sites are in the t-th state."""

    @abc.abstractmethod
    def drawn(self, model: Model, t: Array, *, key: Array) -> Configuration:
        """The t-th state of each component, with the other sites drawn given it."""

    @abc.abstractmethod
    def completed(self, model: Model, t: Array) -> Configuration:
        """The t-th state of each component, with the other sites at their mode given it."""

    def log_partition(self, model: Model, fields: Fields | None = None) -> Array:
        return jnp.sum(self._each(model, fields))

    def _each(self, model: Model, fields: Fields | None = None) -> Array:
        """Log Z of each component."""

        def add(carry: tuple[Array, Array], first: Array) -> tuple[Array, Array]:
            peak, total = carry
            logs = self._logs(lambda t: self.energies(model, t, fields), first)
            # The peak only keeps the exponentials in range; the result does not depend on it.
            new = lax.stop_gradient(jnp.maximum(peak, jnp.max(logs, axis=0)))
            shift = jnp.where(jnp.isfinite(new), new, 0.0)
            shrunk = total * jnp.exp(jnp.where(peak == new, 0.0, peak - shift))
            return new, shrunk + jnp.sum(jnp.exp(logs - shift), axis=0)

        count = self.states.counts.shape[1]
        start = jnp.full(count, -jnp.inf), jnp.zeros(count)
        peak, total = _fold(add, start, self._passes, self.width)
        peak = jnp.where(jnp.isfinite(peak), peak, 0.0)
        return jnp.where(total == 0, -jnp.inf, peak + jnp.log(jnp.where(total == 0, 1.0, total)))

    @property
    def _passes(self) -> int:
        return math.ceil(self.states.largest / self.width)

    def _logs(self, energies: Callable[[Array], Array], first: Array) -> Array:
        """-F of the states from `first` on, (states, components); -inf beyond the last state.

        `first` is one number, or one per component.
        """
        steps = jnp.arange(self.width)
        t = first + (steps if jnp.ndim(first) == 0 else steps[:, None])
        known = (t if t.ndim == 2 else t[:, None]) < self.states.states
        return jnp.where(known, -jax.vmap(energies)(t), -jnp.inf)

    def prepare(self, model: Model) -> tuple[Array, Array]:
        """Log Z of each component, and cumulative probabilities, (cells, components).

        A cell is one state if the table has room for all of them, else a range of states.
        """
        log_z = self._each(model)

        def cell(total: Array, first: Array) -> tuple[Array, Array]:
            def add(total: Array, first: Array) -> Array:
                return total + jnp.sum(self._shares(model, log_z, first), axis=0)

            starts = first + self.width * jnp.arange(self._passes_a_cell)
            total = lax.scan(lambda c, f: (add(c, f), None), total, starts)[0]
            return total, total

        nothing = jnp.zeros(len(log_z))
        if self._tabled:
            starts = self.width * jnp.arange(self._passes)
            each = lax.map(lambda first: self._shares(model, log_z, first), starts)
            return log_z, jnp.cumsum(each.reshape(-1, len(log_z)), axis=0)
        cells = math.ceil(self._passes / self._passes_a_cell)
        starts = self.width * self._passes_a_cell * jnp.arange(cells)
        return log_z, lax.scan(cell, nothing, starts)[1]

    @property
    def _tabled(self) -> bool:
        count = self.states.counts.shape[1]
        return self._passes * self.width * count <= max(TABLE, self.width * count)

    @property
    def _passes_a_cell(self) -> int:
        return max(1, math.ceil(self._passes * self.states.counts.shape[1] / TABLE))

    def _shares(self, model: Model, log_z: Array, first: Array) -> Array:
        """The probabilities of the states from `first` on, (states, components)."""
        return jnp.exp(self._logs(lambda t: self.energies(model, t), first) - log_z)

    def draw_prepared(self, model: Model, prepared: Any, *, key: Array) -> Configuration:
        state_key, rest_key = jr.split(key)
        return self.drawn(model, self._state(model, prepared, state_key), key=rest_key)

    def _state(self, model: Model, prepared: Any, key: Array) -> Array:
        """The number of each component's state, drawn by inverting the cumulative distribution."""
        log_z, table = prepared
        # Uniform in (0, 1], so that a state of probability 0 is never drawn.
        height = uniform(key, log_z.shape) * table[-1]
        cell = jnp.sum(table < height, axis=0)
        if self._tabled:
            return cell
        below = jnp.where(cell > 0, jnp.take_along_axis(table, cell[None] - 1, axis=0)[0], 0.0)
        begin = cell * self.width * self._passes_a_cell

        def look(carry: tuple, k: Array) -> tuple[tuple, None]:
            mass, found, last = carry
            first = begin + k * self.width
            shares = self._shares(model, log_z, first)
            ladder = mass + jnp.cumsum(shares, axis=0)
            steps = jnp.arange(self.width)[:, None]
            likely = jnp.max(jnp.where(shares > 0, first + steps, -1), axis=0)
            found += jnp.sum(ladder < height, axis=0)
            return (ladder[-1], found, jnp.maximum(last, likely)), None

        start = below, begin, jnp.full(len(begin), -1)
        (_, found, last), _ = lax.scan(look, start, jnp.arange(self._passes_a_cell))
        # The cell's probability, summed in another order, may be smaller by rounding.
        return jnp.minimum(found, last)

    def mode(self, model: Model) -> Configuration:
        def better(carry: tuple[Array, Array], first: Array) -> tuple[Array, Array]:
            highest, at = carry
            logs = self._logs(lambda t: self.lowest(model, t), first)
            here = jnp.max(logs, axis=0)
            # The first of equal ones. JAX cannot lower argmax of float64 with float64 disabled.
            place = jnp.where(logs == here, jnp.arange(self.width)[:, None], self.width)
            moved = here > highest
            return jnp.where(moved, here, highest), jnp.where(moved, first + place.min(axis=0), at)

        count = self.states.counts.shape[1]
        start = jnp.full(count, -jnp.inf), jnp.zeros(count, int)
        return self.completed(model, _fold(better, start, self._passes, self.width)[1])


def width_of(states: float, size: int) -> int:
    """How many states to evaluate at once if one state takes `size` numbers."""
    return int(max(1, min(states, CHUNK // max(size, 1))))


def memory_of(bits: Numbers, size: Numbers, factors: Numbers, arrays: float = INTERMEDIATE) -> Any:
    """Bytes of a plan for each component by itself.

    Args:
        bits: log2 of the number of states.
        size: the numbers that one state takes.
        factors: the number of factors.
        arrays: how many arrays of these numbers are in memory at once.
    """
    whole = np.exp2(np.minimum(bits, 62.0)) * size
    numbers = np.maximum(size, np.minimum(CHUNK, whole))
    # The arrays of the states, the indices of the factors, and what the gradient stores.
    kept = 4 * np.sqrt(np.maximum(whole, CHUNK) / CHUNK)
    return 8.0 * (arrays * numbers + 2 * factors + kept)


def like_sized(bits: np.ndarray, components: np.ndarray) -> list[np.ndarray]:
    """Groups of components whose numbers of states are within a factor of two."""
    classes = np.ceil(bits[components] - 1e-9)
    return [components[classes == c] for c in np.unique(classes)]


def _fold(function: Callable[[Any, Array], Any], start: Any, passes: int, width: int) -> Any:
    """The carry after `function(carry, first)` was called with the first state of each pass.

    Two nested loops, so that derivatives store about sqrt(passes) carried values. The last
    iterations may start beyond the last state.
    """
    inner = max(1, math.isqrt(passes - 1) + 1) if passes > 1 else 1
    outer = math.ceil(passes / inner)

    @jax.checkpoint
    def one(carry: Any) -> Any:
        value, first = carry
        return function(value, first), first + width

    @jax.checkpoint
    def many(carry: Any) -> Any:
        return lax.scan(lambda c, _: (one(c), None), carry, None, length=inner)[0]

    begin = start, jnp.zeros((), int)
    if passes == 1:
        return one(begin)[0]
    return lax.scan(lambda c, _: (many(c), None), begin, None, length=outer)[0][0]
