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
import numpy as np
from jax import Array, lax

from energydsl.analysis.joint_states import int32
from energydsl.normalizer.elimination.batches import Shape
from energydsl.normalizer.elimination.layout import Layout
from energydsl.normalizer.elimination.schedule import NEVER, Run, Schedule

Reduction = Callable[[Array], Array]


class Loop(eqx.Module):
    """The index arrays of a `Run`."""

    shape: Shape = eqx.field(static=True)
    layout: Layout | None = eqx.field(static=True)
    kind: int = eqx.field(static=True)
    base: Array
    pattern: Array
    begin: Array
    first: Array
    others: Array
    strides: Array

    def __init__(self, run: Run) -> None:
        self.shape, self.layout, self.kind = run.shape, run.layout, run.kind
        for name in ("base", "pattern", "begin", "first", "others", "strides"):
            setattr(self, name, int32(getattr(run, name)))


class Passes(eqx.Module):
    """A schedule as a pytree, and its passes over the cells of all tables."""

    slots: int = eqx.field(static=True)
    patterns: tuple[Array, ...]
    loops: tuple[Loop, ...]
    roots: Array

    def __init__(self, plan: Schedule) -> None:
        self.slots = plan.slots
        self.patterns = tuple(int32(patterns) for patterns in plan.patterns)
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
            return self._spread(slopes, step, each), each.sum(axis=range(2, each.ndim))

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
            sums = jnp.sum(cells[self._given(step, chosen)], axis=1)
            level = pick(sums, step.first + jnp.arange(len(sums))).astype(jnp.int32)
            return lax.dynamic_update_slice(chosen, level, (step.first,)), None

        chosen = jnp.zeros(self.slots, jnp.int32)
        for loop in reversed(self.loops):
            chosen = lax.scan(batch, chosen, loop, reverse=True)[0]
        return chosen

    def _message(self, cells: Array, step: Loop) -> Array:
        """The messages of a batch, (step, state); of a wide step, (1, axes of the state)."""
        count, states = len(step.base), step.shape[1]
        axes = step.layout.sizes[1:] if step.layout else (states,)
        return lax.dynamic_slice(cells, (step.begin,), (count * states,)).reshape(count, *axes)

    def _where(self, step: Loop) -> Array:
        """The cells that each step of a batch reads, (step, input, state of the clique)."""
        return _cells(step.base, self.patterns[step.kind][step.pattern])

    def _sums(self, cells: Array, step: Loop) -> Array:
        """F of each step of a batch, (step, level, ...), followed by the axes of the message."""
        if step.layout:
            tables = [i.read(cells, step.base[0, n]) for n, i in enumerate(step.layout.inputs)]
            return sum(tables, jnp.zeros(step.layout.sizes))[None]
        total = jnp.sum(cells[self._where(step)], axis=1)
        return total.reshape(len(total), *step.shape)

    def _spread(self, slopes: Array, step: Loop, each: Array) -> Array:
        """The slopes with those of a batch's cliques added to the cells of their tables."""
        if step.layout:
            for n, table in enumerate(step.layout.inputs):
                slopes = table.add(slopes, step.base[0, n], each[0])
            return slopes
        where = self._where(step)
        return slopes.at[where].add(jnp.broadcast_to(each.reshape(len(each), 1, -1), where.shape))

    def _given(self, step: Loop, chosen: Array) -> Array:
        """The cells at each level, other sites chosen, (step, input, level)."""
        levels, states = step.shape
        if step.layout:
            strides = int32(np.array([i.strides for i in step.layout.inputs]))
            own = strides.shape[1] - step.others.shape[1]
            place = strides[:, own:] @ chosen[step.others[0]]
            along = strides[:, :own].sum(1, keepdims=True) * jnp.arange(levels)
            return (step.base[0, :, None] + place[:, None] + along)[None]
        state = jnp.sum(chosen[step.others] * step.strides, axis=-1)
        place = jnp.arange(levels) * states + state[:, None]
        pattern = self.patterns[step.kind][step.pattern[:, :, None], place[:, None]]
        return _cells(step.base, pattern)


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
