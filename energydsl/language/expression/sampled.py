"""The values of an expression at random values of its variables, to find a mistake by an example.

A value that violates a requirement proves that the requirement is not met. That none is found
proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import paramax
from jax import Array

from energydsl._types import is_traced
from energydsl.language.expression.apply import Apply
from energydsl.language.expression.leaf import Value
from energydsl.language.expression.rearrange import Gather
from energydsl.language.expression.tree import Environment, Expression, fold, post_order
from energydsl.language.expression.view import variables_of

DRAWN, MAX_ENTRIES = 16, 2**20
"""The number of random configurations, and the most entries of all their values together."""


def counterexample(root: Expression, holds: Callable[[Array], Any]) -> float | None:
    """A value of an entry of the expression, at which a condition on single entries fails.

    Returns:
        None if none of the random configurations gives one, or if the values are not known.
    """
    known = not any(is_traced(n.value) for n in post_order(root) if isinstance(n, Value))
    if not known or max(n.size for n in post_order(root)) * DRAWN > MAX_ENTRIES:
        return None
    with jax.ensure_compile_time_eval():
        values = np.asarray(_values(root))
        fails = ~np.broadcast_to(np.asarray(holds(jnp.asarray(values))), values.shape)
    return float(values[fails][0]) if fails.any() else None


def _values(root: Expression) -> Array:
    """The expression's values at random configurations, along a first axis."""
    variables = variables_of(root)
    keys = jax.random.split(jax.random.key(0), max(len(variables), 1))
    drawn = {
        v.name: v.domain.start((DRAWN, *v.shape), key=k)
        for v, k in zip(variables, keys, strict=False)
    }
    return jax.vmap(lambda x: _value_at(root, x), axis_size=DRAWN)(drawn)


def _value_at(root: Expression, x: dict[str, Array]) -> Array:
    """The value of a tree that is not yet a model's, whose leaves hold their own values."""

    def rule(node: Expression, *below: Array) -> Array:
        match node:
            case Value():
                return jnp.asarray(paramax.unwrap(node.value))
            case Apply():
                return node.call(paramax.unwrap(node.function), *below)
            case Gather():
                return below[0].ravel()[node.positions]
        return node.compute(Environment(x, (), ()), *below)

    return fold(root, rule)
