"""Evaluation of plans in float64, whatever JAX's default precision, with derivatives of log Z."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.flatten_util import ravel_pytree

from energydsl._types import Configuration, is_traced
from energydsl.analysis.evaluation import as_double
from energydsl.language.model import Model
from energydsl.normalizer.base import AbstractPlan, Planned
from energydsl.normalizer.double import in_double


def log_partition_of(model: Model, normalizer: Planned, dtype: np.dtype) -> Array:
    """Log Z by the plans, computed in float64 and returned as `dtype`."""
    # To prepare for derivatives takes longer than log Z of a small model.
    answer = _differentiable if is_traced(model) else _in_double
    return answer(model, normalizer, dtype)


def _in_double(model: Model, normalizer: Planned, dtype: np.dtype) -> Array:
    return in_double(lambda *planned: _log_partition(*planned).astype(dtype), model, normalizer)


_differentiable = eqx.filter_custom_jvp(_in_double)


@_differentiable.def_jvp
def _log_partition_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    model, normalizer, dtype = primals
    value, slopes = _value_and_slopes(model, normalizer, dtype)
    return value, _along(slopes, tangents[0], dtype)


# The whole gradient is computed here, with float64 enabled: if reverse-mode differentiation were
# left to JAX, the transposed program would be traced where float64 is disabled.
@eqx.filter_custom_jvp
def _value_and_slopes(model: Model, normalizer: Planned, dtype: np.dtype) -> tuple[Array, Any]:

    normalizer.check_derivatives()

    def both(model: Model, normalizer: Planned) -> tuple[Array, Any]:
        value, slopes = eqx.filter_value_and_grad(_log_partition)(model, normalizer)
        return value.astype(dtype), eqx.filter(slopes, eqx.is_array)

    return in_double(both, model, normalizer)


@_value_and_slopes.def_jvp
def _value_and_slopes_jvp(primals: Any, tangents: Any) -> Any:
    model, normalizer, dtype = primals
    value, slopes = _value_and_slopes(model, normalizer, dtype)
    moving = [
        jnp.zeros_like(g) if t is None else t
        for t, g in zip(_leaves(tangents[0]), _leaves(slopes), strict=True)
        if g is not None
    ]
    bent = iter(_hessian_product(model, normalizer, moving))
    bends = jax.tree.map(
        lambda g: None if g is None else next(bent), slopes, is_leaf=lambda g: g is None
    )
    return (value, slopes), (_along(slopes, tangents[0], dtype), bends)


def _hessian_product(model: Model, normalizer: Planned, moving: list[Array]) -> list[Array]:
    """H t, for the Hessian H of log Z with respect to the model's floats.

    H is symmetric, so the product is its own transpose. To declare this to JAX, the product is
    written as the solution x of the symmetric linear system H^-1 x = t.
    """
    floats, rest = eqx.partition(model, eqx.is_inexact_array)
    leaves, treedef = jax.tree.flatten(floats)
    leaves = _twice_differentiable(leaves)

    def product(rest: Any, normalizer: Planned, leaves: list[Array], t: list[Array]) -> list[Array]:
        def slopes(leaves: list[Array]) -> list[Array]:
            whole = eqx.combine(jax.tree.unflatten(treedef, leaves), rest)
            return jax.tree.leaves(eqx.filter_grad(_log_partition)(whole, normalizer))

        return jax.jvp(slopes, (leaves,), (t,))[1]

    with jax.enable_x64(True):
        # One vector, since JAX transposes a solve only where every right-hand side is a variable.
        joined, apart = ravel_pytree(moving)

        def solve(_: Any, t: Array) -> Array:
            return ravel_pytree(in_double(product, rest, normalizer, leaves, apart(t)))[0]

        return apart(lax.custom_linear_solve(lambda x: x, joined, solve=solve, symmetric=True))


@jax.custom_jvp
def _twice_differentiable(leaves: list[Array]) -> list[Array]:
    return leaves


@_twice_differentiable.defjvp
def _refuse_a_third(primals: Any, tangents: Any) -> Any:
    raise NotImplementedError("log Z has first and second derivatives only, not third ones.")


def _along(slopes: Any, tangents: Any, dtype: np.dtype) -> Array:
    """The directional derivative of log Z along tangents."""
    with jax.enable_x64(True):
        pairs = zip(_leaves(tangents), _leaves(slopes), strict=True)
        moves = [jnp.sum(t * g).astype(dtype) for t, g in pairs if t is not None and g is not None]
        return sum(moves, jnp.zeros((), dtype))


def _leaves(tree: Any) -> list[Any]:
    """The leaves, with None for each that is not differentiated."""
    return jax.tree.leaves(tree, is_leaf=lambda leaf: leaf is None)


@eqx.filter_jit
def _log_partition(model: Model, normalizer: Planned) -> Array:
    """The sum over plans, minus the energy of the factors that contain no free site."""
    model = as_double(model)
    env = model.environment(model.blank())
    held = sum((jnp.sum(rows.energies(env)) for rows in normalizer.held), jnp.zeros(()))
    return jnp.sum(jnp.stack([*(p.log_partition(model) for p in normalizer.plans), -held]))


def slopes_of(
    model: Model, normalizer: Planned, places: tuple[int, ...]
) -> tuple[Array, tuple[Array, ...]]:
    """Log Z, and its derivatives in the arrays of these slots, in float64; not traced."""
    with jax.enable_x64(True):
        return _slopes(as_double(model), normalizer, places)


@eqx.filter_jit
def _slopes(
    model: Model, normalizer: Planned, places: tuple[int, ...]
) -> tuple[Array, tuple[Array, ...]]:
    def log_z(arrays: tuple[Array, ...]) -> Array:
        moved = eqx.tree_at(lambda m: tuple(m.slots[k] for k in places), model, arrays)
        return _log_partition(moved, normalizer)

    return jax.value_and_grad(log_z)(tuple(model.slots[k] for k in places))


@eqx.filter_jit
def _marginals(model: Model, normalizer: Planned) -> dict[str, Array]:
    laws: dict[str, Array] = {}
    for plan in normalizer.plans:
        for name, law in plan.marginals(as_double(model)).items():
            laws[name] = law if name not in laws else laws[name] + law
    return laws


def marginals_of(model: Model, normalizer: Planned) -> dict[str, Array]:
    """The marginals of single sites in float64, with 0 at clamped sites."""
    with jax.enable_x64(True):
        return _marginals(model, normalizer)


def prepare(model: Model, normalizer: Planned) -> list[Any]:
    """The intermediate results that many draws share, one entry per plan."""
    return in_double(_prepare, model, normalizer)


@eqx.filter_jit
def _prepare(model: Model, normalizer: Planned) -> list[Any]:
    return [plan.prepare(as_double(model)) for plan in normalizer.plans]


def draw(model: Model, normalizer: Planned, prepared: list[Any], *, key: Array) -> Configuration:
    """One independent exact draw of every free site; clamped sites have their evidence."""
    keys, parts = jax.random.split(key, len(normalizer.plans)), []
    for plan, kept, k in zip(normalizer.plans, prepared, keys, strict=True):
        given = _around(model, normalizer, parts) if plan.leaves else model
        arguments = given, plan, kept, k
        parts.append(in_double(_draw, *arguments) if plan.wide else _draw(*arguments))
    return _as_declared(normalizer, in_double(_joined, model, normalizer, parts))


def _around(model: Model, normalizer: Planned, parts: list[Configuration]) -> Model:
    """The model in which the first plans have drawn their sites."""
    drawn = in_double(_joined, model, normalizer, [*parts])
    return model.around(model.blank() | _as_declared(normalizer, drawn))


@eqx.filter_jit
def _draw(model: Model, plan: AbstractPlan, prepared: Any, key: Array) -> Configuration:
    return plan.draw_prepared(as_double(model) if plan.wide else model, prepared, key=key)


def mode_of(model: Model, normalizer: Planned) -> Configuration:
    """A configuration of highest probability; clamped sites have their evidence."""
    with jax.enable_x64(True):
        found = _mode(model, normalizer)
    return _as_declared(normalizer, found)


@eqx.filter_jit
def _mode(model: Model, normalizer: Planned) -> Configuration:
    double = as_double(model)
    return _joined(model, normalizer, [plan.mode(double) for plan in normalizer.plans])


def _joined(model: Model, normalizer: Planned, parts: list[Configuration]) -> Configuration:
    """One configuration, in which each site has the value from the plan that covers it."""
    structure, joined = normalizer.structure, {}
    for v in structure.skeleton.free:
        place = slice(structure.offset[v.name], structure.offset[v.name] + v.size)
        value = parts[0][v.name]
        owner = normalizer.plan_of[place].reshape(v.shape)
        for k, part in enumerate(parts[1:], start=1):
            value = jnp.where(owner == k, part[v.name].astype(value.dtype), value)
        joined[v.name] = value
    return model.placed(joined)


def _as_declared(normalizer: Planned, x: Configuration) -> Configuration:
    """The configuration in the dtypes of its variables' domains."""
    return {v.name: x[v.name].astype(v.domain.dtype) for v in normalizer.structure.skeleton.free}


def error_of(model: Model, normalizer: Planned) -> float:
    """The numerical error of log Z in nats, summed over plans."""
    with jax.enable_x64(True):
        double = as_double(model)
        return sum(plan.error(double) for plan in normalizer.plans)


def trouble(model: Model, normalizer: Planned) -> str:
    """The reason why log Z is NaN."""
    with jax.enable_x64(True):
        double = as_double(model)
        for plan in normalizer.plans:
            said = plan.trouble(double)
            if said is not None:
                return said
    return "a parameter or an energy is NaN"
