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

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array, lax

from energydsl.analysis.joint_states import int32
from energydsl.normalizer.elimination.schedule import NEVER, Run, Schedule

Reduction = Callable[[Array], Array]


class Loop(eqx.Module):
    """The index arrays of a `Run`."""

    kind: int = eqx.field(static=True)
    base: Array
    pattern: Array
    begin: Array
    first: Array
    others: Array
    strides: Array

    def __init__(self, run: Run) -> None:
        self.kind = run.kind
        for name in ("base", "pattern", "begin", "first", "others", "strides"):
            setattr(self, name, int32(getattr(run, name)))


class Passes(eqx.Module):
    """A schedule as a pytree, and its passes over the cells of all tables."""

    shapes: tuple[tuple[int, int], ...] = eqx.field(static=True)
    """The levels and the message states of each class."""
    slots: int = eqx.field(static=True)
    patterns: tuple[Array, ...]
    loops: tuple[Loop, ...]
    roots: Array

    def __init__(self, plan: Schedule) -> None:
        self.shapes = tuple((c.levels, c.states) for c in plan.classes)
        self.slots = plan.slots
        self.patterns = tuple(int32(c.patterns) for c in plan.classes)
        self.loops = tuple(Loop(run) for run in plan.runs)
        self.roots = int32(plan.roots)

    def log_sum(self, cells: Array) -> Array:
        """Log Z, from cells in which the messages are not yet computed."""
        return jnp.sum(_summed(self, cells)[self.roots])

    def up(self, cells: Array, reduce: Reduction) -> Array:
        """The cells with every message computed."""

        def batch(cells: Array, step: Loop) -> tuple[Array, None]:
            message = reduce(self._sums(cells, step))
            return lax.dynamic_update_slice(cells, message.ravel(), (step.begin,)), None

        for loop in self.loops:
            cells = lax.scan(batch, cells, loop)[0]
        return cells

    def down(self, cells: Array, slopes: Array) -> tuple[Array, list[Array]]:
        """The derivatives of log Z in every cell, and the probabilities of each slot's site.

        Args:
            cells: the cells with every message computed.
            slopes: the derivatives in the messages that nothing reads, 0 elsewhere.
        """

        def batch(slopes: Array, step: Loop) -> tuple[Array, Array]:
            sums = self._sums(cells, step)
            message, above = (self._message(a, step)[:, None] for a in (cells, slopes))
            # Where the message is -inf, so are its terms, and all have probability 0.
            shares = jnp.exp(jnp.where(message == -jnp.inf, -jnp.inf, sums - message))
            # Computed once: XLA would compute it again, from a copy of the slopes before the step.
            each = lax.optimization_barrier(jnp.where(above == 0, 0.0, shares * above))
            where = self._where(step)
            spread = jnp.broadcast_to(each.reshape(len(each), 1, -1), where.shape)
            return slopes.at[where].add(spread), each.sum(axis=2)

        laws = []
        for loop in reversed(self.loops):
            slopes, law = lax.scan(batch, slopes, loop, reverse=True)
            laws.append(law.reshape(-1, law.shape[-1]))
        return slopes, laws[::-1]

    def choose(self, cells: Array, pick: Callable[[Array, Array], Array]) -> Array:
        """The level of each slot's site, the last eliminated first.

        Args:
            cells: the cells with every message computed.
            pick: the level of each site, from F at each of its levels, (site, level), and the
                slots of the sites.
        """

        def batch(chosen: Array, step: Loop) -> tuple[Array, None]:
            levels, states = self.shapes[step.kind]
            state = jnp.sum(chosen[step.others] * step.strides, axis=-1)
            place = jnp.arange(levels) * states + state[:, None]
            pattern = self.patterns[step.kind][step.pattern[:, :, None], place[:, None]]
            sums = jnp.sum(cells[_cells(step.base, pattern)], axis=1)
            level = pick(sums, step.first + jnp.arange(len(state))).astype(jnp.int32)
            return lax.dynamic_update_slice(chosen, level, (step.first,)), None

        chosen = jnp.zeros(self.slots, jnp.int32)
        for loop in reversed(self.loops):
            chosen = lax.scan(batch, chosen, loop, reverse=True)[0]
        return chosen

    def _message(self, cells: Array, step: Loop) -> Array:
        """The cells of the messages of a batch, (step, state)."""
        _, states = self.shapes[step.kind]
        count = len(step.base)
        return lax.dynamic_slice(cells, (step.begin,), (count * states,)).reshape(count, states)

    def _where(self, step: Loop) -> Array:
        """The cells that each step of a batch reads, (step, input, state of the clique)."""
        return _cells(step.base, self.patterns[step.kind][step.pattern])

    def _sums(self, cells: Array, step: Loop) -> Array:
        """F of each step of a batch, (step, level, state of the message)."""
        total = jnp.sum(cells[self._where(step)], axis=1)
        return total.reshape(len(total), *self.shapes[step.kind])


def _cells(base: Array, pattern: Array) -> Array:
    return jnp.where(pattern < 0, NEVER, base[..., None] + pattern)


def log_sum_exp(sums: Array) -> Array:
    """The message of a sum over the site."""
    peak = jnp.max(sums, axis=1, keepdims=True)
    peak = jnp.where(jnp.isfinite(peak), peak, 0.0)
    return jnp.log(jnp.sum(jnp.exp(sums - peak), axis=1)) + peak[:, 0]


def highest(sums: Array) -> Array:
    """The message of a maximum over the site."""
    return jnp.max(sums, axis=1)


# JAX's own reverse pass would keep every F; this one computes F again from tables and messages.
@jax.custom_vjp
def _summed(passes: Passes, cells: Array) -> Array:
    return passes.up(cells, log_sum_exp)


def _forward(passes: Passes, cells: Array) -> tuple[Array, tuple[Passes, Array]]:
    found = passes.up(cells, log_sum_exp)
    return found, (passes, found)


def _backward(kept: tuple[Passes, Array], slopes: Array) -> tuple[None, Array]:
    passes, cells = kept
    return None, passes.down(cells, slopes)[0]


_summed.defvjp(_forward, _backward)
