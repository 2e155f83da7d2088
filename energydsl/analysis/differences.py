r"""Changes of an energy when one finite site takes another level, predicted for all sites at once.

The energy's jaxpr is evaluated at a configuration. A value that depends on a single site is also
evaluated at every other level of that site, so that lookups in tables, comparisons with labels,
one-hot vectors and powers change by their exact differences. What joins many sites (a sum, a matrix
product) goes on from these differences by derivatives. The prediction is exact where the rest of
the energy is linear in them, as for factors of few sites each, and of first order for networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.extend import core as jex

from energydsl._types import Configuration
from energydsl.analysis.factor import Factor
from energydsl.analysis.structure import Structure
from energydsl.language.variable import Variable

LARGEST = 2.0**100
"""What stands for infinity, whose product with 0 would be NaN."""

_ELEMENTWISE = {
    "abs", "add", "add_any", "and", "atan2", "cbrt", "ceil", "clamp", "convert_element_type",
    "copy", "copy_p", "cos", "cosh", "div", "eq", "erf", "erfc", "exp", "exp2", "expm1", "floor",
    "ge", "gt", "integer_pow", "is_finite", "le", "lgamma", "log", "log1p", "logistic", "lt", "max",
    "min", "mul", "ne", "neg", "not", "or", "pow", "rem", "round", "rsqrt", "select_n", "sign",
    "sin", "sinh", "sqrt", "square", "sub", "tan", "tanh", "xor",
}  # fmt: skip
_REARRANGED = {
    "broadcast_in_dim", "concatenate", "expand_dims", "reshape", "rev", "slice", "squeeze",
    "transpose",
}  # fmt: skip
_CALLS = {"jit", "closed_call", "custom_jvp_call", "custom_vjp_call", "remat", "checkpoint"}


class Stream(NamedTuple):
    """A value at every level of the sites of one variable, where each entry depends on one site.

    `owner` is the site of each entry; the size of the variable where the entry depends on none.
    """

    name: str
    owner: Array
    levels: Array


class Lifted(NamedTuple):
    """A value that depends on finite sites, with a stream for each variable or part of one."""

    value: Array
    streams: tuple[Stream, ...]


def predicted_changes(
    energy: Callable[[Configuration], Array], x: Configuration, levels: Mapping[str, np.ndarray]
) -> tuple[Array, dict[str, Array]]:
    """The energy, and the predicted energies of other levels.

    Args:
        energy: the energy as a function of a configuration.
        x: the configuration.
        levels: the levels of the sites of each variable that may change.

    Returns:
        E(x), and for each variable an array (sites, levels): its differences along the levels of a
        site are the predicted differences of the energy.
    """
    return _changes(energy, x, levels)[:2]


@lru_cache(maxsize=32)
def unpredictable(structure: Structure) -> frozenset[str]:
    """The free finite variables whose levels enter energies only in ways that predict no change.

    Such are loops over labels, conditions on them and operations on integers.
    """
    used, reached = set(), set()
    for factor in structure.factors:
        own = {
            str(k): leaf.variable
            for k, leaf in factor.sites.items()
            if leaf.variable.domain.levels is not None
        }
        used |= {v.name for v in own.values()}
        reached |= {own[k].name for k in _reached(structure, factor, own)}
    return frozenset(v.name for v in structure.skeleton.free if v.name in used - reached)


def _reached(structure: Structure, factor: Factor, own: Mapping[str, Variable]) -> set[str]:
    """The arguments of a factor for which it predicts changes, by position."""
    levels = {k: np.asarray(v.domain.values) for k, v in own.items()}
    found: set[str] = set()

    def trace(arguments: list[Any]) -> Array:
        def energy(x: Configuration) -> Array:
            filled = [x.get(str(k), a) for k, a in enumerate(arguments)]
            return factor.energy(*structure.completed(factor, filled))

        value, _, reached = _changes(energy, {k: arguments[int(k)] for k in own}, levels)
        found.update(reached)
        return value

    jax.eval_shape(trace, [structure.abstract(leaf) for leaf in factor.leaves])
    return found


def _changes(
    energy: Callable[[Configuration], Array], x: Configuration, levels: Mapping[str, np.ndarray]
) -> tuple[Array, dict[str, Array], set[str]]:
    # A new function, since JAX would compare a bound method with those that it has cached.
    closed = jax.make_jaxpr(lambda x: jnp.asarray(energy(x), float))(x)
    zeros = {n: jnp.zeros((jnp.size(x[n]) + 1, len(v))) for n, v in levels.items()}
    reached: set[str] = set()

    def relaxed(shares: dict[str, Array]) -> Array:
        reader = _Reader(shares, reached)
        cells = [_lifted(n, x[n], levels[n]) if n in levels else x[n] for n in sorted(x)]
        (result,) = reader.run(closed.jaxpr, list(closed.consts), cells)
        return reader.settled(result)

    value, slopes = jax.value_and_grad(relaxed)(zeros)
    return value, {n: slope[:-1] for n, slope in slopes.items()}, reached


def _lifted(name: str, value: Array, levels: np.ndarray) -> Lifted:
    value = jnp.asarray(value)
    owner = jnp.arange(value.size, dtype=jnp.int32).reshape(value.shape)
    every = jnp.asarray(levels, value.dtype).reshape(-1, *(1,) * value.ndim)
    every = jnp.broadcast_to(every, (len(levels), *value.shape))
    return Lifted(value, (Stream(name, owner, every),))


class _Reader:
    """Evaluates a jaxpr, with the streams of all values that are lifted.

    `shares` are zeros: for each site and level, how much of that level is mixed into the site. The
    derivatives in them are the predicted changes.
    """

    def __init__(self, shares: Mapping[str, Array], reached: set[str]) -> None:
        self.shares, self.reached = shares, reached

    def run(self, jaxpr: jex.Jaxpr, consts: list[Any], cells: list[Any]) -> list[Any]:
        known: dict = dict(zip(jaxpr.invars, cells, strict=True))
        known.update(zip(jaxpr.constvars, consts, strict=True))

        def read(atom: Any) -> Any:
            return atom.val if isinstance(atom, jex.Literal) else known[atom]

        for equation in jaxpr.eqns:
            results = self._step(equation, [read(v) for v in equation.invars])
            known.update(zip(equation.outvars, results, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def settled(self, cell: Any) -> Any:
        """A value as an array, to which the shares of other levels are added."""
        if not isinstance(cell, Lifted):
            return cell
        value = cell.value
        if not jnp.issubdtype(value.dtype, jnp.floating):
            return value
        for name, owner, levels in cell.streams:
            self.reached.add(name)
            finite = jnp.nan_to_num(levels, nan=LARGEST, posinf=LARGEST, neginf=-LARGEST)
            bounded = lax.stop_gradient(jnp.clip(finite, -LARGEST, LARGEST))
            share = self.shares[name][owner]
            value = value + jnp.sum(share * jnp.moveaxis(bounded, 0, -1), axis=-1)
        return value

    def _step(self, equation: jex.JaxprEqn, cells: list[Any]) -> list[Any]:
        name, lifted = equation.primitive.name, [isinstance(c, Lifted) for c in cells]
        if any(lifted):
            if name in _CALLS:
                inner: Any = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
                return self.run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", []), cells)
            if name in _ELEMENTWISE:
                return [self._each(equation, cells, _spread)]
            if name in _REARRANGED:
                return [self._each(equation, cells, self._moved)]
            if name in {"gather", "dynamic_slice"} and not any(lifted[1:]):
                return [self._each(equation, cells, self._moved)]
            if name == "gather" and lifted == [False, True]:
                return [self._each(equation, cells, _looked_up)]
        found = _bind(equation, [self.settled(c) for c in cells])
        return list(found) if equation.primitive.multiple_results else [found]

    def _each(self, equation: jex.JaxprEqn, cells: list[Any], owners: Callable[..., Array]) -> Any:
        """The operation at the present values, and at every level of each stream."""
        values = [c.value if isinstance(c, Lifted) else c for c in cells]
        result = _bind(equation, values)
        streams = {
            (s.name, id(s.owner)): s.owner
            for c in cells
            if isinstance(c, Lifted)
            for s in c.streams
        }
        made = []
        for (name, mark), owner in streams.items():
            own = [_of_owner(c, mark) for c in cells]
            varied = [v if s is None else s.levels for v, s in zip(values, own, strict=True)]
            axes = [None if s is None else 0 for s in own]
            every = jax.vmap(lambda *v: _bind(equation, list(v)), in_axes=axes)(*varied)
            nobody = self.shares[name].shape[0] - 1
            sites = [
                jnp.full(jnp.shape(v), nobody, owner.dtype) if s is None else owner
                for v, s in zip(values, own, strict=True)
            ]
            made.append(Stream(name, owners(equation, values, own, sites, result), every))
        return Lifted(result, tuple(made))

    def _moved(
        self,
        equation: jex.JaxprEqn,
        values: list[Any],
        own: list[Any],
        sites: list[Array],
        _: Array,
    ) -> Array:
        """The sites of values that an operation only rearranges."""
        arrays = len(values) if equation.primitive.name == "concatenate" else 1
        return _bind(equation, [*sites[:arrays], *values[arrays:]])


def _of_owner(cell: Any, mark: int) -> Stream | None:
    streams = cell.streams if isinstance(cell, Lifted) else ()
    return next((s for s in streams if id(s.owner) == mark), None)


def _spread(
    equation: jex.JaxprEqn, values: list[Any], own: list[Any], sites: list[Array], result: Array
) -> Array:
    """The sites of an elementwise result: the object stays the same where its shape does."""
    owner = next(s.owner for s in own if s is not None)
    return owner if owner.shape == result.shape else jnp.broadcast_to(owner, result.shape)


def _looked_up(
    equation: jex.JaxprEqn, values: list[Any], own: list[Any], sites: list[Array], result: Array
) -> Array:
    """The sites of entries that are looked up at indices, of which some depend on a site."""
    offsets = equation.params["dimension_numbers"].offset_dims
    # A position that depends on no site has the highest number.
    owner = jnp.expand_dims(jnp.min(sites[1], axis=-1), offsets)
    return jnp.broadcast_to(owner, result.shape)


def _bind(equation: jex.JaxprEqn, values: list[Any]) -> Any:
    settings = equation.primitive.get_bind_params(equation.params)
    return equation.primitive.bind(*values, **settings)
