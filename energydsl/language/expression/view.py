"""The variables of a tree: which variables and sites it shows, and in which dtype."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import paramax

from energydsl.language.expression.leaf import Value, View
from energydsl.language.expression.rearrange import Gather, Rearrange
from energydsl.language.expression.tree import Expression, fold, post_order
from energydsl.language.variable import Variable


def variables_of(root: Expression) -> list[Variable]:
    """The variables of a tree, in the order of their first use."""
    found: dict[Variable, None] = {}
    for node in post_order(root):
        if isinstance(node, View):
            found.setdefault(node.variable)
    return list(found)


def sites_of(view: Expression) -> tuple[Variable, np.ndarray]:
    """The variable that a view shows, and the flat numbers of the sites in the view's shape.

    Raises:
        TypeError: the expression is computed from a variable and is not a view.
    """

    def rule(node: Expression, *below: tuple[Variable, np.ndarray] | None):
        if isinstance(node, View):
            return node.variable, np.arange(node.size, dtype=np.int32).reshape(node.shape)
        if isinstance(node, Rearrange) and below[0]:
            return below[0][0], node.move(below[0][1])
        if isinstance(node, Gather) and below[0]:
            return below[0][0], np.asarray(below[0][1].ravel()[node.positions])
        return None

    found = fold(view, rule)
    if found is None:
        raise TypeError(f"Expected a variable or a view of one, such as s[0, :]; got {view}.")
    return found


def energy_dtype(root: Expression) -> np.dtype:
    """The dtype of a tree's value: integer for views of categorical variables, otherwise float."""
    while isinstance(root, Rearrange | Gather):
        root = root.children[0]
    if isinstance(root, View):
        return root.variable.domain.energy_dtype
    if isinstance(root, Value):
        return np.dtype(jnp.result_type(paramax.unwrap(root.value)))
    return np.dtype(jax.dtypes.canonicalize_dtype(float))
