r"""The passes of an elimination: sums upwards, probabilities or draws downwards.

A step computes, for the states $x$ of its site and $s$ of its separator,

$$F(x, s) = \sum_k \log \phi_k(x, s), \qquad m(s) = \log \sum_x e^{F(x, s)},$$

from its tables $\log \phi_k$, and hands the message $m$ on. Downwards, the probability of the
clique is $p(x, s) = e^{F(x, s) - m(s)}\, p(s)$, which is also the derivative of log Z with respect
to $F$; its sums over all but a table's sites are the derivatives in this table's cells. A draw
takes $x$ from $e^{F(x, s) - m(s)}$, where $s$ was drawn before. With a maximum in place of the sum,
the highest $x$ for each $s$ gives a mode.

Source: Koller & Friedman (2009), Probabilistic Graphical Models, sections 10.2 and 13.2; Darwiche
(2003), Journal of the ACM 50(3), 280-305, for the derivatives.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array, lax

from energydsl.analysis.joint_states import int32
from energydsl.normalizer.elimination import narrow, wide
from energydsl.normalizer.elimination.body import Body
from energydsl.normalizer.elimination.schedule import Schedule
from energydsl.normalizer.elimination.spread import Spread

Loop = tuple[Body, ...]


class Way(NamedTuple):
    """How messages are computed."""

    narrow: Callable[[Array], Array]
    """The messages of a batch of narrow steps, from F."""
    wide: Callable[[Body, Array, Array], Array]
    """The message of a wide step, from the cells and the arena."""
    numbers: bool
    """Whether messages in the arena are numbers with a scale, and not logarithms."""


NUMBERS = Way(narrow.log_sum_exp, wide.numbers_up, True)
LOGARITHMS = Way(
    narrow.log_sum_exp, lambda *given: wide.log_sum_exp(wide.added(*given)).ravel(), False
)
HIGHEST = Way(narrow.highest, lambda *given: wide.highest(wide.added(*given)).ravel(), False)


Visit = Callable[[Any, Body, Array, Way], Any]
"""What happens at a batch in a pass downwards, from what is carried, the batch, the arena before
it, and the way in which messages were computed; it returns what is carried on."""


class Found(NamedTuple):
    """What a pass upwards leaves to passes downwards."""

    cells: Array
    """The cells of all tables outside the arena, with every message computed."""
    arenas: tuple[Array | None, ...]
    """For each loop with wide steps, the arena before each repeat of its block, or if no place is
    used twice, the last arena for each."""
    numbers: Array | None
    """Whether sums are in `NUMBERS`, and not in `LOGARITHMS`; None for maxima."""


class Passes(eqx.Module):
    """A schedule as a pytree, and its passes over the cells of all tables."""

    slots: int = eqx.field(static=True)
    arena: int = eqx.field(static=True)
    reused: bool = eqx.field(static=True)
    patterns: tuple[Array, ...]
    loops: tuple[Loop, ...]
    spread: Spread | None
    roots: Array

    def __init__(self, plan: Schedule) -> None:
        self.slots, self.arena, self.reused = plan.slots, plan.arena, plan.copies > 0
        self.patterns = tuple(int32(patterns) for patterns in plan.patterns)
        self.loops = tuple(tuple(Body(run) for run in loop) for loop in plan.loops)
        self.spread, self.roots = plan.spread, int32(plan.roots)

    def sums(self, cells: Array, *, keep: bool = True) -> Found:
        """The cells with every message computed, each the sum over a site.

        Args:
            cells: the cells in which the messages are not yet computed.
            keep: whether passes downwards follow, which need arenas.
        """
        small = jnp.array(False) if self.spread is None else self.spread.is_small(cells)
        found, arenas = self._by_way(small, lambda c, way: self._up(c, way, keep), cells)
        return Found(found, arenas, small)

    def maxima(self, cells: Array) -> Found:
        """The cells with every message computed, each the maximum over a site."""
        found, arenas = self._up(cells, HIGHEST, True)
        return Found(found, arenas, None)

    def down(self, found: Found, slope: Array | float = 1.0) -> tuple[Array, Array]:
        """The derivatives of log Z in every cell, times `slope`, and the probabilities of sites.

        The probabilities have the axes (slot, level); they are 0 beyond a site's levels.
        """

        def visit(carry: Any, step: Body, arena: Array, way: Way) -> Any:
            slopes, arena_slopes, laws = carry
            mine = step.layout and step.layout.linear
            above = self._message(arena_slopes if mine else slopes, step)
            if step.layout:
                each = wide.probabilities(step, found.cells, arena, above, numbers=way.numbers)
                law = jnp.stack([level.sum() for level in each])[None]
                slopes, arena_slopes = wide.spread(step, slopes, arena_slopes, each)
            else:
                patterns, message = self.patterns[step.kind], self._message(found.cells, step)
                each = narrow.probabilities(patterns, step, found.cells, message, above)
                # Computed once: XLA would compute it again, from a copy of the slopes before.
                each = lax.optimization_barrier(each)
                law = each.sum(axis=2)
                slopes = narrow.spread(patterns, step, slopes, each)
            start = step.first, jnp.zeros_like(step.first)
            return slopes, arena_slopes, lax.dynamic_update_slice(laws, law, start)

        most = max(body.shape[0] for loop in self.loops for body in loop)
        slopes = jnp.zeros_like(found.cells).at[self.roots].set(slope)
        carry = slopes, jnp.zeros(self.arena), jnp.zeros((self.slots, most))
        slopes, _, laws = self._downwards(found, visit, carry)
        return slopes, laws

    def choose(self, found: Found, pick: Callable[[Array, Array], Array]) -> Array:
        """The level of each slot's site, the last eliminated first.

        Args:
            found: what the pass upwards left.
            pick: the level of each site, from F at each of its levels, (site, level), and the
                slots of the sites.
        """

        def visit(chosen: Array, step: Body, arena: Array, way: Way) -> Array:
            if step.layout:
                sums = wide.given(step, found.cells, arena, chosen, numbers=way.numbers)
            else:
                sums = narrow.given(self.patterns[step.kind], step, found.cells, chosen)
            level = pick(sums, step.first + jnp.arange(len(sums))).astype(jnp.int32)
            return lax.dynamic_update_slice(chosen, level, (step.first,))

        return self._downwards(found, visit, jnp.zeros(self.slots, jnp.int32))

    def _message(self, cells: Array, step: Body) -> Array:
        """The messages of a batch, (step, state)."""
        count, states = len(step.base), step.shape[1]
        return lax.dynamic_slice(cells, (step.begin,), (count * states,)).reshape(count, states)

    def _up(self, cells: Array, way: Way, keep: bool) -> tuple[Array, tuple[Array | None, ...]]:
        def moved(carry: tuple[Array, Array], step: Body) -> tuple[Any, None]:
            cells, arena = carry
            return self._moved(cells, arena, step, way), None

        def block(carry: tuple[Array, Array], bodies: Loop) -> tuple[Any, Array | None]:
            before = carry[1] if keep and self.reused and _is_wide(bodies) else None
            for body in bodies:
                carry = _scan(moved, carry, body)[0]
            return carry, before

        carry, arenas = (cells, jnp.zeros(self.arena)), []
        for loop in self.loops:
            carry, before = _scan(block, carry, loop)
            arenas.append(before)
        if keep and not self.reused:
            arenas = [carry[1] if _is_wide(loop) else None for loop in self.loops]
        return carry[0], tuple(arenas)

    def _moved(self, cells: Array, arena: Array, step: Body, way: Way) -> tuple[Array, Array]:
        """The cells and the arena after a batch has written its messages."""
        if step.layout:
            message = way.wide(step, cells, arena)
        else:
            message = way.narrow(narrow.sums(self.patterns[step.kind], step, cells)).ravel()
        if step.layout and step.layout.linear:
            return cells, lax.dynamic_update_slice(arena, message, (step.begin,))
        return lax.dynamic_update_slice(cells, message, (step.begin,)), arena

    def _downwards(self, found: Found, visit: Visit, carry: Any) -> Any:
        """What is carried through all batches, the last first, in the way of `found`."""
        if found.numbers is None:
            return self._visited(found, visit, carry, HIGHEST)
        visited = functools.partial(self._visited, found, visit)
        return self._by_way(found.numbers, lambda carry, way: visited(carry, way), carry)

    def _by_way(self, numbers: Any, function: Callable[[Any, Way], Any], given: Any) -> Any:
        """What a function returns, in numbers or in logarithms."""
        if self.spread is None:
            return function(given, LOGARITHMS)
        ways = [lambda given, way=way: function(given, way) for way in (NUMBERS, LOGARITHMS)]
        return lax.cond(numbers, *ways, given)

    def _visited(self, found: Found, visit: Visit, carry: Any, way: Way) -> Any:
        for loop, kept in zip(self.loops[::-1], found.arenas[::-1], strict=True):
            last = jnp.zeros(0) if kept is None else kept
            before = kept if self.reused else None

            def one(carry: Any, given: tuple[Body, Array | None], last: Array = last) -> Any:
                step, arena = given
                return visit(carry, step, last if arena is None else arena, way), None

            def block(carry: Any, given: tuple[Loop, Array | None], one: Any = one) -> Any:
                bodies, arena = given
                arenas = self._arenas(bodies, found.cells, arena, way)
                for each in zip(bodies[::-1], arenas[::-1], strict=True):
                    carry = _scan(one, carry, each, reverse=True)[0]
                return carry, None

            carry = _scan(block, carry, (loop, before), reverse=True)[0]
        return carry

    def _arenas(
        self, bodies: Loop, cells: Array, arena: Array | None, way: Way
    ) -> list[Array | None]:
        """For each body, the arena before each of its steps, from that before the block."""
        found: list[Array | None] = []
        for body in bodies:
            if arena is None or not body.layout:
                found.append(None)
                continue
            arena, before = _scan(
                lambda arena, step: (self._moved(cells, arena, step, way)[1], arena), arena, body
            )
            found.append(before)
        return found


def _is_wide(bodies: Loop) -> bool:
    return any(body.layout for body in bodies)


def _scan(function: Callable, carry: Any, xs: Any, *, reverse: bool = False) -> tuple[Any, Any]:
    """`lax.scan`, without a loop where there is a single step."""
    if len(jax.tree.leaves(xs)[0]) > 1:
        return lax.scan(function, carry, xs, reverse=reverse)
    carry, ys = function(carry, jax.tree.map(lambda a: a[0], xs))
    return carry, jax.tree.map(lambda a: a[None], ys)


# JAX's own reverse pass would keep every F; this one computes F again from tables and messages.
@jax.custom_vjp
def log_sum(alone: Passes, passes: Passes, cells: Array) -> Array:
    """Log Z, from cells in which the messages are not yet computed.

    Args:
        alone: the passes by which log Z is computed where no derivative is asked for.
        passes: the passes by which derivatives are computed.
        cells: the cells of all tables.
    """
    return jnp.sum(alone.sums(cells, keep=False).cells[alone.roots])


def _forward(alone: Passes, passes: Passes, cells: Array) -> tuple[Array, tuple[Passes, Found]]:
    found = passes.sums(cells)
    return jnp.sum(found.cells[passes.roots]), (passes, found)


def _backward(kept: tuple[Passes, Found], slope: Array) -> tuple[None, None, Array]:
    passes, found = kept
    return None, None, passes.down(found, slope)[0]


log_sum.defvjp(_forward, _backward)
